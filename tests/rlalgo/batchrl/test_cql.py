"""CQL against plain loops, numerical integration and plain autograd."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlalgo import DataSpec, Episodes
from rlalgo.batchrl.cql import CQL
from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    check_gradients,
    everything,
    make,
    normal,
    scaled,
    squashed,
    three_ends,
    values,
)


def line() -> Episodes:
    """One action in [-1, 1]."""
    episodes = three_ends()
    spec = DataSpec(episodes.spec.observation_space, spaces.Box(-1, 1, (1,), np.float32))
    return replace(episodes, actions=episodes.actions[:, :1], spec=spec)


def proposals(algo: Any, batch: Any, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(B, 3n, A) and log densities (B, 3n) of what `update` draws first under this seed.

    Drawn are first the policy's at s and at s', then the uniform ones, which come first in the result.
    """
    torch.manual_seed(seed)
    found = []
    for observations in (batch.observations, batch.next_observations):
        policy = algo.actor(normal(algo, observations))
        found.append(squashed(policy, torch.randn(len(observations), n, algo.A)))
    uniform = torch.empty(found[0][0].shape).uniform_(-1, 1)
    density = torch.full(uniform.shape[:2], math.log(0.5) * uniform.shape[2])
    actions, log_prob = ([part[i].float() for part in found] for i in range(2))
    return torch.cat([uniform, *actions], 1), torch.cat([density, *log_prob], 1)


# --- the conservative term ---


@pytest.mark.parametrize(("importance", "t"), [(True, 1.0), (True, 2.5), (False, 1.0), (False, 2.5)])
def test_gap_equals_a_loop_over_the_same_draws(importance: bool, t: float) -> None:
    algo = make("cql", three_ends(), n_action_samples=3, importance=importance, softmax_temperature=t)
    batch = everything(algo, three_ends())
    actions, log_prob = proposals(algo, batch, 3, seed=4)
    gap = 0.0
    for b, i in itertools.product(range(9), range(2)):
        state = normal(algo, batch.observations[b])
        total = 0.0
        for k in range(9):
            weight = 1 / (9 * math.exp(log_prob[b, k])) if importance else 1.0
            total += weight * math.exp(values(algo.critics, state, actions[b, k])[i] / t)
        gap += (t * math.log(total) - values(algo.critics, state, scaled(batch.actions[b]))[i]) / 18
    torch.manual_seed(4)
    assert float(algo.update(batch, 1)["critic/gap"]) == pytest.approx(gap, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("t", [1.0, 0.5])
def test_the_estimate_converges_to_the_integral_over_all_actions(t: float) -> None:
    algo = make("cql", line(), softmax_temperature=t)
    with torch.no_grad():
        for p in algo.actor[1].parameters():
            p.mul_(0.2)  # proposals so wide that no weight is large
    batch = everything(algo, line())
    states = normal(algo, batch.observations)
    grid = np.linspace(-1, 1, 2001)
    with torch.no_grad():
        found = algo.log_sum_exp(states, *proposals(algo, batch, 20_000, seed=1))  # (2, 9)
        q = algo.critics(states, torch.from_numpy(grid).float()[None, :, None].expand(9, -1, -1))  # (2, 9, 2001)
    exact = t * np.log(scipy.integrate.simpson(np.exp(q.double().numpy() / t), x=grid, axis=-1))
    spread = np.ptp(q.numpy(), axis=-1)
    assert spread.max() > 0.5  # far from flat
    np.testing.assert_allclose(found.numpy(), exact, atol=0.02 * t)


@pytest.mark.parametrize("log_alpha_prime", [None, 1.0])
def test_gradient_in_parts_equals_one_plain_backward_pass(log_alpha_prime: float | None) -> None:
    """Seventy transitions, so that two parts are full and one is not."""
    episodes, lagrange = three_ends(), None if log_alpha_prime is None else 5.0
    algo = make("cql", episodes, n_action_samples=3, conservative_weight=2.0, lagrange=lagrange)
    if log_alpha_prime is not None:
        algo.log_alpha_prime.data.fill_(log_alpha_prime)
    data = algo.dataset(episodes)
    batch = data.gather(data.rows(70, torch.Generator().manual_seed(0)))
    actions, log_prob = proposals(algo, batch, 3, seed=4)
    states = normal(algo, batch.observations)
    with torch.no_grad():
        least = algo.target_critics(normal(algo, batch.next_observations), actions[:, 6]).amin(0)  # first draw at s'
        target = batch.rewards + GAMMA * (1 - batch.terminals) * least
    loss = torch.zeros(())
    for i in range(2):
        q = algo.critics(states, scaled(batch.actions))[i]
        sampled = algo.critics(states, actions)[i]  # (70, 9)
        penalty = ((sampled - log_prob).exp().mean(1).log() - q).mean()
        loss = loss + ((q - target) ** 2).mean() + 2.0 * math.exp(log_alpha_prime or 0.0) * penalty
    check_gradients(algo, "critic", batch, loss, seed=4, rtol=1e-5)


@pytest.mark.parametrize(("threshold", "direction"), [(1e4, -1), (1e-4, 1)])
def test_the_lagrange_factor_rises_while_the_gap_is_too_wide(threshold: float, direction: int) -> None:
    """Adam's first step is the learning rate, whatever the size of the gradient."""
    algo = make("cql", three_ends(), lagrange=threshold, lagrange_lr=0.01)
    batch = everything(algo, three_ends())
    metrics = algo.update(batch, 1)
    assert float(metrics["critic/alpha_prime"]) == 1.0
    assert 5.0 * float(metrics["critic/gap"]) > 1e-4
    assert algo.log_alpha_prime.item() == pytest.approx(0.01 * direction, rel=1e-3)
    assert float(algo.update(batch, 2)["critic/alpha_prime"]) == pytest.approx(math.exp(0.01 * direction), rel=1e-4)


# --- SAC beneath it ---


@pytest.mark.parametrize(("max_q", "entropy"), [(False, False), (False, True), (True, False)])
def test_target_and_squared_error_equal_a_loop(max_q: bool, entropy: bool) -> None:
    algo = make("cql", three_ends(), max_q_backup=max_q, backup_entropy=entropy, temperature=0.3, n_action_samples=4)
    batch = everything(algo, three_ends())
    actions, log_prob = (x[:, 8:] for x in proposals(algo, batch, 4, seed=2))  # those at s'
    expected, loss = [], 0.0
    for b in range(9):
        after = normal(algo, batch.next_observations[b])
        each = [values(algo.target_critics, after, action) for action in actions[b]]  # [draw][critic]
        least = min(max(q[i] for q in each) for i in range(2)) if max_q else min(each[0])
        least -= 0.3 * float(log_prob[b, 0]) if entropy else 0.0
        expected.append(float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * least))
        q = values(algo.critics, normal(algo, batch.observations[b]), scaled(batch.actions[b]))
        loss += sum((x - expected[b]) ** 2 for x in q) / 9
    with torch.no_grad():
        found = algo.targets(batch, actions, log_prob)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    torch.manual_seed(2)
    assert float(algo.update(batch, 1)["critic/loss"]) == pytest.approx(loss, rel=1e-4)


def test_one_kind_of_target_at_a_time() -> None:
    with pytest.raises(ValueError, match="set one of them"):
        CQL.Config(max_q_backup=True, backup_entropy=True)


def test_the_actor_clones_first_and_then_follows_the_critics() -> None:
    algo = make("cql", three_ends(), bc_warmup_steps=2, n_action_samples=3, temperature=0.3, temperature_lr=0.0)
    batch = everything(algo, three_ends())
    states = normal(algo, batch.observations)
    for step in (1, 2, 3):
        with torch.no_grad():
            policy = copy.deepcopy(algo).actor(states)
        proposals(algo, batch, 3, seed=step)  # are drawn first
        chosen, log_prob = squashed(policy, torch.randn(9, 2))
        torch.manual_seed(step)
        metrics = algo.update(batch, step)
        expected = 0.0
        for b in range(9):
            clone = TransformedDistribution(Normal(policy.mean[b], policy.log_std[b].exp()), [TanhTransform()])
            gain = float(clone.log_prob(scaled(batch.actions[b])).sum())
            if step == 3:
                gain = min(values(algo.critics, states[b], chosen[b].float()))
            expected += (0.3 * float(log_prob[b]) - gain) / 9
        assert float(metrics["actor/loss"]) == pytest.approx(expected, rel=1e-3), step
