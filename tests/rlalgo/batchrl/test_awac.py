"""AWAC against plain loops."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    check_gradients,
    everything,
    make,
    normal,
    scaled,
    three_ends,
    values,
)


def draws(policy: Normal, noise: Tensor) -> Tensor:
    """Cut off where the action space ends."""
    return (policy.mean + policy.stddev * noise).clamp(-1, 1)


def test_all_losses_equal_a_loop_over_the_same_draws() -> None:
    """The target's draws come from the present actor at s', those of the advantage at s."""
    algo = make("awac", three_ends(), lam=0.5, max_weight=1.05, n_action_samples=4)
    log_std = torch.tensor([-0.7, 0.4])
    algo.actor[1].log_std.data = log_std.clone()
    batch = everything(algo, three_ends())
    old = copy.deepcopy(algo)
    torch.manual_seed(1)
    metrics = algo.update(batch, 1)
    torch.manual_seed(1)
    after_noise, noise = torch.randn(9, 2), torch.randn(9, 4, 2)
    critic_loss = actor_loss = 0.0
    weights = []
    for b in range(9):
        state, after = normal(algo, batch.observations[b]), normal(algo, batch.next_observations[b])
        action = scaled(batch.actions[b])
        here, there = (Normal(old.actor(s[None]).mode()[0].detach(), log_std.exp()) for s in (state, after))
        least = min(values(old.target_critics, after, draws(there, after_noise[b])))
        target = float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * least)
        critic_loss += sum((q - target) ** 2 for q in values(old.critics, state, action)) / 9
        # The actor learns from the critics as they are after their step.
        v = sum(min(values(algo.critics, state, draw)) for draw in draws(here, noise[b])) / 4
        advantage = min(values(algo.critics, state, action)) - v
        weights.append(min(math.exp(advantage / 0.5), 1.05))
        actor_loss -= weights[-1] * float(here.log_prob(action).sum()) / 9
    assert 1.05 in weights
    assert min(weights) < 1
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/weight"]) == pytest.approx(sum(weights) / 9, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-4)


def test_the_weights_are_constants_to_the_actor() -> None:
    """Its gradient is that of the weighted log density alone: none comes through the draws."""
    algo = make("awac", three_ends(), critic_lr=1e-9, n_action_samples=4)
    batch = everything(algo, three_ends())
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    policy = algo.actor(states)
    torch.manual_seed(0)
    torch.randn(9, 2)  # the draws at s'
    weights = algo.weights(states, actions, policy)
    plain = Normal(policy.mode(), algo.actor[1].log_std.exp())
    check_gradients(algo, "actor", batch, -(weights * plain.log_prob(actions).sum(-1)).mean())
