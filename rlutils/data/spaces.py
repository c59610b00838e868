"""Observations and actions of any space as one tensor: what a source stores and what a policy sees and does.

Images stay as they are and every other Box becomes float32. Dict, Tuple, Discrete, MultiDiscrete and
MultiBinary are flattened to a float32 vector as Gymnasium's `flatten` does, but for all steps at once. Actions that
are several choices at a time become one choice, where these are not too many.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import utils as gymnasium_utils

from rlalgo.core.spaces import as_float32, unsized

MOST_ACTIONS = 4096
"""Combinations of choices that become one Discrete action; of more, each choice remains for itself."""


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
    _refuse_outside(values, sizes, space)
    out = np.zeros((len(values), int(sizes.sum())), np.float32)
    first = np.cumsum(sizes) - sizes  # (M,) where each block begins
    np.put_along_axis(out, (values + first).astype(np.int64), 1.0, axis=1)
    return out


def leaves(space: spaces.Space, value: Any = None, name: str = "") -> Iterator[tuple[str, spaces.Space, Any]]:
    """(name, space, value) of each part that is no Dict or Tuple, in order; names of nested ones are joined by /."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield name, space, value
        return
    inside = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    for key, part in inside:
        yield from leaves(part, None if value is None else value[key], f"{name}/{key}" if name else str(key))


def time_first(space: spaces.Space, values: Sequence[Any]) -> Any:
    """T values of a space as arrays (T, *shape), nested as the space is."""
    if isinstance(space, spaces.Dict):
        return {key: time_first(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(time_first(part, [value[i] for value in values]) for i, part in enumerate(space.spaces))
    return np.asarray(values, space.dtype)


def stored_actions(space: spaces.Space) -> spaces.Space:
    """The space of actions as they are stored and learnt.

    MultiDiscrete and MultiBinary become Discrete where that has at most `MOST_ACTIONS`, else a MultiDiscrete of one
    dimension that starts at 0. Others stay as they are.
    """
    if not isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return space
    sizes = _sizes(space)
    with np.errstate(over="ignore"):
        total = sizes.prod(dtype=np.float64)  # exact where it matters
    return spaces.Discrete(int(total)) if total <= MOST_ACTIONS else spaces.MultiDiscrete(sizes)


def flatten_actions(space: Any, batch: Any) -> np.ndarray:
    """T actions (T, *shape) of a MultiDiscrete or MultiBinary space -> (T,) or (T, M) int64 of `stored_actions`.

    Raises:
        OutsideSpace: an action is not in the space.
    """
    sizes = _sizes(space)
    counted = (np.asarray(batch, np.int64) - getattr(space, "start", 0)).reshape(len(batch), -1)
    _refuse_outside(counted, sizes, space)
    return counted @ _worth(sizes) if isinstance(stored_actions(space), spaces.Discrete) else counted


def unflatten_action(space: Any, action: Any) -> np.ndarray:
    """The inverse of `flatten_actions` for one action, as the space has it."""
    sizes = _sizes(space)
    counted = action // _worth(sizes) % sizes if isinstance(stored_actions(space), spaces.Discrete) else action
    return (np.reshape(counted, space.shape) + getattr(space, "start", 0)).astype(space.dtype)


def _sizes(space: Any) -> np.ndarray:
    """(M,) int64 how many choices there are for each."""
    found = np.full(space.shape, 2) if isinstance(space, spaces.MultiBinary) else space.nvec
    return found.reshape(-1).astype(np.int64)


def _worth(sizes: np.ndarray) -> np.ndarray:
    """(M,) what one more of each choice adds to the number of their combination."""
    return np.append(sizes[1:], 1)[::-1].cumprod()[::-1]


def _refuse_outside(values: np.ndarray, sizes: np.ndarray, space: spaces.Space) -> None:
    outside = ((values < 0) | (values >= sizes)).any(axis=1)
    if outside.any():
        raise OutsideSpace(int(outside.argmax()), f"a value is outside {space}")


def _refuse_unsized(space: spaces.Space) -> None:
    for _, part, _ in leaves(space):
        if not isinstance(part, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise unsized(part)
