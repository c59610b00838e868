"""Targets and what they achieve: as a figure, a table and in words."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from rlutils.checkpoints.loading import run_folder
from rlutils.evaluation.data_facts import DataFacts, data_facts
from rlutils.evaluation.targets import Targets
from rlutils.reports import plots
from rlutils.reports.records import Series
from rlutils.reports.writing import decimals, number, print_table, short, write_text


@plots.styled
def target_plot(
    targets: np.ndarray,
    returns: np.ndarray,
    groups: Sequence[plots.Group],
    runs: Sequence[Series],
    data: np.ndarray | None,
    chosen: float | None = None,
) -> Figure:
    """The target return against the return that was achieved.

    Args:
        targets: (n,) of every single episode.
        returns: (n,) what it achieved.
        groups: for each distinct target in rising order, its label, episodes, mean and interval.
        runs: for each run, the distinct targets (k,) and its mean returns (k,).
        data: (E,) returns of the data's episodes, beyond which no target has been seen; a histogram at the bottom.
        chosen: the target that is recommended.
    """
    figure, axes = plots.blank(plots.WIDTH, 3.8)
    distinct = np.unique(targets)
    width = 0.12 * float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0
    jitter = np.random.default_rng(0).uniform(-width, width, len(targets))
    ends = np.array([distinct[0] - 2 * width, distinct[-1] + 2 * width])
    axes.plot(ends, ends, color=plots.INK, linewidth=1, linestyle=plots.DASHED, label="achieved = target")
    axes.scatter(targets + jitter, returns, s=9, color=plots.ACCENT, alpha=0.35, linewidth=0,
                 rasterized=len(targets) > plots.MANY, label="one episode")  # fmt: skip
    for i, (at, means) in enumerate(runs if len(runs) > 1 else ()):
        axes.plot(at, means, color=plots.PALETTE[1], linewidth=0.8, alpha=0.6, label="" if i else "mean of one run")
    mean = np.array([group.mean for group in groups])
    low, high = np.array([[group.low, group.high] for group in groups]).T
    axes.fill_between(distinct, low, high, color=plots.PALETTE[1], alpha=0.22, linewidth=0)
    axes.plot(distinct, mean, "o-", color=plots.PALETTE[1], markersize=5, linewidth=1.8, markeredgecolor="white",
              label="mean, 95% interval", zorder=3)  # fmt: skip
    if chosen is not None:
        at = mean[distinct == chosen]
        axes.plot(chosen, at, "o", color=plots.INK, markersize=9, fillstyle="none", label="recommended")
    if data is not None:
        counts, edges = np.histogram(data, plots.bins(len(data)))
        axes.axvspan(data.min(), data.max(), color=plots.MUTED, alpha=0.09, linewidth=0, zorder=0)
        heights = 0.2 * counts / counts.max()  # of the panel
        axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=plots.MUTED, alpha=0.35, zorder=0,
                 transform=axes.get_xaxis_transform(), label="returns in the data")  # fmt: skip
        axes.axvline(data.max(), color=plots.PALETTE[2], linewidth=1.2, label="best episode in the data")
    plots.from_zero(axes, "target return", "achieved return")
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8, labelcolor=plots.INK)
    return figure


def drawn(found: Targets, data: DataFacts | None) -> Figure:
    """Achieved against asked."""
    played = [point.played for point in found.points]
    groups = [plots.Group("", np.array(result.returns), result.mean, *result.interval) for result in played]
    targets = np.repeat([point.target for point in found.points], [len(result.returns) for result in played])
    every = np.concatenate([result.returns for result in played])
    return target_plot(
        targets, every, groups, [], None if data is None else np.array(data.returns), found.recommended.target
    )


def rows(found: Targets) -> list[tuple[str, ...]]:
    """A heading, and a line for each target."""
    successes = [point.played.means.get("success") for point in found.points]
    said = any(success is not None for success in successes)
    places = decimals(point.played.mean for point in found.points)
    lines = [("asked", "achieved", "95% of the mean", *(["success"] if said else []), "data at least as good")]
    for point, success in zip(found.points, successes, strict=True):
        low, high = (number(value, places) for value in point.played.interval)
        alone = len(point.played.returns) == 1  # which says nothing about others
        lines.append((
            short(point.target),
            number(point.played.mean, places),
            "–" if alone else f"{low} to {high}",
            *([short(success)] if said else []),
            "–" if point.share is None else f"{100 * point.share:.1f}%",
        ))  # fmt: skip
    return lines


def words(found: Targets) -> list[str]:
    """What is recommended and why, and how well the return follows the target."""
    chosen, top = found.recommended, found.top
    best = f"the best, {short(top.played.mean)} at {short(top.target)}"
    why = f"the lowest target whose mean is within one standard error ({short(found.noise)}) of {best}"
    best = f"Recommended: {chosen.target:.15g}, {why}"
    if chosen is found.points[0]:
        best += "; it is the lowest of all: the target makes no difference here, or lower ones are to be tried"
    within = found.supported
    if not within:
        return [best, "No target is within the data's returns"]
    where = f"Over {sum(len(p.played.returns) for p in within):,} single episodes" + (
        " of targets within the data's returns, " + " to ".join(map(short, found.data)) if found.data else ""
    )
    how = f"Spearman {number(found.rho, 2)}, mean absolute error {short(found.error)}, highest minus lowest target "
    return [best, f"{where}: {how}{short(found.spread)}"]


def show_targets(found: Targets, run: Path, out: Path | None, console: Console) -> None:
    """Prints them, and writes figure and numbers.

    Args:
        found: what was played.
        run: the run's folder or a checkpoint in it, whose `targets` folder they are written to if there is no `out`.
        out: PNG file to write; the numbers lie beside it, as .json.
        console: where to print.

    Raises:
        DataError, RlalgoError: a file cannot be written.
    """
    print_table(console, rows(found))
    for line in words(found):
        console.print(line, soft_wrap=True)
    run = run_folder(run)
    out = out or run / "targets" / f"step_{found.step:09d}.png"
    numbers = json.dumps(found.to_mapping(), indent=1, allow_nan=False) + "\n"
    write_text(out.with_suffix(".json"), numbers, "--out")
    plots.write_png(drawn(found, data_facts(run)), out)
    console.print(f"figure: {out}, and its numbers beside it", soft_wrap=True)
