"""The report's figures: plain arrays in, matplotlib Figures out; no pyplot, so nothing global is touched."""

import base64
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rlalgo.errors import DataError
from rlutils.config.files import write_atomic
from rlutils.reports.records import Series
from rlutils.reports.writing import short

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
    "figure.facecolor": "white",
    **dict.fromkeys(("axes.titlecolor", "text.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top"), False),
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}
DASHED = (0, (4, 3))
MANY = 3_000
"""Above so many dots they are drawn as pixels: an SVG of each would be megabytes."""

styled = matplotlib.rc_context(STYLE)
"""As a decorator: the function under this module's style, and matplotlib's settings as before when it is done."""


class Curve(NamedTuple):
    """A mean over update steps with its band, and the single runs that it is made of."""

    label: str
    steps: np.ndarray  # (n,)
    mean: np.ndarray  # (n,)
    low: np.ndarray  # (n,)
    high: np.ndarray  # (n,)
    runs: Sequence[Series] = ()  # (m,) steps and (m,) values of each


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


def bins(n: int) -> int:
    """How many bars the histogram of n values has at most."""
    return min(40, max(10, round(2 * n**0.5)))


@styled
def learning_curves(
    curves: Sequence[Curve], ordered: bool = False, best: float | None = None, label: str = "return"
) -> Figure:
    """Evaluation return over update steps, one line with a band for each policy, named at its end.

    Args:
        curves: what to draw; single runs become thin lines.
        ordered: the curves have an order (rising targets), and their colors show it.
        best: the return of the data's best episode, marked by a line.
        label: what the curves are of.
    """
    figure, axes = blank(WIDTH, 3.5)
    inks = colors(len(curves), ordered)
    for curve, color in zip(curves, inks, strict=True):
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.13, linewidth=0)
        for steps, values in curve.runs:
            axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.45)
        dots = "o" if len(curve.steps) <= 30 else None
        axes.plot(curve.steps, curve.mean, color=color, linewidth=2, marker=dots, markersize=3.5)
    if best is not None:
        axes.axhline(best, color=MUTED, linewidth=1, linestyle=DASHED)
        start = min(curve.steps[0] for curve in curves)
        axes.text(start, best, "best episode in the data", va="bottom", color=MUTED, fontsize=8)
    from_zero(axes, "update steps", label)
    _name_ends(axes, curves, inks)
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
        panels[0].hist(data, bins(len(data)), color="#9ca3af", edgecolor="white", linewidth=0.5)
        panels[0].set_title("episodes in the data", color=MUTED)
        panels[0].grid(visible=False, axis="x")
        panels[0].tick_params(axis="x", length=0)
        for panel in panels:
            panel.axvline(data.max(), color=PALETTE[2], linewidth=1.2)
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
    plain_ticks(axes.xaxis, most=6)
    return figure


@styled
def metric_plot(name: str, lines: Sequence[Series]) -> Figure:
    """One training metric over update steps: a line for each run of steps (n,) and values (n,).

    The axis is logarithmic where all values are positive and span more than a factor of 100.
    """
    figure, axes = blank(3.1, 2.0)
    drawn = [thin(steps, values) for steps, values in lines]
    for (steps, values), color in zip(drawn, colors(len(lines), False), strict=True):
        axes.plot(steps, values, color=color, linewidth=1.2, marker="o" if len(steps) == 1 else None, markersize=4)
    pooled = np.concatenate([values for _, values in drawn])
    if pooled.min() > 0 and pooled.max() / pooled.min() > 100:
        axes.set_yscale("log")
    figure.suptitle(_fold(name, 36), x=0.02, ha="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("update steps")
    plain_ticks(axes.xaxis, axes.yaxis, most=4)
    return figure


def thin(steps: np.ndarray, values: np.ndarray, most: int = 400) -> Series:
    """(n,), (n,) -> at most `most` points: means of neighbors."""
    if len(steps) <= most:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), most)
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


@styled
def write_png(figure: Figure, path: Path) -> None:
    """The figure as a file.

    Raises:
        DataError: it cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be written: {error}") from error


@styled
def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element whose text is text, in the reader's own font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace("'DejaVu Sans'", FONTS)
    return text[text.index("<svg") :]


def picture(figure: Figure, alt: str) -> Markup:
    """The figure as an image within a page: nothing in it can meet the page's own ids and styles."""
    coded = base64.b64encode(to_svg(figure).encode()).decode()
    return Markup('<img src="data:image/svg+xml;base64,{}" alt="{}">').format(coded, alt)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def from_zero(axes: Axes, x: str, y: str) -> None:
    """Names both axes; zero is in sight."""
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_xlabel(x)
    axes.set_title(y, color=MUTED)
    plain_ticks(axes.xaxis, axes.yaxis)


def _name_ends(axes: Axes, curves: Sequence[Curve], inks: Sequence[str]) -> None:
    """Writes each curve's label at its right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    right = max(curve.steps[-1] for curve in curves)
    ends = sorted((float(curve.mean[-1]), _fold(curve.label, 18), ink) for curve, ink in zip(curves, inks, strict=True))
    lines = [label.count("\n") + 1 for _, label, _ in ends]
    gap = min(0.055, 0.95 / sum(lines)) * (high - low)
    places = spread([end for end, _, _ in ends], [gap * count for count in lines], low, high)
    for (_, label, ink), y in zip(ends, places, strict=True):
        axes.annotate(label, (right, y), (8, 0), textcoords="offset points", color=ink,
                      va="center", fontsize=8, fontweight="bold", annotation_clip=False)  # fmt: skip


def spread(values: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Rising values moved so that boxes of these heights, centered there, neither overlap nor leave low..high."""
    places, edge = list(values), low
    for i, height in enumerate(heights):  # upward, clear of what is below
        places[i] = max(places[i], edge + height / 2)
        edge = places[i] + height / 2
    edge = high
    for i, height in reversed(list(enumerate(heights))):  # and back down from what reaches too high
        places[i] = min(places[i], edge - height / 2)
        edge = places[i] - height / 2
    return places


def plain_ticks(*sides: Axis, most: int = 5) -> None:
    """At most so many ticks on each of the sides, at round numbers, written for people."""
    for side in sides:
        if side.get_scale() == "linear":
            side.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
        else:
            side.set_major_locator(LogLocator(numticks=most))
            side.set_minor_locator(NullLocator())
        side.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _fold(text: str, width: int) -> str:
    """At most three lines of `width` characters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder="…") or [""])
