"""Figures: what is drawn, and that nothing global is touched."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlutils.reports import plots
from rlutils.reports.targets_view import target_plot


def test_target_plot_has_the_diagonal_the_datas_best_and_every_episode() -> None:
    targets, returns = np.repeat([1.0, 2.0, 4.0], 5), np.arange(15.0)
    groups = [plots.Group(str(t), returns[targets == t], 2.0, 1.0, 3.0) for t in (1.0, 2.0, 4.0)]
    axes = target_plot(targets, returns, groups, [], np.array([0.0, 2.0, 3.5])).axes[0]
    lines = [line.get_xydata() for line in axes.lines]
    assert any(len(xy) == 2 and (xy[:, 0] == xy[:, 1]).all() and xy[0, 0] < xy[1, 0] for xy in lines)
    assert any((xy[:, 0] == 3.5).all() for xy in lines)
    offsets = np.asarray(axes.collections[0].get_offsets())
    assert offsets[:, 1].tolist() == returns.tolist()
    assert np.abs(offsets[:, 0] - targets).max() < 0.5  # jitter never reaches the next target
    assert len(set(offsets[:5, 0])) == 5
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("target return", "achieved return")


def test_data_and_achieved_returns_share_one_axis() -> None:
    group = plots.Group("a", np.array([100.0, 200.0]), 150.0, 100.0, 200.0)
    above, below = plots.returns_plot([group], np.array([0.0, 50.0, 60.0])).axes
    assert above.get_xlim() == below.get_xlim()
    assert above.get_xlim()[0] <= 0
    assert above.get_xlim()[1] >= 200
    assert sum(patch.get_height() for patch in above.patches) == 3


def test_learning_curves_name_their_ends_without_overlap() -> None:
    steps = np.array([0, 10])
    lines = [(steps, np.array([0.0, end])) for end in (99.0, 100.0, 101.0, 5.0)]
    curves = [plots.Curve(f"c{i}", *line, line[1] - 1, line[1] + 1, [line]) for i, line in enumerate(lines)]
    axes = plots.learning_curves(curves, ordered=True, best=120.0).axes[0]
    places = {text.get_text(): text.xy[1] for text in axes.texts if hasattr(text, "xy")}
    assert places["c3"] == pytest.approx(5)
    low, high = axes.get_ylim()
    assert low <= 0
    gap = 0.05 * (high - low)
    assert places["c0"] + gap <= places["c1"]
    assert places["c1"] + gap <= places["c2"]
    assert any((np.asarray(line.get_ydata()) == 120).all() for line in axes.lines)


def test_a_metric_that_explodes_is_shown_on_a_logarithmic_axis() -> None:
    steps = np.arange(3)
    figure = plots.metric_plot("a", [(steps, np.array([1.0, 10.0, 1e6]))])
    assert figure.axes[0].get_yscale() == "log"
    assert "$" not in plots.to_svg(figure)  # no formula that nobody typesets
    assert plots.metric_plot("a", [(steps, np.array([-1.0, 10.0, 1e6]))]).axes[0].get_yscale() == "linear"
    assert plots.metric_plot("a", [(steps, np.array([1.0, 2.0, 3.0]))]).axes[0].get_xlabel() == "update steps"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_spread_boxes_keep_their_order_and_do_not_overlap(boxes: list[tuple[float, float]]) -> None:
    boxes.sort()
    values, heights = [value for value, _ in boxes], [height for _, height in boxes]
    low, high = -150.0, 150.0
    places = plots.spread(values, heights, low, high)
    edges = [(place - height / 2, place + height / 2) for place, height in zip(places, heights, strict=True)]
    assert all(one[1] <= two[0] + 1e-6 for one, two in itertools.pairwise(edges))
    assert edges[0][0] >= low - 1e-6
    assert edges[-1][1] <= high + 1e-6
    if len(boxes) == 1:
        assert places == pytest.approx(values)


def test_thinning_keeps_the_mean_and_bounds_the_size() -> None:
    steps, values = plots.thin(np.arange(10_000.0), np.sin(np.arange(10_000.0)), 400)
    assert len(steps) == len(values) == 400
    assert values.mean() == pytest.approx(np.sin(np.arange(10_000.0)).mean(), abs=1e-12)
    assert (np.diff(steps) > 0).all()


def test_ordered_colors_darken_steadily() -> None:
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in plots.colors(6, ordered=True)])
    light = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) < 0).all()
    assert len(set(plots.colors(7, ordered=False))) == 7


def test_figures_are_the_same_each_time_and_leave_no_global_state() -> None:
    code = (
        "import sys, matplotlib, numpy as np; from rlutils.reports import plots;"
        "look = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'};"
        "before = look();"
        "draw = lambda: plots.to_svg(plots.metric_plot('loss', [(np.arange(3), np.arange(3.0))]));"
        "assert draw() == draw(); assert look() == before;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
