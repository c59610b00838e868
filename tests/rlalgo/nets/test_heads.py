"""Action heads: what their distributions draw and how likely they call it, against torch's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlalgo.core.scaler import ActionScaler
from rlalgo.nets import (
    Categorical,
    Deterministic,
    DeterministicHead,
    DiscreteHead,
    Gaussian,
    GaussianHead,
    MultiDiscreteHead,
    SquashedGaussian,
    SquashedGaussianHead,
    action_head,
)

BOX = spaces.Box(np.array([-2.0, 0.0, 3.0], np.float32), np.array([1.0, 4.0, 3.0], np.float32))  # one is fixed
OPEN = spaces.Box(np.array([-np.inf, 0.0], np.float32), np.full(2, np.inf, np.float32))
DISCRETE = spaces.Discrete(3)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("head", "space"),
    [
        (DeterministicHead(8, BOX), BOX),
        (DeterministicHead(8, BOX, tanh=False), BOX),
        (DeterministicHead(8, OPEN), OPEN),
        (GaussianHead(8, BOX), BOX),
        (GaussianHead(8, OPEN), OPEN),
        (SquashedGaussianHead(8, BOX), BOX),
        (DiscreteHead(8, DISCRETE), DISCRETE),
    ],
    ids=lambda x: type(x).__name__,
)
def test_actions_lie_in_the_space_whatever_the_features(head: nn.Module, space: Any) -> None:
    torch.manual_seed(0)
    scaler = ActionScaler(space)
    distribution = head(1e3 * torch.randn(2, 25, 8))
    draws = [distribution.mode()]
    if head.stochastic:
        draws += [distribution.sample(seeded()), distribution.sample()]
        assert torch.equal(distribution.sample(seeded()), draws[1])
        torch.manual_seed(1)
        again = distribution.sample()
        torch.manual_seed(1)
        assert torch.equal(distribution.sample(), again)  # the default generator, where none is given
    for actions in draws:
        assert actions.shape == (2, 25, *(space.shape or ()))
        assert distribution.log_prob(actions).shape == (2, 25)
        assert torch.isfinite(distribution.log_prob(actions)).all()
        assert all(space.contains(action) for action in scaler.inverse(actions).flatten(0, 1).detach().numpy())


def test_tanh_keeps_a_mean_inside_the_bounds_or_the_range_of_the_data() -> None:
    features = 1e3 * torch.randn(50, 8)
    for head in (DeterministicHead, GaussianHead):
        assert head(8, BOX)(features).mode().abs().max() <= 1
        assert head(8, BOX, tanh=False)(features).mode().abs().max() > 1
        assert head(8, OPEN)(features).mode().abs().max() <= 1
        assert head(8, BOX).state_dict().keys() <= {"out.weight", "out.bias", "log_std"}  # bounds come from the spec


def test_deterministic_log_prob_is_minus_the_squared_error() -> None:
    actions = torch.randn(2, 4, 3)
    mean = torch.randn(2, 4, 3)
    expected = [[-sum((a - m) ** 2 for a, m in zip(x, y, strict=True)) / 3 for x, y in zip(xs, ys, strict=True)]
                for xs, ys in zip(actions.tolist(), mean.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(Deterministic(mean).log_prob(actions), torch.tensor(expected))


def test_gaussian_log_prob_equals_torchs() -> None:
    head = GaussianHead(8, BOX)
    head.log_std.data = torch.tensor([-0.5, 0.3, -9.0])  # the last is held at e^-5
    distribution = head(torch.randn(2, 4, 8))
    actions = distribution.mode() + torch.tensor([0.5, 1.5, 0.01]) * torch.randn(2, 4, 3)
    policy = Normal(distribution.mode(), torch.tensor([-0.5, 0.3, -5.0]).exp())
    torch.testing.assert_close(distribution.log_prob(actions), policy.log_prob(actions).sum(-1))
    assert torch.equal(distribution.mode(), policy.mean)
    head.log_std.data.fill_(7.0)
    torch.testing.assert_close(head(torch.randn(1, 8)).log_std.exp(), torch.full((3,), math.exp(2)))


@pytest.mark.parametrize("box", [BOX, OPEN])
def test_gaussian_draws_have_the_mean_and_spread_and_are_cut_off_where_the_space_ends(box: spaces.Box) -> None:
    scaler = ActionScaler(box)
    low, high = scaler(torch.from_numpy(box.low)), scaler(torch.from_numpy(box.high))
    log_std = torch.linspace(-0.7, 0.2, len(low))
    drawn = Gaussian(torch.full((20_000, len(low)), 0.1), log_std, low, high).sample(seeded())
    assert ((low <= drawn) & (drawn <= high)).all()
    for i in range(len(low)):
        for edge in (-0.8, 0.1, 0.9):
            if low[i] < edge < high[i]:
                share = float(Normal(0.1, log_std[i].exp()).cdf(torch.tensor(edge)))
                assert float((drawn[:, i] < edge).float().mean()) == pytest.approx(share, abs=0.015)


def test_squashed_gaussian_equals_torchs_transformed_distribution() -> None:
    torch.manual_seed(1)
    mean, log_std = torch.randn(50, 4, 3), torch.randn(50, 4, 3)
    distribution = SquashedGaussian(mean, log_std)
    drawn, log_prob = distribution.sample_with_log_prob(seeded())
    policy = TransformedDistribution(Normal(mean.double(), log_std.double().exp()), [TanhTransform()])
    before = mean.double() + log_std.double().exp() * torch.randn(50, 4, 3, generator=seeded())
    torch.testing.assert_close(drawn, before.tanh().float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(distribution.mode(), mean.double().tanh().float())
    kept = (before.abs() < 4).all(-1)  # beyond, torch's inverse of tanh cancels
    assert 100 < kept.sum() < 200
    expected = policy.log_prob(before.tanh()).sum(-1).float()
    torch.testing.assert_close(log_prob[kept], expected[kept], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(distribution.log_prob(drawn)[kept], expected[kept], atol=2e-2, rtol=1e-2)


def test_squashed_gaussian_draws_have_the_spread() -> None:
    mean, log_std = torch.tensor([0.4, -0.9]), torch.tensor([-0.3, 0.2])
    drawn = SquashedGaussian(mean.expand(20_000, 2), log_std.expand(20_000, 2)).sample(seeded())
    for i in range(2):
        for edge in (-0.9, 0.0, 0.7):
            share = float(Normal(mean[i], log_std[i].exp()).cdf(torch.tensor(math.atanh(edge))))
            assert float((drawn[:, i] < edge).float().mean()) == pytest.approx(share, abs=0.015)


def test_squashed_gaussian_is_exact_where_tanh_is_one() -> None:
    """Where 1 - tanh(x)^2 is 0 in single precision, its logarithm still is 2 log 2 - 2 log(e^x + e^-x)."""
    mean = torch.tensor([[30.0], [-30.0]], requires_grad=True)
    log_std = torch.tensor([[0.0], [-1.0]])
    drawn, log_prob = SquashedGaussian(mean, log_std).sample_with_log_prob(seeded())
    noise = torch.randn(2, 1, generator=seeded()).double().numpy()[:, 0]
    std = np.exp([0.0, -1.0])
    x = np.array([30.0, -30.0]) + std * noise
    expected = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    expected -= 2 * np.log(2) - 2 * np.logaddexp(x, -x)
    assert drawn.abs().tolist() == [[1.0], [1.0]]
    np.testing.assert_allclose(log_prob.detach().numpy(), expected, rtol=1e-4)
    (slope,) = torch.autograd.grad(log_prob.sum(), mean)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("parameters", [[0.0, 0.0], [0.7, -1.0], [-1.5, 0.4]])
def test_squashed_gaussian_density_integrates_to_one(parameters: list[float]) -> None:
    grid = np.tanh(np.linspace(-8, 8, 8001))  # fine towards the edges
    distribution = SquashedGaussian(*torch.tensor(parameters).expand(8001, 2).split(1, -1))
    density = distribution.log_prob(torch.from_numpy(grid).float()[:, None]).exp().double().numpy()
    assert scipy.integrate.trapezoid(density, grid) == pytest.approx(1, abs=2e-3)


def test_squashed_gaussian_head_starts_centered_and_wide_and_holds_the_spread() -> None:
    head = SquashedGaussianHead(8, BOX)
    start = head(torch.randn(20, 8))
    assert start.mean.abs().max() < 0.1
    assert start.log_std.abs().max() < 0.1
    with torch.no_grad():
        head.out.bias.copy_(torch.tensor([0.0, 0, 0, 9, -30, 1]))
    torch.testing.assert_close(head(torch.zeros(1, 8)).log_std, torch.tensor([[2.0, -20, 1]]))


@pytest.mark.parametrize("kind", [Gaussian, SquashedGaussian])
def test_a_repeated_distribution_is_the_same_for_each_state(kind: type) -> None:
    mean, log_std = torch.randn(5, 3), torch.randn(3)
    bounds = torch.full((3,), 9.0)
    policy = kind(mean, log_std, -bounds, bounds) if kind is Gaussian else kind(mean, log_std.expand(5, 3))
    actions = torch.rand(5, 7, 3) - 0.5
    repeated = policy.repeat(7)
    assert repeated.sample(seeded()).shape == (5, 7, 3)
    for k in range(7):
        torch.testing.assert_close(repeated.log_prob(actions)[:, k], policy.log_prob(actions[:, k]))


def test_categorical_equals_torchs() -> None:
    logits = torch.randn(2, 5, 3)
    actions = torch.randint(3, (2, 5))
    distribution = Categorical(logits)
    torch.testing.assert_close(distribution.log_prob(actions), TorchCategorical(logits=logits).log_prob(actions))
    assert distribution.mode().tolist() == [[row.index(max(row)) for row in rows] for rows in logits.tolist()]


def test_categorical_draws_have_their_probabilities() -> None:
    distribution = Categorical(torch.tensor([0.2, 0.5, 0.3]).log().expand(100, 200, 3))
    drawn = distribution.sample(seeded())
    assert drawn.shape == (100, 200)
    shares = drawn.flatten().bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3]), atol=0.015, rtol=0)


def test_several_actions_are_as_likely_as_all_of_them_one_by_one() -> None:
    """Where one action has fewer choices than another, what it does not have is never drawn nor the likeliest."""
    space = spaces.MultiDiscrete([3, 1, 2])
    head, features = MultiDiscreteHead(4, space), torch.randn(2, 5, 4)
    logits = head.out(features).unflatten(-1, (3, 3))
    parts = [TorchCategorical(logits=logits[..., i, :n]) for i, n in enumerate((3, 1, 2))]
    distribution = head(features)
    drawn = distribution.sample(seeded())
    assert all(space.contains(action) for action in drawn.flatten(0, 1).numpy())
    expected = torch.stack([part.log_prob(drawn[..., i]) for i, part in enumerate(parts)]).sum(0)
    torch.testing.assert_close(distribution.log_prob(drawn), expected)
    assert torch.equal(distribution.mode(), torch.stack([part.logits.argmax(-1) for part in parts], -1))
    (-distribution.log_prob(drawn)).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    many = head(features[0, 0].expand(20_000, 4)).sample(seeded())
    shares = many[:, 2].bincount(minlength=2) / 20_000
    torch.testing.assert_close(shares, parts[2].probs[0, 0].detach(), atol=0.015, rtol=0)


def test_the_head_fits_the_space() -> None:
    assert type(action_head(8, spaces.MultiDiscrete([2, 3]))) is MultiDiscreteHead
    assert type(action_head(8, BOX)) is DeterministicHead
    assert type(action_head(8, BOX, gaussian=True)) is GaussianHead
    assert type(action_head(8, DISCRETE)) is DiscreteHead
    assert type(action_head(8, DISCRETE, gaussian=True)) is DiscreteHead
    assert [head.stochastic for head in (DeterministicHead, GaussianHead, DiscreteHead)] == [False, True, True]
