"""IQL against plain loops, and expectiles against scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Normal

from rlalgo.batchrl.iql import IQL
from rlalgo.nets import expectile_loss
from tests.rlalgo.batchrl.actor_critic import (
    GAMMA,
    copied,
    everything,
    gradients,
    make,
    normal,
    scaled,
    three_ends,
    values,
    without_bounds,
)


def density(mean: list[float], std: list[float], action: list[float]) -> float:
    """Log density of independent Gaussians."""
    return sum(
        -0.5 * ((a - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
        for m, s, a in zip(mean, std, action, strict=True)
    )


def test_all_losses_equal_a_loop() -> None:
    episodes = three_ends()
    algo = make(IQL, episodes, beta=3.0, max_weight=1.3, expectile=0.8, reward_scale=2.5)
    algo.actor.head.log_std.data = torch.tensor([-0.7, 0.4])
    batch = everything(algo, episodes)
    value_loss = critic_loss = actor_loss = 0.0
    weights = []
    with torch.no_grad():
        for b in range(9):
            state, after = normal(algo, batch.observations[b]), normal(algo, batch.next_observations[b])
            action = scaled(batch.actions[b])
            v, later = (float(algo.value(x[None])) for x in (state, after))
            u = min(values(algo.target_critics, state, action)) - v
            value_loss += (0.2 if u < 0 else 0.8) * u * u / 9
            target = 2.5 * float(batch.rewards[b]) + (0.0 if b in (2, 8) else GAMMA * later)
            critic_loss += sum((q - target) ** 2 for q in values(algo.critics, state, action)) / 9
            weights.append(min(math.exp(3.0 * u), 1.3))
            mean = algo.actor(state[None])[0].tolist()
            actor_loss -= weights[-1] * density(mean, [math.exp(-0.7), math.exp(0.4)], action.tolist()) / 9
    assert 1.3 in weights
    assert min(weights) < 1
    metrics = algo.update(batch)
    assert float(metrics["value/loss"]) == pytest.approx(value_loss, rel=1e-4)
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-4)
    assert float(metrics["actor/weight"]) == pytest.approx(sum(weights) / 9, rel=1e-4)


def test_gradients_stay_where_they_belong() -> None:
    """Critics learn from no gradient of V, V from none of Q, and the actor takes the weights as constants."""
    episodes = three_ends()
    algo = make(IQL, episodes)
    batch = everything(algo, episodes)
    found = gradients(algo, "model")
    algo.update(batch)
    algo = make(IQL, episodes)
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    best = algo.target_critics(states, actions).amin(0)
    v, q = algo.value(states), algo.critics(states, actions)
    target = algo.reward_scale * batch.rewards + GAMMA * (1 - batch.terminals) * algo.value(
        normal(algo, batch.next_observations)
    )
    weight = (3 * (best - v)).exp().clamp(max=100).detach()
    policy = Normal(algo.actor(states), algo.actor.head.log_std.exp())
    u = best - v
    losses = {
        "critics": ((q - target.detach()) ** 2).mean(1).sum(),
        "value": (torch.where(u > 0, 0.7, 0.3) * u**2).mean(),
        "actor": -(weight * policy.log_prob(actions).sum(-1)).mean(),
    }
    expected = {
        name: torch.autograd.grad(loss, list(getattr(algo, name).parameters()), retain_graph=True)
        for name, loss in losses.items()
    }
    for got, wanted in zip(found, expected["actor"] + expected["critics"] + expected["value"], strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-3)


def test_expectile_loss_element_by_element() -> None:
    u = torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0])
    expected = [0.1 * 4, 0.1 * 0.25, 0.0, 0.9 * 0.25, 0.9 * 9]
    torch.testing.assert_close(expectile_loss(u, 0.9), torch.tensor(expected))
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u**2)


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_the_value_of_a_state_becomes_the_expectile_of_its_actions_values(expectile: float) -> None:
    """Twenty actions at one state, the target critics held: the least of the loss is known to scipy."""
    episodes = three_ends()
    algo = make(IQL, episodes, expectile=expectile, critic_lr=1e-2, normalize=False)
    algo.target_critics.follow = lambda tau: None
    batch = everything(algo, episodes)
    actions = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 4.0])
    actions[:, 0] -= 1
    one = torch.zeros(20, dtype=torch.int64)
    many = type(batch)(*(column[one] for column in batch))._replace(actions=actions)
    best = [min(values(algo.target_critics, batch.observations[0], scaled(a))) for a in actions]
    for _ in range(300):
        algo.update(many)
    found = float(algo.value(batch.observations[:1]).detach())
    assert found == pytest.approx(scipy.stats.expectile(best, expectile), abs=0.02 * float(np.std(best)))


def test_the_target_critics_follow_by_tau() -> None:
    episodes = three_ends()
    algo = make(IQL, episodes, tau=0.3)
    old = copied(algo.target_critics)
    algo.update(everything(algo, episodes))
    for t, b, s in zip(algo.target_critics.parameters(), old, algo.critics.parameters(), strict=True):
        torch.testing.assert_close(t, 0.7 * b + 0.3 * s.detach())


def test_rewards_are_scaled_by_the_datas_returns() -> None:
    episodes = three_ends()
    r = episodes.rewards.tolist()
    returns = [sum(r[:3]), sum(r[3:5]), sum(r[5:])]
    algo = make(IQL, episodes)
    assert float(algo.reward_scale) == pytest.approx(1000 / (max(returns) - min(returns)), rel=1e-5)
    assert float(make(IQL, episodes, reward_scale=0.5).reward_scale) == 0.5
    for equal in (torch.zeros(9), torch.tensor([1.0, 2, 3, 3, 3, 6, 0, 0, 1e-7])):  # returns 0; 6 but for rounding
        assert float(make(IQL, replace(episodes, rewards=equal)).reward_scale) == 1.0
    other = IQL(episodes.spec, algo.config)
    other.load_state_dict(algo.state_dict())
    assert float(other.reward_scale) == float(algo.reward_scale)


def test_the_actors_learning_rate_alone_falls_to_zero_by_a_cosine() -> None:
    episodes = three_ends()
    algo = make(IQL, episodes, total_steps=8, actor_lr=1e-3, critic_lr=2e-3)
    batch = everything(algo, episodes)
    for step in range(9):
        expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / 8))
        actor, values = algo.optimizers["model"].param_groups
        assert {id(p) for p in actor["params"]} == {id(p) for p in algo.actor.parameters()}
        assert actor["lr"] == pytest.approx(expected, abs=1e-12)
        assert values["lr"] == 2e-3
        algo.update(batch)


def test_no_weights_at_all_clone_the_data() -> None:
    """beta 0 is the mean of -log density, whatever the values are."""
    episodes = three_ends()
    algo = make(IQL, episodes, beta=0.0)
    metrics = algo.update(everything(algo, episodes))
    assert float(metrics["actor/weight"]) == 1.0


def test_only_terminations_stop_bootstrapping() -> None:
    episodes = three_ends()
    algo = make(IQL, episodes, reward_scale=1.0)
    batch = everything(algo, episodes)
    for step, matters in ((2, False), (4, True), (8, False), (0, True)):
        far = batch.next_observations.clone()
        far[step] += 50
        losses = []
        for data in (batch, batch._replace(next_observations=far)):
            twin = make(IQL, episodes, reward_scale=1.0)
            twin.load_state_dict(algo.state_dict())
            losses.append(float(twin.update(data)["critic/loss"]))
        assert (losses[0] != losses[1]) == matters, step


def test_takes_actions_without_bounds_as_they_are() -> None:
    episodes = without_bounds(three_ends())
    algo = make(IQL, episodes, normalize=False, reward_scale=1.0)
    batch = everything(algo, episodes)
    with torch.no_grad():
        v = algo.value(batch.next_observations)
        q = algo.critics(batch.observations, batch.actions)
        expected = (q - batch.rewards - GAMMA * (1 - batch.terminals) * v).square().mean(1).sum()
    assert float(algo.update(batch)["critic/loss"]) == pytest.approx(float(expected), rel=1e-5)
    policy = algo.policy([IQL.PolicyConfig()])
    seen = torch.full((1, 3), 1e4)
    policy.reset(torch.zeros(1, dtype=torch.int64))
    assert policy.act(seen, torch.zeros(1, dtype=torch.int64)).abs().max() > 4  # not squashed


def test_a_policy_samples_where_asked() -> None:
    episodes = three_ends()
    algo = make(IQL, episodes)
    algo.actor.head.log_std.data.fill_(math.log(0.1))
    n = 2000
    policy = algo.policy([IQL.PolicyConfig(sample=True)] * n + [IQL.PolicyConfig()])
    rows = torch.arange(n + 1)
    policy.reset(rows)
    acted = scaled(policy.act(torch.zeros(n + 1, 3), rows))
    with torch.no_grad():
        mean = algo(torch.zeros(1, 3))[0]
    torch.testing.assert_close(acted[n], mean)
    inside = mean.abs() < 0.6  # where the bounds cut nothing off
    assert inside.any()
    torch.testing.assert_close(acted[:n].mean(0)[inside], mean[inside], atol=0.01, rtol=0)
    torch.testing.assert_close(acted[:n].std(0)[inside], torch.full((2,), 0.1)[inside], atol=0.01, rtol=0)
