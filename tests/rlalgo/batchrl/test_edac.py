"""EDAC and SAC-N against plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlalgo.batchrl.edac import EDAC, SACN
from tests.rlalgo.batchrl.actor_critic import (
    GAMMA,
    copied,
    everything,
    gradients,
    make,
    normal,
    recorded,
    scaled,
    three_ends,
    values,
    without_bounds,
)
from tests.rlutils.runs import equal


def likeness_by_loop(algo: EDAC, states: Tensor, actions: Tensor) -> Tensor:
    """Every pair of different critics, each with a backward pass of its own; differentiable."""
    slopes = []
    for i in range(algo.critics.n):
        a = actions.clone().requires_grad_()
        q = algo.critics(states, a)[i]
        slopes.append(torch.autograd.grad(q.sum(), a, create_graph=True)[0])  # (B, A)
    total = torch.zeros(len(actions))
    for i in range(len(slopes)):
        for j in range(len(slopes)):
            if i != j:
                total = total + F.cosine_similarity(slopes[i], slopes[j], dim=-1)
    return total.mean() / (len(slopes) - 1)


def test_losses_equal_a_loop_over_the_same_draws() -> None:
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=5, temperature=0.3, normalize=True)
    old = make(EDAC, episodes, critics=5, temperature=0.3, normalize=True)
    batch = everything(algo, episodes)
    draws = recorded(algo.actor.head, "sample")
    metrics = algo.update(batch)
    (after_action, after_log_prob), (chosen, log_prob) = draws
    critic_loss = actor_loss = 0.0
    for b in range(9):
        state, after = normal(old, batch.observations[b]), normal(old, batch.next_observations[b])
        each = values(old.target_critics, after, after_action[b])
        assert len(each) == 5
        soft = min(each) - 0.3 * float(after_log_prob[b])
        target = float(batch.rewards[b]) + (0.0 if b in (2, 8) else GAMMA * soft)
        critic_loss += sum((q - target) ** 2 for q in values(old.critics, state, scaled(batch.actions[b]))) / 9
        least = min(values(algo.critics, state, chosen[b].detach()))  # the critics after their step
        actor_loss += (0.3 * log_prob[b].item() - least) / 9
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-3)
    likeness = likeness_by_loop(old, normal(old, batch.observations), scaled(batch.actions))
    assert float(metrics["critic/likeness"]) == pytest.approx(likeness.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("n", [2, 5])
def test_likeness_equals_a_double_loop(n: int) -> None:
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=n)
    batch = everything(algo, episodes)
    states, actions = batch.observations, scaled(batch.actions)
    each = actions.expand(n, -1, -1).clone().requires_grad_()
    found = algo.likeness(algo.critics.each(states, each), each)
    torch.testing.assert_close(found, likeness_by_loop(algo, states, actions), atol=1e-5, rtol=1e-4)


def test_equal_critics_are_wholly_alike() -> None:
    """The cosine of each pair is 1, so that the sum over N (N - 1) pairs is N times N - 1."""
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=4)
    with torch.no_grad():
        for p in algo.critics.parameters():
            p.copy_(p[:1].expand_as(p))
    batch = everything(algo, episodes)
    assert float(algo.update(batch)["critic/likeness"]) == pytest.approx(4.0, rel=1e-4)


def test_the_critics_gradient_holds_that_of_the_likeness() -> None:
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=4, diversity=2.0)
    batch = everything(algo, episodes)
    torch.manual_seed(3)
    error = (algo.critics(batch.observations, scaled(batch.actions)) - algo.targets(batch)).square().mean(1).sum()
    loss = error + 2.0 * likeness_by_loop(algo, batch.observations, scaled(batch.actions))
    parameters = list(algo.critics.parameters())
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    found = gradients(algo, "critic")
    torch.manual_seed(3)
    algo.update(batch)
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-3)


def test_without_diversity_it_is_sac_n_bit_for_bit() -> None:
    episodes = three_ends()
    found = []
    for cls, diversity in ((EDAC, 0.0), (SACN, SACN.Config().diversity), (EDAC, 1.0)):
        algo = make(cls, episodes, critics=6, diversity=diversity)
        torch.manual_seed(1)
        metrics = [algo.update(everything(algo, episodes)) for _ in range(4)]
        found.append((metrics, dict(algo.state_dict())))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])
    assert SACN.name == "sac_n"
    assert SACN.Config().diversity == 0


def test_diversity_lowers_the_likeness() -> None:
    episodes = three_ends()
    found = []
    for diversity in (0.0, 5.0):
        algo = make(EDAC, episodes, critics=4, diversity=diversity, critic_lr=1e-2)
        batch = everything(algo, episodes)
        for _ in range(100):
            algo.update(batch)
        found.append(likeness_by_loop(algo, batch.observations, scaled(batch.actions)).item())
    assert found[1] < found[0] - 0.5


def test_diversity_needs_two_critics() -> None:
    with pytest.raises(ValueError, match="diversity needs two critics or more"):
        EDAC.Config(critics=1)
    SACN.Config(critics=1)


@pytest.mark.parametrize(("log_std", "direction"), [(0.0, -1), (-3.0, 1)])
def test_the_temperature_keeps_the_entropy(log_std: float, direction: int) -> None:
    """The target is -A. Adam's first step is the learning rate."""
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=3, temperature_lr=0.01)
    with torch.no_grad():
        algo.actor.head.out.weight.zero_()
        algo.actor.head.out.bias.copy_(torch.tensor([0.0, 0.0, log_std, log_std]))
    metrics = algo.update(everything(algo, episodes))
    assert (float(metrics["actor/entropy"]) > -2) == (direction == -1)
    assert algo.log_temperature.item() == pytest.approx(0.01 * direction, rel=1e-3)


def test_the_target_critics_follow_by_tau() -> None:
    episodes = three_ends()
    algo = make(EDAC, episodes, critics=3, tau=0.3)
    old = copied(algo.target_critics)
    algo.update(everything(algo, episodes))
    for t, b, s in zip(algo.target_critics.parameters(), old, algo.critics.parameters(), strict=True):
        torch.testing.assert_close(t, 0.7 * b + 0.3 * s.detach())


@pytest.mark.parametrize("cls", [EDAC, SACN])
def test_only_terminations_stop_bootstrapping(cls: type[EDAC]) -> None:
    episodes = three_ends()
    algo = make(cls, episodes, critics=3)
    batch = everything(algo, episodes)
    moved = []
    for data in (batch, batch._replace(next_observations=batch.next_observations + 5)):
        torch.manual_seed(0)
        moved.append(algo.targets(data))
    assert (moved[0] == moved[1]).nonzero().flatten().tolist() == [2, 8]
    assert torch.equal(moved[0][[2, 8]], batch.rewards[[2, 8]])


@pytest.mark.parametrize("cls", [EDAC, SACN])
def test_needs_bounded_actions(cls: type[EDAC]) -> None:
    with pytest.raises(ValueError, match=f"{cls.name} needs a bounded action space.*try iql, awac or bc"):
        make(cls, without_bounds(three_ends()), critics=3)
