"""Checkpoints by somebody else: nothing of them runs, nothing is half-written, and one line says why."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from rlalgo_hf.exporting import export_hf
from rlalgo_hf.importing import import_hf
from rlalgo_hf.reading import OWN, card_statistics, read_config, read_own, read_weights
from their_models import PLAYED, checkpoint, their_model

import rlutils
from rlalgo.errors import CheckpointError, RlalgoError
from rlutils.config.files import read_yaml, write_yaml
from rlutils.machine import host_memory
from tests.fuzz.mutations import changed, times
from tests.rlutils.runs import PLUGIN, toy_config


class Bomb:
    """Its pickle calls the system."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def zipped(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def rewritten(how: int = zipfile.ZIP_STORED, **changes: bytes) -> bytes:
    """A state whose zip is packed so, or has other members."""
    buffer, whole = io.BytesIO(), zipfile.ZipFile(io.BytesIO(zipped(state())))
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name in whole.namelist():
            file.writestr(name, changes.get(name.rpartition("/")[2], whole.read(name)))
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def state() -> dict[str, Any]:
    return dict(their_model().state_dict())


def header(claim: dict[str, Any] | bytes, size: int | None = None, rest: bytes = b"\0" * 64) -> bytes:
    """A safetensors file with this header."""
    text = claim if isinstance(claim, bytes) else json.dumps(claim).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + rest


def weight(dtype: str = "F32", shape: Any = (4,), ends: Any = (0, 16)) -> dict[str, Any]:
    return {"embed_ln.bias": {"dtype": dtype, "shape": list(shape), "data_offsets": list(ends)}}


def shaped(shape: bytes) -> bytes:
    """A state of one tensor with this shape, as opcodes."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + b"K\x01\x85\x89NtR"
    return rewritten(**{"data.pkl": b"\x80\x02}X\x01\x00\x00\x00x" + tensor + b"s."})


PICKLES: dict[str, Callable[[], bytes]] = {
    "calls the system": lambda: zipped({**state(), "x": Bomb()}),
    "calls it before torch 1.6": lambda: zipped({**state(), "x": Bomb()}, legacy=True),
    "calls it and is nothing else": lambda: pickle.dumps(Bomb()),
    "tensors before torch 1.6": lambda: zipped(state(), legacy=True),
    "torchscript": torchscript,
    "packed": lambda: rewritten(zipfile.ZIP_DEFLATED),
    "fewer numbers than it says": lambda: rewritten(**{"0": b"12345678"}),
    "another order of bytes": lambda: rewritten(byteorder=b"big"),
    "a whole module": lambda: zipped(torch.nn.Linear(2, 2)),
    "cut": lambda: zipped(state())[:-2000],
    "a list": lambda: zipped([torch.zeros(1)]),
    "numbers for names": lambda: zipped({1: torch.zeros(1)}),
    "numbers for tensors": lambda: zipped({"embed_ln.bias": 1}),
    "one number many times": lambda: zipped({**state(), "embed_ln.bias": torch.zeros(1).expand(10**12)}),
    "a storage by a tuple in a tuple": lambda: rewritten(**{"data.pkl": b"(NN)" + b"\x85" * 1_000_000 + b"tQ."}),
    "a shape that repeats a tuple": lambda: shaped(b"J\xff\xff\xff\x7f)\x86"),
    "sparse": lambda: zipped({"embed_ln.bias": torch.zeros(16).to_sparse()}),
    "empty": lambda: b"",
}
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "an endless header": lambda: header(weight(), 2**60),
    "a header of 100 MB": lambda: header(weight(), 10**8),
    "offsets beyond the end": lambda: header(weight(shape=(10**12,), ends=(0, 4 * 10**12))),
    "another shape than its bytes": lambda: header(weight(shape=(10**12,))),
    "a negative shape": lambda: header(weight(shape=(-1,))),
    "holes": lambda: header(weight(ends=(16, 32))),
    "an unknown type": lambda: header(weight(dtype="PICKLE")),
    "nested": lambda: header(b"[" * 10_000),
    "no JSON": lambda: header(b"import os"),
    "empty": lambda: b"",
}


def complaint(read: Callable[[Path], Any], folder: Path) -> str:
    try:
        read(folder)
    except RlalgoError as error:
        return str(error)
    return ""


def refused(folder: Path, words: str | None = None) -> str:
    """The one line that says why a checkpoint gives no run; nothing is run, and nothing left behind."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(CheckpointError, match=words) as caught:
        import_hf(str(folder), folder.parent / "run", PLAYED, target_returns=[1.0])
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.iterdir()) == before
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return checkpoint(tmp_path / "theirs")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported")
    rlutils.train(toy_config(trainer={"name": "offline", "steps": 5}), out=place / "run")
    return export_hf(place / "run", place / "out", plugins=[PLUGIN])


@pytest.mark.parametrize("what", PICKLES)
def test_pickles_are_tensors_or_nothing(what: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLES[what]())
    assert "nothing of it was run" in refused(folder, r"pytorch_model\.bin")


def test_what_torch_saves_is_read_to_the_bit(tmp_path: Path) -> None:
    matrix = torch.randn(4, 6)
    saved = {
        "view": matrix.T[1:, ::2],
        "shared": matrix[2],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(-1e9),
        "empty": torch.zeros(0, 5),
        **{str(dtype): torch.ones(2, 3, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)},
        **{str(dtype): torch.ones(5, dtype=dtype) for dtype in (torch.int64, torch.uint8, torch.bool)},
        **torch.nn.Linear(2, 2).state_dict(),
    }
    torch.save(saved, tmp_path / "pytorch_model.bin")
    found = read_weights(tmp_path)
    assert found.keys() == saved.keys()
    for name, weight in saved.items():
        assert found[name].dtype == weight.dtype
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize("what", SAFETENSORS)
def test_headers_that_lie_are_refused(what: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(SAFETENSORS[what]())
    refused(folder, r"model\.safetensors: cannot be read as safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embed_ln.bias": torch.full((16,), torch.nan)}, "embed_ln.bias is not of finite numbers"),
        ({"encoder.wpe.weight": torch.full((8, 16), torch.inf)}, "encoder.wpe.weight is not of finite numbers"),
        ({"embed_ln.bias": torch.zeros(16, dtype=torch.int64)}, "embed_ln.bias is not of finite numbers"),
        ({"embed_ln.bias": torch.zeros(())}, r"embed_ln.bias is \(\), expected \(16,\)"),
        ({"encoder.wpe.weight": torch.zeros(())}, r"encoder.wpe.weight is \(\)"),
        ({"encoder.wpe.weight": torch.zeros(0, 16)}, r"encoder.wpe.weight is \(0, 16\)"),
        ({"embed_state.weight": torch.zeros(2, 16)}, "embed_state.weight"),
    ],
)
def test_weights_that_are_none_are_refused(change: dict[str, Any], words: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors.torch.save({**state(), **change}))
    refused(folder, words)


def test_weights_have_to_be_there_and_in_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has neither model.safetensors nor pytorch_model.bin")
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "has neither")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").touch()
    os.truncate(folder / "model.safetensors", host_memory() + 1)
    refused(folder, "larger than this machine's memory")


@pytest.mark.parametrize(
    "config",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{",
        b"null",
        b'{"hidden_size": 1e999}',
        b"\xff\xfe",
        b"",
    ],
)
def test_configs_that_are_none_are_refused(config: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(config)
    refused(folder, r"config\.json")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 2**40},
        {"hidden_size": 2**20, "n_layer": 256},  # petabytes
        {"max_ep_len": 2**20, "n_inner": None},
        {"n_layer": 10**9},
        {"n_layer": 0},
        {"state_dim": -1},
        {"n_head": 3},
        {"n_head": "2"},
        {"act_dim": None},
        {"action_tanh": "yes"},
        {"activation_function": "os.system"},
        {"resid_pdrop": 1.5},
        {"layer_norm_epsilon": 0.0},
        {"model_type": "gpt2"},
        {"add_cross_attention": True},
    ],
)
def test_configs_of_absurd_or_other_models_are_refused(change: dict[str, Any], folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **change}))
    refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", OWN])
def test_links_out_of_the_folder_are_not_followed(name: str, folder: Path) -> None:
    secret = folder.parent / "secret"
    (folder / name).rename(secret) if (folder / name).exists() else secret.write_text("{}")
    (folder / name).symlink_to(secret)
    assert "leads out of its folder" in refused(folder, name)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "..", "nothing.safetensors", ""])
def test_shards_are_files_of_the_folder(file: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embed_ln.bias": file}}))
    refused(folder)


def test_the_links_of_the_hubs_cache_are_followed(folder: Path) -> None:
    blobs, snapshot = folder.parent / "blobs", folder.parent / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    import_hf(str(snapshot), folder.parent / "run", PLAYED, target_returns=[1.0])
    assert rlutils.load(folder.parent / "run").name == "dt"


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"plugins": ["./evil.py"], "env": {"name": "gym", "id": "evil:Env-v0"}}},
        {"config": {"algo": {"name": "bc"}}},
        {"config": {"algo": "dt"}},
        {"config": {"source": {"name": "minari", "id": "../../etc"}, "callbacks": [{"name": "nobody"}]}},
        {"config": []},
        {"state_std": [0.0, 1.0]},
        {"state_mean": [1.0]},
        {"state_mean": [float("nan"), 1.0]},
        {"action_radius": [1.0]},
        {"action_radius": [-1.0, 1.0]},
        {"best_return": float("inf")},
        {"spec": {}},
        {"spec": {"observation_space": {"type": "Box", "shape": [10**12]}}},
    ],
)
def test_settings_that_come_along_are_only_settings(
    change: dict[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    folder = Path(shutil.copytree(exported, tmp_path / "theirs"))
    values = read_yaml(folder / OWN)
    inner = change.pop("config", {})
    config = {**values["config"], **inner} if isinstance(inner, dict) else inner
    write_yaml(folder / OWN, {**values, **change, "config": config})
    try:
        import_hf(str(folder), tmp_path / "run", plugins=[PLUGIN])
        with pytest.raises(RlalgoError, match="evil"):
            rlutils.evaluate(tmp_path / "run", plugins=[PLUGIN])
    except RlalgoError:
        assert not (tmp_path / "run").exists()
    assert not (tmp_path / "executed").exists()


@times(150)
@given(data=st.data())
def test_damaged_checkpoints_are_read_or_refused(data: st.DataObject, exported: Path, tmp_path_factory: Any) -> None:
    """Bytes of every file, and values of those that have some."""
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("damaged") / "out"))
    weights = read_weights(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    name = data.draw(st.sampled_from(["config.json", OWN, "README.md", "model.safetensors", "pytorch_model.bin"]))
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    if name in ("config.json", OWN) and data.draw(st.booleans()):
        values = changed(read_yaml(folder / name), data.draw)
        (folder / name).write_text(json.dumps(values, default=str))
    else:
        content = bytearray((folder / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (folder / name).write_bytes(content[: data.draw(st.sampled_from([None, None, len(content) // 2]))])
    for read in (read_config, read_own, read_weights, lambda folder: card_statistics(folder, 2)):
        assert "\n" not in complaint(read, folder)
    shutil.rmtree(folder)
