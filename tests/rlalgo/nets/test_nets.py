"""The shared parts: networks, Normalizer, action heads, critics, targets, Chooser, minimize, masked_mean, schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlalgo import BatchRLAlgo, Choice, Transitions
from rlalgo.encoders import features
from rlalgo.nets import (
    BoxHead,
    Chooser,
    Counter,
    Critics,
    DiscreteCritics,
    DiscreteHead,
    Ensemble,
    GaussianHead,
    Normalizer,
    SquashedGaussianHead,
    Target,
    action_head,
    bounded_box,
    masked_mean,
    mlp,
    trunk,
    warmup_cosine,
)
from tests.rlalgo.toy_data import make_episodes

BOX = spaces.Box(np.array([-2.0, 0.0, 3.0], np.float32), np.array([1.0, 4.0, 3.0], np.float32))  # one is fixed
OPEN = spaces.Box(np.array([-np.inf, 0.0], np.float32), np.full(2, np.inf, np.float32))


@pytest.mark.parametrize(
    ("sizes", "layers"),
    [
        ([3, 2], ["Linear"]),
        ([3, 4, 5, 2], ["Linear", "ReLU", "Linear", "ReLU", "Linear"]),
    ],
)
def test_mlp(sizes: list[int], layers: list[str]) -> None:
    net = mlp(sizes)
    assert [type(layer).__name__ for layer in net] == layers
    assert net(torch.zeros(5, 3)).shape == (5, 2)


def test_trunk() -> None:
    def kinds(*args: Any, **options: Any) -> list[str]:
        net = trunk(nn.Identity(), 3, 8, *args, **options)
        assert net(torch.randn(5, 3)).shape == (5, 8)
        return [type(layer).__name__ for layer in net]

    assert kinds(1) == ["Identity", "Linear", "ReLU"]
    assert kinds(2) == ["Identity", "Linear", "ReLU", "Linear", "ReLU"]
    assert kinds(1, 0.1, layer_norm=True) == ["Identity", "Linear", "ReLU", "LayerNorm", "Dropout"]


@pytest.mark.parametrize("choice", [None, Choice("linear")])
def test_features_are_the_observation_or_the_encoders_after_a_relu(choice: Choice | None) -> None:
    frames = spaces.Box(0, 255, (4, 5), np.uint8)
    torch.manual_seed(0)
    net, size = features(choice, frames, 7)
    x = torch.randint(256, (6, 4, 5), dtype=torch.uint8)
    flat = x.reshape(6, 20).float() / 255
    if choice is None:
        assert size == 20
        torch.testing.assert_close(net(x), flat)
    else:
        assert size == 7
        weight, bias = net.parameters()
        torch.testing.assert_close(net(x), (flat @ weight.T + bias).clamp(min=0))


def test_normalizer_takes_the_steps_and_not_the_final_observations() -> None:
    data = make_episodes(lengths=(3, 1, 4))
    rows = [0, 1, 2, 4, 6, 7, 8, 9]  # all but the last of each episode
    steps = data.observations[rows].double().numpy()
    normalizer = Normalizer((3,))
    x = torch.randn(2, 5, 3)
    assert torch.equal(normalizer(x), x)  # the identity until it is fitted
    normalizer.fit(data)
    np.testing.assert_allclose(normalizer.mean, steps.mean(0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, steps.std(0) + 1e-6, rtol=1e-6)
    expected = (x.double().numpy() - steps.mean(0)) / (steps.std(0) + 1e-6)
    np.testing.assert_allclose(normalizer(x), expected, rtol=1e-4, atol=1e-5)
    assert set(normalizer.state_dict()) == {"mean", "std"}  # saved with the weights


def test_normalizer_is_exact_for_large_offsets() -> None:
    """A mean of 1e4 with a spread of 0.1 loses all its digits when squares are summed in single precision."""
    data = make_episodes(lengths=(70_000,))
    values = 1e4 + 0.1 * torch.randn(70_001, 3, generator=torch.Generator().manual_seed(0))
    normalizer = Normalizer((3,))
    normalizer.fit(replace(data, observations=values))
    np.testing.assert_allclose(normalizer.std, values[:-1].double().std(0, correction=0), rtol=1e-4)


def test_normalizer_does_not_blow_up_what_never_varies() -> None:
    """In the second dimension only final observations differ, in the third only rounding does."""
    data = make_episodes(lengths=(3, 1, 4))
    observations = data.observations.clone()
    observations[:, 1] = 0.0
    observations[[3, 5, 10], 1] = 1.0
    observations[:, 2] = 1e4
    observations[2, 2] += 1e-3
    normalizer = Normalizer((3,))
    normalizer.fit(replace(data, observations=observations))
    seen = normalizer(observations)
    assert seen[:, 1].tolist() == pytest.approx([0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1], abs=1e-5)
    assert seen[:, 2].abs().max() < 1e-2
    np.testing.assert_allclose(seen[[0, 1, 2, 4, 6, 7, 8, 9], 0].std(correction=0), 1, rtol=1e-4)


def test_normalizer_leaves_images_alone() -> None:
    data = make_episodes("frames")
    normalizer = Normalizer((4, 5))
    normalizer.fit(data)
    assert normalizer(data.observations) is data.observations
    assert torch.equal(normalizer.mean, torch.zeros(4, 5))


@pytest.mark.parametrize("image", [False, True])
def test_normalizer_treats_every_stacked_frame_alike(image: bool) -> None:
    """Vectors join in a new dimension, images with channels along the channels."""
    one = make_episodes("box", lengths=(3, 4))
    if image:
        space = spaces.Box(-9, 9, (3, 2, 2), np.float32)
        one = replace(one, observations=torch.randn(9, 3, 2, 2), spec=replace(one.spec, observation_space=space))
    two = replace(one, spec=replace(one.spec, frame_stack=2))
    plain, stacked = (Normalizer(e.spec.encoder_space().shape) for e in (one, two))
    plain.fit(one)
    stacked.fit(two)
    found = stacked(Transitions(two).gather(torch.arange(7)).observations)
    frames = found.unflatten(1, (2, 3)) if image else found  # (7, 2, ...)
    torch.testing.assert_close(frames[:, 1], plain(Transitions(one).gather(torch.arange(7)).observations))
    torch.testing.assert_close(frames[[1, 2, 4, 5, 6], 0], frames[[0, 1, 3, 4, 5], 1])  # the frame before


def test_normalizer_takes_stacked_vectors_and_scalars() -> None:
    normalizer = Normalizer((3,))
    normalizer.fit(make_episodes())
    frames = torch.randn(7, 4, 3)
    assert torch.equal(normalizer(frames)[:, 2], normalizer(frames[:, 2]))
    assert Normalizer(())(torch.tensor([2.0])).tolist() == [2.0]


def test_box_head_scales_a_bounded_space_to_one() -> None:
    head = BoxHead(8, BOX)
    ends = torch.from_numpy(np.stack([BOX.low, BOX.high]))
    assert head.scale(ends).tolist() == [[-1, -1, 0], [1, 1, 0]]
    assert torch.equal(head.actions(torch.tensor([[-1.0, -1, -1], [1, 1, 1]])), ends)
    actions = torch.from_numpy(np.stack([BOX.sample() for _ in range(20)]))
    torch.testing.assert_close(head.actions(head.scale(actions)), actions)
    assert not head.state_dict().keys() - {"out.weight", "out.bias"}  # bounds come from the spec


def test_box_head_acts_inside_the_space_whatever_it_predicts() -> None:
    for tanh in (True, False):
        head = BoxHead(8, BOX, tanh)
        prediction = head(1e3 * torch.randn(50, 8))
        assert (prediction.abs().max() <= 1) == tanh
        assert all(BOX.contains(action.numpy()) for action in head.actions(prediction).detach())


def test_box_head_leaves_an_unbounded_space_alone_but_for_its_bounds() -> None:
    head = BoxHead(8, OPEN)
    assert isinstance(head.squash, nn.Identity)
    assert head.actions(torch.tensor([[-9.0, -9.0], [9.0, 9.0]])).tolist() == [[-9, 0], [9, 9]]
    assert head.scale(torch.tensor([[5.0, 6.0]])).tolist() == [[5, 6]]


def test_box_loss_is_the_squared_error_of_scaled_actions() -> None:
    head = BoxHead(8, BOX)
    prediction, actions = torch.zeros(2, 4, 3), torch.from_numpy(BOX.high).expand(2, 4, 3)
    torch.testing.assert_close(head.loss(prediction, actions), torch.full((2, 4), 2 / 3))


# --- Gaussian heads ---


def test_gaussian_loss_equals_torchs_density() -> None:
    head = GaussianHead(8, BOX)
    head.log_std.data = torch.tensor([-0.5, 0.3, -9.0])  # the last is held at e^-5
    prediction, actions = head(torch.randn(2, 4, 8)), torch.from_numpy(np.stack([BOX.sample() for _ in range(4)]))
    policy = Normal(prediction, torch.tensor([-0.5, 0.3, -5.0]).exp())
    expected = -policy.log_prob((actions - torch.tensor([-0.5, 2, 3])) / torch.tensor([1.5, 2, 1])).sum(-1)
    torch.testing.assert_close(head.loss(prediction, actions), expected)
    head.log_std.data.fill_(7.0)
    torch.testing.assert_close(head.std(), torch.full((3,), math.exp(2)))


@pytest.mark.parametrize("box", [BOX, OPEN])
def test_gaussian_draws(box: spaces.Box) -> None:
    """Of the mean and spread asked for, cut off where the space ends and nowhere else."""
    head = GaussianHead(8, box)
    mean = torch.zeros(20_000, *box.shape)
    drawn = head.sample(mean, torch.Generator().manual_seed(0))
    low, high = head.scale(torch.from_numpy(box.low)), head.scale(torch.from_numpy(box.high))
    assert ((low <= drawn) & (drawn <= high)).all()
    for i in range(len(low)):
        for edge in (-0.8, 0.1, 0.9):
            if low[i] < edge < high[i]:
                share = float(Normal(0.0, 1.0).cdf(torch.tensor(edge)))
                assert float((drawn[:, i] < edge).float().mean()) == pytest.approx(share, abs=0.015)
    assert torch.equal(head.actions(mean, torch.Generator().manual_seed(0)), BoxHead.actions(head, drawn))
    assert torch.equal(head.actions(mean[:3] + 9), BoxHead.actions(head, mean[:3] + 9))  # nothing drawn
    torch.manual_seed(0)
    one = head.sample(mean)
    torch.manual_seed(0)
    assert torch.equal(one, head.sample(mean))  # the default generator, where none is given


def test_squashed_gaussian_equals_torchs_transformed_distribution() -> None:
    head = SquashedGaussianHead(8, BOX)
    prediction = torch.randn(50, 4, 6)
    prediction[0, 0, 3:] = torch.tensor([9.0, -2.0, 0.0])  # the first is held at e^2
    torch.manual_seed(1)
    drawn, log_prob = head.sample(prediction)
    mean, log_std = prediction[..., :3].double(), prediction[..., 3:].double().clamp(max=2)
    policy = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    torch.manual_seed(1)
    before = mean + log_std.exp() * torch.randn(50, 4, 3)
    torch.testing.assert_close(drawn, before.tanh().float(), atol=1e-5, rtol=0)
    kept = (before.abs() < 4).all(-1)  # beyond, torch's inverse of tanh cancels
    assert 100 < kept.sum() < 200
    expected = policy.log_prob(before.tanh()).sum(-1).float()
    torch.testing.assert_close(log_prob[kept], expected[kept], atol=1e-3, rtol=1e-4)
    inside = drawn[kept]
    raw = inside * torch.tensor([1.5, 2, 1]) + torch.tensor([-0.5, 2, 3])
    assert head.actions(prediction).shape == (50, 4, 3)
    torch.testing.assert_close(-head.loss(prediction[kept], raw), expected[kept], atol=2e-2, rtol=1e-2)


def test_squashed_gaussian_is_exact_where_tanh_is_one() -> None:
    """Where 1 - tanh(x)^2 is 0 in single precision, its logarithm still is 2 log 2 - 2 log(e^x + e^-x)."""
    head = SquashedGaussianHead(8, spaces.Box(-1, 1, (1,), np.float32))
    prediction = torch.tensor([[30.0, 0.0], [-30.0, -1.0]], requires_grad=True)
    torch.manual_seed(0)
    drawn, log_prob = head.sample(prediction)
    torch.manual_seed(0)
    noise = torch.randn(2, 1).double().numpy()[:, 0]
    std = np.exp([0.0, -1.0])
    x = np.array([30.0, -30.0]) + std * noise
    expected = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    expected -= 2 * np.log(2) - 2 * np.logaddexp(x, -x)
    assert drawn.abs().tolist() == [[1.0], [1.0]]
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=1e-4)
    (slope,) = torch.autograd.grad(log_prob.sum(), prediction)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("prediction", [[0.0, 0.0], [0.7, -1.0], [-1.5, 0.4]])
def test_squashed_gaussian_density_integrates_to_one(prediction: list[float]) -> None:
    head = SquashedGaussianHead(8, spaces.Box(-2, 1, (1,), np.float32))
    grid = np.tanh(np.linspace(-8, 8, 8001))  # fine towards the edges
    raw = torch.from_numpy(grid * 1.5 - 0.5).float()[:, None]
    density = (-head.loss(torch.tensor(prediction).expand(8001, 2), raw)).exp().double().numpy()
    assert scipy.integrate.trapezoid(density, grid) == pytest.approx(1, abs=2e-3)


def test_squashed_gaussian_actions_lie_in_the_space() -> None:
    head = SquashedGaussianHead(8, BOX)
    prediction = 10 * torch.randn(100, 6)
    generator = torch.Generator().manual_seed(0)
    for actions in (head.actions(prediction), head.actions(prediction, generator)):
        assert all(BOX.contains(action.numpy()) for action in actions)
    expected = prediction[:, :3].tanh() * torch.tensor([1.5, 2, 1]) + torch.tensor([-0.5, 2, 3])
    torch.testing.assert_close(head.actions(prediction)[:, :2], expected[:, :2])
    edge = torch.from_numpy(np.stack([BOX.low, BOX.high]))
    assert torch.isfinite(head.loss(torch.zeros(2, 6), edge)).all()


def test_bounded_box_refuses_open_spaces() -> None:
    assert bounded_box(BOX, "x") is BOX
    with pytest.raises(ValueError, match="cql needs a bounded action space"):
        bounded_box(OPEN, "cql")


# --- discrete heads, choosing ---


def test_discrete_head() -> None:
    head = DiscreteHead(8, spaces.Discrete(3))
    logits = head(torch.randn(2, 5, 8))
    assert logits.shape == (2, 5, 3)
    assert torch.equal(head.actions(logits), logits.argmax(-1))
    actions = torch.randint(3, (2, 5))
    loss = head.loss(logits, actions)
    assert loss.shape == (2, 5)
    for i in range(2):
        for t in range(5):
            row = logits[i, t].tolist()
            expected = math.log(sum(math.exp(v) for v in row)) - row[int(actions[i, t])]
            assert loss[i, t].item() == pytest.approx(expected, abs=1e-5)
    assert head.scale(actions) is actions


def test_discrete_actions_are_sampled_by_their_probabilities() -> None:
    head = DiscreteHead(8, spaces.Discrete(3))
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(20_000, 3)
    drawn = head.actions(logits, torch.Generator().manual_seed(0))
    again = head.actions(logits, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    shares = drawn.bincount(minlength=3) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3]), atol=0.015, rtol=0)


def test_action_head_fits_the_space() -> None:
    assert type(action_head(8, BOX)) is BoxHead
    assert type(action_head(8, BOX, gaussian=True)) is GaussianHead
    assert isinstance(action_head(8, spaces.Discrete(3)), DiscreteHead)


def test_chooser_samples_only_the_rows_that_asked() -> None:
    head = DiscreteHead(8, spaces.Discrete(2))
    torch.manual_seed(0)
    choose = Chooser(head, [False, True, False, True])
    rows, even = torch.tensor([1, 2, 3]), torch.tensor([[0.0, 1e-3]] * 3)
    drawn = torch.stack([choose(even, rows) for _ in range(200)])  # (200, 3)
    assert drawn[:, 1].unique().tolist() == [1]  # the likeliest
    for column in (0, 2):
        assert 60 < int(drawn[:, column].sum()) < 140
    state = torch.get_rng_state()
    choose(even, rows)
    assert torch.equal(state, torch.get_rng_state())  # it has a generator of its own
    with pytest.raises(ValueError, match="Discrete"):
        Chooser(BoxHead(8, BOX), [True])


def test_chooser_draws_continuous_actions_for_the_rows_that_asked() -> None:
    torch.manual_seed(0)
    choose = Chooser(GaussianHead(8, BOX), [False, True, False])
    means = torch.zeros(2, 3)
    drawn = torch.stack([choose(means, torch.tensor([1, 2])) for _ in range(50)]).detach()  # (50, 2, 3)
    assert drawn[:, 1].unique(dim=0).tolist() == [[-0.5, 2, 3]]
    assert len(drawn[:, 0].unique(dim=0)) > 25  # many lie on an edge


# --- critics side by side ---


def alone(ensemble: Any, i: int) -> nn.Sequential:
    """Member i as modules of torch's own."""
    parts: list[nn.Module] = []
    for k, layer in enumerate(ensemble.layers):
        if k:
            parts.append(nn.ReLU())
        if k and ensemble.norms is not None:
            norm = ensemble.norms[k - 1]
            parts.append(nn.LayerNorm(norm.weight.shape[-1]))
            parts[-1].load_state_dict({"weight": norm.weight[i, 0], "bias": norm.bias[i, 0]})
        parts.append(nn.Linear(*layer.weight.shape[1:]))
        parts[-1].load_state_dict({"weight": layer.weight[i].T, "bias": layer.bias[i, 0]})
    return nn.Sequential(*parts)


def shaken(module: Any) -> Any:
    """Every parameter moved, those that begin as 0 or 1 too."""
    for p in module.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return module


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 5, 2), (3, 5, 4, 1)])
def test_an_ensemble_equals_as_many_networks(sizes: Sequence[int], layer_norm: bool) -> None:
    """Outputs, and gradients of inputs and weights."""
    torch.manual_seed(0)
    ensemble: Any = shaken(Ensemble(4, sizes, layer_norm))
    x = torch.randn(4, 6, 3, requires_grad=True)
    for m in (4, 2):
        out = ensemble(x[:m])
        assert out.shape == (m, 6, sizes[-1])
        first = ensemble.layers[0].weight
        slopes = torch.autograd.grad(out.square().sum(), [x, first])
        for i in range(4):
            net: Any = alone(ensemble, i)
            expected = net(x[i])
            wanted = torch.autograd.grad(expected.square().sum(), [x, net[0].weight])
            used = float(i < m)  # the others have no part in it
            if used:
                torch.testing.assert_close(out[i], expected)
            torch.testing.assert_close(slopes[0][i], used * wanted[0][i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(slopes[1][i].T, used * wanted[1], atol=1e-4, rtol=1e-4)


def test_an_ensemble_starts_as_linear_layers_do() -> None:
    torch.manual_seed(0)
    layers: Any = Ensemble(50, [16, 64, 4]).layers
    for layer, size in zip(layers, (16, 64), strict=True):
        for p in layer.parameters():
            bound = 1 / math.sqrt(size)
            assert p.abs().max().item() <= bound
            assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not torch.equal(layer.weight[0], layer.weight[1])


@pytest.mark.parametrize("layer_norm", [False, True])
def test_critics_value_actions_one_by_one(layer_norm: bool) -> None:
    torch.manual_seed(0)
    seen = nn.Sequential(nn.Linear(5, 3), nn.ReLU())
    critics = shaken(Critics(seen, 3, 2, n=4, width=8, layers=2, layer_norm=layer_norm))
    nets = [alone(critics.members, i) for i in range(4)]
    states, actions, several = torch.randn(6, 5), torch.randn(6, 2), torch.randn(6, 7, 2)
    own = torch.randn(4, 6, 2)
    assert critics(states, actions).shape == critics.each(states, own).shape == (4, 6)
    assert critics(states, several).shape == (4, 6, 7)
    for i, b in itertools.product(range(4), range(6)):

        def value(action: Tensor) -> Tensor:
            return nets[i](torch.cat([seen(states[b]), action]))[0]  # noqa: B023

        torch.testing.assert_close(critics(states, actions)[i, b], value(actions[b]))
        torch.testing.assert_close(critics.each(states, own)[i, b], value(own[i, b]))
        for k in range(7):
            torch.testing.assert_close(critics(states, several)[i, b, k], value(several[b, k]))
    for m in (1, 3):
        torch.testing.assert_close(critics(states, actions, first=m), critics(states, actions)[:m])
        torch.testing.assert_close(critics(states, several, first=m), critics(states, several)[:m])


@pytest.mark.parametrize("dueling", [False, True])
def test_discrete_critics_value_every_action(dueling: bool) -> None:
    torch.manual_seed(0)
    critics = shaken(DiscreteCritics(nn.Linear(5, 3), 3, 4, n=2, width=8, layers=1, dueling=dueling))
    states = torch.randn(6, 5)
    found = critics(states)
    assert found.shape == (2, 6, 4)
    for i, b in itertools.product(range(2), range(6)):
        x = critics.features(states[b])
        expected = alone(critics.members, i)(x)
        if dueling:
            expected = alone(critics.value, i)(x) + expected - sum(expected.tolist()) / 4
        torch.testing.assert_close(found[i, b], expected)
        assert int(critics.actions(found)[i, b]) == int(np.argmax(expected.detach()))


# --- targets, counting, optimizing ---


def test_a_target_follows_by_tau_and_copies_statistics() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    both = nn.ModuleDict({"source": source, "target": Target(source)}).double()  # moving replaces buffers
    target: Any = both["target"]
    assert not any(p.requires_grad for p in target.parameters())
    x = torch.randn(6, 3).double()
    old = [p.clone() for p in target.parameters()]
    shaken(source)
    source(x)
    target.follow(0.25)
    for t, before, s in zip(target.parameters(), old, source.parameters(), strict=True):
        torch.testing.assert_close(t, 0.75 * before + 0.25 * s.detach())
    statistics: Any = source[1]
    assert statistics.running_mean.any()
    assert torch.equal(target.copy[1].running_mean, statistics.running_mean)
    assert torch.equal(target.copy[1].num_batches_tracked, statistics.num_batches_tracked)
    target.follow(1.0)
    assert torch.equal(target.eval()(x), source.eval()(x))


def test_a_counter_is_saved() -> None:
    one, other = nn.Sequential(Counter()), nn.Sequential(Counter())
    counter: Any = one[0]
    assert [counter.step() for _ in range(3)] == [1, 2, 3]
    other.load_state_dict(one.state_dict())
    again: Any = other[0]
    assert again.step() == 4


class Two(BatchRLAlgo):
    """Two layers, an optimizer for each."""

    name = "two"

    def __init__(self) -> None:
        super().__init__(make_episodes().spec, None)
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)
        for name in ("first", "second"):
            self.optimizers[name] = torch.optim.SGD(getattr(self, name).parameters(), lr=0.1)
            self.schedulers[name] = warmup_cosine(self.optimizers[name], 2, 4, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh()).squeeze(-1)

    def dataset(self, episodes: Any) -> Transitions:
        return Transitions(episodes)

    def update(self, batch: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def policy(self, options: Any) -> Any:
        raise NotImplementedError

    def predict(self, batch: Any) -> Tensor:
        raise NotImplementedError


def test_minimize_reaches_the_named_parameters_alone() -> None:
    algo, x = Two(), torch.randn(6, 3)
    loss = algo(x).square().mean()
    expected = torch.autograd.grad(loss, list(algo.second.parameters()), retain_graph=True)
    before = [p.clone() for p in algo.parameters()]
    called: list[str] = []
    algo.gradient_hook = called.append
    algo.minimize("second", loss)
    assert called == ["second"]
    assert all(p.grad is None for p in algo.first.parameters())
    for p, old in zip(algo.first.parameters(), before[:2], strict=True):
        assert torch.equal(p, old)
    for p, old, slope in zip(algo.second.parameters(), before[2:], expected, strict=True):
        torch.testing.assert_close(p, old - 0.05 * slope)  # half the rate: the schedule warms up
    assert algo.optimizers["second"].param_groups[0]["lr"] == 0.1
    assert algo.optimizers["first"].param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_minimize_takes_a_loss_in_parts(clip: float | None) -> None:
    """The step is that of the sum; clipped as a whole, and what an earlier step left does not count."""
    x = torch.randn(6, 3)
    whole, parts = Two(), Two()
    hooks: list[str] = []
    for algo in (whole, parts):
        algo.clip = clip
        algo.minimize("first", algo(x).mean())
    parts.gradient_hook = hooks.append
    whole.minimize("first", whole(x).square().sum())
    parts.minimize("first", (parts(row[None]).square().sum() for row in x))
    assert hooks == ["first"]
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(whole.first.parameters(), parts.first.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parts.first.parameters() if p.grad is not None))
    assert (norm == pytest.approx(1e-3, rel=1e-3)) == (clip is not None)


def test_masked_mean_does_not_count_padding() -> None:
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, mask).item() == 2.0
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0.0


@pytest.mark.parametrize(("warmup", "total", "final"), [(0, 10, 1.0), (4, 20, 1.0), (4, 20, 0.1), (5, 3, 0.5)])
def test_schedule(warmup: int, total: int, final: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = warmup_cosine(optimizer, warmup, total, final)
    for step in range(30):
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            share = min(1.0, (step - warmup) / max(total - warmup, 1))
            expected = final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * expected)
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * final)


def test_a_schedule_for_each_group() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    schedule = warmup_cosine(optimizer, 0, 8, [0.0, 1.0])
    for step in range(9):
        fading, constant = (group["lr"] for group in optimizer.param_groups)
        assert fading == pytest.approx(1 + math.cos(math.pi * step / 8), abs=1e-12)
        assert constant == 2.0
        optimizer.step()
        schedule.step()
