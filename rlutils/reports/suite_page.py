"""A suite's results: an HTML page with their figures, and tables in Markdown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from rlutils.reports import plots
from rlutils.reports.experiments import shared_evaluations
from rlutils.reports.suite_results import SuiteResults, episodes_shown
from rlutils.reports.writing import render, short, write_text


def write_suite_report(results: SuiteResults, out: Path) -> None:
    """One HTML page that needs nothing but itself.

    Raises:
        RlalgoError: the page cannot be written.
    """
    page = render(
        "suite.html.j2",
        results=results,
        bars=[(dataset, drawn) for dataset in results.datasets if (drawn := _bars(results, dataset))],
        curves=[(dataset, drawn) for dataset in results.datasets if (drawn := _curves(results, dataset))],
    )
    write_text(out, page, "--out")


def markdown(results: SuiteResults) -> str:
    """The tables as GitHub shows them, every seed's score in one of its own."""
    parts = []
    for scores in results.tables:
        head = ["algorithm", *(f"{dataset}<br>{results.unit(dataset)}" for dataset in results.datasets)]
        rows = [
            [row, *(f"**{top}**<br>{below}" if below else top for top, below in cells)] for row, cells in scores.rows
        ]
        title = "**Best checkpoint**" if scores.best else "**Last checkpoint**"
        parts += [title, _table(head, rows), " ".join(scores.caption)]
    head = ["dataset", "algorithm", *(f"seed {seed}" for seed in results.seeds), "updates", "time of a run"]
    parts.append("**Every seed**" + (", last checkpoint (best)" if results.has_best else ""))
    parts.append(_table(head, results.each_seed()))
    if notes := results.notes():
        parts.append("\n".join(f"- {note}" for note in notes))
    versions = dict.fromkeys(f"{k} {v}" for record in results.measured for k, v in record.facts.versions.items())
    if versions:
        parts.append(f"Measured with {', '.join(versions)}.")
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)


def _bars(results: SuiteResults, dataset: str) -> Markup | None:
    """Each algorithm's seeds, and the IQM with its interval."""
    groups = [
        plots.Group(row, np.array(summary.scores), summary.iqm, summary.low, summary.high)
        for row in results.rows
        if (summary := results.summary(row, dataset))
    ]
    if not groups:
        return None
    values = ", ".join(f"{group.label}: {short(group.mean)}" for group in groups)
    figure = plots.returns_plot(groups, label=results.unit(dataset))
    return plots.picture(figure, f"{results.unit(dataset)} on {dataset} by algorithm; IQM of {values}")


def _curves(results: SuiteResults, dataset: str) -> Markup | None:
    """Mean over seeds at each evaluation that all of them have, with a band from the lowest to the highest seed."""
    curves = []
    for row in results.rows:
        records = results.entries[row, dataset].records
        evaluations = shared_evaluations(records)
        if len(evaluations) < 2:
            continue
        values = np.array([
            [episodes_shown(*pair, results.scaled[dataset]).mean() for pair in zip(records, each, strict=True)]
            for each in evaluations.values()
        ])  # (steps, seeds)  # fmt: skip
        curves.append(plots.Curve(row, np.array(list(evaluations)), values.mean(1), values.min(1), values.max(1)))
    if not curves:
        return None
    ends = ", ".join(f"{curve.label}: {short(curve.mean[-1])}" for curve in curves)
    figure = plots.learning_curves(curves, label=results.unit(dataset))
    return plots.picture(figure, f"{results.unit(dataset)} on {dataset} over update steps; at the end {ends}")
