"""Any state as plain values (JSON) and tensors (safetensors), and back to the very same state.

In the values, a mapping with one key that begins with `$` stands for what JSON has no word for:
`{"$tensor": name}`, `{"$float": "nan"}`, `{"$tuple": [...]}`, and mappings with other keys than such texts by their
items: `{"$dict": [[key, value], ...]}`.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip
DEPTH, BITS = 50, 256
"""Largest nesting, and size of an integer."""
MAPPINGS: dict[str, type] = {"$dict": dict, "$ordered": OrderedDict, "$counter": Counter}


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state of nested dicts, lists, tuples, tensors and plain values -> JSON's values, and tensors by dotted name.

    Raises:
        ValueError: something in it cannot be stored; with its dotted path.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(state, (), tensors), separate(tensors)


def unpack(values: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`.

    Raises:
        ValueError: the values are of another make, or do not name every tensor once; with the dotted path.
    """
    left = dict(tensors)
    state = _unpack(values, (), left)
    if left:
        raise ValueError(f"nothing names the tensor {min(left)}")
    return state


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, each with memory of its own: safetensors refuses those that share it."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        found[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return found


def _pack(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    kind = type(value)
    if len(path) > DEPTH:
        raise ValueError(f"{_dotted(path[:4])}... is nested deeper than {DEPTH}")
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.dtype not in DTYPES:
            raise ValueError(f"{_dotted(path)} is a tensor of {value.dtype}, {value.layout}, which cannot be stored")
        name = _dotted(path)
        while name in tensors or name == "__metadata__":  # "a.b" within the root, and "b" within "a"
            name += "'"
        tensors[name] = value
        return {"$tensor": name}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if value is None or kind is bool or (kind is int and value.bit_length() <= BITS):
        return value
    if kind is str and value.encode(errors="replace").decode() == value:
        return value
    if kind is list:
        return [_pack(item, (*path, str(i)), tensors) for i, item in enumerate(value)]
    if kind is tuple:
        return {"$tuple": [_pack(item, (*path, str(i)), tensors) for i, item in enumerate(value)]}
    if kind is dict and all(type(key) is str and key[:1] != "$" and _pack(key, path, {}) == key for key in value):
        return {key: _pack(item, (*path, key), tensors) for key, item in value.items()}
    for tag, known in MAPPINGS.items():
        if kind is known:
            return {
                tag: [
                    [_pack(key, (*path, "key"), tensors), _pack(item, (*path, str(key)), tensors)]
                    for key, item in value.items()
                ]
            }
    shown = repr(value) if kind in (int, str) else f"of type {kind.__module__}.{kind.__qualname__}"
    raise ValueError(f"{_dotted(path)} is {shown[:80]}; only tensors, plain values, lists, tuples and dicts are stored")


def _unpack(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if len(path) > DEPTH:
        raise ValueError(f"{_dotted(path[:4])}... is nested deeper than {DEPTH}")
    if isinstance(value, list):
        return [_unpack(item, (*path, str(i)), tensors) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (tag := next(iter(value)))[:1] == "$":
        if tag not in _READERS:
            raise ValueError(f"{_dotted(path)}: there is no kind '{tag[:20]}'")
        return _READERS[tag](value[tag], path, tensors)
    return {key: _unpack(item, (*path, key), tensors) for key, item in value.items()}


def _tensor(name: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise ValueError(f"{_dotted(path)}: there is no tensor {str(name)[:80]!r}, or it is named twice")
    return tensors.pop(name)


def _float(text: Any, path: tuple[str, ...], _: dict[str, Tensor]) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError(f"{_dotted(path)}: expected nan, inf or -inf, got {str(text)[:20]!r}")
    return float(text)


def _tuple(items: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> tuple[Any, ...]:
    if not isinstance(items, list):
        raise ValueError(f"{_dotted(path)}: expected the items of a tuple, got {type(items).__name__}")
    return tuple(_unpack(items, path, tensors))


def _mapping(kind: type) -> Callable[[Any, tuple[str, ...], dict[str, Tensor]], Any]:
    def read(items: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
        def pairs() -> Iterator[tuple[Any, Any]]:
            if not isinstance(items, list) or any(not isinstance(item, list) or len(item) != 2 for item in items):
                raise ValueError(f"{_dotted(path)}: expected pairs of key and value")
            for key, item in items:
                own = _unpack(key, (*path, "key"), tensors)
                try:
                    hash(own)
                except TypeError:
                    raise ValueError(f"{_dotted(path)}: a {type(own).__name__} cannot be a key") from None
                yield own, _unpack(item, (*path, str(own)), tensors)

        return kind(dict(pairs()))

    return read


_READERS: dict[str, Callable[[Any, tuple[str, ...], dict[str, Tensor]], Any]] = {
    "$tensor": _tensor,
    "$float": _float,
    "$tuple": _tuple,
    **{tag: _mapping(kind) for tag, kind in MAPPINGS.items()},
}


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the state"
