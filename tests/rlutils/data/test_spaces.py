"""rlutils.data.spaces against Gymnasium's own flatten, row by row, over random spaces."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import Space, spaces
from gymnasium.spaces import utils
from hypothesis import given
from hypothesis import strategies as st

from rlalgo.core.spaces import from_mapping, to_mapping
from rlutils.config.yaml_text import dump_yaml, parse_yaml
from rlutils.data.spaces import (
    OutsideSpace,
    flatten_batch,
    flatten_space,
    needs_flatten,
    stored_space,
)
from tests.rlutils.minari_data import stack

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.int32]))
    if dtype in (np.float32, np.float64) and draw(st.booleans()):
        return spaces.Box(-np.inf, np.inf, shape, dtype)
    low = draw(st.integers(0, 5))
    return spaces.Box(low, low + draw(st.integers(1, 200)), shape, dtype)


LEAVES = st.one_of(
    boxes(),
    st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-3, 3)),
    st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 4), SIZES)),
    st.builds(lambda nvec, start: spaces.MultiDiscrete(nvec, start=[start] * len(nvec)), SIZES, st.integers(-2, 2)),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("zyxab"), inner, min_size=1, max_size=3).map(
            lambda parts: spaces.Dict(list(parts.items()))
        ),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


@given(SPACES, st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_flatten_batch_is_gymnasiums_flatten_of_every_row(space: Space, seed: int, n: int) -> None:
    space.seed(seed)
    values = [space.sample() for _ in range(n)]
    rows = flatten_batch(space, stack(space, values))
    assert rows.dtype == np.float32
    expected = np.stack([np.asarray(utils.flatten(space, value)) for value in values])
    np.testing.assert_array_equal(rows, expected.astype(np.float32))
    assert flatten_space(space).shape == rows.shape[1:] == utils.flatten_space(space).shape
    assert all(row in flatten_space(space) for row in rows)


@given(SPACES)
def test_a_space_comes_back_from_yaml(space: Space) -> None:
    again = from_mapping(parse_yaml(dump_yaml(to_mapping(space))))
    assert again == space
    if isinstance(space, spaces.Dict):  # the order of the keys is the order of the flat vector
        assert list(again.spaces) == list(space.spaces)


@pytest.mark.parametrize(
    ("space", "values", "row"),
    [
        (spaces.Discrete(3), [0, 2, 3], 2),
        (spaces.Discrete(3, start=1), [1, 0, 3], 1),
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [2, 0]], 1),
        (spaces.Tuple([spaces.Box(0, 1, (1,)), spaces.Discrete(2)]), ([[0.5], [0.5]], [-1, 0]), 0),
    ],
)
def test_a_discrete_value_out_of_range_is_named_by_its_row(space: Space, values: object, row: int) -> None:
    with pytest.raises(OutsideSpace) as caught:
        flatten_batch(space, values)
    assert caught.value.row == row


def test_spaces_without_a_fixed_size_are_refused() -> None:
    for space in (spaces.Text(5), spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))})):
        for function in (flatten_space, to_mapping, stored_space):
            with pytest.raises(TypeError, match="fixed size"):
                function(space)


def test_stored_space_keeps_images_and_casts_the_rest() -> None:
    image = spaces.Box(0, 255, (8, 8), np.uint8)
    assert stored_space(image) is image
    ram = stored_space(spaces.Box(0, 255, (128,), np.uint8))
    assert (ram.dtype, ram.shape) == (np.float32, (128,))
    grid = stored_space(spaces.Box(-1, 1, (5, 5), np.float64))
    assert (grid.dtype, grid.shape, needs_flatten(grid)) == (np.float32, (5, 5), False)
    assert stored_space(spaces.Discrete(4)).shape == (4,)
    assert stored_space(spaces.Box(0, 1, ())).shape == (1,)
