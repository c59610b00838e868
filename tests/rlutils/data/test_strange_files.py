"""Datasets of strangers: whatever their files are or claim, one line says where, soon, and nothing else is opened."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from rlalgo.errors import DataError
from rlutils.data.inspect import inspect_dataset, list_datasets
from rlutils.data.minari_disk import local_ids
from rlutils.data.minari_source import MinariSource
from tests.rlutils.minari_data import ID, edit, edit_metadata, replace_column, write_dataset

Change = Callable[[Path], Any]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of datasets, with one; and whatever is done to that has to be answered within seconds."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path / "datasets")
    began = time.perf_counter()
    yield tmp_path / "datasets"
    assert time.perf_counter() - began < 5


def refused(message: str, *, looked_at: bool = True) -> None:
    """Loading says so in one line; so does `data inspect` if it looks at what is at fault, and `data list` goes on."""
    for ask in (lambda: MinariSource(MinariSource.Config(id=ID)).load(), *([lambda: inspect_dataset(ID)] * looked_at)):
        with pytest.raises(DataError, match=f"^minari:toy/line-v0: .*{message}") as caught:
            ask()
        assert len(str(caught.value).splitlines()) == 1
    assert len(list_datasets()) == 1


def box(**changes: Any) -> str:
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [3], "low": -1.0, "high": 1.0, **changes})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"total_steps": float("nan")}, "metadata.json: is not JSON: NaN is no finite number"),
        ({"ref_min_score": float("-inf")}, "is not JSON: -Infinity is no finite number"),
        ({"total_steps": None}, "metadata.json: total_steps: Input should be a valid integer"),
        ({"total_steps": 10**30}, "total_steps: Input should be less than or equal to"),
        ({"total_steps": -15}, "total_steps: Input should be greater than or equal to 0"),
        ({"total_episodes": [3]}, "total_episodes: Input should be a valid integer"),
        ({"total_episodes": 10**12, "total_steps": 10**12}, "says 1000000000000 episodes, the file holds 3"),
        ({"observation_space": None}, "observation_space: Input should be a valid string"),
        ({"observation_space": "["}, "'observation_space' in .*Expecting value"),
        ({"observation_space": "[" * 10**5}, "'observation_space' in .*recursion"),
        ({"observation_space": "3"}, "'observation_space' in .*no description"),
        ({"observation_space": box(shape=[10**6, 10**6])}, "claims 1,000,000,000,000 numbers"),
        ({"observation_space": box(shape=[10**400])}, "'observation_space' in .*claims"),
        ({"observation_space": box(shape=None)}, "'observation_space' in .*no description"),
        ({"observation_space": box(dtype="object")}, "'observation_space' in .*expected numbers"),
        ({"observation_space": box(dtype="S5")}, "'observation_space' in .*expected numbers"),
        ({"observation_space": box(low="low")}, "'observation_space' in .*no description"),
        ({"observation_space": '{"type": "Discrete", "n": 1000000000000}'}, "claims 1,000,000,000,000 n"),
        ({"observation_space": '{"type": "Dict", "subspaces": {}}'}, "observation"),
        ({"action_space": '{"type": "Discrete", "n": -3}'}, "'action_space' in .*no description"),
        ({"action_space": '{"type": "os.system"}'}, "'action_space' in .*fixed size"),
        ({"env_spec": "{"}, "'env_spec' in .*Invalid JSON"),
        ({"env_spec": "[1]"}, "'env_spec' in .*Input should be"),
        ({"env_spec": '{"id": 3}'}, "'env_spec' in .*id: Input should be a valid string"),
        ({"eval_env_spec": '{"max_episode_steps": -1}'}, "'env_spec' in .*max_episode_steps: Input should be greater"),
        ({"env_spec": '{"kwargs": [1]}'}, "'env_spec' in .*kwargs: Input should be"),
        ({"env_spec": '{"additional_wrappers": {"a": 1}}'}, "'env_spec' in .*additional_wrappers: Input should be"),
        ({"data_format": "pickle"}, "data_format: Input should be 'hdf5', 'arrow' or 'parquet'"),
        ({"ref_min_score": "low"}, "ref_min_score: Input should be a valid number"),
    ],
    ids=lambda x: str(x)[:60],
)  # fmt: skip
def test_metadata(root: Path, values: dict[str, Any], message: str) -> None:
    edit_metadata(root, **values)
    refused(message, looked_at="subspaces" not in str(values))


def test_what_is_null_is_not_known(root: Path) -> None:
    edit_metadata(root, ref_min_score=None, env_spec=None, description=None)
    assert MinariSource(MinariSource.Config(id=ID)).load().spec.ref_scores is None
    assert inspect_dataset(ID).description == ""


@pytest.mark.parametrize("name", ["metadata.json", "main_data.hdf5"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "huge"])
def test_what_is_no_file(root: Path, name: str, kind: str) -> None:
    path = root / ID / "data" / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "huge":
            path.touch()
            os.truncate(path, 10**10)
    refused(name)


def _column(dtype: Any, values: Any) -> Change:
    def change(root: Path) -> None:
        with edit(root) as file:
            del file["episode_1/observations"]
            file.create_dataset("episode_1/observations", None if values is not None else (4, 3), dtype, values)

    return change


def _linked(path: str, link: Any, keep: str = "kept") -> Change:
    """Puts a link in the place of an object, which goes to another name."""

    def change(root: Path) -> None:
        with h5py.File(root / "other.hdf5", "w") as other:
            other["x"] = np.zeros((4, 3), np.float32)
        with edit(root) as file:
            file["episode_0"].move(f"/{path}", f"/episode_0/{keep}")
            file[path] = link(root) if callable(link) else link

    return change


def _virtual(limit: int | None) -> Change:
    def change(root: Path) -> None:
        os.mkfifo(root / "pipe.hdf5")  # whoever opens it waits for ever
        layout, rows = h5py.VirtualLayout((4, 3), np.float32, (limit, 3)), slice(limit)
        layout[rows] = h5py.VirtualSource(str(root / "pipe.hdf5"), "x", (4, 3), maxshape=(limit, 3))[rows]
        with edit(root) as file:
            del file["episode_1/observations"]
            file.create_virtual_dataset("episode_1/observations", layout)

    return change


def _external(root: Path) -> None:
    with edit(root) as file:
        del file["episode_1/observations"]
        file.create_dataset("episode_1/observations", (4, 3), np.float32, external=[("/etc/passwd", 0, 48)])


def _bomb(path: str, shape: tuple[int, ...], **options: Any) -> Change:
    def change(root: Path) -> None:
        with edit(root) as file:
            del file[path]
            file.create_dataset(path, shape, np.float32, **options)

    return change


def _long_episode(root: Path) -> None:
    """Every column and the metadata agree that an episode has 10^11 steps."""
    edit_metadata(root, total_steps=10**11 + 8)
    with edit(root) as file:
        file["episode_0"].attrs["total_steps"] = 10**11
        for name, row in (("rewards", ()), ("terminations", ()), ("truncations", ()), ("actions", (2,))):
            del file[f"episode_0/{name}"]
            file.create_dataset(f"episode_0/{name}", (10**11, *row), np.float32, chunks=True, compression="gzip")
        del file["episode_0/observations"]
        file.create_dataset("episode_0/observations", (10**11 + 1, 3), np.float32, chunks=True, compression="gzip")


def _same_thing_often(root: Path) -> None:
    """A million names would claim much from little: here, each of 3,000 episodes is the same thousand steps."""
    with edit(root) as file:
        group = file.create_group("zeros")
        for name, row in (("rewards", ()), ("terminations", ()), ("truncations", ()), ("actions", (2,))):
            shape = (10**6, *row)
            group.create_dataset(name, shape, np.float32, chunks=True, compression="gzip")
        group.create_dataset("observations", (10**6 + 1, 3), np.float32, chunks=True, compression="gzip")
        for i in range(3000):
            if f"episode_{i}" in file:
                del file[f"episode_{i}"]
            file[f"episode_{i}"] = group
        del file["zeros"]
    edit_metadata(root, total_episodes=3000, total_steps=3000 * 10**6)


def _steps_as_a_list(root: Path) -> None:
    with edit(root) as file:
        for i in range(3):
            file[f"episode_{i}"].attrs["total_steps"] = [3, 3]


PAIR = np.dtype([("a", np.float32), ("b", np.float32)])

HDF5: dict[str, tuple[Change, str]] = {
    "texts of any length": (_column(h5py.string_dtype(), [["a"] * 3] * 4), "episode 1: observations are object"),
    "rows of any length": (_column(h5py.vlen_dtype(np.float32), None), "episode 1: observations"),
    "pairs": (_column(PAIR, np.zeros((4, 3), PAIR)), "episode 1: observations are .*expected numbers"),
    "complex": (_column(np.complex64, np.zeros((4, 3), np.complex64)), "episode 1: observations are complex64"),
    "opaque": (_column(np.dtype("V4"), np.zeros((4, 3), "V4")), "episode 1: observations"),
    "references": (_column(h5py.ref_dtype, np.empty((4, 3), h5py.ref_dtype)), "episode 1: observations are object"),
    "nothing": (_column(None, h5py.Empty("f4")), "episode 1: .*observations"),
    "one number": (_column(np.float32, 3.0), "episode 1: .*observations"),
    "external link": (
        _linked("episode_1/observations", lambda root: h5py.ExternalLink(str(root / "other.hdf5"), "x")),
        "episode 1: .*main_data.hdf5 cannot be read: observations: a link",
    ),
    "external link to a device": (
        _linked("episode_1/rewards", h5py.ExternalLink("/dev/zero", "x")), "episode 1: .*rewards: a link"
    ),
    "external episode": (_linked("episode_1", h5py.ExternalLink("/dev/zero", "x")), "episode 1: .*: a link"),
    "soft link": (_linked("episode_1/actions", h5py.SoftLink("/episode_0/kept")), "episode 1: .*actions: a link"),
    "soft link to itself": (
        _linked("episode_1/actions", h5py.SoftLink("/episode_1/actions")), "episode 1: .*actions: a link"
    ),
    "virtual": (_virtual(4), "episode 1: .*observations: kept in other files"),
    "virtual without end": (_virtual(None), "episode 1: .*observations: kept in other files"),
    "external storage": (_external, "episode 1: .*observations: kept in other files"),
    "terabytes of observations": (
        _bomb("episode_1/observations", (4, 10**12), chunks=(1, 1000), compression="gzip"), "episode 1: .*observations"
    ),
    "terabytes of rewards": (
        _bomb("episode_1/rewards", (10**13,), chunks=(1000,)), "episode 1: .*rewards: shape .*more than the file"
    ),
    "terabytes that were never written": (_bomb("episode_1/rewards", (10**12,)), "episode 1: .*more than the file"),
    "gigabytes in a chunk": (
        _bomb("episode_1/rewards", (3,), maxshape=(None,), chunks=(10**9,)), "episode 1: .*more than the file can hold"
    ),
    "a long episode": (_long_episode, "episode 0: .*more than the file can hold"),
    "one thing often": (_same_thing_often, "more than the file can hold"),
    "names alone": (
        lambda root: replace_column(root, "episode_1/rewards", np.zeros((3, 0), np.float32)), "rewards have shape"
    ),
    "steps as a list": (_steps_as_a_list, "episode 0: its total_steps is not the 5 steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", HDF5)
def test_hdf5(root: Path, name: str) -> None:
    change, message = HDF5[name]
    change(root)
    refused(message, looked_at="rewards" in message or "total_steps" in message or "episode 0" in message)


def test_facts_that_would_mislead_or_fill_the_memory_are_left_out(root: Path) -> None:
    with edit(root) as file:
        for i in range(3):
            attributes = file[f"episode_{i}"].attrs
            attributes["episode"] = attributes["unclipped_return"] = 7.0
            attributes["large"] = np.zeros(2000)
            attributes["words"] = "x"
            attributes["nan"] = np.nan
            attributes["empty"] = np.zeros(0)
    assert set(MinariSource(MinariSource.Config(id=ID)).load().info) == {"seed", "nan", "empty"}
    assert set(inspect_dataset(ID).facts) == {"seed", "nan", "empty"}


def test_a_jpeg_of_another_size_or_kind(root: Path) -> None:
    image = spaces.Box(0, 255, (40, 33, 3), np.uint8)
    write_dataset(root, "toy/photo-v0", observation_space=image, jpeg_encoding=True)
    source = MinariSource(MinariSource.Config(id="toy/photo-v0"))
    source.load()
    with edit(root, "toy/photo-v0") as file:
        row = bytearray(file["episode_1/observations"][0].tobytes())
        place = row.index(b"\xff\xc0") + 5
        row[place : place + 4] = b"\xff\xff\xff\xff"  # a photograph of four gigapixels
        file["episode_1/observations"][0] = np.frombuffer(bytes(row), np.uint8)
    with pytest.raises(DataError, match=r"minari:toy/photo-v0: episode 1: .*Image size"):
        source.load()
    with edit(root, "toy/photo-v0") as file:
        file["episode_1/observations"][0] = np.frombuffer(b"GIF89a" + bytes(20), np.uint8)
    with pytest.raises(DataError, match=r"minari:toy/photo-v0: episode 1: .*no JPEG"):
        source.load()


def test_a_dataset_that_does_not_fit_into_the_memory_is_told_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.minari_source.host_memory", lambda: 100)
    with pytest.raises(DataError, match="observations take 216 B of memory, and there are 100 B; leave `memory_map: f"):
        MinariSource(MinariSource.Config(id=ID, memory_map=False)).load()
    assert MinariSource(MinariSource.Config(id=ID, memory_map=True)).load().mapped


def test_links_under_the_root_are_walked_once(root: Path, tmp_path: Path) -> None:
    """Twenty folders that each link to all others and to the root: a walk by names would never end."""
    outside = tmp_path / "elsewhere"
    write_dataset(outside, "mine/set-v0")
    (root / "away").symlink_to(outside)
    (root / "toy" / "again-v0").symlink_to(root / ID)
    (root / "broken").symlink_to(root / "nowhere")
    for i in range(20):
        (root / f"n{i}").mkdir()
    for i in range(20):
        for j in range(20):
            (root / f"n{i}" / f"to{j}").symlink_to(root / f"n{j}")
        (root / f"n{i}" / "up").symlink_to(root)
    assert local_ids() == ["away/mine/set-v0", "toy/again-v0", ID]
    assert MinariSource(MinariSource.Config(id="away/mine/set-v0")).load().steps == 15
