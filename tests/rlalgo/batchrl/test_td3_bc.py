"""TD3+BC against plain loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlalgo.batchrl.td3_bc import TD3BC
from tests.rlalgo.batchrl.actor_critic import (
    GAMMA,
    copied,
    everything,
    make,
    normal,
    same,
    scaled,
    three_ends,
    values,
    without_bounds,
)


def test_target_and_critic_loss_equal_a_loop() -> None:
    episodes = three_ends()
    algo = make(TD3BC, episodes, target_noise=0.6, noise_clip=0.5)
    batch = everything(algo, episodes)
    torch.manual_seed(5)
    noise = torch.randn(9, 2) * 0.6
    assert (noise.abs() > 0.5).any()
    clamped, expected, losses = 0, [], [0.0, 0.0]
    for b in range(9):
        after = normal(algo, batch.next_observations[b])
        action = algo.target_actor(after[None])[0].tolist()
        noisy = []
        for i in range(2):
            x = action[i] + min(max(float(noise[b, i]), -0.5), 0.5)
            clamped += abs(x) > 1
            noisy.append(min(max(x, -1.0), 1.0))
        least = min(values(algo.target_critics, after, torch.tensor(noisy)))
        alive = b not in (2, 8)  # the terminations; step 4 is only cut
        expected.append(float(batch.rewards[b]) + (GAMMA * least if alive else 0.0))
        q = values(algo.critics, normal(algo, batch.observations[b]), scaled(batch.actions[b]))
        for i in range(2):
            losses[i] += (q[i] - expected[b]) ** 2 / 9
    assert clamped
    torch.manual_seed(5)
    torch.testing.assert_close(algo.targets(batch), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    torch.manual_seed(5)
    assert float(algo.update(batch)["critic/loss"]) == pytest.approx(sum(losses), rel=1e-5)


def test_actor_loss_equals_a_loop_and_lambda_has_no_gradient() -> None:
    episodes = three_ends()
    algo = make(TD3BC, episodes, alpha=1.7)
    batch = everything(algo, episodes)
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    q, errors = [], []
    for b in range(9):
        chosen = algo.actor(states[b][None])[0].detach()
        q.append(values(algo.critics, states[b], chosen)[0])
        errors += [float(chosen[i] - actions[b, i]) ** 2 for i in range(2)]
    lam = 1.7 / (sum(abs(x) for x in q) / 9)
    expected = -lam * sum(q) / 9 + sum(errors) / 18
    loss, error = algo.actor_loss(states, actions)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert error.item() == pytest.approx(sum(errors) / 18, rel=1e-5)

    got = torch.autograd.grad(loss, list(algo.actor.parameters()))
    chosen = algo.actor(states)
    plain = ((chosen - actions) ** 2).mean() - lam * algo.critics(states, chosen)[0].mean()
    for g, w in zip(got, torch.autograd.grad(plain, list(algo.actor.parameters())), strict=True):
        torch.testing.assert_close(g, w, atol=1e-6, rtol=1e-4)


def test_the_actor_and_the_targets_move_at_every_third_update_only() -> None:
    """And the count of updates survives saving."""
    episodes = three_ends()
    algo = make(TD3BC, episodes, actor_every=3)
    batch = everything(algo, episodes)
    for step in range(1, 8):
        before = [copied(m) for m in (algo.critics, algo.actor, algo.target_actor, algo.target_critics)]
        metrics = algo.update(batch)
        after = [copied(m) for m in (algo.critics, algo.actor, algo.target_actor, algo.target_critics)]
        assert not same(before[0], after[0])
        for old, new in zip(before[1:], after[1:], strict=True):
            assert same(old, new) == (step % 3 != 0), step
        assert bool(metrics["actor/loss"]) == (step >= 3)  # of the actor's last update

    twin = make(TD3BC, episodes, actor_every=3)
    twin.load_state_dict(algo.state_dict())  # after 7 updates: the second from here is the ninth
    for moves in (False, True):
        before = [copied(twin.actor)]
        twin.update(batch)
        assert same(before[0], copied(twin.actor)) != moves


def test_targets_follow_by_tau() -> None:
    episodes = three_ends()
    algo = make(TD3BC, episodes, actor_every=1, tau=0.2)
    old = [copied(algo.target_actor), copied(algo.target_critics)]
    algo.update(everything(algo, episodes))
    for target, before, source in zip(
        (algo.target_actor, algo.target_critics), old, (algo.actor, algo.critics), strict=True
    ):
        for t, b, s in zip(target.parameters(), before, source.parameters(), strict=True):
            torch.testing.assert_close(t, 0.8 * b + 0.2 * s.detach())


def test_only_terminations_stop_bootstrapping() -> None:
    episodes = three_ends()
    algo = make(TD3BC, episodes)
    batch = everything(algo, episodes)
    far = batch._replace(next_observations=batch.next_observations + 5)
    moved = []
    for data in (batch, far):
        torch.manual_seed(0)
        moved.append(algo.targets(data))
    assert (moved[0] == moved[1]).tolist() == [False, False, True, False, False, False, False, False, True]
    assert torch.equal(moved[0][[2, 8]], batch.rewards[[2, 8]])


def test_needs_bounded_actions() -> None:
    episodes = without_bounds(three_ends())
    with pytest.raises(ValueError, match=r"td3_bc needs a bounded action space.*try iql, awac or bc"):
        make(TD3BC, episodes)


def test_normalization_is_an_option() -> None:
    episodes = three_ends()
    episodes = replace(episodes, observations=episodes.observations * 7 + 3)
    for normalize in (True, False):
        algo = make(TD3BC, episodes, normalize=normalize)
        assert bool(algo.normalizer.mean.any()) == normalize
