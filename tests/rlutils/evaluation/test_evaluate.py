"""Evaluation: the statistics against closed forms, grouping of policies, and randomness that stays inside."""

from __future__ import annotations

import random

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rlutils
from rlutils.evaluation.evaluate import evaluate
from rlutils.evaluation.statistics import summarize
from rlutils.randomness import forked_rng
from tests.rlutils.runs import toy_config
from tests.rlutils.toy_plugin import HORIZON, PointEnv

RETURNS = st.lists(st.floats(-1e3, 1e3, allow_nan=False, width=32), min_size=1, max_size=30)


@given(RETURNS)
def test_statistics_equal_their_definitions(returns: list[float]) -> None:
    n = len(returns)
    found = summarize({}, returns, [1] * n, list(range(n)), (-50.0, 150.0))
    mean = sum(returns) / n
    assert found.mean == pytest.approx(mean, abs=1e-6)
    variance = sum((r - mean) ** 2 for r in returns) / (n - 1) if n > 1 else 0.0
    assert found.sd == pytest.approx(variance**0.5, abs=1e-6)
    cut = int(0.25 * n)
    middle = sorted(returns)[cut : n - cut]
    assert found.iqm == pytest.approx(sum(middle) / len(middle), abs=1e-6)
    assert found.normalized == pytest.approx((mean + 50) / 2, abs=1e-6)
    assert min(returns) - 1e-6 <= found.interval[0] <= mean + 1e-6
    assert mean - 1e-6 <= found.interval[1] <= max(returns) + 1e-6


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = summarize({}, list(rng.normal(10, 3, 40)), [1] * 40, [0] * 40, None).interval
        hits += low <= 10 <= high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.fixture(scope="module")
def algo(tmp_path_factory: pytest.TempPathFactory) -> rlutils.app.BatchRLAlgo:
    run = rlutils.train(toy_config(), out=tmp_path_factory.mktemp("runs") / "run", trainer__steps=20)
    return rlutils.load(run.folder)


def test_every_policy_plays_its_quota_from_the_same_starts(algo: rlutils.app.BatchRLAlgo) -> None:
    options = [algo.PolicyConfig(target_return=t) for t in (0.0, 8.0, 0.0)]  # a repeated one counts once
    results = evaluate(algo, options, [PointEnv() for _ in range(6)], episodes=5, seed=100)
    assert [r.label for r in results] == ["target_return=0", "target_return=8"]
    assert all(r.seeds == [100, 101, 102, 103, 104] and r.lengths == [HORIZON] * 5 for r in results)
    few = evaluate(algo, options, [PointEnv() for _ in range(2)], episodes=5, seed=100)
    for many, one in zip(results, few, strict=True):  # one environment each or three: the same episodes
        assert many.returns == pytest.approx(one.returns, abs=1e-4)


def test_a_target_left_open_is_the_best_return_in_the_data(algo: rlutils.app.BatchRLAlgo) -> None:
    best = float(algo.best_return)
    results = evaluate(algo, [algo.PolicyConfig()], [PointEnv()], episodes=1, seed=0)
    assert results[0].options == {"target_return": best, "sample": False}


def test_randomness_stays_inside(algo: rlutils.app.BatchRLAlgo) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    with forked_rng(7):
        inside = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    evaluate(algo, [algo.PolicyConfig()], [PointEnv()], episodes=1, seed=0)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002
    with forked_rng(7):
        assert inside == (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002


def test_sampled_play_repeats_with_its_seed(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = toy_config("bc", source={"name": "toy", "discrete": True})
    run = rlutils.train(config, out=tmp_path_factory.mktemp("runs") / "run", trainer__steps=20)
    algo = rlutils.load(run.folder)
    envs: list[gymnasium.Env] = [PointEnv(discrete=True) for _ in range(2)]
    sampled = [algo.PolicyConfig(sample=True)]
    a, b, c = (evaluate(algo, sampled, envs, episodes=4, seed=s)[0].returns for s in (3, 3, 4))
    assert a == b
    assert a != c
    assert a != evaluate(algo, [algo.PolicyConfig()], envs, episodes=4, seed=3)[0].returns
