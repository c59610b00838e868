"""Layers: MLPs, trunks and what goes into them, and the normalizer of observations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlalgo import Choice, Transitions
from rlalgo.core.spaces import Packed
from rlalgo.nets import Normalizer, OneHot, inputs, mlp, trunk
from tests.rlalgo.toy_data import make_episodes

FRAMES = spaces.Box(0, 255, (4, 5), np.uint8)
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)


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
        net = trunk(FRAMES, None, *args, **options)
        assert net(torch.randint(256, (6, 4, 5), dtype=torch.uint8)).shape == (6, 8)
        return [type(layer).__name__ for layer in net]

    assert kinds([8]) == ["Flatten", "Linear", "ReLU"]
    assert kinds([9, 8]) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU"]
    assert kinds([8], 0.1, layer_norm=True) == ["Flatten", "Linear", "ReLU", "LayerNorm", "Dropout"]
    widths = [p.shape[0] for p in trunk(FRAMES, Choice("linear"), [9, 8, 7]).parameters() if p.dim() == 2]
    assert widths == [9, 9, 8, 7]  # the encoder's width is that of the first layer


@pytest.mark.parametrize("choice", [None, Choice("linear")])
def test_inputs_are_the_observation_or_the_encoders_output_after_a_relu(choice: Choice | None) -> None:
    torch.manual_seed(0)
    net, size = inputs(FRAMES, choice, 7)
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
    normalizer = Normalizer(VECTOR)
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
    normalizer = Normalizer(VECTOR)
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
    normalizer = Normalizer(VECTOR)
    normalizer.fit(replace(data, observations=observations))
    seen = normalizer(observations)
    assert seen[:, 1].tolist() == pytest.approx([0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1], abs=1e-5)
    assert seen[:, 2].abs().max() < 1e-2
    np.testing.assert_allclose(seen[[0, 1, 2, 4, 6, 7, 8, 9], 0].std(correction=0), 1, rtol=1e-4)


def test_normalizer_leaves_images_alone() -> None:
    data = make_episodes("frames")
    normalizer = Normalizer(FRAMES)
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
    plain, stacked = (Normalizer(e.spec.encoder_space()) for e in (one, two))
    plain.fit(one)
    stacked.fit(two)
    found = stacked(Transitions(two).gather(torch.arange(7)).observations)
    frames = found.unflatten(1, (2, 3)) if image else found  # (7, 2, ...)
    torch.testing.assert_close(frames[:, 1], plain(Transitions(one).gather(torch.arange(7)).observations))
    torch.testing.assert_close(frames[[1, 2, 4, 5, 6], 0], frames[[0, 1, 3, 4, 5], 1])  # the frame before


def test_normalizer_takes_stacked_vectors_and_scalars() -> None:
    normalizer = Normalizer(VECTOR)
    normalizer.fit(make_episodes())
    frames = torch.randn(7, 4, 3)
    assert torch.equal(normalizer(frames)[:, 2], normalizer(frames[:, 2]))
    assert Normalizer(spaces.Box(-1, 1, ()))(torch.tensor([2.0])).tolist() == [2.0]


@pytest.mark.parametrize("frames", [1, 2])
def test_normalizer_of_packed_observations_changes_the_vectors_alone(frames: int) -> None:
    data = make_episodes("packed", (3, 4), frame_stack=frames)
    space = data.spec.encoder_space()
    assert isinstance(space, Packed)
    batch = Transitions(data).gather(torch.arange(7)).observations
    before, normalizer = batch.clone(), Normalizer(space)
    assert torch.equal(normalizer(batch), batch)
    normalizer.fit(data)
    seen, raw = space.unpack(normalizer(batch)), space.unpack(batch)
    assert torch.equal(batch, before)
    assert torch.equal(seen["eye"], raw["eye"])
    steps = data.spec.observation_space.unpack(data.observations)["at"][[0, 1, 2, 4, 5, 6, 7]].double()  # type: ignore[attr-defined]
    expected = (raw["at"].double() - steps.mean(0)) / (steps.std(0, correction=0) + 1e-6)
    torch.testing.assert_close(seen["at"].double(), expected, rtol=1e-4, atol=1e-5)


def test_images_and_vectors_together_need_an_encoder_that_takes_both() -> None:
    space = make_episodes("packed").spec.encoder_space()
    for refused in (space, space.encoder_space()):  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"eye: Box of 2x4x5.*\{name: fusion\} \(pip install rlalgo-cnn\)"):
            inputs(refused, None, 8)
    for name in ("linear", "mlp"):
        with pytest.raises(TypeError, match="fusion"):
            trunk(space, Choice(name), [8])


def test_discrete_values_become_one_hot() -> None:
    assert OneHot(spaces.Discrete(3))(torch.tensor([[2, 0]])).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    hot = OneHot(spaces.MultiDiscrete([2, 3], start=[5, 6]))
    assert hot(torch.tensor([1, 2])).tolist() == [0, 1, 0, 0, 0, 1]
    assert hot.size == 6
