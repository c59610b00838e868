"""EDAC and SAC-N against plain loops."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlalgo.plugins import default_catalogue
from tests.rlalgo.batchrl.few_rows import (
    GAMMA,
    TERMINAL,
    check_gradients,
    everything,
    make,
    normal,
    scaled,
    squashed,
    three_ends,
    values,
)
from tests.rlutils.runs import equal


def cosine_by_loop(algo: Any, states: Tensor, actions: Tensor) -> Tensor:
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


@pytest.mark.parametrize("name", ["edac", "sac_n"])
def test_losses_equal_a_loop_over_the_same_draws(name: str) -> None:
    algo = make(name, three_ends(), n_critics=5, temperature=0.3, normalize=True)
    old, batch = copy.deepcopy(algo), everything(algo, three_ends())
    torch.manual_seed(1)
    metrics = algo.update(batch, 1)
    states, after_states = normal(old, batch.observations), normal(old, batch.next_observations)
    torch.manual_seed(1)
    after_action, after_log_prob = squashed(old.actor(after_states), torch.randn(9, 2))
    chosen, log_prob = squashed(old.actor(states), torch.randn(9, 2))
    critic_loss = actor_loss = 0.0
    for b in range(9):
        each = values(old.target_critics, after_states[b], after_action[b].float())
        assert len(each) == 5
        soft = min(each) - 0.3 * float(after_log_prob[b])
        target = float(batch.rewards[b]) + (0.0 if b in TERMINAL else GAMMA * soft)
        critic_loss += sum((q - target) ** 2 for q in values(old.critics, states[b], scaled(batch.actions[b]))) / 9
        least = min(values(algo.critics, states[b], chosen[b].float()))  # the critics after their step
        actor_loss += (0.3 * float(log_prob[b]) - least) / 9
    assert float(metrics["critic/loss"]) == pytest.approx(critic_loss, rel=1e-4)
    assert float(metrics["actor/loss"]) == pytest.approx(actor_loss, rel=1e-3)
    assert float(metrics["actor/entropy"]) == pytest.approx(-float(log_prob.mean()), rel=1e-3)
    if name == "edac":
        cosine = cosine_by_loop(old, states, scaled(batch.actions))
        assert float(metrics["critic/gradient_cosine"]) == pytest.approx(cosine.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("n", [2, 5])
def test_the_gradients_cosine_equals_a_double_loop(n: int) -> None:
    algo = make("edac", three_ends(), n_critics=n)
    batch = everything(algo, three_ends())
    states, actions = batch.observations, scaled(batch.actions)
    each = actions.expand(n, -1, -1).clone().requires_grad_()
    found = algo.gradient_cosine(algo.critics.each(states, each), each)
    torch.testing.assert_close(found, cosine_by_loop(algo, states, actions), atol=1e-5, rtol=1e-4)


def test_equal_critics_have_equal_gradients() -> None:
    """The cosine of each pair is 1, so that the sum over N (N - 1) pairs is N times N - 1."""
    algo = make("edac", three_ends(), n_critics=4)
    with torch.no_grad():
        for p in algo.critics.parameters():
            p.copy_(p[:1].expand_as(p))
    metrics = algo.update(everything(algo, three_ends()), 1)
    assert float(metrics["critic/gradient_cosine"]) == pytest.approx(4.0, rel=1e-4)


def test_the_critics_gradient_holds_that_of_the_cosine() -> None:
    algo = make("edac", three_ends(), n_critics=4, diversity=2.0)
    batch = everything(algo, three_ends())
    states, actions = batch.observations, scaled(batch.actions)
    torch.manual_seed(3)
    error = (algo.critics(states, actions) - algo.targets(batch)).square().mean(1).sum()
    check_gradients(algo, "critic", batch, error + 2.0 * cosine_by_loop(algo, states, actions), seed=3)


def test_sac_n_is_edac_without_diversity_bit_for_bit() -> None:
    found = []
    for name, options in (("edac", {"diversity": 0.0}), ("sac_n", {}), ("edac", {"diversity": 1.0})):
        algo = make(name, three_ends(), n_critics=6, **options)
        torch.manual_seed(1)
        metrics = [algo.update(everything(algo, three_ends()), step) for step in range(1, 5)]
        found.append((metrics, dict(algo.state_dict())))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_diversity_lowers_the_cosine() -> None:
    found = []
    for diversity in (0.0, 5.0):
        algo = make("edac", three_ends(), n_critics=4, diversity=diversity, critic_lr=1e-2)
        batch = everything(algo, three_ends())
        for step in range(1, 101):
            algo.update(batch, step)
        found.append(cosine_by_loop(algo, batch.observations, scaled(batch.actions)).item())
    assert found[1] < found[0] - 0.5


def test_diversity_needs_two_critics() -> None:
    edac, sac_n = (default_catalogue().get("algo", name).Config for name in ("edac", "sac_n"))
    with pytest.raises(ValueError, match="diversity needs two critics or more"):
        edac(n_critics=1)
    sac_n(n_critics=1)


@pytest.mark.parametrize(("log_std", "direction"), [(0.0, -1), (-3.0, 1)])
@pytest.mark.parametrize("name", ["edac", "cql"])
def test_the_temperature_keeps_the_entropy(name: str, log_std: float, direction: int) -> None:
    """The target is -A; a policy of too much entropy lowers the temperature, one of too little raises it.

    Adam's first step is the learning rate.
    """
    algo = make(name, three_ends(), temperature_lr=0.01)
    with torch.no_grad():
        algo.actor[1].out.weight.zero_()
        algo.actor[1].out.bias.copy_(torch.tensor([0.0, 0.0, log_std, log_std]))
    metrics = algo.update(everything(algo, three_ends()), 1)
    assert (float(metrics["actor/entropy"]) > -2) == (direction == -1)
    assert algo.log_temperature.item() == pytest.approx(0.01 * direction, rel=1e-3)
    assert float(metrics["actor/temperature"]) == 1.0
