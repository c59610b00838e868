"""Results as tables for a terminal: of one evaluation, of runs, of a suite."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlutils.evaluation.statistics import EvalResult
from rlutils.reports.experiments import Experiment, Section, measured, section
from rlutils.reports.suite_results import SuiteResults
from rlutils.reports.writing import decimals, number


def print_result(result: EvalResult, console: Console) -> None:
    """Every policy that was played, then what evaluators measured."""
    played = section(f"step {result.step:,}", [result], seeds=False)
    if played.rows:
        console.print(_table(played, decimals(row.mean for row in played.rows)))
    else:
        console.print(played.title)
    for key, value in result.metrics.items():
        console.print(f"{key}: {value:.6g}")


def print_results(experiments: Sequence[Experiment], console: Console) -> None:
    """Each experiment's policies at each checkpoint, what evaluators measured, and what to know of both."""
    for experiment in experiments:
        seeds = len(experiment.counted)
        console.print(f"[bold]{escape(experiment.title)}[/bold]{f', {seeds} seeds' if seeds > 1 else ''}")
        for part in experiment.sections:
            console.print(_table(part, experiment.places))
        if numbers := measured(experiment.runs):
            table = Table("evaluators", box=None, padding=(0, 2, 0, 0))
            for name, checkpoint, _ in numbers.rows:
                table.add_column(f"{escape(name)}\n{checkpoint}", justify="right")
            for i, key in enumerate(numbers.columns):
                table.add_row(escape(key), *(values[i] for _, _, values in numbers.rows))
            console.print(table)
        for line in _remarks(experiment):
            console.print(line, markup=False, soft_wrap=True)


def print_suite(results: SuiteResults, console: Console) -> None:
    """The table of the last checkpoints, and of the best ones where there are any."""
    for scores in results.tables:
        title = f"[bold]{escape(results.title)}[/bold]: {'best (optimistic)' if scores.best else 'last'} checkpoint"
        table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 2, 0, 0))
        table.add_column("algorithm", no_wrap=True)
        for dataset in results.datasets:
            table.add_column(f"{escape(dataset)}\n{results.unit(dataset)}", justify="right", no_wrap=True)
        for row, cells in scores.rows:
            table.add_row(escape(row), *(f"{top}\n[dim]{below}[/dim]" if below else top for top, below in cells))
        console.print(table)
        for line in scores.caption:
            console.print(line, markup=False)
    for line in results.notes():
        console.print(line, markup=False, soft_wrap=True)


def _table(section: Section, places: int) -> Table:
    table = Table(section.title, box=None, padding=(0, 2, 0, 0))
    for column in ("episodes", "mean", "sd", "IQM", "95%", "score", "length"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in section.rows:
        single = row.episodes == 1  # which says nothing about others
        cells = (
            str(row.episodes),
            number(row.mean, places),
            number(None if single else row.sd, places),
            number(row.iqm, places),
            "–" if single else f"{number(row.low, places)} to {number(row.high, places)}",
            number(row.score, 1),
            number(row.length, 0),
        )
        table.add_row(escape(row.policy), *cells)
    return table


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
