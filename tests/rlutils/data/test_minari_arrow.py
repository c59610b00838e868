"""Datasets in Arrow and Parquet, written by Minari: the episodes that HDF5 gives, and answers to what is broken."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces

from rlalgo.core.episodes import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import DataError
from rlutils.data.inspect import inspect_dataset, list_datasets
from rlutils.data.minari_source import MinariSource
from tests.rlutils.minari_data import ID, edit_metadata, write_dataset

pa = pytest.importorskip("pyarrow")
IMAGE = spaces.Box(0, 255, (40, 33, 3), np.uint8)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "datasets"


def load(ident: str = ID, **options: Any) -> Episodes:
    return MinariSource(MinariSource.Config(id=ident, **options)).load()


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("seen", "done"),
    [
        (spaces.Box(-np.inf, np.inf, (2, 3), np.float64), spaces.Box(-1, 1, (2,))),
        (spaces.Discrete(4, start=1), spaces.Discrete(3)),
        (IMAGE, spaces.Discrete(3)),
        (spaces.Dict(a=spaces.Discrete(3), b=spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)])), None),
        (spaces.Dict(at=spaces.Box(-1, 1, (2,)), eye=IMAGE), spaces.MultiDiscrete([3, 2])),
    ],
    ids=str,
)
def test_every_format_gives_the_same_episodes(root: Path, form: str, seen: Space, done: Space | None) -> None:
    facts = {"noise": [0.0, 0.5, 1.0], "policy": ["a", "b", "c"]}
    both: dict[str, Any] = {"observation_space": seen, "action_space": done, "facts": facts, "jpeg_encoding": True}
    write_dataset(root, "toy/plain-v0", **both)
    write_dataset(root, **both, data_format=form)
    plain, data = load("toy/plain-v0"), load()
    assert fingerprint(data) == fingerprint(plain)
    assert data.spec == plain.spec
    assert {name: x.tolist() for name, x in data.info.items()} == {name: x.tolist() for name, x in plain.info.items()}
    mapped = load(memory_map=True)
    assert mapped.mapped
    assert fingerprint(mapped) == fingerprint(plain)
    infos = {info.id: (info.broken, info.episodes, info.steps) for info in list_datasets()}
    assert infos == dict.fromkeys((ID, "toy/plain-v0"), (None, 3, 15))
    a, b = inspect_dataset(ID), inspect_dataset("toy/plain-v0")
    np.testing.assert_array_equal(a.returns, b.returns)
    assert (a.lengths.tolist(), a.terminated.tolist()) == (b.lengths.tolist(), b.terminated.tolist())


def test_formats_may_be_joined(root: Path) -> None:
    write_dataset(root, "toy/one-v0", data_format="parquet")
    write_dataset(root, "toy/two-v0", seed=1)
    both = load(("toy/one-v0", "toy/two-v0"))
    assert torch.equal(both.rewards, torch.cat([load("toy/one-v0").rewards, load("toy/two-v0").rewards]))


def test_without_pyarrow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(root, data_format="arrow")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "minari.dataset._storages.arrow_storage")
    for ask in (load, lambda: inspect_dataset(ID)):
        with pytest.raises(DataError, match=r'^minari:toy/line-v0 is stored as arrow, .* "rlalgo\[arrow\]"'):
            ask()
    assert [info.broken for info in list_datasets()] == [None]


def told(**values: Any) -> Callable[[Path], None]:
    """Other metadata of episode 1."""

    def change(folder: Path) -> None:
        path = folder / "1" / "metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def table(**columns: Any) -> Callable[[Path], None]:
    """Other columns in the file of episode 1; None takes one away."""

    def change(folder: Path) -> None:
        (path,) = (folder / "1").glob("*.arrow")
        with pa.ipc.open_file(path) as reader:
            found = reader.read_all()
        for name, values in columns.items():
            if name in found.column_names:
                found = found.drop_columns(name)
            if values is not None:
                found = found.append_column(name, pa.array(values))
        with pa.ipc.new_file(path, found.schema) as writer:
            writer.write_table(found)

    return change


def cut(folder: Path) -> None:
    (path,) = (folder / "1").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:-200])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no episode": (lambda folder: shutil.rmtree(folder / "1"), "says 3 episodes, there are 2"),
    "no file": (lambda folder: next((folder / "1").glob("*.arrow")).unlink(), "should hold 3 steps, .* gives 0"),
    "half a file": (cut, "data/1 cannot be read"),
    "no metadata": (lambda folder: (folder / "1" / "metadata.json").unlink(), "episode 1: .*there is no such file"),
    "another length": (told(total_steps=4), "says 15 steps, episodes say 16"),
    "no steps": (told(total_steps=0), "episode 1: .*total_steps: Input should be greater"),
    "wrong type": (told(total_steps="many"), "episode 1: .*total_steps: Input should be a valid integer"),
    "no column": (table(actions=None), "data/1 cannot be read: .*actions"),
    "texts": (table(rewards=["a"] * 4), "episode 1: rewards are object, expected float32"),
    "nulls": (table(rewards=[1.0, None, 2.0, 3.0]), "episode 1, step 1: reward nan is not finite"),
    "wide": (table(rewards=[[1.0, 2.0]] * 4), "episode 1: rewards"),
    "flat actions": (table(actions=[1.0] * 4), "data/1 cannot be read|episode 1: actions"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_is_told(root: Path, name: str) -> None:
    change, message = FAULTS[name]
    write_dataset(root, data_format="arrow")
    load()
    change(root / ID / "data")
    with pytest.raises(DataError, match=f"^minari:toy/line-v0: .*({message})") as caught:
        load()
    assert len(str(caught.value).splitlines()) == 1


def test_metadata_that_disagrees(root: Path) -> None:
    write_dataset(root, data_format="arrow")
    for episode in (0, 1):  # 5 and 3 steps, in exchange
        path = root / ID / "data" / str(episode) / "metadata.json"
        path.write_text(json.dumps({"total_steps": 3 if episode == 0 else 5}))
    with pytest.raises(DataError, match=r"episode 0: .*should hold 3 steps, of which Minari's reader gives 5"):
        load()
    edit_metadata(root, total_episodes=10**12)
    with pytest.raises(DataError, match="says 1000000000000 episodes, there are 3"):
        load()
