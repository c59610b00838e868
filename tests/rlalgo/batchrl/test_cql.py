"""CQL against plain loops, numerical integration and plain autograd."""

from __future__ import annotations

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
from tests.rlalgo.batchrl.actor_critic import (
    GAMMA,
    copied,
    everything,
    gradients,
    make,
    normal,
    recorded,
    scaled,
    three_ends,
    values,
    without_bounds,
)


def line() -> Episodes:
    """One action in [-1, 1]."""
    episodes = three_ends()
    spec = DataSpec(episodes.spec.observation_space, spaces.Box(-1, 1, (1,), np.float32))
    return replace(episodes, actions=episodes.actions[:, :1], spec=spec)


def proposals(algo: CQL, batch: Any, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(B, 3n, A) and log densities (B, 3n) of what `update` draws first under this seed, the densities by torch.

    Drawn are first the policy's at s and at s', then the uniform ones, which come first in the result.
    """
    torch.manual_seed(seed)
    found = []
    for observations in (batch.observations, batch.next_observations):
        with torch.no_grad():
            mean, log_std = algo.actor(normal(algo, observations)).chunk(2, -1)
        noise = torch.randn(len(mean), n, mean.shape[1])
        actions = (mean[:, None] + log_std[:, None].exp() * noise).tanh()
        policy = TransformedDistribution(Normal(mean[:, None], log_std[:, None].exp()), [TanhTransform()])
        found.append((actions, policy.log_prob(actions.clamp(-1 + 1e-6, 1 - 1e-6)).sum(-1)))
    uniform = torch.empty_like(found[0][0]).uniform_(-1, 1)
    density = torch.full(uniform.shape[:2], math.log(0.5) * uniform.shape[2])
    return tuple(torch.cat(parts, 1) for parts in zip((uniform, density), *found, strict=True))  # type: ignore[return-value]


# --- the conservative term ---


@pytest.mark.parametrize(("importance", "t"), [(True, 1.0), (True, 2.5), (False, 1.0), (False, 2.5)])
def test_gap_equals_a_loop_over_the_same_draws(importance: bool, t: float) -> None:
    episodes = three_ends()
    algo = make(CQL, episodes, samples=3, importance=importance, softmax_temperature=t)
    batch = everything(algo, episodes)
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
    assert float(algo.update(batch)["critic/gap"]) == pytest.approx(gap, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("t", [1.0, 0.5])
def test_the_estimate_converges_to_the_integral_over_all_actions(t: float) -> None:
    episodes = line()
    algo = make(CQL, episodes, softmax_temperature=t)
    with torch.no_grad():
        for p in algo.critics.parameters():
            p.mul_(2)  # far from flat
    batch = everything(algo, episodes)
    states = normal(algo, batch.observations)
    grid = np.linspace(-1, 1, 2001)
    with torch.no_grad():
        found = algo.log_sum_exp(states, *proposals(algo, batch, 20_000, seed=1))  # (2, 9)
        q = algo.critics(states, torch.from_numpy(grid).float()[None, :, None].expand(9, -1, -1))  # (2, 9, 2001)
    exact = t * np.log(scipy.integrate.simpson(np.exp(q.double().numpy() / t), x=grid, axis=-1))
    spread = np.ptp(q.numpy(), axis=-1)
    assert spread.max() > 0.5
    np.testing.assert_allclose(found.numpy(), exact, atol=0.02 * t)


@pytest.mark.parametrize("factor", [None, 1.0])
def test_gradient_in_parts_equals_plain_autograd(factor: float | None) -> None:
    """Seventy transitions, so that two parts are full and one is not."""
    episodes = three_ends()
    algo = make(CQL, episodes, samples=3, weight=2.0, lagrange=None if factor is None else 5.0)
    if factor is not None:
        algo.log_factor.data.fill_(factor)
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
        loss = loss + ((q - target) ** 2).mean() + 2.0 * math.exp(factor or 0.0) * penalty
    expected = torch.autograd.grad(loss, list(algo.critics.parameters()))
    found = gradients(algo, "critic")
    torch.manual_seed(4)
    algo.update(batch)
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("threshold", "direction"), [(1e4, -1), (1e-4, 1)])
def test_the_lagrange_factor_rises_while_the_gap_is_too_wide(threshold: float, direction: int) -> None:
    """Adam's first step is the learning rate, whatever the size of the gradient."""
    episodes = three_ends()
    algo = make(CQL, episodes, lagrange=threshold, lagrange_lr=0.01)
    batch = everything(algo, episodes)
    metrics = algo.update(batch)
    assert float(metrics["critic/factor"]) == 1.0
    assert 5.0 * float(metrics["critic/gap"]) > 1e-4
    assert algo.log_factor.item() == pytest.approx(0.01 * direction, rel=1e-3)
    assert float(algo.update(batch)["critic/factor"]) == pytest.approx(math.exp(0.01 * direction), rel=1e-4)


# --- SAC beneath it ---


@pytest.mark.parametrize(("max_target", "entropy_target"), [(False, False), (False, True), (True, False)])
def test_target_equals_a_loop(max_target: bool, entropy_target: bool) -> None:
    episodes = three_ends()
    algo = make(CQL, episodes, max_target=max_target, entropy_target=entropy_target, temperature=0.3)
    batch = everything(algo, episodes)
    actions, log_prob = (x[:, 8:] for x in proposals(algo, batch, 4, seed=2))  # those at s'
    expected = []
    for b in range(9):
        after = normal(algo, batch.next_observations[b])
        each = [values(algo.target_critics, after, action) for action in actions[b]]  # [draw][critic]
        least = min(max(q[i] for q in each) for i in range(2)) if max_target else min(each[0])
        least -= 0.3 * float(log_prob[b, 0]) if entropy_target else 0.0
        expected.append(float(batch.rewards[b]) + (0.0 if b in (2, 8) else GAMMA * least))
    with torch.no_grad():
        found = algo.targets(batch, actions, log_prob)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_one_kind_of_target_at_a_time() -> None:
    with pytest.raises(ValueError, match="set one of them"):
        CQL.Config(max_target=True, entropy_target=True)


def test_squared_error_equals_a_loop() -> None:
    episodes = three_ends()
    algo = make(CQL, episodes, samples=4)
    batch = everything(algo, episodes)
    actions, _ = proposals(algo, batch, 4, seed=2)
    loss = 0.0
    for b in range(9):
        after = normal(algo, batch.next_observations[b])
        least = min(values(algo.target_critics, after, actions[b, 8]))
        target = float(batch.rewards[b]) + (0.0 if b in (2, 8) else GAMMA * least)
        q = values(algo.critics, normal(algo, batch.observations[b]), scaled(batch.actions[b]))
        loss += sum((x - target) ** 2 for x in q) / 9
    torch.manual_seed(2)
    assert float(algo.update(batch)["critic/loss"]) == pytest.approx(loss, rel=1e-4)


def test_the_actor_clones_first_and_then_follows_the_critics() -> None:
    episodes = three_ends()
    algo = make(CQL, episodes, clone_steps=2, temperature=0.3, temperature_lr=0.0)
    batch = everything(algo, episodes)
    draws = recorded(algo.actor.head, "sample")
    states = normal(algo, batch.observations)
    for step in (1, 2, 3):
        with torch.no_grad():
            mean, log_std = algo.actor(states).chunk(2, -1)
        metrics = algo.update(batch)
        chosen, log_prob = draws[-1]
        expected = 0.0
        for b in range(9):
            policy = TransformedDistribution(Normal(mean[b], log_std[b].exp()), [TanhTransform()])
            gain = float(policy.log_prob(scaled(batch.actions[b])).sum())
            if step == 3:
                gain = min(values(algo.critics, states[b], chosen[b].detach()))
            expected += (0.3 * log_prob[b].item() - gain) / 9
        assert float(metrics["actor/loss"]) == pytest.approx(expected, rel=1e-3), step


@pytest.mark.parametrize(("log_std", "direction"), [(0.0, -1), (-3.0, 1)])
def test_the_temperature_keeps_the_entropy(log_std: float, direction: int) -> None:
    """The target is -A; a policy of too much entropy lowers the temperature, one of too little raises it."""
    episodes = three_ends()
    algo = make(CQL, episodes, temperature_lr=0.01)
    with torch.no_grad():
        algo.actor.head.out.weight.zero_()
        algo.actor.head.out.bias.copy_(torch.tensor([0.0, 0.0, log_std, log_std]))
    metrics = algo.update(everything(algo, episodes))
    assert (float(metrics["actor/entropy"]) > -2) == (direction == -1)
    assert algo.log_temperature.item() == pytest.approx(0.01 * direction, rel=1e-3)
    assert float(metrics["actor/temperature"]) == 1.0


def test_the_target_critics_follow_by_tau() -> None:
    episodes = three_ends()
    algo = make(CQL, episodes, tau=0.3)
    old = copied(algo.target_critics)
    algo.update(everything(algo, episodes))
    for t, b, s in zip(algo.target_critics.parameters(), old, algo.critics.parameters(), strict=True):
        torch.testing.assert_close(t, 0.7 * b + 0.3 * s.detach())


def test_only_terminations_stop_bootstrapping() -> None:
    episodes = three_ends()
    algo = make(CQL, episodes)
    batch = everything(algo, episodes)
    far = batch._replace(next_observations=batch.next_observations + 5)
    actions, log_prob = (x[:, -1:] for x in proposals(algo, batch, 1, seed=0))
    with torch.no_grad():
        here, there = (algo.targets(data, actions, log_prob) for data in (batch, far))
    assert (here == there).tolist() == [False, False, True, False, False, False, False, False, True]
    assert torch.equal(here[[2, 8]], batch.rewards[[2, 8]])


def test_needs_bounded_actions() -> None:
    with pytest.raises(ValueError, match=r"cql needs a bounded action space.*try iql, awac or bc"):
        make(CQL, without_bounds(three_ends()))
