"""Discrete CQL: the conservative gap and the rest of the loss against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rlalgo.batchrl.discrete_cql import DiscreteCQL
from rlalgo.batchrl.dqn import DQN
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


@pytest.mark.parametrize("dueling", [True, False])
def test_gap_and_error(dueling: bool) -> None:
    algo = make(DiscreteCQL, three_ends(), dueling=dueling)
    batch = everything(algo, three_ends())
    gaps, errors = [], []
    for i in range(9):
        q = values(algo.critic, normal(algo, batch.observations[i]))[0]
        after = normal(algo, batch.next_observations[i])
        mine, theirs = values(algo.critic, after)[0], values(algo.target_critic.copy, after)[0]
        onward = 0.0 if i in (2, 8) else GAMMA * theirs[mine.index(max(mine))]  # step 4 is cut, not ended
        taken = q[int(batch.actions[i])]
        gaps.append(math.log(sum(math.exp(value) for value in q)) - taken)
        e = abs(float(batch.rewards[i]) + onward - taken)
        errors.append(0.5 * e * e if e < 1 else e - 0.5)
    metrics = algo.update(batch)
    assert float(metrics["critic/gap"]) == pytest.approx(sum(gaps) / 9, rel=1e-5)
    assert float(metrics["critic/loss"]) == pytest.approx(sum(errors) / 9, rel=1e-5)


def test_an_update_goes_down_error_plus_weight_times_gap_and_the_target_follows() -> None:
    algo = make(DiscreteCQL, three_ends(), weight=2.5, tau=0.1)
    batch = everything(algo, three_ends())
    q = algo(batch.observations)
    taken = q[torch.arange(9), batch.actions]
    loss = F.smooth_l1_loss(taken, algo.targets(batch)) + 2.5 * (q.exp().sum(1).log() - taken).mean()
    follows_gradient(algo, batch, "critic", loss)
    check_follows_slowly(algo, batch, algo.critic, algo.target_critic, 0.1)


def test_without_weight_it_is_double_dqn() -> None:
    cql, dqn = make(DiscreteCQL, three_ends(), weight=0.0), make(DQN, three_ends(), double=True)
    batch = everything(cql, three_ends())
    for _ in range(5):
        cql.update(batch)
        dqn.update(batch)
    assert cql.state_dict().keys() == dqn.state_dict().keys()
    for got, want in zip(cql.state_dict().values(), dqn.state_dict().values(), strict=True):
        torch.testing.assert_close(got, want)


def test_values_of_actions_that_the_data_lacks_fall_behind() -> None:
    """One state, action 0 alone in the data, no reward: without the term all values would go to 0."""
    episodes = three_ends()
    batch = everything(make(DiscreteCQL, episodes), episodes)._replace(
        observations=torch.zeros(9, 2), actions=torch.zeros(9, dtype=torch.int64), rewards=torch.zeros(9),
        terminals=torch.ones(9),
    )  # fmt: skip
    algo = make(DiscreteCQL, episodes, weight=1.0, lr=0.02, normalize=False)
    for _ in range(300):
        algo.update(batch)
    q = algo(torch.zeros(1, 2))[0].tolist()
    assert q[0] > max(q[1:]) + 3
