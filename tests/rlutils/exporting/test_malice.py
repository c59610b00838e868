"""Folders and ONNX files that mean harm, or were damaged: refused in a line before anything of them is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rlutils.exporting.runtime import Policy, PolicyError, refuse_foreign

GOOD = np.array([0.5, -0.5])
PART = {"name": "observation", "path": [], "dtype": "float32", "shape": [2], "low": -9, "high": 9}


def forged(folder: Path, to: Path, change: Callable[[onnx.ModelProto], None], also: tuple[str, ...] = ()) -> Path:
    """A copy of an export with another model, whose policy.json fits it; `also` are listed too."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    model = onnx.load(to / "policy.onnx", load_external_data=False)
    change(model)
    (to / "policy.onnx").write_bytes(model.SerializeToString())
    return listed(to, "policy.onnx", *also)


def listed(folder: Path, *names: str) -> Path:
    """With those files' sizes and checksums in policy.json."""
    about = json.loads((folder / "policy.json").read_text())
    for name in names:
        content = (folder / name).read_bytes()
        about["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "policy.json").write_text(json.dumps(about))
    return folder


def elsewhere(location: str) -> TensorProto:
    """Eight numbers that lie in another file."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[8], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "32")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def initializer(model: onnx.ModelProto, location: str) -> None:
    model.graph.initializer.append(elsewhere(location))


def constant(model: onnx.ModelProto, location: str) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=elsewhere(location)))


def sparse(model: onnx.ModelProto, location: str) -> None:
    model.graph.sparse_initializer.add(values=elsewhere(location))


def branch(model: onnx.ModelProto, location: str) -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=elsewhere(location))], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["step"], ["y"], then_branch=inner, else_branch=inner))


def function(model: onnx.ModelProto, location: str) -> None:
    node = helper.make_node("Constant", [], ["y"], value=elsewhere(location))
    model.functions.append(helper.make_function("", "Mine", [], ["y"], [node], []))


def default(model: onnx.ModelProto, location: str) -> None:
    """Of a function's attribute."""
    attribute = helper.make_attribute("a", elsewhere(location))
    model.functions.append(helper.make_function("", "Mine", [], [], [], [], attribute_protos=[attribute]))


def lists(model: onnx.ModelProto, location: str) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], values=[elsewhere(location)] * 2))


def training(model: onnx.ModelProto, location: str) -> None:
    model.training_info.add().algorithm.initializer.append(elsewhere(location))


WHERE = [initializer, constant, sparse, branch, function, default, lists, training]


@pytest.mark.parametrize("where", WHERE, ids=lambda f: f.__name__)
def test_numbers_of_other_files_are_refused(where: Any, bc_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(32))
    for number, location in enumerate([str(secret), "../secret", "link", "", "*/_ORT_MEM_ADDR_/*", "policy.py"]):
        (folder := tmp_path / f"out{number}").mkdir()
        (folder / "link").symlink_to(secret)
        forged(bc_folder, folder, lambda model, location=location: where(model, location))
        with pytest.raises(PolicyError, match="which is no file of this export") as caught:
            Policy(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["link", "../secret", "sub/secret", "/etc/hostname", "..", ""])
def test_listing_them_does_not_help(name: str, bc_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(32))
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "secret").write_bytes(bytes(32))
    (tmp_path / "out" / "link").symlink_to(tmp_path / "secret")
    folder = forged(bc_folder, tmp_path / "out", lambda model: initializer(model, name))
    about = json.loads((folder / "policy.json").read_text())
    about["files"][name] = {"size": 32, "sha256": hashlib.sha256(bytes(32)).hexdigest()}
    (folder / "policy.json").write_text(json.dumps(about))
    with pytest.raises(PolicyError, match=r"in the folder itself|is a link"):
        Policy(folder)


def test_weights_in_a_file_of_the_folder_work(bc_folder: Path, tmp_path: Path) -> None:
    """As protobuf's 2 GB need it for large networks; without that file, or with another, there is no policy."""
    folder = shutil.copytree(bc_folder, tmp_path / "out")
    model = onnx.load(folder / "policy.onnx")
    onnx.save_model(
        model, folder / "policy.onnx", save_as_external_data=True, location="policy.onnx.data", size_threshold=1000
    )
    listed(folder, "policy.onnx", "policy.onnx.data")
    assert Policy(folder).act(GOOD) == Policy(bc_folder).act(GOOD)
    content = bytearray((folder / "policy.onnx.data").read_bytes())
    content[5] ^= 1
    (folder / "policy.onnx.data").write_bytes(content)
    with pytest.raises(PolicyError, match=r"policy.onnx.data: is not the file that was exported"):
        Policy(folder)
    (folder / "policy.onnx.data").unlink()
    with pytest.raises(PolicyError, match=r"policy.onnx.data: cannot be read"):
        Policy(folder)


def custom_node(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Run", [], ["y"], domain="evil"))


def custom_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("evil", "Run", [], [], [], []))


def custom_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@pytest.mark.parametrize("change", [custom_node, custom_function, custom_opset], ids=lambda f: f.__name__)
def test_operators_of_anybodys_own_are_refused(change: Any, bc_folder: Path, tmp_path: Path) -> None:
    folder = forged(bc_folder, tmp_path / "out", change)
    with pytest.raises(PolicyError, match="only those of the ONNX standard are run"):
        Policy(folder)


def test_damaged_files_are_told_apart(bc_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bc_folder, tmp_path / "out")
    path, content = folder / "policy.onnx", (bc_folder / "policy.onnx").read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    for damaged, message in (
        (content[:-1], "bytes, and .* were exported"),
        (bytes(flipped), "its checksum differs"),
        (b"", "has 0 bytes"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(PolicyError, match=message):
            Policy(folder)
    for nonsense in (b"\x0b" * 40, b"\x80" * 40, b"\x3a\xff\x01", b"ORTM" * 9, os.urandom(4000), b""):
        path.write_bytes(nonsense)
        listed(folder, "policy.onnx")
        with pytest.raises(PolicyError):
            Policy(folder)
    path.unlink()
    path.symlink_to(bc_folder / "policy.onnx")
    with pytest.raises(PolicyError, match="is a link"):
        Policy(folder)


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=300))
def test_any_bytes_are_walked_through_or_refused(content: bytes) -> None:
    try:
        refuse_foreign(content, "x.onnx", ())
    except PolicyError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("format", "pickle"),
        ("format", ["onnx"]),
        ("files", {}),
        ("files", {"policy.onnx": {"size": 1}}),
        ("files", [1]),
        ("inputs", 3),
        ("inputs", ["nothing"]),
        ("observations", [{"name": "observation"}]),
        ("observations", [{"name": "observation", "path": [], "dtype": "O", "shape": [2], "low": None}]),
        ("observations", [{**PART, "name": ["observation"]}]),
        ("observations", [{**PART, "low": "a"}]),
        ("observations", [{**PART, "high": None}]),
        ("observations", [{**PART, "high": [1, 2, 3]}]),
        ("observations", [{**PART, "high": "7"}]),
        ("memory", [{"name": "x", "dtype": "float32", "shape": [10**12]}]),
        ("memory", [{"name": "x", "dtype": "float32", "shape": [-1]}]),
        ("memory", [{"name": "x", "dtype": "float32", "shape": [10**6, 10**6, 0]}]),
        ("action", {"dtype": "O", "shape": []}),
        ("target_return", "high"),
    ],
)
def test_policy_json_may_say_anything(key: str, value: Any, bc_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bc_folder, tmp_path / "out")
    about = json.loads((folder / "policy.json").read_text())
    for changed in ({**about, key: value}, {name: about[name] for name in about if name != key}, [about], None):
        (folder / "policy.json").write_text(json.dumps(changed))
        with pytest.raises(PolicyError) as caught:
            Policy(folder).act(GOOD)
        assert "\n" not in str(caught.value)
    for text in ("", "{", "[" * 10**5, '{"version": NaN}'):
        (folder / "policy.json").write_text(text)
        with pytest.raises(PolicyError):
            Policy(folder)
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy(tmp_path / "nowhere")
