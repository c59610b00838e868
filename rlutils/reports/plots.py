"""The report's figures: plain arrays in, matplotlib Figures out; no pyplot, so nothing global is touched."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH = 4.2
"""Inches; the page shows a figure at about this size, and text stays legible when a phone shrinks it."""
INK, MUTED, GRID, ACCENT = "#1f2937", "#6b7280", "#e5e7eb", "#0072b2"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1f2937")
"""Okabe and Ito's colors: distinct with every common color vision, and in print."""
FONTS = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # what matplotlib measures by; the reader's system font is put in its place
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "rlalgo",  # the same picture for the same numbers
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
}
DASHED = (0, (4, 3))
ROUND = [1, 2, 2.5, 5, 10]
"""Steps between ticks."""
MANY = 3_000
"""Above so many dots they are drawn as pixels: an SVG of each would be megabytes."""


P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """The function under this module's style, and matplotlib's settings as before when it is done."""

    @functools.wraps(draw)
    def wrapper(*arguments: P.args, **options: P.kwargs) -> T:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return wrapper


class Curve(NamedTuple):
    """A mean over update steps with its band, and the single runs that it is made of."""

    label: str
    steps: np.ndarray  # (n,)
    mean: np.ndarray  # (n,)
    low: np.ndarray  # (n,)
    high: np.ndarray  # (n,)
    runs: Sequence[tuple[np.ndarray, np.ndarray]] = ()  # (m,) steps and (m,) values of each


class Group(NamedTuple):
    """Single values and their mean with its interval."""

    label: str
    values: np.ndarray  # (n,)
    mean: float
    low: float
    high: float


def colors(n: int, ordered: bool) -> list[str]:
    """n colors: light to dark for ordered things (targets), distinct ones otherwise."""
    if ordered:
        return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.78, 0.05, n)]
    return [PALETTE[i % len(PALETTE)] for i in range(n)]


@styled
def learning_curves(
    curves: Sequence[Curve], ordered: bool = False, data_max: float | None = None, label: str = "return"
) -> Figure:
    """Evaluation return over update steps, one line with a band for each policy, named at its end.

    Args:
        curves: what to draw; single runs become thin lines.
        ordered: the curves have an order (rising targets), and their colors show it.
        data_max: the return of the data's best episode, marked by a line.
        label: what the curves are of.
    """
    figure, axes = _figure(WIDTH, 3.5)
    for curve, color in zip(curves, colors(len(curves), ordered), strict=True):
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.13, linewidth=0)
        for steps, values in curve.runs:
            axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.45)
        dots = "o" if len(curve.steps) <= 30 else None
        axes.plot(curve.steps, curve.mean, color=color, linewidth=2, marker=dots, markersize=3.5)
    if data_max is not None:
        axes.axhline(data_max, color=MUTED, linewidth=1, linestyle=DASHED)
        start = min(curve.steps[0] for curve in curves)
        axes.text(start, data_max, "best episode in the data", va="bottom", color=MUTED, fontsize=8)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _name_ends(axes, curves, colors(len(curves), ordered))
    axes.set_xlabel("update steps")
    axes.set_title(label, color=MUTED)
    _plain_ticks(axes)
    return figure


@styled
def target_plot(
    targets: np.ndarray,
    returns: np.ndarray,
    groups: Sequence[Group],
    runs: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    data_max: float | None = None,
) -> Figure:
    """The return that was asked for against the return that was achieved.

    Args:
        targets: (n,) of every single episode.
        returns: (n,) what it achieved.
        groups: for each distinct target in rising order, its label, episodes, mean and interval.
        runs: for each run, the distinct targets (k,) and its mean returns (k,).
        data_max: the best episode of the data, above which no target has been seen.
    """
    figure, axes = _figure(WIDTH, 3.8)
    asked = np.unique(targets)
    width = 0.12 * float(np.diff(asked).min()) if len(asked) > 1 else 0.0
    jitter = np.random.default_rng(0).uniform(-width, width, len(targets))
    ends = np.array([asked[0] - 2 * width, asked[-1] + 2 * width])
    axes.plot(ends, ends, color=INK, linewidth=1, linestyle=DASHED, label="achieved = target")
    axes.scatter(targets + jitter, returns, s=9, color=ACCENT, alpha=0.35, linewidth=0,
                 rasterized=len(targets) > MANY, label="one episode")  # fmt: skip
    for i, (at, means) in enumerate(runs if len(runs) > 1 else ()):
        axes.plot(at, means, color=PALETTE[1], linewidth=0.8, alpha=0.6, label="" if i else "mean of one run")
    mean = np.array([group.mean for group in groups])
    arms = np.abs(np.array([[group.low, group.high] for group in groups]).T - mean)
    axes.errorbar(asked, mean, arms, color=PALETTE[1], fmt="o-", markersize=5, linewidth=1.8, capsize=3,
                  markeredgecolor="white", label="mean, 95% interval", zorder=3)  # fmt: skip
    if data_max is not None:
        axes.axvline(data_max, color=PALETTE[2], linewidth=1.2, label="best episode in the data")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_xlabel("target return")
    axes.set_title("achieved return", color=MUTED)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    _plain_ticks(axes)
    return figure


@styled
def returns_plot(
    achieved: Sequence[Group], data: np.ndarray | None = None, ordered: bool = False, label: str = "return"
) -> Figure:
    """The data's returns as a histogram above the achieved ones, one axis for both.

    Args:
        achieved: single episodes of every policy, in the order to show from above.
        data: (E,) returns of the data's episodes; None leaves the histogram out.
        ordered: the policies have an order, and their colors show it.
        label: what the values are.
    """
    rows = max(len(achieved), 1)
    heights = ([1.35] if data is not None else []) + [0.34 * rows + 0.1]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.75), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    if data is not None:
        edges = np.histogram_bin_edges(data, bins=min(40, max(10, round(2 * len(data) ** 0.5))))
        panels[0].hist(data, edges, color="#9ca3af", edgecolor="white", linewidth=0.5)
        panels[0].axvline(data.max(), color=PALETTE[2], linewidth=1.2)
        panels[0].set_title("episodes in the data", color=MUTED)
        panels[0].grid(visible=False, axis="x")
        panels[0].tick_params(axis="x", length=0)
        panels[-1].axvline(data.max(), color=PALETTE[2], linewidth=1.2, label="best episode in the data")
    axes = panels[-1]
    total = sum(len(group.values) for group in achieved)
    size = 9 if total > 10 * rows else 24
    rng = np.random.default_rng(0)
    for y, (group, color) in enumerate(zip(achieved, colors(len(achieved), ordered), strict=True)):
        jitter = rng.uniform(-0.2, 0.2, len(group.values))
        axes.scatter(group.values, y + jitter, s=size, color=color, alpha=0.4, linewidth=0, rasterized=total > MANY)
        axes.plot([group.low, group.high], [y, y], color=INK, linewidth=1.6, zorder=3)
        axes.plot(group.mean, y, "D", color=color, markersize=6, markeredgecolor=INK, zorder=4)
    axes.set_yticks(range(len(achieved)), [_fold(group.label, 18) for group in achieved], color=INK)
    axes.set_ylim(len(achieved) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    return figure


@styled
def metric_plot(name: str, lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One training metric over update steps: a line for each run of steps (n,) and values (n,).

    The axis is logarithmic where all values are positive and span more than a factor of 100.
    """
    figure, axes = _figure(3.1, 2.0)
    drawn = [thin(steps, values) for steps, values in lines]
    for (steps, values), color in zip(drawn, colors(len(lines), False), strict=True):
        axes.plot(steps, values, color=color, linewidth=1.2, marker="o" if len(steps) == 1 else None, markersize=4)
    everything = np.concatenate([values for _, values in drawn])
    if everything.min() > 0 and everything.max() / everything.min() > 100:
        axes.set_yscale("log")
    figure.suptitle(_fold(name, 36), x=0.02, ha="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("update steps")
    _plain_ticks(axes, 4)
    return figure


def thin(steps: np.ndarray, values: np.ndarray, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(n,), (n,) -> at most `most` points: means of neighbors."""
    if len(steps) <= most:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), most)
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


@styled
def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element whose text is text, in the reader's own font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace("'DejaVu Sans'", FONTS)
    return text[text.index("<svg") :]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _name_ends(axes: Axes, curves: Sequence[Curve], inks: Sequence[str]) -> None:
    """Writes each curve's label at its right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    right = max(curve.steps[-1] for curve in curves)
    labels = [_fold(curve.label, 18) for curve in curves]
    lines = sum(label.count("\n") + 1 for label in labels)
    gap = min(0.055, 0.95 / lines) * (high - low)
    order = sorted(range(len(curves)), key=lambda i: curves[i].mean[-1])
    heights = [gap * (labels[i].count("\n") + 1) for i in order]
    places = spread([float(curves[i].mean[-1]) for i in order], heights, low, high)
    for i, y in zip(order, places, strict=True):
        axes.annotate(labels[i], (right, y), (8, 0), textcoords="offset points", color=inks[i],
                      va="center", fontsize=8, fontweight="bold", annotation_clip=False)  # fmt: skip


def spread(values: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Rising values moved so that boxes of these heights, centered there, neither overlap nor leave low..high.

    Boxes that meet become one block, centered where its members wished to be on average.
    """
    blocks: list[list[int]] = []

    def center(block: list[int]) -> float:
        half = sum(heights[i] for i in block) / 2
        return max(min(float(np.mean([values[i] for i in block])), high - half), low + half)

    def meet(one: list[int], two: list[int]) -> bool:
        return center(two) - center(one) < sum(heights[i] for i in one + two) / 2

    for i in range(len(values)):
        blocks.append([i])
        while len(blocks) > 1 and meet(*blocks[-2:]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = []
    for block in blocks:
        edge = center(block) - sum(heights[i] for i in block) / 2
        for i in block:
            places.append(edge + heights[i] / 2)
            edge += heights[i]
    return places


def _plain_ticks(axes: Axes, most: int = 5) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(most, steps=ROUND))
        else:
            axis.set_major_locator(LogLocator(numticks=most))
            axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, position: int | None = None) -> str:
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    return text.replace("-", "−")


def _fold(text: str, width: int) -> str:
    """At most three lines of `width` characters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder="…") or [""])
