"""TD3+BC against plain loops."""

from __future__ import annotations

import pytest
import torch

from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    copied,
    everything,
    make,
    normal,
    same,
    scaled,
    three_ends,
    values,
)


def test_target_and_critic_loss_equal_a_loop() -> None:
    algo = make("td3_bc", three_ends(), policy_noise=0.6, noise_clip=0.5)
    batch = everything(algo, three_ends())
    torch.manual_seed(5)
    noise = torch.randn(9, 2) * 0.6
    assert (noise.abs() > 0.5).any()
    clamped, expected, losses = 0, [], [0.0, 0.0]
    for b in range(9):
        after = normal(algo, batch.next_observations[b])
        action = algo.target_actor(after[None]).mode()[0].tolist()
        noisy = []
        for i in range(2):
            x = action[i] + min(max(float(noise[b, i]), -0.5), 0.5)
            clamped += abs(x) > 1
            noisy.append(min(max(x, -1.0), 1.0))
        least = min(values(algo.target_critics, after, torch.tensor(noisy)))
        expected.append(float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * least))
        q = values(algo.critics, normal(algo, batch.observations[b]), scaled(batch.actions[b]))
        for i in range(2):
            losses[i] += (q[i] - expected[b]) ** 2 / 9
    assert clamped
    torch.manual_seed(5)
    torch.testing.assert_close(algo.targets(batch), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    torch.manual_seed(5)
    assert float(algo.update(batch, 1)["critic/loss"]) == pytest.approx(sum(losses), rel=1e-5)


def test_actor_loss_equals_a_loop_and_lambda_has_no_gradient() -> None:
    algo = make("td3_bc", three_ends(), alpha=1.7)
    batch = everything(algo, three_ends())
    states, actions = normal(algo, batch.observations), scaled(batch.actions)
    q, errors = [], []
    for b in range(9):
        chosen = algo.actor(states[b][None]).mode()[0].detach()
        q.append(values(algo.critics, states[b], chosen)[0])
        errors += [float(chosen[i] - actions[b, i]) ** 2 for i in range(2)]
    lam = 1.7 / (sum(abs(x) for x in q) / 9)
    loss, error = algo.actor_loss(states, actions)
    assert loss.item() == pytest.approx(-lam * sum(q) / 9 + sum(errors) / 18, rel=1e-5)
    assert error.item() == pytest.approx(sum(errors) / 18, rel=1e-5)

    got = torch.autograd.grad(loss, list(algo.actor.parameters()))
    chosen = algo.actor(states).mode()
    plain = ((chosen - actions) ** 2).mean() - lam * algo.critics(states, chosen)[0].mean()
    for g, p in zip(got, torch.autograd.grad(plain, list(algo.actor.parameters())), strict=True):
        torch.testing.assert_close(g, p, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["td3_bc", "rebrac"])
def test_the_actor_and_the_targets_move_at_every_third_update_only(name: str) -> None:
    algo = make(name, three_ends(), policy_freq=3)
    batch = everything(algo, three_ends())
    for step in (1, 2, 3, 7, 8, 9):
        parts = (algo.critics, algo.actor, algo.target_actor, algo.target_critics)
        before = [copied(part) for part in parts]
        metrics = algo.update(batch, step)
        still = [same(old, copied(part)) for old, part in zip(before, parts, strict=True)]
        assert still == [False, *[step % 3 != 0] * 3], step
        assert ("actor/loss" in metrics) == (step % 3 == 0)
