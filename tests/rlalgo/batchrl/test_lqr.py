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
from rlalgo.batchrl.awac import AWAC
from rlalgo.batchrl.bc import BC
from rlalgo.batchrl.cql import CQL
from rlalgo.batchrl.edac import EDAC, SACN
from rlalgo.batchrl.iql import IQL
from rlalgo.batchrl.rebrac import ReBRAC
from rlalgo.batchrl.td3_bc import TD3BC
from rlalgo.core.dataset import TransitionBatch
from tests.rlalgo.batchrl.small_problems import make_lq, trained

LQ = make_lq()
STARTS = LQ.starts(300, seed=1)
FEEBLE = 0.2
"""Share of the optimal gain in the controller that made the data."""
SMALL = {"width": 64, "gamma": LQ.gamma, "tau": 0.02, "actor_lr": 1e-3, "critic_lr": 1e-3}


class Case(NamedTuple):
    cls: type[BatchRLAlgo]
    config: dict[str, Any]
    bound: float
    """Largest cost, as a multiple of the optimal one."""


FAST = {
    "td3_bc": Case(TD3BC, {**SMALL, "alpha": 10.0}, 1.15),
    "iql": Case(IQL, {**SMALL, "actor_lr": 3e-3, "expectile": 0.9, "beta": 10.0}, 1.15),
}
SLOW = {
    "awac": Case(AWAC, {**SMALL, "lam": 0.1}, 1.3),
    "rebrac": Case(ReBRAC, {**SMALL, "layers": 2}, 1.15),
    "cql": Case(CQL, {**SMALL, "weight": 0.1, "samples": 4}, 1.15),
    "edac": Case(EDAC, {**SMALL, "critics": 4}, 1.15),
    "sac_n": Case(SACN, {**SMALL, "critics": 4}, 1.15),
}


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


@pytest.mark.parametrize("name", FAST)
def test_comes_near_the_optimal_cost(name: str) -> None:
    case = FAST[name]
    assert cost(trained(case.cls, data(), 1000, **case.config)) < case.bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_every_continuous_algorithm_comes_near_the_optimal_cost(name: str, seed: int) -> None:
    case = (FAST | SLOW)[name]
    assert cost(trained(case.cls, LQ.episodes(share=FEEBLE, seed=seed), 2000, seed=seed, **case.config)) < case.bound


def test_cloning_alone_stays_at_the_cost_of_the_data() -> None:
    assert 1.6 < cost(trained(BC, data(), 300, width=64, lr=3e-3)) < 2.3
