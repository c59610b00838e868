"""Packed: observations of images and vectors as one row of bytes, there and back."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rlalgo import DataSpec, Transitions
from rlalgo.core.policy import FrameStack
from rlalgo.core.spaces import Packed, from_mapping, stack_frames, to_mapping
from rlalgo.errors import DataError
from tests.rlalgo.toy_data import make_episodes

VECTORS = st.integers(1, 3).map(lambda size: spaces.Box(-np.inf, np.inf, (size,), np.float32))
IMAGES = st.lists(st.integers(1, 3), min_size=2, max_size=3).map(
    lambda shape: spaces.Box(0, 255, tuple(shape), np.uint8)
)
PARTS = st.lists(st.one_of(VECTORS, IMAGES), min_size=1, max_size=5).map(
    lambda boxes: spaces.Dict([(f"part/{i}", box) for i, box in enumerate(boxes)])
)


def values(parts: spaces.Dict, *lead: int) -> dict[str, np.ndarray]:
    """Random values of every part, with these leading dimensions."""
    rng, found = np.random.default_rng(0), {}
    for name, box in parts.spaces.items():
        shape = (*lead, *(box.shape or ()))
        numbers = rng.integers(0, 256, shape) if box.dtype == np.uint8 else rng.normal(size=shape)
        found[name] = numbers.astype(box.dtype)
    return found


@given(PARTS, st.integers(1, 3), st.integers(1, 3))
def test_there_and_back(parts: spaces.Dict, n: int, frames: int) -> None:
    space, given = Packed(parts), values(parts, n * frames)
    rows = space.pack(given)
    assert (rows.shape, rows.dtype) == ((n * frames, *(space.shape or ())), np.uint8)
    assert len(space.floats(rows).tobytes()) == 4 * n * frames * space.size
    seen = Packed(parts, frames)
    batch = torch.from_numpy(rows) if frames == 1 else torch.from_numpy(rows).view(n, frames, -1)
    assert batch.shape[1:] == seen.shape
    found = seen.unpack(batch)
    assert list(found) == list(parts.spaces) == list(seen.encoder_space().spaces)
    for name, part in found.items():
        whole = torch.from_numpy(given[name])
        shape = whole.shape[1:]
        assert torch.equal(part, whole if frames == 1 else stack_frames(whole.view(n, frames, *shape), shape))
        assert part.shape[1:] == seen.encoder_space()[name].shape
        assert part.is_floating_point() == (parts[name].dtype == np.float32)


@given(PARTS)
def test_a_space_comes_back_from_plain_values_and_is_another_in_another_order(parts: spaces.Dict) -> None:
    space = Packed(parts)
    again = from_mapping(to_mapping(space))
    assert again == space == copy.deepcopy(space)
    assert space != spaces.Box(0, 255, space.shape, np.uint8)
    assert Packed(parts, 2) != space
    names = list(parts.spaces.items())
    assert (Packed(spaces.Dict(names[::-1])) == space) is (len(names) == 1)
    spec = DataSpec(space, spaces.Discrete(2), frame_stack=3)
    assert DataSpec.from_mapping(spec.to_mapping()) == spec
    assert spec.encoder_space() == Packed(parts, 3)


def test_only_vectors_of_numbers_and_bytes_are_packed() -> None:
    for box in (spaces.Box(-1, 1, (2, 2)), spaces.Box(0, 9, (2,), np.int64), spaces.Discrete(2)):
        with pytest.raises(TypeError, match="expected vectors of float32 and images of uint8"):
            Packed(spaces.Dict(a=box))
    with pytest.raises(ValueError, match="reshape"):
        Packed(spaces.Dict(a=spaces.Box(-1, 1, (2,)))).pack({"a": np.zeros((3, 1))})


def test_a_vector_that_is_not_finite_is_told_with_its_step() -> None:
    episodes = make_episodes("packed", (3, 4)).check("toy")
    space = episodes.spec.observation_space
    assert isinstance(space, Packed)
    space.floats(episodes.observations)[5, 1] = torch.nan
    with pytest.raises(DataError, match=r"toy: episode 1, step 1: observation .* is not finite"):
        episodes.check("toy")


def test_a_policy_stacks_frames_as_batches_have_them() -> None:
    episodes = make_episodes("packed", (5,), frame_stack=3)
    stack, row = FrameStack(episodes.spec, 1, torch.device("cpu")), torch.zeros(1, dtype=torch.int64)
    stack.reset(row)
    played = torch.cat([stack.push(seen[None], row) for seen in episodes.observations[:5]])
    assert torch.equal(played, Transitions(episodes).gather(torch.arange(5)).observations)
