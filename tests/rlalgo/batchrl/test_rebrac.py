"""ReBRAC against plain loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rlalgo.batchrl.rebrac import Pairs
from rlalgo.errors import DataError
from rlalgo.nets.critics import GroupedNorm
from tests.rlalgo.batchrl.few_rows import GAMMA, everything, make, normal, scaled, three_ends, values
from tests.rlalgo.toy_data import as_lists, make_episodes

TERMINAL = (2, 7)  # of the eight pairs of `three_ends`: the one step that is cut is left out


def test_pairs_equal_a_loop_over_episodes() -> None:
    """Only truncated last steps have no next action that matters."""
    ends = [True, False, True, False, True]
    for has_final in ([True] * 5, [False] * 5):
        episodes = make_episodes("box", (3, 2, 1, 1, 4), seed=1, terminated=ends, has_final=has_final, frame_stack=2)
        expected = []
        for episode in as_lists(episodes):
            seen, acted = episode["observations"], episode["actions"]
            for t, terminal in enumerate(episode["terminations"]):
                if not episode["truncations"][t]:
                    after = None if terminal else acted[t + 1]
                    frames = [seen[max(t - 1, 0)], seen[t]], [seen[t], seen[t + 1]]
                    expected.append((frames[0], acted[t], episode["rewards"][t], frames[1], after, float(terminal)))
        pairs = Pairs(episodes)
        assert len(pairs) == len(expected) == 9
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
        batch = pairs.gather(order)
        for i, row in enumerate(order.tolist()):
            for name, got, wanted in zip(batch._fields, batch, expected[row], strict=True):
                if wanted is not None:
                    assert torch.equal(got[i], torch.tensor(wanted)), (name, row)


def test_pairs_do_not_cross_from_one_episode_to_the_next() -> None:
    """What the next episode does first is nobody's next action."""
    episodes = three_ends()
    other = episodes.actions.clone()
    other[[3, 5]] = 0.5  # the first steps of episodes 1 and 2
    batch, changed = (Pairs(e).gather(torch.arange(8)) for e in (episodes, replace(episodes, actions=other)))
    alive = batch.terminals == 0
    assert torch.equal(batch.next_actions[alive], changed.next_actions[alive])


def test_pairs_move_to_a_device_whole() -> None:
    pairs = Pairs(three_ends())
    before = pairs.gather(torch.arange(8))
    meta = pairs.to("meta").gather(torch.arange(3))
    assert {column.device.type for column in meta} == {"meta"}
    assert [tuple(column.shape) for column in meta] == [tuple(column[:3].shape) for column in before]


def test_pairs_need_two_steps() -> None:
    with pytest.raises(DataError, match="no step is followed by another"):
        Pairs(make_episodes("box", (1, 1), terminated=[False, False]))


def test_target_and_critic_loss_equal_a_loop() -> None:
    algo = make("rebrac", three_ends(), policy_noise=0.6, noise_clip=0.5, critic_penalty=0.7, normalize=True)
    batch = everything(algo, three_ends())
    torch.manual_seed(5)
    noise = torch.randn(8, 2) * 0.6
    expected, loss = [], 0.0
    for b in range(8):
        after = normal(algo, batch.next_observations[b])
        action = algo.target_actor(after[None]).mode()[0].tolist()
        noisy = [min(max(action[i] + min(max(float(noise[b, i]), -0.5), 0.5), -1.0), 1.0) for i in range(2)]
        wanted = scaled(batch.next_actions[b]).tolist()
        distance = sum((x - y) ** 2 for x, y in zip(noisy, wanted, strict=True))
        value = min(values(algo.target_critics, after, torch.tensor(noisy))) - 0.7 * distance
        expected.append(float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * value))
        q = values(algo.critics, normal(algo, batch.observations[b]), scaled(batch.actions[b]))
        loss += sum((x - expected[b]) ** 2 for x in q) / 8
    torch.manual_seed(5)
    torch.testing.assert_close(algo.targets(batch), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    torch.manual_seed(5)
    assert float(algo.update(batch, 1)["critic/loss"]) == pytest.approx(loss, rel=1e-5)


def test_actor_loss_equals_a_loop_and_its_scale_has_no_gradient() -> None:
    algo = make("rebrac", three_ends(), actor_penalty=0.3)
    batch = everything(algo, three_ends())
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    q, distances = [], []
    for b in range(8):
        chosen = algo.actor(states[b][None]).mode()[0].detach()
        q.append(min(values(algo.critics, states[b], chosen)))
        distances.append(sum(float(chosen[i] - actions[b, i]) ** 2 for i in range(2)))
    lam = 1 / (sum(abs(x) for x in q) / 8)
    loss, distance = algo.actor_loss(states, actions)
    assert loss.item() == pytest.approx(0.3 * sum(distances) / 8 - lam * sum(q) / 8, rel=1e-5)
    assert distance.item() == pytest.approx(sum(distances) / 8, rel=1e-5)

    got = torch.autograd.grad(loss, list(algo.actor.parameters()))
    chosen = algo.actor(states).mode()
    plain = 0.3 * ((chosen - actions) ** 2).sum(1).mean() - lam * algo.critics(states, chosen).amin(0).mean()
    for g, w in zip(got, torch.autograd.grad(plain, list(algo.actor.parameters())), strict=True):
        torch.testing.assert_close(g, w, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("critic_norm", "actor_norm"), [(True, False), (False, True)])
def test_layer_normalization_where_asked(critic_norm: bool, actor_norm: bool) -> None:
    algo = make("rebrac", three_ends(), critic_norm=critic_norm, actor_norm=actor_norm, hidden_dims=(8, 8, 8))
    assert sum(isinstance(m, GroupedNorm) for m in algo.critics.modules()) == 3 * critic_norm
    assert sum(isinstance(m, nn.LayerNorm) for m in algo.actor.modules()) == 3 * actor_norm
