"""What the policy of every registered algorithm must fulfil (see `setups.py`)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlalgo import Controller, WindowBatch, rollout
from tests.contract.setups import Setup, only
from tests.rlutils.runs import equal


@pytest.mark.parametrize("n", [1, 8])
def test_acts_inside_the_action_space(setup: Setup, n: int) -> None:
    algo = setup.train()
    policy = algo.policy([algo.PolicyConfig()] * n)
    assert len(policy.options) == n
    policy.reset(torch.arange(n))
    space = setup.episodes.spec.action_space
    rows = torch.arange(n)
    for tick in range(6):
        observations = torch.randn(len(rows), 2) * 10
        actions = policy.act(observations, rows)
        assert actions.shape == (len(rows), *(space.shape or ()))
        assert actions.dtype == (torch.float32 if setup.kind == "box" else torch.int64)
        assert actions.device.type == "cpu"
        assert not actions.requires_grad
        for action in actions.numpy():
            assert space.contains(action)
        policy.observe(torch.randn(len(rows)), rows)
        if tick == 2 and n > 1:  # the rest goes on alone, in any order, and one starts anew
            rows = torch.tensor([6, 2, 3])
            policy.reset(torch.tensor([2]))
    assert algo.training


def test_rows_do_not_meddle_with_each_other(setup: Setup) -> None:
    """Eight rows side by side act as each would alone."""
    algo = setup.train()
    observations = torch.randn(5, 8, 2)
    rewards = torch.randn(5, 8)

    def play(columns: list[int]) -> Tensor:
        torch.manual_seed(4)
        rows = torch.arange(len(columns))
        policy = algo.policy([algo.PolicyConfig()] * len(columns))
        policy.reset(rows)
        out = []
        for seen, paid in zip(observations[:, columns], rewards[:, columns], strict=True):
            out.append(policy.act(seen, rows))
            policy.observe(paid, rows)
        return torch.stack(out, 1)

    together = play(list(range(8)))
    for i in range(8):
        torch.testing.assert_close(play([i])[0], together[i], atol=1e-5, rtol=1e-5)


def test_plays_whole_episodes(setup: Setup) -> None:
    algo = setup.train()
    played = rollout(algo.policy([algo.PolicyConfig()] * 3), setup.envs(3), episodes=5, seed=0)
    assert len(played) == 5
    played.check(setup.name)


def test_a_controller_plays_with_numpy(setup: Setup) -> None:
    algo = setup.train()
    controller = Controller(algo.policy([algo.PolicyConfig()]))
    (env,) = setup.envs(1)
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        controller.reset()
        truncated = False
        while not truncated:
            action = controller.act(observation)
            assert env.action_space.contains(action)
            observation, reward, _, truncated, _ = env.step(action)
            controller.observe(reward)


def test_predicts_in_eval_mode_and_restores_the_mode(setup: Setup) -> None:
    algo = setup.train()
    (batch,) = setup.batches(algo, 1)
    found = []
    for mode in (True, False, True):
        algo.train(mode)
        torch.manual_seed(2)
        found.append(algo.predict(batch))
        assert algo.training is mode
        assert all(module.training is mode for module in algo.modules())
    assert found[0].shape == batch.actions.shape
    assert found[0].dtype == batch.actions.dtype
    assert not found[0].requires_grad
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])


@only(lambda setup: hasattr(setup.make().PolicyConfig(), "sample"))
def test_rows_draw_their_actions_where_asked(setup: Setup) -> None:
    """Those that do draw from the policy's distribution, the others play its likeliest action."""
    algo, n = setup.train(), 2000
    options = [algo.PolicyConfig(sample=True)] * n + [algo.PolicyConfig()]
    if not algo.stochastic:
        with pytest.raises(ValueError, match="sample: true needs a Discrete action space or a Gaussian policy"):
            algo.policy(options)
        return
    seen, rows = torch.tensor([[0.3, -0.2]]), torch.arange(n + 1)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        policy = algo.policy(options)
        policy.reset(rows)
        found.append(policy.act(seen.expand(n + 1, 2), rows))
    assert torch.equal(found[0], found[1])
    drawn, likeliest = found[0].split([n, 1])
    assert all(setup.episodes.spec.action_space.contains(action) for action in drawn[:100].numpy())
    (batch,) = setup.batches(algo, 1)
    if isinstance(batch, WindowBatch):
        assert len(drawn.unique(dim=0)) > 1
        return
    with torch.no_grad():
        distribution = algo.eval()(seen)
    torch.testing.assert_close(likeliest, algo.scaler.inverse(distribution.mode()))
    if setup.kind != "box":
        counted = F.one_hot(algo.scaler(drawn), distribution.logits.shape[-1])  # (n, 5) or (n, 2, 3)
        torch.testing.assert_close(counted.float().mean(0), distribution.logits.softmax(-1)[0], atol=0.04, rtol=0)
        return
    median = (drawn < likeliest).float().mean(0)
    torch.testing.assert_close(median, torch.full((2,), 0.5), atol=0.04, rtol=0)
    again = torch.cat([algo.scaler.inverse(distribution.sample()) for _ in range(n)]).detach()
    torch.testing.assert_close(drawn.std(0), again.std(0), atol=0, rtol=0.08)
