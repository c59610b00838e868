"""Runs and experiments as an HTML page: what was trained and how well it plays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rlutils.evaluation.statistics import PolicyResult, interval
from rlutils.evaluation.targets import Targets
from rlutils.machine import clock
from rlutils.reports import plots
from rlutils.reports.experiments import (
    Experiment,
    Section,
    by_label,
    measured,
    pooled,
    sections,
    shared_evaluations,
    single_episodes,
    target_of,
)
from rlutils.reports.records import RunRecord
from rlutils.reports.suite_results import results_of
from rlutils.reports.targets_view import drawn, rows, target_plot, words
from rlutils.reports.writing import decimals, number, render, short, write_text


def write_report(experiments: Sequence[Experiment], out: Path) -> None:
    """Writes one HTML page about the experiments, which needs nothing but itself.

    Raises:
        RlalgoError: the page cannot be written.
    """
    several = len(experiments) > 1
    page = render(
        "report.html.j2",
        title=f"{len(experiments)} experiments" if several else experiments[0].title,
        experiments=[_view(experiment, i) for i, experiment in enumerate(experiments, 1)],
        runs=[run for experiment in experiments for run in experiment.runs],
        comparison=_comparison(experiments) if several else None,
    )
    write_text(out, page, "--out")


def _view(experiment: Experiment, index: int) -> dict[str, Any]:
    """All that the template shows of one experiment."""
    runs, parts = experiment.runs, experiment.sections
    return {
        "id": f"experiment-{index}",
        "experiment": experiment,
        "measured": measured(runs),
        "targets": any(_targets(experiment.played(section.name)) for section in parts),
        "tiles": _tiles(experiment),
        "each": [(run, sections([run])) for run in runs if run.measured] if len(runs) > 1 else [],
        "said": _said(parts),
        "scored": any(row.score is not None for section in parts for row in section.rows),
        "best_by": _best_by(runs[0].config),
        "conditioning": [view for section in parts if (view := _conditioning(experiment, section))],
        "asked": [_asked(run, run.targets) for run in runs if run.targets],
        "returns": _returns(experiment),
        "curve": _curve(experiment),
        "metrics": _metric_pictures(runs),
        "colors": plots.colors(len(runs), ordered=False),
    }


def _tiles(experiment: Experiment) -> list[tuple[str, str, str]]:
    """(what, value, detail): the figures to remember."""
    tiles = []
    section = experiment.sections[0] if experiment.sections else None
    if section:
        top, seeds = section.top, len(experiment.counted)
        mean, sd, low, high = (number(x, decimals([top.mean])) for x in (top.mean, top.sd, top.low, top.high))
        alone = "1 episode" if top.episodes == 1 else f"95% {low} to {high}"
        spread = f"± {sd} over {seeds} seeds" if seeds > 1 else alone
        tiles.append(("Best policy's mean return", mean, f"{top.policy}, {section.name} checkpoint, {spread}"))
        if top.score is not None:
            tiles.append(("Normalized score", number(top.score, 1), "of that policy; 0 is random, 100 expert"))
    if experiment.data and (best := experiment.data_best) is not None:
        reached = section.top.mean if section else 0.0
        share = f"; the best policy's mean is {100 * reached / best:.0f}% of it" if min(best, reached) > 0 else ""
        detail = f"of {len(experiment.data.returns):,}{share}"
        tiles.append(("Best episode in the data", number(best, decimals([best])), detail))
    if found := experiment.conditioning():
        detail = f"Spearman's ρ over {len(found.returns):,} single episodes"
        tiles.append(("Target against return", number(found.rho, 2), detail))
    if seconds := [run.facts.seconds for run in experiment.runs if run.facts.seconds]:
        detail = clock(float(np.mean(seconds))) + (" a run" if len(seconds) > 1 else "")
        tiles.append(("Update steps", f"{max(run.facts.step for run in experiment.runs):,}", detail))
    return tiles


def _best_by(config: Mapping[str, Any]) -> str:
    """The evaluator's number that the best checkpoint was chosen by; empty for the usual score."""
    callbacks = config.get("callbacks")
    for callback in callbacks if isinstance(callbacks, list) else []:
        if isinstance(callback, Mapping) and callback.get("name") == "best" and callback.get("metric"):
            return f"{'lowest' if callback.get('mode') == 'min' else 'highest'} {callback['metric']}"
    return ""


def _targets(runs: Sequence[Sequence[PolicyResult]]) -> set[float]:
    """The target returns that were played; where there are several, the policies have an order."""
    return {target for policies in runs for policy in policies if (target := target_of(policy)) is not None}


def _curve(experiment: Experiment) -> Markup | None:
    """Evaluation returns over training; None where there are not two evaluations."""
    evaluations = shared_evaluations(experiment.counted)
    played = {step: by_label([result.policies for result in results]) for step, results in evaluations.items()}
    curves = []
    for label in played[max(played)] if played else ():
        line = {step: policies[label] for step, policies in played.items() if label in policies}
        if len(line) < 2:
            continue  # played since a resume only
        steps = np.array(list(line))
        means = np.array([[result.mean for result in results] for results in line.values()]).T  # (runs, steps)
        low, high = np.array([interval(pooled(results)) for results in line.values()]).T  # (steps,)
        runs = [(steps, values) for values in means] if len(means) > 1 else []
        curves.append(plots.Curve(label, steps, means.mean(0), low, high, runs))
    if not curves:
        return None
    ordered = len(_targets(experiment.played("last"))) > 1
    ends = ", ".join(f"{curve.label}: {short(curve.mean[-1])}" for curve in curves)
    figure = plots.learning_curves(curves, ordered, experiment.data_best)
    return plots.picture(figure, f"Evaluation return over update steps. At the end: {ends}")


def _conditioning(experiment: Experiment, section: Section) -> dict[str, Any] | None:
    """The figure of one checkpoint and its caption's numbers; not of the best, chosen by these episodes."""
    found = experiment.conditioning(section.name)
    if found is None or section.name == "best":
        return None
    groups = [_group(f"{target:g}", found.returns[found.targets == target]) for target in np.unique(found.targets)]
    runs = []
    for targets, returns in map(single_episodes, experiment.played(section.name)):
        distinct = np.unique(targets)
        runs.append((distinct, np.array([returns[targets == target].mean() for target in distinct])))
    data = np.array(experiment.data.returns) if experiment.data else None
    figure = target_plot(found.targets, found.returns, groups, runs, data)
    means = ", ".join(f"{group.label}: {short(group.mean)}" for group in groups)
    alt = f"Achieved mean return by target return. {means}"
    return {"section": section, "picture": plots.picture(figure, alt), "found": found}


def _asked(run: RunRecord, found: Targets) -> dict[str, Any]:
    """What `rlalgo targets` found of one run."""
    heading, *lines = rows(found)
    figure = plots.picture(drawn(found, run.data), "Achieved return by target return")
    return {"run": run, "step": found.step, "heading": heading, "rows": lines, "words": words(found), "picture": figure}


def _returns(experiment: Experiment) -> Markup | None:
    """The data's returns above those achieved at the first of the measurements."""
    played = experiment.played(experiment.sections[0].name) if experiment.sections else []
    if not played and not experiment.data:
        return None
    data = np.array(experiment.data.returns) if experiment.data else None
    figure = plots.returns_plot(_groups(played), data, ordered=len(_targets(played)) > 1)
    return plots.picture(figure, "Histogram of the data's returns above every policy's single returns, on one axis")


def _metric_pictures(runs: Sequence[RunRecord]) -> list[Markup]:
    """A small figure for each metric with a line for each run, failed ones included."""
    pictures = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        lines = [run.metrics.get(name, (np.zeros(0), np.zeros(0))) for run in runs]
        pictures.append(plots.picture(plots.metric_plot(name, lines), f"{name} over update steps"))
    return pictures


def _comparison(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """The experiments' best policies side by side; in a figure too if all played in one environment."""
    groups = []
    for i, experiment in enumerate(experiments, 1):
        if experiment.sections:
            section = experiment.sections[0]
            best = by_label(experiment.played(section.name))[section.top.policy]
            groups.append(_group(f"{i}. {experiment.runs[0].algo}", pooled(best)))
    drawn = None
    if len({experiment.runs[0].env_id for experiment in experiments}) == 1 and len(groups) > 1:
        drawn = plots.picture(plots.returns_plot(groups), "Single returns of each experiment's best policy")
    return {
        "picture": drawn,
        "places": decimals(group.mean for group in groups),
        "results": results_of(experiments),
        "said": _said([part for experiment in experiments for part in experiment.sections[:1]]),
    }


def _said(parts: Sequence[Section]) -> list[str]:
    """The names in the infos of all of them."""
    return list(dict.fromkeys(name for part in parts for name in part.said))


def _group(label: str, values: np.ndarray) -> plots.Group:
    return plots.Group(label, values, float(values.mean()), *interval(values))


def _groups(runs: Sequence[Sequence[PolicyResult]]) -> list[plots.Group]:
    """Every single return of each policy, over all runs."""
    return [_group(label, pooled(results)) for label, results in by_label(runs).items()]
