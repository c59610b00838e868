"""Any state as JSON and tensors, and back; and no pickle anywhere."""

import ast
import json
import struct
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlutils.checkpoints.plain import DTYPES, pack, unpack
from tests.rlutils.runs import ROOT


def tensors() -> st.SearchStrategy[torch.Tensor]:
    """Of every dtype and any bits, NaN among them."""
    shapes = st.lists(st.integers(0, 3), max_size=3)

    def of_bits(dtype: torch.dtype, shape: list[int], seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = int(torch.tensor(shape).prod()) * dtype.itemsize
        bits = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), generator=generator, dtype=torch.uint8)
        return bits.view(dtype).view(shape) if size else torch.zeros(shape, dtype=dtype)

    return st.builds(of_bits, st.sampled_from(DTYPES), shapes, st.integers(0, 1000))


KEYS = st.text(max_size=8) | st.integers() | st.sampled_from(["__metadata__", "a.b", "$tensor", "0"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
STATES = st.recursive(
    PLAIN | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """The very same types, order and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        raw = [bytes(x.contiguous().view(-1).view(torch.uint8).tolist()) if x.numel() else b"" for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and raw[0] == raw[1]
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (a != a and b != b)
    return a == b


def through_files(state: Any) -> Any:
    values, flat = pack(state)
    return unpack(json.loads(json.dumps(values, allow_nan=False)), safetensors.torch.load(safetensors.torch.save(flat)))


@given(STATES)
def test_any_state_comes_back_bit_for_bit(state: Any) -> None:
    assert same(through_files(state), state)


def test_states_of_torch_and_shared_memory_come_back() -> None:
    weight = torch.arange(6.0).view(2, 3)
    state = {"a": weight, "b": weight.T, "c": weight[1:], "milestones": Counter({3: 1, 5: 2})}
    back = through_files(state)
    assert type(back["milestones"]) is Counter
    assert all(torch.equal(back[key], state[key]) for key in "abc")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, dtype=torch.complex64), r"trainer\.x\.0 is a tensor of torch\.complex64"),
        (torch.eye(2).to_sparse(), r"trainer\.x\.0 is a tensor of .*sparse"),
        ({1, 2}, r"trainer\.x\.0 is of type builtins\.set"),
        (Path("here"), r"trainer\.x\.0 is of type pathlib"),
        ("\ud800", r"trainer\.x\.0 is '\\ud800'"),
        (2**2000, r"trainer\.x\.0 is \d+"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pack({"trainer": {"x": [value]}})


def test_a_state_within_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["more"] = state
    with pytest.raises(ValueError, match="nested deeper than"):
        pack(state)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": {"$tensor": "y"}}, "there is no tensor 'y'"),
        ({"a": {"$tensor": []}}, "there is no tensor"),
        ({}, "nothing names the tensor x"),
        ({"a": {"$tensor": "x"}, "b": {"$tensor": "x"}}, "b: there is no tensor 'x', or it is named twice"),
        ({"$code": "x"}, r"there is no kind '\$code'"),
        ({"$float": "1"}, "expected nan, inf or -inf"),
        ({"$tuple": 3}, "expected the items of a tuple"),
        ({"$dict": [[1]]}, "expected pairs"),
        ({"$dict": [[[], 1]]}, "cannot be a key"),
    ],
)
def test_values_of_another_make_are_refused(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unpack(values, {"x": torch.zeros(1)})


def test_nothing_in_the_packages_can_unpickle() -> None:
    files = [path for name in ("rlalgo", "rlutils", "plugins") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    for path in files:
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unpicklers = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
            assert not {name.split(".")[0] for name in names} & set(unpicklers), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr not in ("load", "save"), f"{path}, line {node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert not {"load", "save"} & set(names), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
