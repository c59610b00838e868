"""Pickles of numpy arrays and plain containers, read so that nothing in them is ever called.

An unpickler calls whatever a pickle names. This one answers every name with a stand-in of ours, or refuses: numpy's own
functions are not called either, as a dtype's state could make them take bytes for pointers.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
"""Types of numbers as dtype names them."""


class _DType:
    """What stands for a numpy.dtype."""

    __slots__ = ("plain",)

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f"a dtype {code!r:.60}, which is no number")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.plain = self.plain.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class PickledArray:
    """What stands for a numpy.ndarray; `values` is one."""

    __slots__ = ("values",)

    def __init__(self, values: Any = None, *_: object) -> None:
        self.values = values if isinstance(values, np.ndarray) else np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _filled(data, dtype, shape, "F" if fortran else "C")


class _StandIn:
    """What stands for a function of numpy; nothing in a pickle can change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state for a function")


def _filled(data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """An array of exactly these bytes."""
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * dtype.plain.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape!r:.60} without as many numbers")
    return np.frombuffer(data, dtype.plain).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(data: Any, dtype: Any, shape: tuple[int, ...], order: Any, axes: Any = None) -> PickledArray:
    """As protocol 5 writes arrays; those whose axes were moved with their order."""
    found = _filled(data, dtype, shape, order)
    return PickledArray(found if axes is None else found.transpose(axes))


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 2 and protocols below 3 write bytes."""
    return text.encode("latin1")


_CORE = {
    ("multiarray", "_reconstruct"): _StandIn(PickledArray),
    ("multiarray", "scalar"): _StandIn(lambda dtype, data: _filled(data, dtype, (), "C").item()),
    ("numeric", "_frombuffer"): _StandIn(_from_buffer),
}
_ADMITTED = {
    ("numpy", "dtype"): _StandIn(_DType),
    ("numpy", "ndarray"): _StandIn(PickledArray),
    ("_codecs", "encode"): _StandIn(_latin1),
    ("__builtin__", "bytes"): _StandIn(lambda: b""),
    **{
        (f"numpy.{core}.{place}", name): function
        for core in ("core", "_core")
        for (place, name), function in _CORE.items()
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if found := _ADMITTED.get((module, name)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} in it, and only arrays and plain containers are read")

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("a persistent id")


def unpickle(path: Path) -> Any:
    """What a pickle holds: lists, dicts, tuples, numbers, texts, and a PickledArray for each of numpy's.

    Raises:
        Exception: the file cannot be read or holds anything else. Nothing of it was called.
    """
    most = path.stat().st_size
    with path.open("rb") as file:
        for code, argument, _ in pickletools.genops(file):
            if "PUT" in code.name and isinstance(argument, int) and argument > most:
                raise pickle.UnpicklingError("a memo that is larger than the file")  # the unpickler would allocate it
        file.seek(0)
        return _Unpickler(file).load()
