"""A suite's results: tables for a terminal, for Markdown and on a page, with their figures."""

from __future__ import annotations

from collections.abc import Sequence
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
from rlutils.reports import plots
from rlutils.reports.records import decimals
from rlutils.reports.runs_page import clock, environment, number, picture
from rlutils.reports.suite_results import Entry, SuiteResults, Summary, chosen, episodes_of


def print_suite(results: SuiteResults, console: Console) -> None:
    """The table of the last checkpoints, and of the best ones where there are any."""
    for best in (False, True) if results.has_best else (False,):
        title = f"[bold]{escape(results.title)}[/bold]: {'best (optimistic)' if best else 'last'} checkpoint"
        table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 2, 0, 0))
        table.add_column("algorithm", no_wrap=True)
        for dataset in results.datasets:
            table.add_column(f"{escape(dataset)}\n{results.unit(dataset)}", justify="right", no_wrap=True)
        for row in results.rows:
            cells = [cell(results, row, dataset, best) for dataset in results.datasets]
            table.add_row(escape(row), *(f"{top}\n[dim]{below}[/dim]" if below else top for top, below in cells))
        console.print(table)
        for line in results.caption(best):
            console.print(line, markup=False)
    for line in results.notes():
        console.print(line, markup=False, soft_wrap=True)


def markdown(results: SuiteResults) -> str:
    """The tables as GitHub shows them, every seed's score in one of its own."""
    parts = []
    for best in (False, True) if results.has_best else (False,):
        head = ["algorithm", *(f"{dataset}<br>{results.unit(dataset)}" for dataset in results.datasets)]
        rows = []
        for row in results.rows:
            cells = [cell(results, row, dataset, best) for dataset in results.datasets]
            rows.append([row, *(f"**{top}**<br>{below}" if below else top for top, below in cells)])
        parts += ["**Best checkpoint**" if best else "**Last checkpoint**", _table(head, rows)]
        parts.append(" ".join(results.caption(best)))
    seeds = sorted({run.seed for run, _ in results.runs})
    head = ["dataset", "algorithm", *(f"seed {seed}" for seed in seeds), "updates", "time of a run"]
    parts += [
        "**Every seed**" + (", last checkpoint (best)" if results.has_best else ""),
        _table(head, each_seed(results)),
    ]
    if notes := results.notes():
        parts.append("\n".join(f"- {note}" for note in notes))
    versions = {f"{k} {v}": None for _, record in results.measured for k, v in record.facts.versions.items()}
    if versions:
        parts.append(f"Measured with {', '.join(versions)}.")
    return "\n\n".join(parts) + "\n"


def write_suite_report(results: SuiteResults, out: Path) -> Path:
    """One HTML page that needs nothing but itself.

    Raises:
        RlalgoError: the page cannot be written.
    """
    seeds = sorted({run.seed for run, _ in results.runs})
    page = environment().get_template("suite.html.j2").render(
        results=results,
        tables=[table_view(results, best) for best in ((False, True) if results.has_best else (False,))],
        seeds=seeds,
        each=each_seed(results),
        bars=[(dataset, drawn) for dataset in results.datasets if (drawn := _bars(results, dataset))],
        curves=[(dataset, drawn) for dataset in results.datasets if (drawn := _curves(results, dataset))],
        made=datetime.now().astimezone().isoformat(),
        version=__version__,
    )  # fmt: skip
    write_text(out, page, "--out")
    return out


def write_text(path: Path, text: str, option: str) -> None:
    """RlalgoError that names the option to change if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise RlalgoError(f"{path} cannot be written: {error.strerror or error}; choose another {option}") from error


def table_view(results: SuiteResults, best: bool) -> dict[str, Any]:
    """What the page's table shows."""
    rows = [(row, [cell(results, row, dataset, best) for dataset in results.datasets]) for row in results.rows]
    return {"best": best, "results": results, "rows": rows, "caption": results.caption(best)}


def cell(results: SuiteResults, row: str, dataset: str, best: bool) -> tuple[str, str]:
    """`52.3 ± 1.2` and what stands beneath it; a dash and nothing where no run is measured."""
    found = results.summary(row, dataset, best)
    if found is None:
        return "–", ""
    places = places_of(results, dataset)
    mean, sd, middle, low, high = (number(x, places) for x in (found.mean, found.sd, found.iqm, found.low, found.high))
    top = f"{mean} ± {sd}" if len(found.seeds) > 1 else mean
    return top, f"{middle} ({low} to {high}), {_seeds(found)}"


def each_seed(results: SuiteResults) -> list[list[str]]:
    """Rows of dataset, algorithm, a score for each seed, updates and time."""
    seeds = sorted({run.seed for run, _ in results.runs})
    rows = []
    for dataset in results.datasets:
        for row in results.rows:
            entry, places = results.entries[row, dataset], places_of(results, dataset)
            last, best = (results.summary(row, dataset, which) for which in (False, True))
            shown = {}
            if last and best:
                shown = dict(zip(last.seeds, (number(score, places) for score in last.scores), strict=True))
                for seed, score in zip(best.seeds, best.scores, strict=True):
                    shown[seed] += f" ({number(score, places)})" if results.has_best else ""
            if entry.planned:
                rows.append([dataset, row, *(shown.get(seed, "–") for seed in seeds), *_effort(entry)])
    return rows


def places_of(results: SuiteResults, dataset: str) -> int:
    """Scores have one decimal; returns as many as such returns deserve."""
    if results.scaled[dataset]:
        return 1
    found = (results.summary(row, dataset) for row in results.rows)
    return decimals(summary.mean for summary in found if summary)


def _seeds(found: Summary) -> str:
    return f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"


def _effort(entry: Entry) -> list[str]:
    """How many updates its runs made, and the mean time that they took."""
    records = [record for _, record in entry.measured]
    if not records:
        return ["–", "–"]
    steps = sorted({record.facts.step for record in records})
    return [" to ".join(f"{step:,}" for step in {steps[0]: 0, steps[-1]: 0}),
            clock(float(np.mean([record.facts.seconds for record in records])))]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)


def _bars(results: SuiteResults, dataset: str) -> Markup | None:
    """Each algorithm's seeds, and the IQM with its interval."""
    groups = [
        plots.Group(row, np.array(found.scores), found.iqm, found.low, found.high)
        for row in results.rows
        if (found := results.summary(row, dataset))
    ]
    if not groups:
        return None
    said = ", ".join(f"{group.label}: {group.mean:,.1f}" for group in groups)
    figure = plots.returns_plot(groups, label=results.unit(dataset))
    return picture(figure, f"{results.unit(dataset)} on {dataset} by algorithm; IQM of {said}")


def _curves(results: SuiteResults, dataset: str) -> Markup | None:
    """Mean over seeds at each evaluation that all of them have, with a band from the lowest to the highest seed."""
    curves = []
    for row in results.rows:
        records = [record for _, record in results.entries[row, dataset].measured]
        by_step = [{result.step: result for result in record.curve} for record in records]
        steps = sorted(set.intersection(*(set(found) for found in by_step))) if by_step else []
        if len(steps) < 2:
            continue
        values = np.array([
            [episodes_of(record, chosen(found[step]), results.scaled[dataset]).mean() for step in steps]
            for record, found in zip(records, by_step, strict=True)
        ])  # (seeds, steps)  # fmt: skip
        curves.append(plots.Curve(row, np.array(steps), values.mean(0), values.min(0), values.max(0)))
    if not curves:
        return None
    said = ", ".join(f"{curve.label}: {curve.mean[-1]:,.1f}" for curve in curves)
    figure = plots.learning_curves(curves, label=results.unit(dataset))
    return picture(figure, f"{results.unit(dataset)} on {dataset} over update steps; at the end {said}")
