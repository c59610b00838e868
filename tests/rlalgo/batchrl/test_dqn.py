"""DQN's targets, loss and dueling values against plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

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


def targets_by_hand(algo: DQN, batch, double: bool) -> list[float]:
    found = []
    for i in range(len(batch.rewards)):
        after = normal(algo, batch.next_observations[i])
        theirs, mine = values(algo.target_critic.copy, after)[0], values(algo.critic, after)[0]
        value = theirs[mine.index(max(mine))] if double else max(theirs)
        found.append(float(batch.rewards[i]) + (0.0 if batch.terminals[i] else GAMMA * value))
    return found


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dueling", [True, False])
def test_targets(double: bool, dueling: bool) -> None:
    algo = make(DQN, three_ends(), double=double, dueling=dueling)
    batch = everything(algo, three_ends())
    assert algo.targets(batch).tolist() == pytest.approx(targets_by_hand(algo, batch, double), abs=1e-5)
    assert targets_by_hand(algo, batch, double) != targets_by_hand(algo, batch, not double)
    assert not algo.targets(batch).requires_grad


def test_only_terminations_stop_bootstrapping() -> None:
    """Steps 2 and 8 end in terminal states; step 4 is cut."""
    algo = make(DQN, three_ends())
    batch = everything(algo, three_ends())
    bare = (algo.targets(batch) == batch.rewards).tolist()
    assert [i for i, is_bare in enumerate(bare) if is_bare] == [2, 8]


def test_the_loss_is_the_mean_huber_loss_of_the_taken_actions() -> None:
    algo = make(DQN, three_ends())
    batch = everything(algo, three_ends())
    batch = batch._replace(rewards=batch.rewards * 3)  # so that there are errors above and below 1
    errors = []
    for i, target in enumerate(targets_by_hand(algo, batch, True)):
        q = values(algo.critic, normal(algo, batch.observations[i]))[0][int(batch.actions[i])]
        errors.append(abs(q - target))
    assert min(errors) < 1 < max(errors)
    loss = sum(0.5 * e * e if e < 1 else e - 0.5 for e in errors) / len(errors)
    assert float(algo.update(batch)["critic/loss"]) == pytest.approx(loss, rel=1e-5)


def test_an_update_goes_down_the_gradient_of_the_loss_and_the_target_follows() -> None:
    algo = make(DQN, three_ends(), tau=0.1)
    batch = everything(algo, three_ends())
    q = algo(batch.observations)[torch.arange(9), batch.actions]
    target = torch.tensor(targets_by_hand(algo, batch, True))
    follows_gradient(algo, batch, "critic", F.smooth_l1_loss(q, target))
    check_follows_slowly(algo, batch, algo.critic, algo.target_critic, 0.1)


def test_dueling_advantages_have_mean_zero() -> None:
    algo = make(DQN, three_ends(), dueling=True)
    states = normal(algo, everything(algo, three_ends()).observations)
    with torch.no_grad():
        q = algo.critic(states)  # (1, 9, 3)
        value = algo.critic.value(states.expand(1, -1, -1))  # (1, 9, 1)
        raw = algo.critic.members(states.expand(1, -1, -1))
    torch.testing.assert_close(q.mean(-1, keepdim=True), value)
    torch.testing.assert_close(q - q[..., :1], raw - raw[..., :1])
    assert raw.mean(-1).abs().max() > 0.1  # the advantages' own mean is taken away


def test_acts_greedily() -> None:
    algo = make(DQN, three_ends())
    batch = everything(algo, three_ends())
    q = [values(algo.critic, normal(algo, row))[0] for row in batch.observations]
    assert algo.predict(batch).tolist() == [row.index(max(row)) for row in q]
    acted = algo.policy([DQN.PolicyConfig()] * 9).act(batch.observations, torch.arange(9))
    assert acted.tolist() == algo.predict(batch).tolist()
