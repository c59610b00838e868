"""A suite's results: tables for a terminal, for Markdown and on a page, with their figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlalgo.version import __version__
from rlutils.reports import plots
from rlutils.reports.suite_results import SuiteResults, cell, chosen, each_seed, episodes_of, table_view
from rlutils.reports.writing import environment, picture, write_text


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
