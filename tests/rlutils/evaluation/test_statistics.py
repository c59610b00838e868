"""Statistics against scipy's; those of one policy's episodes are in test_evaluate, of seeds in the suite's tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlalgo.core.spec import normalized_score
from rlutils.evaluation.statistics import EvalResult, interval, iqm, seed_interval, spearman

VALUES = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=1, max_size=30).map(np.array)


@given(VALUES)
def test_iqm_is_the_trimmed_mean(values: np.ndarray) -> None:
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)
    table = np.stack([values, values[::-1] + 1])
    assert iqm(table, axis=1) == pytest.approx([iqm(values), iqm(values + 1)], abs=1e-9)
    assert iqm(table.T, axis=0) == pytest.approx(iqm(table), abs=1e-9)


@pytest.mark.parametrize("statistic", [np.mean, iqm])
@pytest.mark.parametrize("n", [2, 3, 20])
def test_interval_is_the_percentile_bootstrap(n: int, statistic: object) -> None:
    values = np.random.default_rng(n).normal(100, 30, n)
    rng = np.random.default_rng(0)
    expected = stats.bootstrap((values,), statistic, n_resamples=2000, method="percentile", rng=rng)
    assert interval(values, statistic) == pytest.approx(tuple(expected.confidence_interval))


def test_interval_of_what_does_not_vary_is_a_point() -> None:
    assert interval(np.array([3.0])) == interval(np.array([3.0, 3.0])) == (3.0, 3.0)
    assert seed_interval([np.full(3, 2.0), np.full(2, 2.0)]) == (2.0, 2.0)


@given(VALUES)
def test_spearman_is_the_correlation_of_ranks(values: np.ndarray) -> None:
    targets = np.arange(len(values))
    found = spearman(targets, values)
    if len(np.unique(values)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(targets, stats.rankdata(values))[0, 1], abs=1e-9)


def test_normalized_score() -> None:
    assert normalized_score(-10.0, (-10.0, 10.0)) == 0
    assert normalized_score(np.array([0.0, 10.0, 20.0]), (-10.0, 10.0)).tolist() == [50, 100, 150]


def test_a_number_that_is_none_is_null_in_json() -> None:
    result = EvalResult(1, [], {"a/x": math.nan, "a/y": 2.0})
    assert result.to_mapping()["metrics"] == {"a/x": None, "a/y": 2.0}
    assert result.score is None
