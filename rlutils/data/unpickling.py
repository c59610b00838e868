"""Pickles of numpy's arrays and plain containers, read so that nothing in them is ever called.

Python's unpickler calls whatever a pickle names. This is a machine of our own that knows the opcodes of arrays and
plain containers alone. It builds stand-ins for what numpy's functions would make, as a dtype's state could have those
take bytes for pointers. Bytes of arrays stay in the file until they are asked for.
"""

from __future__ import annotations

import codecs
import math
import pickletools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlalgo.errors import shown
from rlutils.machine import host_memory

_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
"""Types of numbers as dtype names them."""
_LONG = 256
"""Bytes from which on they stay in the file."""
_DEEPEST = 8
"""Levels of nested lists that become an array."""
_OBJECT = 80
"""Bytes of memory that an opcode takes, such as that of an empty list, which is one byte in the file."""


class Refused(ValueError):
    """A pickle holds, or does, something else than it may."""


@dataclass(frozen=True, slots=True)
class _Held:
    """Bytes that are read when they are asked for."""

    path: Path
    first: int
    count: int
    text: bool
    """Whether they are written as a text, each a character, as protocols below 3 do."""

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.first)
            found = file.read(self.count)
        return found.decode().encode("latin1") if self.text else found


class _DType:
    """What stands for a numpy.dtype."""

    __slots__ = ("plain",)

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise Refused(f"a dtype {shown(code) if isinstance(code, str) else type(code)}, which is no number")
        self.plain = np.dtype(code)

    def build(self, state: Any) -> None:
        self.plain = self.plain.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class PickledArray:
    """What stands for a numpy.ndarray, which numpy.asarray reads."""

    __slots__ = ("_axes", "_data", "_dtype", "_order", "shape")

    def __init__(self, data: Any, dtype: _DType, shape: tuple[int, ...], order: Any, axes: Any = None) -> None:
        whole = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**48 for n in shape)
        if not whole or len(shape) > 32:
            raise Refused("an array of no shape")
        if not isinstance(data, bytes | str | _Held):
            raise Refused("an array of objects")
        self._data, self._dtype, self.shape, self._axes = data, dtype.plain, shape, axes
        self._order: Any = "F" if order == "F" else "C"

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.__init__(data, dtype, shape, "F" if fortran else "C")  # type: ignore[misc]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._data.read() if isinstance(self._data, _Held) else self._data
        data = data.encode("latin1") if isinstance(data, str) else data
        if len(data) != math.prod(self.shape) * self._dtype.itemsize:
            raise Refused(f"an array of shape {self.shape!r:.60} without as many numbers")
        found = np.frombuffer(data, self._dtype).reshape(self.shape, order=self._order)
        return found if self._axes is None else found.transpose(self._axes)


def _latin1(text: Any, _: Any) -> Any:
    """How protocols below 3 write bytes."""
    return text if isinstance(text, _Held) else text.encode("latin1")


def _empty(*_: Any) -> PickledArray:
    return PickledArray(b"", _DType("u1"), (0,), "C")


def _scalar(dtype: _DType, data: Any) -> Any:
    return np.asarray(PickledArray(data, dtype, (), "C")).item()


_CORE: Mapping[tuple[str, str], Callable] = {
    ("multiarray", "_reconstruct"): _empty,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): PickledArray,
}
_NAMES: Mapping[tuple[str, str], Callable] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _empty,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): lambda: b"",
    **{(f"numpy.{core}.{at}", name): made for core in ("core", "_core") for (at, name), made in _CORE.items()},
}
"""All that a pickle may name. Nothing else on the stack can be called, and nothing changes these."""

_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_COUNTED = {"BINBYTES": 4, "BINSTRING": 4, "BINUNICODE": 4, "BINBYTES8": 8, "BYTEARRAY8": 8, "BINUNICODE8": 8}
"""Opcodes with a number of so many bytes, which says how many follow."""
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE", "UNICODE"),
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MADE: Mapping[str, Callable] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_COLLECTED: Mapping[str, Callable] = {"LIST": list, "TUPLE": tuple}


def unpickle(path: Path) -> Any:
    """What a pickle holds: lists, dicts, tuples, numbers, texts, and a PickledArray for each of numpy's.

    Raises:
        Exception: the file cannot be read or holds anything else. Nothing of it was called.
    """
    with path.open("rb") as file:
        return Machine(path, file).run()


class Machine:
    """The stack that a pickle's opcodes work on.

    Args:
        path: the file, from which long bytes are read later.
        file: its pickle, to be read now.
        names: all that it may name -> what makes a stand-in.
        stored: a persistent id -> what is meant; None for a pickle that has none.
    """

    def __init__(
        self, path: Path, file: BinaryIO, names: Mapping[Any, Any] = _NAMES, stored: Callable[[Any], Any] | None = None
    ) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size
        self.names, self.stored = names, stored
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(host_memory() // _OBJECT):
            opcode = _OPCODES.get(self.file.read(1).decode("latin1"))
            if opcode is None:
                raise Refused(f"no pickle: byte {self.file.tell()} is no opcode")
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, opcode.arg)
        raise Refused("more objects in it than fit into the memory")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _COUNTED:
            stack.append(self.counted(name))
        elif name == "STRING":  # pickletools refuses Python 2's bytes in it
            stack.append(codecs.escape_decode(pickletools.read_stringnl(self.file, decode=False))[0].decode("latin1"))
        elif name in _VALUES:
            stack.append(argument.reader(self.file))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in _COLLECTED:
            items = self.marked()
            stack.append(_COLLECTED[name](items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            first = len(stack) - int(name[-1])
            stack[first:] = [tuple(stack[first:])]
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        elif name in ("DICT", "SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.marked()
            if name == "DICT":
                stack.append({})
            for key, value in zip(_keys(items[::2]), items[1::2], strict=True):
                stack[-1][key] = value
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            (index,) = _keys([argument.reader(self.file) if argument else len(self.memo)])
            self.memo[index] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument.reader(self.file)])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            names = argument.reader(self.file).split(" ") if argument else [stack.pop(-2), stack.pop()]
            if (made := self.names.get(tuple(_keys(names)))) is None:
                raise Refused(f"{names[0]}.{names[1]} in it; save lists, dicts and arrays of numbers alone")
            stack.append(made)
        elif name == "BINPERSID" and self.stored is not None:
            stack.append(self.stored(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(stack.pop()(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].build(state)
        elif name in ("PROTO", "FRAME"):
            argument.reader(self.file)
        else:
            raise Refused(f"opcode {name} in it; save lists, dicts and arrays of numbers alone")

    def counted(self, name: str) -> Any:
        """Bytes or a text: those of Python 2 are either."""
        count = int.from_bytes(self.file.read(_COUNTED[name]), "little")
        first, text = self.file.tell(), "UNICODE" in name
        if count > self.size - first:
            raise Refused(f"{count:,} bytes in it, and the file ends before")
        if count >= _LONG:
            self.file.seek(count, 1)
            return _Held(self.path, first, count, text)
        found = self.file.read(count)
        return found.decode("utf-8", "surrogatepass") if text else found.decode("latin1") if "STRING" in name else found

    def marked(self) -> list[Any]:
        """What stands above the last mark, taken away."""
        first = self.marks.pop()
        found = self.stack[first:]
        del self.stack[first:]
        return found


def _keys(found: Sequence[Any]) -> Sequence[Any]:
    """Themselves, if hashing them is quick: tuples in tuples overflow the stack, and a million large numbers may be
    chosen to have one hash, which takes hours.
    """
    if not all(isinstance(key, str | bytes | None) or (type(key) is int and abs(key) < 2**32) for key in found):
        raise Refused("a key that is no text or whole number below 2**32")
    return found


def require_unshared(values: Any, most: int) -> None:
    """Refused if nested lists and arrays hold more numbers than that, each counted wherever it is referred to.

    A list of one list many times over, and so on, is short in a file.
    """
    level, count = [values], 0
    for _ in range(_DEEPEST):
        lists = [part for part in level if isinstance(part, list | tuple)]
        count += sum(math.prod(part.shape) for part in level if isinstance(part, PickledArray))
        if count + sum(map(len, lists)) > most:
            raise Refused("more numbers than the file has bytes")
        level = [inner for part in lists for inner in part]
        if any(isinstance(part, str | bytes) for part in level):
            raise Refused("texts in the place of numbers")
        if not level:
            return
    raise Refused(f"lists in lists, more than {_DEEPEST} of them")
