"""Linear-quadratic control from noisy data of a feeble controller: how near the Riccati solution's cost one comes.

Bounds are on the discounted cost of the greedy policy, as a multiple of the optimal one. The controller that made the
data has 1.9 times the optimal cost without its noise, so what only imitates stays there.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rlalgo import BatchRLAlgo, Episodes
from rlalgo.core.dataset import TransitionBatch
from tests.rlalgo.batchrl.small_problems import make_lq, trained

LQ = make_lq()
STARTS = LQ.starts(300, seed=1)
FEEBLE = 0.2
"""Share of the optimal gain in the controller that made the data."""
SMALL = {"hidden_dims": (64, 64), "gamma": LQ.gamma, "tau": 0.02, "actor_lr": 1e-3, "critic_lr": 1e-3}
HASTY = {"hidden_dims": (32, 32), "gamma": LQ.gamma, "tau": 0.05, "actor_lr": 3e-3, "critic_lr": 3e-3}
FEW = {"n_critics": 4}


class Case(NamedTuple):
    name: str
    config: dict[str, Any]
    bound: float
    """Largest cost, as a multiple of the optimal one."""
    steps: int


FAST = [
    Case("td3_bc", {**HASTY, "alpha": 10.0}, 1.15, 600),
    Case("iql", {**HASTY, "expectile": 0.9, "beta": 10.0}, 1.15, 600),
    Case("edac", {**HASTY, **FEW}, 1.3, 300),
    Case("sac_n", {**HASTY, **FEW}, 1.3, 300),
]
SLOW = [
    Case("td3_bc", {**SMALL, "alpha": 10.0}, 1.15, 2000),
    Case("iql", {**SMALL, "actor_lr": 3e-3, "expectile": 0.9, "beta": 10.0}, 1.15, 2000),
    Case("awac", {**SMALL, "lam": 0.1}, 1.3, 2000),
    Case("rebrac", SMALL, 1.15, 2000),
    Case("cql", {**SMALL, "conservative_weight": 0.1, "n_action_samples": 4}, 1.15, 2000),
    Case("edac", {**SMALL, **FEW}, 1.15, 2000),
    Case("sac_n", {**SMALL, **FEW}, 1.15, 2000),
]


@functools.cache
def data() -> Episodes:
    return LQ.episodes(share=FEEBLE)


def cost(algo: BatchRLAlgo) -> float:
    """Mean discounted cost of its greedy actions, as a multiple of the optimal one."""
    nothing = torch.zeros(0)

    def act(x: torch.Tensor) -> torch.Tensor:
        return algo.predict(TransitionBatch(x, nothing, nothing, nothing, nothing))

    return float(LQ.played(act, STARTS).mean() / LQ.costs(LQ.best_gain(), STARTS).mean())


def test_closed_forms_agree_with_playing() -> None:
    K = LQ.best_gain()
    assert np.abs(STARTS @ K.T).max() < 2  # within the bounds
    for gain in (K, FEEBLE * K):
        played = LQ.played(lambda x, gain=gain: -x @ torch.from_numpy(gain).float().T, STARTS)
        assert played == pytest.approx(LQ.costs(gain, STARTS), rel=1e-4)
    best, feeble = LQ.costs(K, STARTS).mean(), LQ.costs(FEEBLE * K, STARTS).mean()
    assert 1.8 < feeble / best < 2.1
    rng = np.random.default_rng(0)
    others = [LQ.costs(K + 0.2 * rng.standard_normal(K.shape), STARTS).mean() for _ in range(20)]
    assert min(others) > best


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_comes_near_the_optimal_cost(case: Case) -> None:
    assert cost(trained(case.name, data(), case.steps, **case.config)) < case.bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_every_continuous_algorithm_comes_near_the_optimal_cost(case: Case, seed: int) -> None:
    episodes = LQ.episodes(share=FEEBLE, seed=seed)
    assert cost(trained(case.name, episodes, case.steps, seed=seed, **case.config)) < case.bound


def test_cloning_alone_stays_at_the_cost_of_the_data_and_chance_far_above() -> None:
    assert 1.6 < cost(trained("bc", data(), 300, hidden_dims=(64, 64), lr=3e-3)) < 2.3
    assert cost(trained("edac", data(), 1, **HASTY, **FEW)) > 4
