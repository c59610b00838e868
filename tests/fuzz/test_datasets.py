"""Whatever stands in the files of a dataset or of its mapped copy, a command that reads them succeeds or says what is
wrong in one line: listing, inspecting, loading.

Nothing is executed, nothing removed, no other file opened, and nothing takes long.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rlutils.config.files import write_json
from rlutils.data.minari_source import MinariSource
from tests.fuzz.mutations import ESCAPES, JUNK, mutate
from tests.fuzz.test_run_folder import fault_of, here
from tests.rlutils.minari_data import write_dataset

__all__ = ["here"]  # the fixture

pytestmark = pytest.mark.filterwarnings("default::UserWarning")

IMAGE = spaces.Box(0, 255, (36, 32, 3), np.uint8)
DATASETS: dict[str, dict[str, Any]] = {
    "toy/pendulum-v0": {"observation_space": spaces.Box(-8, 8, (3,)), "action_space": spaces.Box(-2, 2, (1,)),
                        "env": "Pendulum-v1", "ref_scores": (-1500.0, -150.0)},
    "toy/mixed-v0": {"observation_space": spaces.Dict(at=spaces.Discrete(5), eye=IMAGE), "jpeg_encoding": True,
                     "action_space": spaces.MultiDiscrete([3, 2])},
    "toy/arrow-v0": {"data_format": "arrow", "facts": {"noise": [0.5, 1.0, 2.0]}},
    "toy/parquet-v0": {"data_format": "parquet", "action_space": spaces.Discrete(3)},
}  # fmt: skip
SHAPES = [(), (0,), (1,), (3,), (5,), (6,), (5, 1), (6, 3), (5, 2, 2), (6, 4000), (10**6,), (10**12,), (10**6, 10**6)]
TYPES: list[Any] = [
    "f4", "f8", "f2", ">f8", "i1", "u8", "?", "c8", "S3", "V4", h5py.string_dtype(), h5py.vlen_dtype(np.uint8),
    h5py.vlen_dtype(np.float64), h5py.ref_dtype, h5py.enum_dtype({"a": 1, "b": 7}), "i8", "u1",
    np.dtype([("a", "f4"), ("b", "S2")]),
]  # fmt: skip
FACTS: list[Any] = [
    0, -1, 4, 10**18, np.nan, np.inf, 2.5, True, "x", ESCAPES, b"\xff", np.zeros(0), np.zeros(3), np.zeros((2, 2)),
    np.zeros(5000), h5py.Empty("f4"), np.uint64(2**63), np.complex64(1j),
    np.array(["a", "b"], dtype=h5py.string_dtype()),
]  # fmt: skip


def _other_array(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    """Another array in the place of an object: of any type and shape, of which nothing need ever be written."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TYPES))
    options: dict[str, Any] = {}
    if shape and draw(st.booleans()):
        options = {"chunks": tuple(min(side, 1000) or 1 for side in shape), "compression": "gzip", "fillvalue": None}
        options["maxshape"] = tuple(None for _ in shape)
    del file[path]
    file.create_dataset(path, shape, dtype, **options)


def _other_values(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    """Other numbers in an array, or other bytes of its jpegs."""
    array = file[path]
    if not isinstance(array, h5py.Dataset) or not array.size:
        return
    row = draw(st.integers(0, len(array) - 1))
    if array.dtype.kind == "O":
        content = bytearray(array[row].tobytes())
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from([b"", b"\xff\xff", *JUNK[:3]]))
        array[row] = np.frombuffer(bytes(content), np.uint8)
    else:
        values = [np.nan, np.inf, -np.inf, 1e300, -1, 2**40, 0, 255, 3]
        with np.errstate(all="ignore"):
            array[row] = np.asarray(draw(st.sampled_from(values))).astype(array.dtype)


def _link(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    del file[path]
    file[path] = draw(
        st.sampled_from(
            [
                h5py.SoftLink(path), h5py.SoftLink("/episode_0"), h5py.SoftLink("/episode_1/rewards"),
                h5py.SoftLink("/nowhere"), h5py.ExternalLink("/dev/zero", "x"), h5py.ExternalLink("executed", "/x"),
                file["/"], file["episode_2"], file["episode_2/rewards"],
            ]
        )
    )  # fmt: skip


def _virtual(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    length = draw(st.sampled_from([5, 6, 10**9]))
    layout = h5py.VirtualLayout((length,), np.float32)
    layout[:] = h5py.VirtualSource(draw(st.sampled_from(["/dev/zero", "executed", "."])), "x", (length,))
    del file[path]
    file.create_virtual_dataset(path, layout)


def _fact(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    name = draw(
        st.sampled_from(["total_steps", "seed", "id", "episode", "unclipped_return", "dataset", ESCAPES, "x" * 9])
    )
    value = draw(st.sampled_from(FACTS))
    for i in range(3) if draw(st.booleans()) else [draw(st.integers(0, 2))]:
        if f"episode_{i}" in file:
            file[f"episode_{i}"].attrs[name] = value


def _name(file: h5py.File, path: str, draw: Callable[..., Any]) -> None:
    """An object more, less, or under another name."""
    how = draw(st.sampled_from(["drop", "rename", "group", "more", "type"]))
    if how == "more":
        file.create_group(draw(st.sampled_from(["episode_3", "episode_x", "x", ESCAPES])))
    elif how == "rename":
        file.move(path, draw(st.sampled_from(["/episode_9", "/other", f"/episode_0/{ESCAPES}"])))
    else:
        del file[path]
        if how == "group":
            file.create_group(path)
        elif how == "type":
            file[path] = np.dtype("f8")


def _inside(path: Path, draw: Callable[..., Any]) -> str:
    """Changes one or two things within an HDF5 file; says which."""
    said = []
    with h5py.File(path, "a") as file:
        for _ in range(draw(st.integers(1, 2))):
            found: list[str] = []
            file.visit(found.append)
            if not (place := draw(st.sampled_from(sorted(found) or [""]))):
                break
            change = draw(st.sampled_from([_other_array, _other_array, _other_values, _link, _virtual, _fact, _name]))
            said.append(f"{change.__name__[1:]} {place}")
            try:
                change(file, place, draw)
            except (ValueError, TypeError, OSError, KeyError, RuntimeError) as error:  # h5py itself will not write it
                said[-1] += f" ({type(error).__name__})"
    return f"{path.name}: {said}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def meet(here: Path, monkeypatch: pytest.MonkeyPatch, count: int, every_command: bool) -> None:
    """Mutates a dataset so many times; prints the share of failures, which is to be none."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here / "datasets"))
    monkeypatch.setenv("RLALGO_CACHE", str(here / "cache"))
    for ident, options in DATASETS.items():
        write_dataset(here / "sound", ident, **options)
    failures: list[str] = []
    done: list[str] = []

    @settings(max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from([*DATASETS, *list(DATASETS)[:2] * 2]))
        shutil.rmtree(here / "datasets", ignore_errors=True)
        shutil.copytree(here / "sound" / ident, here / "datasets" / ident)
        folder, other = here / "datasets" / ident / "data", here / "sound/toy/pendulum-v0/data"
        said, inside = [], folder / "main_data.hdf5"
        mapped = data.draw(st.booleans())
        if mapped and not data.draw(st.integers(0, 3)):
            shutil.rmtree(here / "cache", ignore_errors=True)
            MinariSource(MinariSource.Config(ident, clip_actions=True, memory_map=True)).load()
            file = data.draw(st.sampled_from(_files(here / "cache")))
            file.chmod(0o600)
            said.append(f"cache: {mutate(file, other / file.name, data.draw)}")
        elif inside.exists() and data.draw(st.integers(0, 2)):
            said.append(_inside(inside, data.draw))
        else:
            file = data.draw(st.sampled_from(_files(folder)))
            said.append(mutate(file, other / file.name, data.draw))
        before = {path: path.read_bytes() for path in _files(folder) if path.stat().st_size < 10**6}
        source = {"name": "minari", "id": ident, "clip_actions": True, "memory_map": mapped}
        config = {"source": source, "algo": {"name": "bc", "hidden_dims": [4]}, "evaluation": {"episodes": 0}}
        write_json(here / "config.yaml", config)
        commands = {
            "load": ["train", "config.yaml", "--dry-run"],
            "list": ["data", "list"],
            "inspect": ["data", "inspect", ident],
        }
        done.append("")
        chosen = list(commands) if every_command else [data.draw(st.sampled_from(list(commands)))]
        faults = {name: fault_of(commands[name]) for name in chosen}
        failures.extend(f"{name} of {ident} after {said}: {fault}" for name, fault in faults.items() if fault)
        if any(not path.exists() or path.read_bytes() != content for path, content in before.items()):
            failures.append(f"removed or changed a file after {said}")

    one()
    print(f"{len(done)} mutations of a dataset, {len(failures)} failures: {len(failures) / len(done):.1%}")
    assert not failures, "\n".join(failures)


def test_a_dataset_is_read_with_distrust(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meet(here, monkeypatch, 40, every_command=False)


@pytest.mark.slow
def test_a_dataset_is_read_with_distrust_300_times(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meet(here, monkeypatch, 300, every_command=True)
