"""Gymnasium's spaces as plain values, and in the precision of the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from rlalgo.errors import DataError, told

MOST = 2**25
"""Numbers of one observation, or choices of one action, that a description may claim."""


def as_float32(box: spaces.Box) -> spaces.Box:
    """The Box in float32, itself where it is so already."""
    if box.dtype == np.float32:
        return box
    with np.errstate(over="ignore"):  # a float64 bound beyond float32 is no bound
        return spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)


class Packed(spaces.Box):
    """Images and vectors side by side as one row of D bytes, so that observations are one tensor.

    The vectors come first, as float32, then the images as they are, then zeros up to a multiple of four.

    Args:
        parts: a Box for each name: vectors (S,) of float32, images of uint8.
        frames: k, where rows are stacked, (k, D); 1 for none.
    """

    def __init__(self, parts: spaces.Dict, frames: int = 1) -> None:
        self.parts, self.frames = parts, frames
        self.floats_at: dict[str, slice] = {}
        """Name of a vector -> where it is among the V numbers of a row."""
        self.bytes_at: dict[str, slice] = {}
        """Name of an image -> where it is among the D bytes."""
        boxes: dict[str, Any] = dict(parts.spaces)
        self.size = 0
        """V."""
        for name, box in boxes.items():
            if box.dtype == np.float32 and len(box.shape) == 1:
                self.floats_at[name] = slice(self.size, self.size + box.shape[0])
                self.size += box.shape[0]
        end = 4 * self.size
        for name, box in boxes.items():
            if box.dtype == np.uint8:
                self.bytes_at[name] = slice(end, end := end + int(np.prod(box.shape)))
        if len(self.floats_at) + len(self.bytes_at) < len(boxes):
            raise TypeError(f"{parts}: expected vectors of float32 and images of uint8 to pack")
        row = (end + -end % 4,)
        super().__init__(0, 255, row if frames == 1 else (frames, *row), np.uint8)

    def __repr__(self) -> str:
        return f"Packed({described(self)})"

    def __eq__(self, other: object) -> bool:
        mine = list(self.parts.spaces.items()), self.frames
        return isinstance(other, Packed) and mine == (list(other.parts.spaces.items()), other.frames)

    def encoder_space(self) -> spaces.Dict:
        """The space of what `unpack` gives: each part's frames stacked."""
        boxes: dict[str, Any] = dict(self.parts.spaces)
        return spaces.Dict([(name, stacked(box, self.frames)) for name, box in boxes.items()])

    def floats(self, rows: Any) -> Any:
        """Rows (..., D) of uint8 -> their numbers (..., V) float32; a view, of an array or a tensor."""
        import torch  # here: spaces are read without it

        return rows[..., : 4 * self.size].view(np.float32 if isinstance(rows, np.ndarray) else torch.float32)

    def pack(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """T values of each part (T, *shape) -> (T, D) uint8."""
        rows = np.zeros((len(next(iter(parts.values()))), self.shape[-1]), np.uint8)
        for where, places in ((self.floats(rows), self.floats_at), (rows, self.bytes_at)):
            for name, place in places.items():
                where[:, place] = parts[name].reshape(len(rows), place.stop - place.start)
        return rows

    def unpack(self, rows: Any) -> dict[str, Any]:
        """A tensor of rows (..., D), or of stacked ones (..., k, D) -> each part (..., *shape) as encoders see it."""
        floats, found = self.floats(rows), {}
        for name, box in self.parts.spaces.items():
            shape = box.shape or ()
            image = self.bytes_at.get(name)
            part = floats[..., self.floats_at[name]] if image is None else rows[..., image].unflatten(-1, shape)
            found[name] = part if self.frames == 1 else stack_frames(part, shape)
        return found


def ends(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """First and last action of a Discrete or MultiDiscrete space, () or (M,) int64 each."""
    n = space.n if isinstance(space, spaces.Discrete) else space.nvec
    start = np.asarray(space.start, np.int64)
    return start, np.asarray(start + n - 1, np.int64)


def stacked(box: spaces.Box, frames: int) -> spaces.Box:
    """What an encoder sees of a space: (H, W) frames become (k, H, W), (C, H, W) k*C channels, and (S,) (k, S)."""
    if frames == 1:
        return box
    low, high = (stack_frames(np.stack([bound] * frames), box.shape) for bound in (box.low, box.high))
    dtype: Any = box.dtype
    return spaces.Box(low, high, dtype=dtype)


def stack_frames(frames: Any, shape: Sequence[int]) -> Any:
    """(..., k, *shape) -> what an encoder sees; images with channels join along the channels."""
    if len(shape) == 3:
        return frames.reshape(*frames.shape[:-4], -1, *shape[1:])
    return frames


def to_mapping(space: spaces.Space) -> dict[str, Any]:
    """A space as plain values for YAML, in the words of Minari's metadata; `from_mapping` turns them back.

    Raises:
        TypeError: the space has no fixed size (Text, Sequence, Graph, OneOf).
    """
    kind = type(space).__name__
    if isinstance(space, Packed):
        return {**to_mapping(space.parts), "type": kind}
    if isinstance(space, spaces.Dict):
        return {"type": kind, "subspaces": {key: to_mapping(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": kind, "subspaces": [to_mapping(part) for part in space.spaces]}
    if isinstance(space, spaces.Discrete):
        return {"type": kind, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": kind, "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        n = space.n  # a number or, even for one dimension, a shape: two spaces that differ
        return {"type": kind, "n": int(n) if isinstance(n, int | np.integer) else list(space.shape)}
    if isinstance(space, spaces.Box):
        low, high = _bound(space.low), _bound(space.high)
        return {"type": kind, "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
    raise unsized(space)


def from_mapping(values: Mapping[str, Any]) -> spaces.Space:
    """The inverse of `to_mapping`; also reads what Minari writes.

    Raises:
        DataError: these values do not describe a space that `to_mapping` takes, or one of more than `MOST` numbers.
    """
    try:
        if (claimed := _claimed(values)) > MOST:
            raise DataError(f"a space that claims {claimed:,} numbers or choices; {MOST:,} are the most here")
        return _space(values)
    except (ArithmeticError, AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no description of a space: {told(error)}") from error


def _claimed(values: Mapping[str, Any]) -> int:
    """How many numbers or choices a space would have, asked before memory is."""
    if (parts := values.get("subspaces")) is not None:
        if not parts:
            raise ValueError("its subspaces are none")
        return sum(map(_claimed, parts.values() if isinstance(parts, Mapping) else parts))
    shape, nvec, n = values.get("shape", [0]), values.get("nvec", []), values.get("n", 0)
    return math.prod(map(int, shape)) + sum(np.ravel(nvec).tolist()) + (math.prod(n) if isinstance(n, list) else n)


def _space(values: Mapping[str, Any]) -> spaces.Space:
    kind = values["type"]
    if kind in ("Dict", "Packed"):  # from pairs, since Gymnasium sorts the keys of a plain mapping
        parts = spaces.Dict([(key, _space(part)) for key, part in values["subspaces"].items()])
        return parts if kind == "Dict" else Packed(parts)
    if kind == "Tuple":
        return spaces.Tuple([_space(part) for part in values["subspaces"]])
    if kind == "Discrete":
        return spaces.Discrete(values["n"], start=values.get("start", 0))
    if kind == "MultiDiscrete":
        nvec = np.array(values["nvec"])
        return spaces.MultiDiscrete(nvec, start=np.array(values.get("start", np.zeros_like(nvec))))
    if kind == "MultiBinary":
        return spaces.MultiBinary(values["n"])
    if kind != "Box":
        raise unsized(kind)
    dtype, shape = np.dtype(values["dtype"]), tuple(values["shape"])
    if dtype.kind not in "biuf":
        raise TypeError(f"a Box of {dtype}; expected numbers")
    low, high = (np.broadcast_to(np.asarray(values[end], dtype), shape).copy() for end in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


def described(space: spaces.Space) -> str:
    """A space in a line; Gymnasium's own text prints every bound of a large one."""
    if isinstance(space, Packed):
        return described(space.parts)
    if isinstance(space, spaces.Dict):
        return "Dict(" + ", ".join(f"{key}: {described(part)}" for key, part in space.spaces.items()) + ")"
    if isinstance(space, spaces.Tuple):
        return "Tuple(" + ", ".join(described(part) for part in space.spaces) + ")"
    if not isinstance(space, spaces.Box):
        return str(space)
    shape = "x".join(map(str, space.shape)) or "one"
    bounds = f", {space.low.min():g} to {space.high.max():g}" if space.low.size else ""
    return f"Box of {shape} {space.dtype}{bounds}"


def same_observations(a: spaces.Space, b: spaces.Space) -> bool:
    """Whether what sees observations of one of the spaces sees those of the other, whatever their bounds.

    Numbers may be of any precision, but bytes are images, and nothing else is.
    """
    if isinstance(a, Packed) and isinstance(b, Packed):
        mine, theirs = a.parts.spaces, b.parts.spaces
        return list(mine) == list(theirs) and all(same_observations(mine[name], theirs[name]) for name in mine)
    boxes = isinstance(a, spaces.Box) and isinstance(b, spaces.Box) and isinstance(a, Packed) == isinstance(b, Packed)
    return boxes and a.shape == b.shape and (a.dtype == np.uint8) == (b.dtype == np.uint8)


def same_actions(a: spaces.Space, b: spaces.Space) -> bool:
    """Whether what acts in one of the spaces acts in the other; in Boxes but for rounding."""
    if isinstance(a, spaces.Box) and isinstance(b, spaces.Box):
        return a.shape == b.shape and np.allclose(a.low, b.low) and np.allclose(a.high, b.high)
    return a == b


def unsized(space: spaces.Space | str) -> TypeError:
    """What to raise for a space whose values have no fixed size."""
    return TypeError(
        f"{space} cannot become a vector of fixed size; "
        "use Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple (or a source plugin that converts it)"
    )


def _bound(values: np.ndarray) -> Any:
    """One number where all are equal (an image's 0 or 255), else nested lists."""
    same = values.size > 0 and (values == values.flat[0]).all()
    return values.flat[0].item() if same else values.tolist()
