"""Reports: what was trained and how well it plays, as an HTML page and as tables to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlalgo.errors import RlalgoError
from rlalgo.version import __version__
from rlutils.config.files import write_atomic
from rlutils.evaluation.statistics import PolicyResult, interval
from rlutils.reports import plots
from rlutils.reports.experiments import (
    Experiment,
    Section,
    by_label,
    decimals,
    experiments,
    places_of,
    sections,
    single_episodes,
    target_of,
)
from rlutils.reports.records import RunRecord
from rlutils.reports.suite_results import results_of
from rlutils.reports.writing import clock, environment, number, picture


def print_results(runs: Sequence[Path], console: Console) -> None:
    """The results as tables for a terminal."""
    for experiment in experiments(runs):
        seeds, places = len(experiment.counted), places_of(experiment)
        console.print(f"[bold]{escape(experiment.title)}[/bold]{f', {seeds} seeds' if seeds > 1 else ''}")
        shown = _with_rows(experiment.sections)
        for section in shown:
            table = Table(section.title, box=None, padding=(0, 2, 0, 0))
            for column in ("episodes", "mean", "sd", "IQM", "95%", "score", "length"):
                table.add_column(column, justify="right", no_wrap=True)
            for row in section.rows:
                one = row.episodes == 1  # which says nothing about others
                cells = (
                    str(row.episodes),
                    number(row.mean, places),
                    number(None if one else row.sd, places),
                    number(row.iqm, places),
                    "–" if one else f"{number(row.low, places)} to {number(row.high, places)}",
                    number(row.score, 1),
                    number(row.length, 0),
                )
                table.add_row(escape(row.policy), *cells)
            console.print(table)
        if measured := _measured(experiment.runs):
            table = Table("evaluators", box=None, padding=(0, 2, 0, 0))
            for name, checkpoint, _ in measured["rows"]:
                table.add_column(f"{escape(name)}\n{checkpoint}", justify="right")
            for i, key in enumerate(measured["columns"]):
                table.add_row(escape(key), *(values[i] for _, _, values in measured["rows"]))
            console.print(table)
        if not shown:
            console.print("nothing was played")
        elif seeds > 1:
            console.print("mean and sd: over seeds; IQM and its 95% interval: over all their episodes")
        else:
            console.print("95%: bootstrap interval of the mean over episodes")
        if any(section.name == "best" for section in experiment.sections):
            console.print("best: chosen by these very episodes, so optimistic")
        if found := experiment.conditioning():
            console.print(
                f"target against return at last: Spearman {number(found.rho, 2)} over {len(found.returns):,} "
                f"single episodes, highest minus lowest target {number(found.spread, places)}",
                soft_wrap=True,
            )
        unfinished = [run for run in experiment.runs if run.facts.state != "finished"]
        said = [f"{run.name}: {run.state}{': ' + run.facts.error if run.facts.error else ''}" for run in unfinished]
        for line in said + experiment.notes:
            console.print(line, markup=False, soft_wrap=True)


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes one HTML page about the runs, which needs nothing but itself.

    Args:
        runs: run folders, at least one.
        out: the file to write; its folder is made if need be.

    Raises:
        RlalgoError: a folder is not a run, or the page cannot be written.
    """
    if not runs:
        raise RlalgoError("no run given: name at least one run folder")
    found = experiments(runs)
    page = environment().get_template("report.html.j2").render(
        title=found[0].title if len(found) == 1 else f"{len(found)} experiments",
        experiments=[_view(experiment, i) for i, experiment in enumerate(found, 1)],
        runs=[run for experiment in found for run in experiment.runs],
        comparison=_comparison(found) if len(found) > 1 else None,
        made=datetime.now().astimezone().isoformat(),
        version=__version__,
    )  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, page)
    except OSError as error:
        raise RlalgoError(f"{out} cannot be written: {error.strerror or error}; choose another --out") from error
    return out


# --- how things are written ---


# --- what the page shows ---


def _view(experiment: Experiment, index: int) -> dict[str, Any]:
    """All that the template shows of one experiment."""
    runs = experiment.runs
    return {
        "id": f"experiment-{index}",
        "experiment": experiment,
        "sections": _with_rows(experiment.sections),
        "measured": _measured(runs),
        "held_out": len((experiment.data and experiment.data.held_out) or []),
        "targets": any(
            target_of(policy) is not None
            for section in experiment.sections
            for policies in experiment.played(section.name)
            for policy in policies
        ),
        "run": runs[0],
        "tiles": _tiles(experiment),
        "each": [(run, _with_rows(sections([run]))) for run in runs if run.measured] if len(runs) > 1 else [],
        "places": places_of(experiment),
        "scored": any(row.score is not None for section in experiment.sections for row in section.rows),
        "best_by": _best_by(runs[0].config),
        "conditioning": [
            shown for section in experiment.sections if (shown := _conditioning(experiment, section)) is not None
        ],
        "returns": _returns(experiment),
        "curve": _curve(experiment),
        "metrics": _metric_pictures(runs),
        "colors": plots.colors(len(runs), ordered=False),
    }


def _with_rows(found: Sequence[Section]) -> list[Section]:
    """Those where something was played, and not only evaluators asked."""
    return [section for section in found if section.rows]


def _measured(runs: Sequence[RunRecord]) -> dict[str, Any] | None:
    """The evaluators' numbers at each run's last evaluation, and at its best checkpoint; None where there are none."""
    rows: list[tuple[str, str, dict[str, float]]] = []
    for run in runs:
        config = run.config.get("evaluation")
        asked = config.get("evaluators") if isinstance(config, Mapping) else None
        names = {choice.get("name") if isinstance(choice, Mapping) else choice for choice in asked or []}
        found = {key: dict(zip(*series, strict=True)) for key, series in run.metrics.items()
                 if key.partition("/")[0] in names}  # fmt: skip
        last = max((step for values in found.values() for step in values), default=None)
        for what, step in (("last", last), ("best", run.facts.best_step)):
            values = {key: values[step] for key, values in found.items() if step in values}
            if values and not (what == "best" and step == last):
                also = " (also the best)" if what == "last" and step == run.facts.best_step else ""
                rows.append((run.name, f"{what}, step {step:,}{also}", values))
    columns = list(dict.fromkeys(key for _, _, values in rows for key in values))
    places = {key: 1 + decimals(values[key] for _, _, values in rows if key in values) for key in columns}
    written = [(name, at, [number(values.get(key), places[key]) for key in columns]) for name, at, values in rows]
    return {"columns": columns, "rows": written} if rows else None


def _tiles(experiment: Experiment) -> list[tuple[str, str, str]]:
    """(what, value, detail): the figures to remember."""
    tiles = []
    section = experiment.sections[0] if experiment.sections else None
    top = section.top if section else None
    seeds = len(experiment.counted)
    if section and top:
        mean, sd, low, high = (number(x, decimals([top.mean])) for x in (top.mean, top.sd, top.low, top.high))
        alone = "1 episode" if top.episodes == 1 else f"95% {low} to {high}"
        spread = f"± {sd} over {seeds} seeds" if seeds > 1 else alone
        tiles.append(("Best policy's mean return", mean, f"{top.policy}, {section.name} checkpoint, {spread}"))
        if top.score is not None:
            tiles.append(("Normalized score", number(top.score, 1), "of that policy; 0 is random, 100 expert"))
    if experiment.data:
        best = max(experiment.data.returns)
        reached = f"; the best policy's mean is {100 * top.mean / best:.0f}% of it" if top and best > 0 else ""
        detail = f"of {len(experiment.data.returns):,}{reached}"
        tiles.append(("Best episode in the data", number(best, decimals([best])), detail))
    if found := experiment.conditioning():
        detail = f"Spearman's ρ over {len(found.returns):,} single episodes"
        tiles.append(("Target against return", number(found.rho, 2), detail))
    seconds = [run.facts.seconds for run in experiment.runs if run.facts.seconds]
    if seconds:
        detail = clock(float(np.mean(seconds))) + (" a run" if len(seconds) > 1 else "")
        tiles.append(("Update steps", f"{max(run.facts.step for run in experiment.runs):,}", detail))
    return tiles


def _best_by(config: Mapping[str, Any]) -> str:
    """The evaluator's number that the best checkpoint was chosen by; empty for the usual score."""
    for callback in config.get("callbacks") or []:
        if isinstance(callback, Mapping) and callback.get("name") == "best" and callback.get("metric"):
            return f"{'lowest' if callback.get('mode') == 'min' else 'highest'} {callback['metric']}"
    return ""


def _ordered(runs: Sequence[Sequence[PolicyResult]]) -> bool:
    """Whether the policies are targets, so that they have an order."""
    return len({target_of(policy) for policies in runs for policy in policies} - {None}) > 1


def _curve(experiment: Experiment) -> Markup | None:
    """Evaluation returns over training; None where there are not two evaluations."""
    by_step = [{result.step: result.policies for result in run.curve} for run in experiment.counted]
    steps = sorted(set.intersection(*(set(results) for results in by_step))) if by_step else []
    if len(steps) < 2:
        return None
    groups = [{g.label: g for g in groups_of([results[step] for results in by_step])} for step in steps]
    curves = []
    for label in groups[-1]:
        line = [(step, found[label]) for step, found in zip(steps, groups, strict=True) if label in found]
        if len(line) < 2:
            continue  # played since a resume only
        at = np.array([step for step, _ in line])
        each = [[by_label([results[step]])[label][0].mean for step, _ in line] for results in by_step]
        if len(each) > 1:
            mean = np.mean(each, axis=0)
            runs = [(at, np.array(values)) for values in each]
        else:
            mean, runs = np.array(each[0]), []
        low, high = np.array([g.low for _, g in line]), np.array([g.high for _, g in line])
        curves.append(plots.Curve(label, at, mean, low, high, runs))
    if not curves:
        return None
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.learning_curves(curves, _ordered(experiment.played("last")), best)
    ends = ", ".join(f"{curve.label}: {curve.mean[-1]:,.1f}" for curve in curves)
    return picture(figure, f"Evaluation return over update steps. At the end: {ends}")


def _conditioning(experiment: Experiment, section: Section) -> dict[str, Any] | None:
    """The figure of one checkpoint and its caption's numbers; not of the best, chosen by these episodes."""
    found = experiment.conditioning(section.name)
    if found is None or section.name == "best":
        return None
    asked = np.unique(found.targets)
    groups = [group_of(f"{target:g}", found.returns[found.targets == target]) for target in asked]
    runs = []
    for targets, returns in (single_episodes(policies) for policies in experiment.played(section.name)):
        own = np.unique(targets)
        runs.append((own, np.array([returns[targets == target].mean() for target in own])))
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.target_plot(found.targets, found.returns, groups, runs, best)
    means = ", ".join(f"{group.label}: {group.mean:,.1f}" for group in groups)
    alt = f"Achieved mean return by target return. {means}"
    return {"section": section, "picture": picture(figure, alt), "found": found}


def _returns(experiment: Experiment) -> Markup | None:
    """The data's returns above those achieved at the first of the measurements."""
    played = experiment.played(experiment.sections[0].name) if experiment.sections else []
    if not played and not experiment.data:
        return None
    data = np.array(experiment.data.returns) if experiment.data else None
    figure = plots.returns_plot(groups_of(played), data, _ordered(played))
    return picture(figure, "Histogram of the data's returns above the single returns of every policy, on one axis")


def _metric_pictures(runs: Sequence[RunRecord]) -> list[Markup]:
    """A small figure for each metric with a line for each run, failed ones included."""
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        lines = [run.metrics.get(name, (np.zeros(0), np.zeros(0))) for run in runs]
        found.append(picture(plots.metric_plot(name, lines), f"{name} over update steps"))
    return found


def _comparison(found: Sequence[Experiment]) -> dict[str, Any]:
    """The experiments' best policies side by side; in a figure too if all played in one environment."""
    from rlutils.reports.suite_results import table_view

    rows, groups = [], []
    for i, experiment in enumerate(found, 1):
        section = experiment.sections[0] if experiment.sections else None
        top = section.top if section else None
        rows.append({"id": f"experiment-{i}", "experiment": experiment, "section": section, "top": top})
        if section and top:
            best = next(g for g in groups_of(experiment.played(section.name)) if g.label == top.policy)
            groups.append(best._replace(label=f"{i}. {experiment.runs[0].algo}"))
    drawn = None
    if len({experiment.runs[0].env_id for experiment in found}) == 1 and len(groups) > 1:
        alt = "Single returns of each experiment's best policy, on one axis"
        drawn = picture(plots.returns_plot(groups), alt)
    return {"rows": rows, "picture": drawn, "places": decimals(group.mean for group in groups),
            "table": table_view(results_of(found), best=False)}  # fmt: skip


def group_of(label: str, values: np.ndarray) -> plots.Group:
    return plots.Group(label, values, float(values.mean()), *interval(values))


def groups_of(runs: Sequence[Sequence[PolicyResult]]) -> list[plots.Group]:
    """Every single return of each policy, over all runs."""
    return [group_of(label, np.concatenate([r.returns for r in same])) for label, same in by_label(runs).items()]
