"""IQL against plain loops, with continuous and discrete actions, and expectiles against scipy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Categorical, Normal

from rlalgo.nets import expectile_loss
from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    check_gradients,
    everything,
    make,
    normal,
    parameters,
    scaled,
    three_ends,
    values,
)

LOG_STD = [-0.7, 0.4]
KINDS = [("box", {}), ("discrete", {}), ("discrete", {"dueling": True})]


def of_kind(kind: str, **options: Any) -> Any:
    """With advantages of both signs."""
    algo = make("iql", three_ends(kind), **options)
    if kind == "box":
        algo.actor[1].log_std.data = torch.tensor(LOG_STD)
    batch = everything(algo, three_ends(kind))
    states = normal(algo, batch.observations)
    with torch.no_grad():
        best = algo.target_critics(states, scaled(batch.actions)).amin(0)
        algo.value[1].bias += (best - algo.value(states)).median()
    return algo


def log_density(policy: Any, action: Any) -> float:
    """Of one action under the policy at one state."""
    if isinstance(action, int):
        row = policy.logits[0].tolist()
        return row[action] - math.log(sum(math.exp(x) for x in row))
    return sum(
        -0.5 * ((a - m) / math.exp(s)) ** 2 - s - 0.5 * math.log(2 * math.pi)
        for m, s, a in zip(policy.mode()[0].tolist(), LOG_STD, action, strict=True)
    )


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize(("expectile", "beta", "max_weight"), [(0.8, 3.0, 1.3), (0.9, 1.0, 1.2), (0.5, 0.0, 100.0)])
def test_all_losses_equal_a_loop(
    kind: str, options: dict[str, Any], expectile: float, beta: float, max_weight: float
) -> None:
    algo = of_kind(kind, beta=beta, max_weight=max_weight, expectile=expectile, reward_scale=2.5, **options)
    batch = everything(algo, three_ends(kind))
    value_loss = critic_loss = actor_loss = 0.0
    weights, first_is_less = [], []
    with torch.no_grad():
        for b in range(9):
            state, after = normal(algo, batch.observations[b]), normal(algo, batch.next_observations[b])
            action = scaled(batch.actions[b])
            v, later = (float(algo.value(x[None])) for x in (state, after))
            pair = values(algo.target_critics, state, action)
            first_is_less.append(pair[0] < pair[1])
            u = min(pair) - v
            value_loss += (1 - expectile if u < 0 else expectile) * u * u / 9
            target = 2.5 * float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * later)
            critic_loss += sum((q - target) ** 2 for q in values(algo.critics, state, action)) / 9
            weights.append(min(math.exp(beta * u), max_weight))
            actor_loss -= weights[-1] * log_density(algo.actor(state[None]), action.tolist()) / 9
    assert 0 < sum(first_is_less) < 9  # so that neither target critic alone passes
    assert max_weight in weights or not beta
    assert min(weights) < 1 or not beta
    metrics = algo.update(batch, 1)
    assert float(metrics["value/loss"]) == pytest.approx(value_loss, rel=1e-4)
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-4)
    assert float(metrics["actor/weight"]) == pytest.approx(sum(weights) / 9, rel=1e-4)
    if not beta:  # clones the data, whatever the values are
        assert float(metrics["actor/weight"]) == 1.0


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_gradients_stay_where_they_belong(kind: str) -> None:
    """Critics learn from no gradient of V, V from none of Q, and the actor takes the weights as constants."""
    algo = of_kind(kind, reward_scale=0.5)
    batch = everything(algo, three_ends(kind))
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    best = algo.target_critics(states, actions).amin(0)
    v, q = algo.value(states), algo.critics(states, actions)
    target = 0.5 * batch.rewards + GAMMA * (1 - batch.terminals) * algo.value(normal(algo, batch.next_observations))
    weight = (3 * (best - v)).exp().clamp(max=100).detach()
    policy = algo.actor(states)
    if kind == "box":
        log_prob = Normal(policy.mode(), algo.actor[1].log_std.exp()).log_prob(actions).sum(-1)
    else:
        log_prob = Categorical(logits=policy.logits).log_prob(actions)
    u = best - v
    value_loss = (torch.where(u > 0, 0.7, 0.3) * u**2).mean()
    critic_loss = ((q - target.detach()) ** 2).mean(1).sum()
    check_gradients(algo, "model", batch, value_loss + critic_loss - (weight * log_prob).mean())


def test_expectile_loss_element_by_element() -> None:
    u = torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0])
    expected = [0.1 * 4, 0.1 * 0.25, 0.0, 0.9 * 0.25, 0.9 * 9]
    torch.testing.assert_close(expectile_loss(u, 0.9), torch.tensor(expected))
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u**2)


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_the_value_of_a_state_becomes_the_expectile_of_its_actions_values(expectile: float) -> None:
    """Twenty actions at one state, the target critics held: the least of the loss is known to scipy."""
    algo = make("iql", three_ends(), expectile=expectile, critic_lr=1e-2, normalize=False)
    algo.target_critics.follow = lambda tau: None
    batch = everything(algo, three_ends())
    actions = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 4.0])
    actions[:, 0] -= 1
    one = torch.zeros(20, dtype=torch.int64)
    many = type(batch)(*(column[one] for column in batch))._replace(actions=actions)
    best = [min(values(algo.target_critics, batch.observations[0], scaled(a))) for a in actions]
    for step in range(1, 301):
        algo.update(many, step)
    found = float(algo.value(batch.observations[:1]).detach())
    assert found == pytest.approx(scipy.stats.expectile(best, expectile), abs=0.02 * float(np.std(best)))


def test_a_constant_state_gets_the_expectile_of_its_values_and_the_policy_their_weights() -> None:
    """One state whose three actions end with rewards 0, 1 and 2: Q is the reward, V the expectile, pi follows beta."""
    config = {"actor_lr": 0.01, "critic_lr": 0.01, "tau": 0.1, "expectile": 0.8, "beta": 2.0, "normalize": False}
    algo = make("discrete_iql", three_ends("discrete"), total_steps=800, **config)
    actions = torch.arange(9) % 3
    batch = everything(algo, three_ends("discrete"))._replace(
        observations=torch.zeros(9, 2), actions=actions, rewards=actions.float(), terminals=torch.ones(9)
    )
    for step in range(1, 801):
        algo.update(batch, step)
    state = torch.zeros(1, 2)
    assert algo.critics(state)[0, 0].tolist() == pytest.approx([0, 1, 2], abs=0.02)
    # The 0.8-expectile of {0, 1, 2} solves 0.8 sum (x - v)+ = 0.2 sum (v - x)+: 0.8 (2 - v) = 0.2 (2 v - 1).
    assert algo.value(state).item() == pytest.approx(1.5, abs=0.02)
    assert algo(state).logits.softmax(-1)[0].tolist() == pytest.approx(
        [math.exp(2 * q) / sum(math.exp(2 * x) for x in range(3)) for q in range(3)], abs=0.02
    )


def test_rewards_are_scaled_by_the_datas_returns_where_that_is_asked_for() -> None:
    episodes = three_ends()
    r = episodes.rewards.tolist()
    returns = [sum(r[:3]), sum(r[3:5]), sum(r[5:])]
    algo = make("iql", episodes, reward_scale="auto")
    assert float(algo.reward_scale) == pytest.approx(1000 / (max(returns) - min(returns)), rel=1e-5)
    assert float(make("iql", episodes, reward_scale=0.5).reward_scale) == 0.5
    for name, data in (("iql", episodes), ("discrete_iql", three_ends("discrete"))):
        assert float(make(name, data).reward_scale) == 1.0
    for equal in (torch.zeros(9), torch.tensor([1.0, 2, 3, 3, 3, 6, 0, 0, 1e-7])):  # returns 0; 6 but for rounding
        assert float(make("iql", replace(episodes, rewards=equal), reward_scale="auto").reward_scale) == 1.0
    other = type(algo)(episodes.spec, algo.config)
    other.load_state_dict(algo.state_dict())
    assert float(other.reward_scale) == float(algo.reward_scale)


def test_the_actors_learning_rate_alone_falls_to_zero_by_a_cosine() -> None:
    algo = make("iql", three_ends(), total_steps=8, actor_lr=1e-3, critic_lr=2e-3)
    batch = everything(algo, three_ends())
    for step in range(9):
        expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / 8))
        actor, rest = algo.optimizers["model"].param_groups
        assert {id(p) for p in actor["params"]} == {id(p) for p in algo.actor.parameters()}
        assert len(actor["params"]) + len(rest["params"]) == len(parameters(algo, "model"))
        assert actor["lr"] == pytest.approx(expected, abs=1e-12)
        assert rest["lr"] == 2e-3
        algo.update(batch, step + 1)


def test_dueling_is_for_discrete_actions() -> None:
    with pytest.raises(ValueError, match=r"dueling is for discrete actions, got Box.*set it to false"):
        make("iql", three_ends(), dueling=True)
