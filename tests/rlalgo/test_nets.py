"""The shared parts: mlp, Normalizer, action heads, Chooser, masked_mean, schedule."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlalgo.nets import (
    BoxHead,
    Chooser,
    DiscreteHead,
    Normalizer,
    action_head,
    masked_mean,
    mlp,
    warmup_cosine,
)
from tests.rlalgo.toy_data import make_episodes

BOX = spaces.Box(np.array([-2.0, 0.0, 3.0], np.float32), np.array([1.0, 4.0, 3.0], np.float32))  # one is fixed
OPEN = spaces.Box(np.array([-np.inf, 0.0], np.float32), np.full(2, np.inf, np.float32))


@pytest.mark.parametrize(
    ("sizes", "dropout", "layers"),
    [
        ([3, 2], 0.0, ["Linear"]),
        ([3, 4, 2], 0.0, ["Linear", "ReLU", "Linear"]),
        ([3, 4, 5, 2], 0.1, ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]),
    ],
)
def test_mlp(sizes: list[int], dropout: float, layers: list[str]) -> None:
    net = mlp(sizes, dropout)
    assert [type(layer).__name__ for layer in net] == layers
    assert net(torch.zeros(5, 3)).shape == (5, 2)


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


def test_normalizer_leaves_images_alone() -> None:
    data = make_episodes("frames")
    normalizer = Normalizer((4, 5))
    normalizer.fit(data)
    assert normalizer(data.observations) is data.observations
    assert torch.equal(normalizer.mean, torch.zeros(4, 5))


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
    assert isinstance(action_head(8, BOX), BoxHead)
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
