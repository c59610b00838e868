"""Raw observations become what is stored, to the bit: in torch as in numpy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rlutils.data.images import Images
from rlutils.data.spaces import flatten_batch
from rlutils.exporting.views import Prepared, Vector

SIDE = st.integers(1, 40)


@settings(max_examples=150, deadline=None)
@given(
    images=st.builds(Images, st.booleans(), st.booleans(), st.none() | st.tuples(SIDE, SIDE)),
    size=st.tuples(SIDE, SIDE),
    seed=st.integers(0, 2**32 - 1),
)
def test_images_are_prepared_to_the_bit(images: Images, size: tuple[int, int], seed: int) -> None:
    shape = (*size, 3) if images.channels_last else (3, *size)
    raw = np.random.default_rng(seed).integers(0, 256, (2, *shape), np.uint8)
    np.testing.assert_array_equal(Prepared(images)(torch.from_numpy(raw)).numpy(), images(raw))


def test_flat_images_are_resized_to_the_bit() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, 210, 160), np.uint8)
    images = Images(size=(84, 84))
    np.testing.assert_array_equal(Prepared(images)(torch.from_numpy(raw)).numpy(), images(raw))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([[2, 3], [4, 1]], start=[[0, -1], [7, 0]]),
        spaces.MultiBinary((2, 2)),
        spaces.Box(-1, 1, (2, 3), np.float32),
    ],
    ids=str,
)
def test_vectors_are_flattened_as_the_data_was(space: spaces.Space) -> None:
    space.seed(0)
    drawn = np.stack([space.sample() for _ in range(30)])
    np.testing.assert_array_equal(Vector(space)(torch.from_numpy(drawn)).numpy(), flatten_batch(space, drawn))
