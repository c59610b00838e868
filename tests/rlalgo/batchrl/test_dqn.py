"""DQN's and discrete CQL's targets, losses and dueling values against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rlalgo import Episodes
from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    check_gradients,
    everything,
    make,
    normal,
    three_ends,
    values,
)
from tests.rlutils.runs import equal


def data() -> Episodes:
    return three_ends("discrete")


def targets_by_hand(algo: Any, batch: Any, double: bool = True) -> list[float]:
    found = []
    for i in range(9):
        after = normal(algo, batch.next_observations[i])
        old, new = values(algo.target_critic, after)[0], values(algo.critic, after)[0]
        value = old[new.index(max(new))] if double else max(old)
        found.append(float(batch.rewards[i]) + (0.0 if i in TERMINAL else GAMMA * value))
    return found


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
def test_targets(double: bool, dueling: bool) -> None:
    algo = make("dqn", data(), double=double, dueling=dueling)
    batch = everything(algo, data())
    assert algo.targets(batch).tolist() == pytest.approx(targets_by_hand(algo, batch, double), abs=1e-5)
    assert targets_by_hand(algo, batch, double) != targets_by_hand(algo, batch, not double)
    assert not algo.targets(batch).requires_grad


@pytest.mark.parametrize("name", ["dqn", "discrete_cql"])
@pytest.mark.parametrize("dueling", [True, False])
def test_the_losses_are_a_mean_huber_loss_and_a_mean_gap(name: str, dueling: bool) -> None:
    algo = make(name, data(), dueling=dueling)
    batch = everything(algo, data())
    batch = batch._replace(rewards=batch.rewards * 3)  # so that there are errors above and below 1
    errors, gaps = [], []
    for i, target in enumerate(targets_by_hand(algo, batch)):
        q = values(algo.critic, normal(algo, batch.observations[i]))[0]
        taken = q[int(batch.actions[i])]
        errors.append(abs(taken - target))
        gaps.append(math.log(sum(math.exp(value) for value in q)) - taken)
    assert min(errors) < 1 < max(errors)
    metrics = algo.update(batch, 1)
    loss = sum(0.5 * e * e if e < 1 else e - 0.5 for e in errors) / 9
    assert float(metrics["critic/loss"]) == pytest.approx(loss, rel=1e-5)
    assert ("critic/gap" in metrics) == (name == "discrete_cql")
    if name == "discrete_cql":
        assert float(metrics["critic/gap"]) == pytest.approx(sum(gaps) / 9, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_an_update_goes_down_error_plus_weight_times_gap(weight: float) -> None:
    algo = make("dqn", data(), conservative_weight=weight)
    batch = everything(algo, data())
    q = algo.values(batch.observations)
    taken = q[torch.arange(9), batch.actions]
    error = F.smooth_l1_loss(taken, torch.tensor(targets_by_hand(algo, batch)))
    check_gradients(algo, "critic", batch, error + weight * (q.exp().sum(1).log() - taken).mean())


def test_discrete_cql_is_dqn_with_a_weight_of_one_bit_for_bit() -> None:
    found = []
    for name, options in (("dqn", {"conservative_weight": 1.0}), ("discrete_cql", {}), ("dqn", {})):
        algo = make(name, data(), **options)
        found.append([algo.update(everything(algo, data()), step) for step in range(1, 5)])
    assert equal(found[0], found[1])
    assert not equal([metrics["critic/loss"] for metrics in found[0]], [m["critic/loss"] for m in found[2]])


def test_values_of_actions_that_the_data_lacks_fall_behind() -> None:
    """One state, action 0 alone in the data, no reward: without the term all values would go to 0."""
    algo = make("discrete_cql", data(), lr=0.02, normalize=False)
    batch = everything(algo, data())._replace(
        observations=torch.zeros(9, 2), actions=torch.zeros(9, dtype=torch.int64), rewards=torch.zeros(9),
        terminals=torch.ones(9),
    )  # fmt: skip
    for step in range(1, 301):
        algo.update(batch, step)
    q = algo.values(torch.zeros(1, 2))[0].tolist()
    assert q[0] > max(q[1:]) + 3


def test_dueling_advantages_have_mean_zero() -> None:
    algo = make("dqn", data(), dueling=True)
    states = normal(algo, everything(algo, data()).observations)
    with torch.no_grad():
        q = algo.critic(states)  # (1, 9, 3)
        value = algo.critic.value(states.expand(1, -1, -1))  # (1, 9, 1)
        raw = algo.critic.members(states.expand(1, -1, -1))
    torch.testing.assert_close(q.mean(-1, keepdim=True), value)
    torch.testing.assert_close(q - q[..., :1], raw - raw[..., :1])
    assert raw.mean(-1).abs().max() > 0.1  # the advantages' own mean is taken away


def test_acts_greedily() -> None:
    algo = make("dqn", data())
    batch = everything(algo, data())
    q = [values(algo.critic, normal(algo, row))[0] for row in batch.observations]
    assert algo.predict(batch).tolist() == [row.index(max(row)) for row in q]
