"""Gymnasium's spaces as plain values, and in the precision of the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def as_float32(box: spaces.Box) -> spaces.Box:
    """The Box in float32, itself where it is so already."""
    if box.dtype == np.float32:
        return box
    with np.errstate(over="ignore"):  # a float64 bound beyond float32 is no bound
        return spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)


def to_mapping(space: spaces.Space) -> dict[str, Any]:
    """A space as plain values for YAML, in the words of Minari's metadata; `from_mapping` turns them back.

    Raises:
        TypeError: the space has no fixed size (Text, Sequence, Graph, OneOf).
    """
    kind = type(space).__name__
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
        TypeError, KeyError, ValueError: these values do not describe a space that `to_mapping` takes.
    """
    kind = values["type"]
    if kind == "Dict":  # from pairs, since Gymnasium sorts the keys of a plain mapping
        return spaces.Dict([(key, from_mapping(part)) for key, part in values["subspaces"].items()])
    if kind == "Tuple":
        return spaces.Tuple([from_mapping(part) for part in values["subspaces"]])
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
    low, high = (np.broadcast_to(np.asarray(values[end], dtype), shape).copy() for end in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


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
