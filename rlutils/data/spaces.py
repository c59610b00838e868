"""Observations of any space as one tensor: what a source stores and what an environment hands to a policy.

Images stay as they are and every other Box becomes float32. Dict, Tuple, Discrete, MultiDiscrete and
MultiBinary are flattened to a float32 vector as Gymnasium's `flatten` does, but for all steps at once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import utils as gymnasium_utils

from rlalgo.core.spaces import as_float32, unsized


class OutsideSpace(ValueError):
    """A value that its space does not hold; `row` says which one of the batch."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


def is_image(space: spaces.Space) -> bool:
    """Whether observations are kept as uint8: a uint8 Box with two dimensions or three."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def needs_flatten(space: spaces.Space) -> bool:
    """Whether one observation is not yet an array with at least one dimension."""
    return not isinstance(space, spaces.Box) or space.shape == ()


def stored_space(space: spaces.Space) -> spaces.Box:
    """The space of one observation as it is stored and as encoders see it.

    Raises:
        TypeError: the space has no fixed size (Text, Sequence, Graph, OneOf).
    """
    if needs_flatten(space):
        return flatten_space(space)
    assert isinstance(space, spaces.Box)
    return space if is_image(space) else as_float32(space)


def flatten_space(space: spaces.Space) -> spaces.Box:
    """The float32 Box (D,) that `flatten_batch` maps this space to; TypeError as in `stored_space`."""
    _refuse_unsized(space)
    return as_float32(gymnasium_utils.flatten_space(space))  # type: ignore[arg-type]


def flatten_batch(space: spaces.Space, batch: Any) -> np.ndarray:
    """T values of a space -> (T, D) float32.

    Args:
        space: any space that `flatten_space` takes.
        batch: the T values with time first: an array (T, *shape) for Box, MultiBinary and MultiDiscrete,
            (T,) for Discrete, a mapping of batches for Dict, a sequence of batches for Tuple.

    Raises:
        OutsideSpace: a discrete value is out of range, so that it has no place in a one-hot vector.
        TypeError: see `flatten_space`.
    """
    if isinstance(space, spaces.Dict):
        parts = [flatten_batch(part, batch[key]) for key, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, spaces.Tuple):
        parts = [flatten_batch(part, value) for part, value in zip(space.spaces, batch, strict=True)]
        return np.concatenate(parts, axis=1)
    _refuse_unsized(space)
    values = np.asarray(batch)
    if isinstance(space, spaces.Discrete):
        return _one_hot(values[:, None] - space.start, np.array([space.n]), space)
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot((values - space.start).reshape(len(values), -1), space.nvec.reshape(-1), space)
    with np.errstate(over="ignore"):  # beyond float32: infinity, which Episodes.check refuses
        return values.reshape(len(values), -1).astype(np.float32)


def _one_hot(values: np.ndarray, sizes: np.ndarray, space: spaces.Space) -> np.ndarray:
    """values (T, M), column m in 0 .. sizes[m]-1 -> (T, sum of sizes) float32, one block per column."""
    outside = ((values < 0) | (values >= sizes)).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise OutsideSpace(row, f"a value is outside {space}")
    out = np.zeros((len(values), int(sizes.sum())), np.float32)
    first = np.cumsum(sizes) - sizes  # (M,) where each block begins
    np.put_along_axis(out, (values + first).astype(np.int64), 1.0, axis=1)
    return out


def _refuse_unsized(space: spaces.Space) -> None:
    parts = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else None
    if parts is not None:
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            _refuse_unsized(part)
    elif not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise unsized(space)
