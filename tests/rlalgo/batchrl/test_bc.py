"""Behavior cloning and %BC."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes, rollout
from rlalgo.batchrl.bc import BC
from tests.rlalgo.batchrl.few_rows import everything, scaled
from tests.rlalgo.toy_data import BOX_ACTIONS, make_episodes
from tests.rlalgo.toy_envs import Blink, Chain, Drift


def make(episodes: Episodes, total_steps: int = 100, **config: Any) -> BC:
    torch.manual_seed(0)
    algo = BC(episodes.spec, BC.Config(**{"hidden_dims": (16, 16), "weight_decay": 0.0, **config}))
    algo.prepare(episodes, total_steps)
    return algo


def fitted(episodes: Episodes, steps: int = 400, **config: Any) -> BC:
    algo = make(episodes, steps, **{"lr": 1e-2, "final_lr": 0.01, **config})
    batch = everything(algo, episodes)
    for step in range(1, steps + 1):
        algo.update(batch, step)
    return algo


def test_learns_a_linear_expert() -> None:
    """On states and actions of a linear policy, the error on fresh states is a small part of the actions' variance."""
    rng = np.random.default_rng(0)
    gain = torch.tensor(rng.normal(size=(3, 2)) * 0.1, dtype=torch.float32)
    episodes = make_episodes("box", (50,) * 8)
    rows = torch.arange(episodes.steps) + episodes.episode_ids()
    expert = episodes.observations[rows] @ gain
    episodes = replace(
        episodes,
        actions=expert + torch.tensor([0.0, 2.0]),
        spec=DataSpec(episodes.spec.observation_space, BOX_ACTIONS),
    ).check("expert")
    algo = fitted(episodes, hidden_dims=(64, 64))
    fresh = torch.from_numpy(rng.uniform(-4, 4, (500, 3)).astype(np.float32))
    policy = algo.policy([algo.PolicyConfig()] * 500)
    got = policy.act(fresh, torch.arange(500))
    wanted = fresh @ gain + torch.tensor([0.0, 2.0])
    assert float((got - wanted).square().mean()) < 0.01 * float(expert.var())


def test_learns_a_discrete_expert() -> None:
    rng = np.random.default_rng(0)
    episodes = make_episodes("discrete", (50,) * 8)
    rows = torch.arange(episodes.steps) + episodes.episode_ids()

    def expert(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] > 0).long() + (x[:, 1] > 0).long()

    episodes = replace(episodes, actions=expert(episodes.observations[rows]))
    algo = fitted(episodes, hidden_dims=(64, 64))
    fresh = torch.from_numpy(rng.uniform(-4, 4, (500, 2)).astype(np.float32))
    got = algo.policy([algo.PolicyConfig()] * 500).act(fresh, torch.arange(500))
    assert float((got == expert(fresh)).float().mean()) > 0.95


def test_with_contradicting_data_it_learns_the_mean_and_the_frequencies() -> None:
    """The minimum of the squared error is the mean action; of the cross-entropy, the frequencies."""
    episodes = make_episodes("box", (8, 8))
    still = torch.zeros_like(episodes.observations)
    actions = torch.tensor([[-0.5, 1.0], [0.5, 2.0], [0.0, 2.0], [0.8, 3.0]]).repeat(4, 1)
    algo = fitted(replace(episodes, observations=still, actions=actions), normalize=False, steps=300)
    got = algo.policy([algo.PolicyConfig()]).act(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(got, torch.tensor([[0.2, 2.0]]), atol=0.02, rtol=0)

    episodes = make_episodes("discrete", (8, 8))
    still = torch.zeros_like(episodes.observations)
    counted = torch.tensor([0] * 10 + [1] * 4 + [2] * 2)
    algo = fitted(replace(episodes, observations=still, actions=counted), normalize=False, steps=300)
    with torch.no_grad():
        share = algo(torch.zeros(1, 2)).logits.softmax(-1)[0]
    torch.testing.assert_close(share, torch.tensor([10 / 16, 4 / 16, 2 / 16]), atol=0.02, rtol=0)
    n = 4000
    policy = algo.policy([algo.PolicyConfig(sample=True)] * n + [algo.PolicyConfig()])
    drawn = policy.act(torch.zeros(n + 1, 2), torch.arange(n + 1))
    for action, expected in enumerate(share.tolist()):
        sd = math.sqrt(expected * (1 - expected) / n)
        assert abs((drawn[:n] == action).float().mean() - expected) < 4 * sd
    assert drawn[n] == 0


def test_loss_equals_a_plain_loop() -> None:
    episodes = make_episodes("box", (3, 4))
    algo = make(episodes)
    batch = everything(algo, episodes)
    with torch.no_grad():
        predicted = algo(batch.observations).mode()
    middle, half = [0.0, 2.0], [1.0, 2.0]
    errors = [
        (float(predicted[b, i]) - (float(batch.actions[b, i]) - middle[i]) / half[i]) ** 2
        for b in range(len(predicted))
        for i in range(2)
    ]
    metrics = algo.update(batch, 1)
    assert set(metrics) == {"actor/loss"}
    assert float(metrics["actor/loss"]) == pytest.approx(sum(errors) / len(errors), rel=1e-5)

    episodes = make_episodes("discrete", (3, 4))
    algo = make(episodes)
    batch = everything(algo, episodes)
    with torch.no_grad():
        logits = algo(batch.observations).logits.tolist()
    errors = [
        math.log(sum(math.exp(x) for x in row)) - row[int(a)] for row, a in zip(logits, batch.actions, strict=True)
    ]
    assert float(algo.update(batch, 1)["actor/loss"]) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_the_gaussian_learns_mean_and_spread_and_draws_from_them() -> None:
    """With contradicting data at one state the likeliest Gaussian is known: the data's mean and standard deviation."""
    episodes = make_episodes("box", (8, 8))
    still = torch.zeros_like(episodes.observations)
    actions = torch.tensor([[-0.1, 1.8], [0.1, 2.0], [0.0, 2.6], [0.2, 2.4]]).repeat(4, 1)
    episodes = replace(episodes, observations=still, actions=actions)
    algo: Any = fitted(episodes, normalize=False, steps=600, gaussian=True)
    mean, std = scaled(actions).mean(0), scaled(actions).std(0, correction=0)
    got = algo.predict(everything(algo, episodes))[0]
    learnt = algo.actor[1].log_std.detach().exp()
    torch.testing.assert_close(got, actions.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(learnt, std, atol=0.01, rtol=0.05)
    expected = -torch.distributions.Normal(mean, std).log_prob(scaled(actions)).sum(-1).mean()
    loss = algo.update(everything(algo, episodes), 601)["actor/loss"]
    assert float(loss) == pytest.approx(float(expected), abs=0.02)

    n = 4000
    policy = algo.policy([algo.PolicyConfig(sample=True)] * n + [algo.PolicyConfig()])
    drawn = policy.act(torch.zeros(n + 1, 3), torch.arange(n + 1))
    torch.testing.assert_close(drawn[n], got)
    spread = learnt * torch.tensor([1.0, 2.0])
    assert ((drawn[:n].mean(0) - got).abs() < 4 * spread / math.sqrt(n)).all()
    torch.testing.assert_close(drawn[:n].std(0), spread, atol=0, rtol=0.05)


def test_the_gaussians_loss_equals_a_plain_loop() -> None:
    episodes = make_episodes("box", (3, 4))
    algo: Any = make(episodes, gaussian=True)
    algo.actor[1].log_std.data = torch.tensor([-0.4, 0.6])
    batch = everything(algo, episodes)
    with torch.no_grad():
        predicted = algo(batch.observations).mode().tolist()
    total = 0.0
    for mean, action in zip(predicted, batch.actions.tolist(), strict=True):
        for i, (middle, half, log_std) in enumerate([(0.0, 1.0, -0.4), (2.0, 2.0, 0.6)]):
            z = ((action[i] - middle) / half - mean[i]) / math.exp(log_std)
            total += 0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi)
    assert float(algo.update(batch, 1)["actor/loss"]) == pytest.approx(total / len(predicted), rel=1e-5)


def test_percent_bc_imitates_the_best_episodes_only() -> None:
    """Ten episodes, each with an action of its own: 10%BC and 20%BC know one and two of them."""
    episodes = make_episodes("box", (6,) * 10)
    order = episodes.returns().argsort(descending=True)
    marked = torch.linspace(-0.9, 0.9, 10)[:, None].expand(10, 2)[episodes.episode_ids()]
    episodes = replace(episodes, actions=marked + torch.tensor([0.0, 1.0]))
    for share, count in ((0.1, 1), (0.2, 2), (1.0, 10)):
        batch = everything(make(episodes, keep_top=share), episodes)
        expected = {round(float(x), 3) for x in torch.linspace(-0.9, 0.9, 10)[order[:count]]}
        assert {round(float(a), 3) for a in batch.actions[:, 0]} == expected


@pytest.mark.parametrize("env", [Drift, Chain, Blink])
@pytest.mark.parametrize("stack", [1, 3])
def test_plays_what_it_predicts_on_the_same_episodes(env: type, stack: int) -> None:
    """Observation for observation (frames stacked alike), played actions are predicted ones; and batches agree."""
    world = env()
    spec = DataSpec(world.observation_space, world.action_space, frame_stack=stack)
    torch.manual_seed(0)
    algo = BC(spec, BC.Config(hidden_dims=(16, 16), dropout=0.5))
    algo.load_state_dict(algo.state_dict())  # counts as prepared
    algo.train()
    played = rollout(algo.policy([algo.PolicyConfig()] * 3), [env() for _ in range(3)], episodes=5, seed=0)
    assert algo.training
    data = algo.dataset(replace(played, spec=spec, has_final=torch.ones(5, dtype=torch.bool)))
    predicted = algo.predict(data.gather(torch.arange(len(data))))
    torch.testing.assert_close(predicted, played.actions, atol=1e-5, rtol=1e-5)
    alone = rollout(algo.policy([algo.PolicyConfig()]), [env()], episodes=5, seed=0)
    torch.testing.assert_close(alone.observations, played.observations, atol=1e-4, rtol=1e-4)


def test_unbounded_actions_are_learnt() -> None:
    episodes = make_episodes("box", (6, 6))
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    episodes = replace(episodes, actions=torch.tensor([[7.0, -3.0]] * 12))
    episodes = replace(episodes, spec=DataSpec(episodes.spec.observation_space, box))
    algo = fitted(episodes, steps=300, lr=3e-2)
    got = algo.predict(everything(algo, episodes))
    torch.testing.assert_close(got, torch.tensor([[7.0, -3.0]] * 12), atol=0.1, rtol=0)


def test_schedule_clip_and_dropout_are_used() -> None:
    episodes = make_episodes("box", (6, 6))
    algo = make(episodes, total_steps=10, lr=1e-2, warmup=4, final_lr=0.5, clip=1e-3, dropout=0.5)
    batch = everything(algo, episodes)
    rates = []
    for step in range(1, 13):
        rates.append(algo.optimizers["actor"].param_groups[0]["lr"])
        algo.update(batch, step)
    expected = [0.25, 0.5, 0.75, 1.0] + [0.5 + 0.25 * (1 + math.cos(math.pi * i / 6)) for i in range(7)] + [0.5]
    np.testing.assert_allclose(rates, np.array(expected) * 1e-2, rtol=1e-6)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in algo.parameters() if p.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-2)
    algo.train()
    assert not torch.equal(algo(batch.observations).mode(), algo(batch.observations).mode())
    assert torch.equal(algo.predict(batch), algo.predict(batch))


def test_gaussian_is_for_continuous_actions() -> None:
    with pytest.raises(ValueError, match=r"gaussian is for continuous actions, got Discrete.*set it to false"):
        make(make_episodes("discrete", (6, 6)), gaussian=True)
