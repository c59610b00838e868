"""Random moves in a gridworld: discrete value-based algorithms find the best policy that value iteration finds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from rlalgo import BatchRLAlgo, Episodes
from tests.rlalgo.batchrl.small_problems import make_grid, trained

GRID = make_grid()
CELLS = GRID.cells()
TIE = 0.05
"""Moves whose best values differ by less, of 10, are taken for equally good."""

SMALL = {"hidden_dims": (32,), "gamma": GRID.gamma, "tau": 0.02, "normalize": False}
FAST = {**SMALL, "lr": 3e-3}
PLAIN: dict[str, dict[str, Any]] = {
    "dqn": FAST,
    "discrete_cql": {**FAST, "conservative_weight": 0.5},
    "discrete_iql": {**SMALL, "actor_lr": 3e-3, "critic_lr": 3e-3, "expectile": 0.9},
}
DUELING = {"dueling": True}
SINGLE = {"double": False}


@functools.cache
def data() -> Episodes:
    return GRID.episodes()


def moves(algo: BatchRLAlgo) -> np.ndarray:
    """(S,) what it does in each cell."""
    return algo.predict(GRID.batch()).numpy()


def own_values(algo: Any) -> np.ndarray:
    """(S,) what it takes its policy to be worth."""
    with torch.no_grad():
        return algo.values(GRID.batch().observations).amax(1).numpy()


def check_optimal(algo: BatchRLAlgo) -> None:
    best, chosen = GRID.optimal(), moves(algo)
    short = (best.max(1) - best[np.arange(len(best)), chosen])[CELLS]
    assert short.max() < TIE, f"cell {CELLS[short.argmax()]}: {short.max():.2f} below the best move"
    assert GRID.value(chosen)[CELLS].mean() > 0.999 * best.max(1)[CELLS].mean()


def test_value_iteration_and_the_linear_system_agree_and_moves_differ_clearly_or_hardly() -> None:
    best = GRID.optimal()
    assert GRID.value(best.argmax(1))[CELLS] == pytest.approx(best.max(1)[CELLS])
    ranked = np.sort(best[CELLS], 1)
    gaps = ranked[:, -1:] - ranked[:, :-1]
    assert not ((gaps > TIE / 2) & (gaps < 8 * TIE)).any()
    rng = np.random.default_rng(0)
    at_random = [GRID.value(rng.integers(4, size=len(best)))[CELLS].mean() for _ in range(200)]
    assert max(at_random) < 0.7 * best.max(1)[CELLS].mean()  # the best policy is not hit upon by luck


@pytest.mark.parametrize("name", PLAIN)
def test_finds_the_best_policy_from_random_moves(name: str) -> None:
    algo = trained(name, data(), 1000, **PLAIN[name])
    check_optimal(algo)
    if name == "dqn":
        assert own_values(algo)[CELLS] == pytest.approx(GRID.optimal().max(1)[CELLS], abs=0.5)
    if name == "discrete_cql":  # a lower bound in every cell, while DQN's values lie on both sides
        below = GRID.value(moves(algo)) - own_values(algo)
        assert below[CELLS].mean() > 0.5
        assert below[CELLS].min() > 0
        visited = data().observations.argmax(1).bincount(minlength=len(below)).double().numpy()
        visited[GRID.goal] = 0
        assert (below * visited).sum() / visited.sum() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("name", "variant"),
    [*((name, variant) for name in PLAIN for variant in ({}, DUELING)), ("dqn", SINGLE), ("dqn", SINGLE | DUELING)],
)
def test_every_variant_finds_the_best_policy(name: str, variant: dict[str, Any], seed: int) -> None:
    check_optimal(trained(name, GRID.episodes(seed=seed), 2000, seed=seed, **PLAIN[name], **variant))


@pytest.mark.slow
def test_the_larger_the_conservative_weight_the_lower_the_values() -> None:
    means = []
    for weight in (0.0, 0.1, 0.5):
        algo = trained("dqn", data(), 1500, **FAST, conservative_weight=weight)
        means.append((own_values(algo) - GRID.value(moves(algo)))[CELLS].mean())
    assert means[0] > means[1] > means[2]
    assert abs(means[0]) < 0.3
