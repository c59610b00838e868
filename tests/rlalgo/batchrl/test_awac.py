"""AWAC against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from rlalgo.batchrl.awac import AWAC
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


def test_all_losses_equal_a_loop_over_the_same_draws() -> None:
    episodes = three_ends()
    algo = make(AWAC, episodes, lam=0.5, max_weight=1.05, samples=4)
    algo.actor.head.log_std.data = torch.tensor([-0.7, 0.4])
    batch = everything(algo, episodes)
    old = make(AWAC, episodes, samples=4)
    old.load_state_dict(algo.state_dict())
    draws = recorded(algo.actor.head, "sample")
    metrics = algo.update(batch)
    after_draws, draws_here = draws  # (9, 2), (9, 4, 2)
    assert draws_here.shape == (9, 4, 2)
    critic_loss = actor_loss = 0.0
    weights = []
    for b in range(9):
        state, after = normal(algo, batch.observations[b]), normal(algo, batch.next_observations[b])
        action = scaled(batch.actions[b])
        least = min(values(old.target_critics, after, after_draws[b]))
        target = float(batch.rewards[b]) + (0.0 if b in (2, 8) else GAMMA * least)
        critic_loss += sum((q - target) ** 2 for q in values(old.critics, state, action)) / 9
        # The actor learns from the critics as they are after their step.
        v = sum(min(values(algo.critics, state, draw)) for draw in draws_here[b]) / 4
        advantage = min(values(algo.critics, state, action)) - v
        weights.append(min(math.exp(advantage / 0.5), 1.05))
        mean = old.actor(state[None])[0].detach()
        log_prob = Normal(mean, torch.tensor([-0.7, 0.4]).exp()).log_prob(action).sum()
        actor_loss -= weights[-1] * float(log_prob) / 9
    assert 1.05 in weights
    assert min(weights) < 1
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/weight"]) == pytest.approx(sum(weights) / 9, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-4)


def test_draws_for_the_target_come_from_the_present_actor() -> None:
    """With next to no spread the draw at s' is the actor's mean there."""
    episodes = three_ends()
    algo = make(AWAC, episodes)
    algo.actor.head.log_std.data.fill_(-5.0)
    batch = everything(algo, episodes)
    draws = recorded(algo.actor.head, "sample")
    with torch.no_grad():
        mean = algo.actor(normal(algo, batch.next_observations))
    algo.update(batch)
    assert 0 < (draws[0] - mean).abs().max() < 0.05


def test_the_weights_are_constants_to_the_actor() -> None:
    """Its gradient is that of the weighted log density alone: none comes through the draws."""
    episodes = three_ends()
    algo, twin = make(AWAC, episodes, samples=4), make(AWAC, episodes, samples=4)
    batch = everything(algo, episodes)
    weights, found = recorded(algo, "weights"), gradients(algo, "actor")
    algo.update(batch)
    policy = Normal(twin.actor(normal(twin, batch.observations)), twin.actor.head.log_std.exp())
    loss = -(weights[0] * policy.log_prob(scaled(batch.actions)).sum(-1)).mean()
    expected = torch.autograd.grad(loss, list(twin.actor.parameters()))
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_the_target_critics_follow_by_tau() -> None:
    episodes = three_ends()
    algo = make(AWAC, episodes, tau=0.3)
    old = copied(algo.target_critics)
    algo.update(everything(algo, episodes))
    for t, b, s in zip(algo.target_critics.parameters(), old, algo.critics.parameters(), strict=True):
        torch.testing.assert_close(t, 0.7 * b + 0.3 * s.detach())


def test_only_terminations_stop_bootstrapping() -> None:
    episodes = three_ends()
    algo = make(AWAC, episodes)
    batch = everything(algo, episodes)
    for step, matters in ((2, False), (4, True), (8, False), (0, True)):
        far = batch.next_observations.clone()
        far[step] += 50
        losses = []
        for data in (batch, batch._replace(next_observations=far)):
            twin = make(AWAC, episodes)
            twin.load_state_dict(algo.state_dict())
            torch.manual_seed(2)
            losses.append(float(twin.update(data)["critic/loss"]))
        assert (losses[0] != losses[1]) == matters, step


def test_takes_actions_without_bounds_as_they_are() -> None:
    episodes = without_bounds(three_ends())
    algo = make(AWAC, episodes, normalize=False)
    batch = everything(algo, episodes)
    draws = recorded(algo.actor.head, "sample")
    with torch.no_grad():
        q = algo.critics(batch.observations, batch.actions)
    twin = make(AWAC, episodes, normalize=False)
    metrics = algo.update(batch)
    with torch.no_grad():
        least = twin.target_critics(batch.next_observations, draws[0]).amin(0)
    expected = (q - batch.rewards - GAMMA * (1 - batch.terminals) * least).square().mean(1).sum()
    assert float(metrics["critic/loss"]) == pytest.approx(float(expected), rel=1e-5)
