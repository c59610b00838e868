"""Datasets as text and as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from rlalgo.core.spaces import described
from rlalgo.core.spec import normalized_score
from rlutils.data.inspect import Inspection, list_datasets
from rlutils.data.minari_disk import ROOT_VARIABLE, root
from rlutils.machine import amount, size
from rlutils.reports.writing import print_table

if TYPE_CHECKING:  # matplotlib takes half a second to import, and only the picture needs it
    from matplotlib.axes import Axes


def print_list(console: Console) -> None:
    """All datasets on this machine, broken ones last."""
    datasets = list_datasets()
    setting = "" if os.environ.get(ROOT_VARIABLE) else " is not set"
    console.print(Text(f"Datasets in {root()} ({ROOT_VARIABLE}{setting})"), soft_wrap=True)
    rows: list[Sequence[str]] = [("id", "environment", "episodes", "steps", "random", "expert", "size")]
    for info in datasets:
        if info.broken is None:
            low, high = (amount(score) for score in info.ref_scores) if info.ref_scores else ("", "")
            counts = f"{info.episodes:,}", f"{info.steps:,}"
            rows.append((info.id, info.env_id or "", *counts, low, high, size(info.size)))
    if len(rows) > 1:
        print_table(console, rows, left=(0, 1), cyan=0)
    for info in datasets:
        if info.broken is not None:
            console.print(Text.assemble(("broken ", "red"), info.broken), soft_wrap=True)
    if not datasets:
        console.print("None. Make one with `rlalgo collect configs/collect/hopper.yaml`.", soft_wrap=True)
        console.print("Minari's own are downloaded when they are trained on and there is a network.", soft_wrap=True)


def print_inspection(data: Inspection, console: Console) -> None:
    """Spaces, counts, facts of the episodes, reference scores and the returns with their histogram."""
    console.print(Text(data.label, "bold cyan"), soft_wrap=True)
    if data.description:
        console.print(Text(data.description, "dim"))
    lengths, ends = data.lengths, int(data.terminated.sum())
    facts = {name: _range(x) for name, x in data.facts.items() if x.ndim == 1 and name != "return"}
    lines = {
        "environment": data.env_id or "not recorded: set env.id to evaluate",
        "observations": described(data.observation_space),
        "actions": described(data.action_space),
        "episodes": f"{len(lengths):,} ({ends:,} ended in a terminal state, {len(lengths) - ends:,} cut)",
        "steps": f"{data.steps:,} ({_range(lengths)} per episode)",
        **facts,
        "on disk" if data.path else "size": f"{size(data.size)} in {data.path or 'memory'}",
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(Text.assemble((name.ljust(width + 2), "dim"), text), soft_wrap=True)
    console.print()
    _print_returns(data, console)
    console.print()
    _print_histogram(data, console)


def plot_returns(data: Inspection, path: Path) -> None:
    """A PNG: the histogram of returns, and each episode's return against its length.

    Raises:
        DataError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    from rlutils.reports import plots

    counts, edges = data.histogram(plots.bins(len(data.returns)))
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(9, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        left.bar(edges[:-1], counts, np.diff(edges), align="edge", color=plots.ACCENT, edgecolor="white", lw=0.5)
        left.set(title="returns of the episodes", xlabel="return", ylabel="episodes")
        left.set_ylim(0, counts.max() * 1.22)  # room for the names of the lines
        left.grid(axis="x", visible=False)
        _mark(left, data, plots.INK)
        size = 14 if len(data.returns) <= 1000 else 3
        ends = (
            ("ended in a terminal state", data.terminated, plots.PALETTE[1]),
            ("cut", ~data.terminated, plots.ACCENT),
        )
        for end, rows, color in ends:
            if rows.any():
                label = f"{end}: {int(rows.sum()):,}"
                right.scatter(data.lengths[rows], data.returns[rows], size, color, alpha=0.5, lw=0, label=label)
        right.set(title="return by length", xlabel="steps", ylabel="return")
        right.legend(frameon=False, loc="best", fontsize=8, labelcolor=plots.MUTED)
        right.set_xlim(0, data.lengths.max() * 1.04)
        plots.plain_ticks(left.xaxis, left.yaxis, right.xaxis, right.yaxis, most=6)
        figure.suptitle(
            f"{data.label}: {len(data.returns):,} episodes, {data.steps:,} steps",
            x=0.01, ha="left", fontsize=11, fontweight="bold", color=plots.INK,
        )  # fmt: skip
    plots.write_png(figure, path)


def _mark(axes: Axes, data: Inspection, color: str) -> None:
    """Vertical lines at the mean and, where they lie within the picture, at the reference scores."""
    low, high = axes.get_xlim()
    for name, value, line in _marks(data):
        if low <= value <= high:
            axes.axvline(value, color=color, lw=1, ls=line)
            right = value > (low + high) / 2
            axes.annotate(
                name, (value, 0.985), (-4 if right else 4, 0), xycoords=("data", "axes fraction"), va="top",
                textcoords="offset points", rotation=90, ha="right" if right else "left", fontsize=8,
            )  # fmt: skip


def _marks(data: Inspection) -> list[tuple[str, float, str]]:
    """(name, return, style of its line) of what is worth marking among the returns."""
    marks = [("mean", float(data.returns.mean()), "-")]
    if data.ref_scores is not None:
        marks += [("random", data.ref_scores[0], ":"), ("expert", data.ref_scores[1], "--")]
    return marks


def _print_returns(data: Inspection, console: Console) -> None:
    quantiles = {"min": 0.0, "10%": 0.1, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "max": 1.0}
    values = [float(data.returns.mean()), *np.quantile(data.returns, list(quantiles.values())).tolist()]
    rows = [("", "mean", *quantiles), ("return", *map(amount, values))]
    if data.ref_scores is not None:
        rows.append(("normalized", *(f"{normalized_score(value, data.ref_scores):.1f}" for value in values)))
    print_table(console, rows)
    if data.ref_scores is not None:
        low, high = map(amount, data.ref_scores)
        console.print(Text(f"normalized: 0 is random ({low}), 100 is expert ({high})", "dim"))


def _print_histogram(data: Inspection, console: Console) -> None:
    counts, edges = data.histogram()
    marks: dict[int, list[str]] = {}
    for name, value, _ in _marks(data):
        if edges[0] <= value <= edges[-1]:
            bar = min(int(np.searchsorted(edges, value, side="right")) - 1, len(counts) - 1)
            marks.setdefault(bar, []).append(name)
    width = max(10, min(50, console.width - 45))
    solid = console.encoding.lower().startswith("utf")
    rows: list[Sequence[str]] = [("return", "", "episodes", "")]
    for i, count in enumerate(counts):
        bar_text = _bar(width * count / counts.max(), solid).ljust(width)
        between = f"{amount(edges[i])} to {amount(edges[i + 1])}"
        rows.append((between, bar_text, f"{count:,}", ", ".join(marks.get(i, ()))))
    print_table(console, rows, left=(1, 3), cyan=1)


def _bar(width: float, solid: bool) -> str:
    """A bar of so many characters, to an eighth of one; of # where the terminal knows no blocks."""
    if not solid:
        return "#" * math.ceil(width)
    eighths = math.ceil(8 * width)  # a single episode is still seen
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _range(values: np.ndarray) -> str:
    low, high = amount(values.min()), amount(values.max())
    if low == high:
        return low
    return f"{low} to {high}" + (f", mean {amount(values.mean())}" if values.dtype.kind == "f" else "")
