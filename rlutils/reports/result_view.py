"""Results as tables for a terminal: of one evaluation, of runs, of a suite."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from rlutils.evaluation.statistics import EvalResult
from rlutils.reports.experiments import Experiment, Section, measured, section
from rlutils.reports.suite_results import SuiteResults
from rlutils.reports.writing import decimals, number, print_table, short


def print_result(result: EvalResult, console: Console) -> None:
    """Every policy that was played, then what evaluators measured."""
    played = section(f"step {result.step:,}", [result], seeds=False)
    if played.rows:
        _print_section(played, decimals(row.mean for row in played.rows), console)
    else:
        console.print(played.title)
    for key, value in result.metrics.items():
        console.print(f"{key}: {value:.6g}")


def print_results(experiments: Sequence[Experiment], console: Console) -> None:
    """Each experiment's policies at each checkpoint, what evaluators measured, and what to know of both."""
    for experiment in experiments:
        seeds = len(experiment.counted)
        console.print(
            Text.assemble((experiment.title, "bold"), f", {seeds} seeds" if seeds > 1 else ""), soft_wrap=True
        )
        for part in experiment.sections:
            _print_section(part, experiment.places, console)
        if numbers := measured(experiment.runs):
            runs, checkpoints, values = zip(*numbers.rows, strict=True)
            cells = zip(numbers.columns, *values, strict=True)
            print_table(console, [("evaluators", *runs), ("", *checkpoints), *cells], dim=(0, 1))
        for line in _remarks(experiment):
            console.print(line, soft_wrap=True)


def print_suite(results: SuiteResults, console: Console) -> None:
    """The table of the last checkpoints, and of the best ones where there are any."""
    for scores in results.tables:
        which = "best (optimistic)" if scores.best else "last"
        console.print(Text.assemble((results.title, "bold"), f": {which} checkpoint"), soft_wrap=True)
        rows = [("algorithm", *results.datasets), ("", *map(results.unit, results.datasets))]
        for row, cells in scores.rows:
            above, beneath = zip(*cells, strict=True)
            rows += [(row, *above), ("", *beneath)]
        print_table(console, rows, dim=range(1, len(rows), 2))
        for line in scores.caption:
            console.print(line)
    for line in results.notes():
        console.print(line, soft_wrap=True)


def _print_section(section: Section, places: int, console: Console) -> None:
    rows = [(section.title, "episodes", "mean", "sd", "IQM", "95%", "score", "length", *section.said)]
    for row in section.rows:
        single = row.episodes == 1  # which says nothing about others
        rows.append((
            row.policy,
            str(row.episodes),
            number(row.mean, places),
            number(None if single else row.sd, places),
            number(row.iqm, places),
            "–" if single else f"{number(row.low, places)} to {number(row.high, places)}",
            number(row.score, 1),
            number(row.length, 0),
            *(short(row.info.get(name)) for name in section.said),
        ))  # fmt: skip
    print_table(console, rows)


def _remarks(experiment: Experiment) -> list[str]:
    """What a reader of the tables should know."""
    lines = []
    if not experiment.sections:
        lines.append("nothing was played")
    elif len(experiment.counted) > 1:
        lines.append("mean and sd: over seeds; IQM and its 95% interval: over all their episodes")
    else:
        lines.append("95%: bootstrap interval of the mean over episodes")
    if any(section.name == "best" for section in experiment.sections):
        lines.append("best: chosen by these very episodes, so optimistic")
    if found := experiment.conditioning():
        lines.append(
            f"target against return at last: Spearman {number(found.rho, 2)} over {len(found.returns):,} "
            f"single episodes, highest minus lowest target {number(found.spread, experiment.places)}"
        )
    unfinished = [run for run in experiment.runs if run.facts.state != "finished"]
    lines += [f"{run.name}: {run.state}{': ' + run.facts.error if run.facts.error else ''}" for run in unfinished]
    return lines + experiment.notes
