"""Discrete IQL's three losses against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from rlalgo.batchrl.discrete_iql import DiscreteIQL
from tests.rlalgo.batchrl.discrete import (
    GAMMA,
    check_follows_slowly,
    everything,
    follows_gradient,
    make,
    normal,
    three_ends,
    values,
)


def by_hand(algo: DiscreteIQL, batch, expectile: float, beta: float, max_weight: float) -> dict[str, float]:
    value_losses, critic_losses, actor_losses, weights = [], [], [], []
    algo.eval()
    for i in range(9):
        state, after = normal(algo, batch.observations[i]), normal(algo, batch.next_observations[i])
        action = int(batch.actions[i])
        with torch.no_grad():
            v, onward = float(algo.value(state[None])), float(algo.value(after[None]))
            logits = algo.actor(state[None])[0].tolist()
        u = min(q[action] for q in values(algo.target_critics.copy, state)) - v
        value_losses.append((expectile if u > 0 else 1 - expectile) * u * u)
        target = float(batch.rewards[i]) + (0.0 if i in (2, 8) else GAMMA * onward)  # step 4 is cut, not ended
        critic_losses.append(sum((target - q[action]) ** 2 for q in values(algo.critics, state)))
        weights.append(min(math.exp(beta * u), max_weight))
        log_prob = logits[action] - math.log(sum(math.exp(x) for x in logits))
        actor_losses.append(-weights[-1] * log_prob)
    algo.train()
    return {
        "value/loss": sum(value_losses) / 9,
        "critic/loss": sum(critic_losses) / 9,
        "actor/loss": sum(actor_losses) / 9,
        "actor/weight": sum(weights) / 9,
    }


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize(("expectile", "beta", "max_weight"), [(0.7, 3.0, 100.0), (0.9, 1.0, 1.2), (0.5, 0.0, 100.0)])
def test_losses(dueling: bool, expectile: float, beta: float, max_weight: float) -> None:
    config = {"expectile": expectile, "beta": beta, "max_weight": max_weight}
    algo = make(DiscreteIQL, three_ends(), dueling=dueling, **config)
    batch = everything(algo, three_ends())
    wanted = by_hand(algo, batch, **config)
    got = {key: float(value) for key, value in algo.update(batch).items() if key in wanted}
    assert got == pytest.approx(wanted, rel=1e-4)


def test_the_smaller_of_two_target_critics_counts() -> None:
    algo = make(DiscreteIQL, three_ends())
    batch = everything(algo, three_ends())
    pairs = [values(algo.target_critics.copy, normal(algo, row)) for row in batch.observations]
    smaller = [q[0][int(a)] < q[1][int(a)] for q, a in zip(pairs, batch.actions, strict=True)]
    assert 0 < sum(smaller) < 9  # so that neither one alone passes test_losses


def test_each_loss_trains_its_own_network_and_the_target_follows() -> None:
    algo = make(DiscreteIQL, three_ends(), tau=0.1, actor_lr=1e-3, critic_lr=2e-3)
    batch = everything(algo, three_ends())
    actor, rest = algo.optimizers["model"].param_groups
    assert (actor["lr"], rest["lr"]) == (1e-3, 2e-3)
    states, taken = normal(algo, batch.observations), batch.actions
    rows = torch.arange(9)
    best = algo.target_critics(states)[:, rows, taken].amin(0)
    v, q = algo.value(states), algo.critics(states)[:, rows, taken]
    after = algo.value(normal(algo, batch.next_observations))
    target = (batch.rewards + GAMMA * (1 - batch.terminals) * after).detach()
    u, weight = best - v, (3 * (best - v)).exp().clamp(max=100).detach()
    actor_loss = -(weight * algo.actor(states).log_softmax(-1)[rows, taken]).mean()
    critic_loss = ((q - target) ** 2).mean(1).sum()
    value_loss = (torch.where(u > 0, 0.7, 0.3) * u**2).mean()
    follows_gradient(algo, batch, "model", actor_loss + critic_loss + value_loss)
    check_follows_slowly(algo, batch, algo.critics, algo.target_critics, 0.1)


def test_a_constant_state_gets_the_expectile_of_its_values() -> None:
    """One state whose three actions end with rewards 0, 1 and 2: Q is the reward, V the expectile, pi follows beta."""
    episodes = three_ends()
    actions = torch.arange(9) % 3
    batch = everything(make(DiscreteIQL, episodes), episodes)._replace(
        observations=torch.zeros(9, 2), actions=actions, rewards=actions.float(), terminals=torch.ones(9)
    )
    config = {"actor_lr": 0.01, "critic_lr": 0.01, "tau": 0.1, "expectile": 0.8, "beta": 2.0, "normalize": False}
    algo = make(DiscreteIQL, episodes, total_steps=1500, **config)
    for _ in range(1500):
        algo.update(batch)
    state = torch.zeros(1, 2)
    assert algo.critics(state)[0, 0].tolist() == pytest.approx([0, 1, 2], abs=0.02)
    v = algo.value(state).item()
    # The 0.8-expectile of {0, 1, 2} solves 0.8 sum (x - v)+ = 0.2 sum (v - x)+: 0.8 (2 - v) = 0.2 (2 v - 1).
    assert v == pytest.approx(1.5, abs=0.02)
    assert algo(state).softmax(-1)[0].tolist() == pytest.approx(
        [math.exp(2 * q) / sum(math.exp(2 * x) for x in range(3)) for q in range(3)], abs=0.02
    )


def test_sampled_actions_follow_the_logits_and_greedy_ones_do_not_vary() -> None:
    algo = make(DiscreteIQL, three_ends())
    batch = everything(algo, three_ends())
    n = 3000
    with torch.no_grad():
        chances = algo(batch.observations[:1]).softmax(-1)[0]
    torch.manual_seed(1)
    drawn = algo.policy([DiscreteIQL.PolicyConfig(sample=True)] * n).act(
        batch.observations[:1].expand(n, -1), torch.arange(n)
    )
    assert (drawn.bincount(minlength=3) / n).tolist() == pytest.approx(chances.tolist(), abs=0.04)
    greedy = algo.policy([DiscreteIQL.PolicyConfig()] * 9).act(batch.observations, torch.arange(9))
    assert greedy.tolist() == algo.predict(batch).tolist()
