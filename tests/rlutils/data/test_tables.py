"""The sources table and hf: the same data in another file is the same data, and faults have their row."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, ipc, parquet

from rlalgo import Episodes
from rlalgo.config import parse
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import ConfigError, DataError
from rlutils.config.catalogue import catalogue
from rlutils.data.hf_source import HfSource
from rlutils.data.minari_source import MinariSource
from rlutils.data.table_source import TableSource
from rlutils.data.writers import write_hf
from tests.rlutils.data.files import Columns, assert_one_line, assert_same, damage, flat, losses
from tests.rlutils.minari_data import ID, write_dataset

OPTIONS: dict[str, Any] = {
    "episode": "run",
    "observations": ["s0", "s1", "s2"],
    "actions": ["a0", "a1"],
    "reward": "r",
    "terminated": "end",
    "truncated": "cut",
    "next_observations": ["n0", "n1", "n2"],
}


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset(tmp_path, lengths=(5, 3, 7, 1, 4))
    return MinariSource(MinariSource.Config(id=ID)).load()


def rows(episodes: Episodes) -> Columns:
    """A row for each step, as people keep them."""
    found = flat(episodes)
    vectors = {"s": "observations", "n": "next_observations", "a": "actions"}
    columns: Columns = {"run": [f"run {9 - i}" for i in episodes.episode_ids().tolist()]}
    columns["t"] = episodes.timesteps().numpy()
    columns |= {
        f"{short}{i}": found[name][:, i] for short, name in vectors.items() for i in range(found[name].shape[1])
    }
    return columns | {"r": found["rewards"], "end": found["terminations"], "cut": found["truncations"]}


def write(path: Path, columns: Columns, **types: Any) -> None:
    table = pa.table({name: pa.array(column, types.get(name)) for name, column in columns.items()})
    csv.write_csv(table, path) if path.suffix == ".csv" else parquet.write_table(table, path)


def table(path: Path, **options: Any) -> Episodes:
    values = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
    return TableSource(parse(TableSource.Config, {"path": str(path), **values}, catalogue())).load()


def hf(path: Path, **options: Any) -> Episodes:
    return HfSource(HfSource.Config(path=path, **options)).load()


def hub(episodes: Episodes) -> Columns:
    """A row for each episode, as on the hub."""
    found, ends = flat(episodes), episodes.starts[1:-1].numpy()
    names = {"observations": "observations", "actions": "actions", "rewards": "rewards", "dones": "terminations"}
    return {name: [part.tolist() for part in np.split(found[column], ends)] for name, column in names.items()}


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_table_is_the_same_bit_for_bit(
    name: str, original: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.table_source._ROWS", 4)
    monkeypatch.setattr("rlutils.data.arrow._BLOCK", 1024)
    write(tmp_path / name, rows(original))
    data = table(tmp_path / name, env_id="CartPole-v1", ref_scores=[0.0, 10.0])
    assert (data.spec.env_id, data.spec.ref_scores, data.spec.max_steps) == ("CartPole-v1", (0.0, 10.0), 500)
    assert_same(table(tmp_path / name), original)
    assert losses(table(tmp_path / name)) == losses(original)


def test_rows_in_any_order(original: Episodes, tmp_path: Path) -> None:
    columns, n = rows(original), original.steps
    order = np.append(0, 1 + np.random.default_rng(0).permutation(n - 1))  # the first episode stays the first
    mixed = {name: np.asarray(column)[order] for name, column in columns.items()}
    write(tmp_path / "x.parquet", mixed)
    data = table(tmp_path / "x.parquet", order="t")
    seen = list(dict.fromkeys(mixed["run"].tolist()))
    assert_same(data, original.select(torch.tensor([9 - int(name[-1]) for name in seen])))
    with pytest.raises(DataError, match=r"x\.parquet: row \d+: episode 'run \d' goes on after another one began; sort"):
        table(tmp_path / "x.parquet")
    columns["t"][1] = 0
    write(tmp_path / "x.csv", columns)
    with pytest.raises(DataError, match=r"x\.csv: row 3: t is 0, as in another row of its episode"):
        table(tmp_path / "x.csv", order="t")


def test_without_ends_and_next_observations_episodes_were_cut(original: Episodes, tmp_path: Path) -> None:
    write(tmp_path / "x.csv", rows(original))
    data = table(tmp_path / "x.csv", terminated=None, truncated=None, next_observations=None)
    assert not data.terminations.any()
    assert data.truncations[data.starts[1:] - 1].all()
    assert not data.has_final.any()
    assert torch.equal(data.rewards, original.rewards)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_categories_and_missing_values_are_mapped_as_said(name: str, tmp_path: Path) -> None:
    columns: Columns = {
        "run": [1, 1, 2], "a": ["left", "right", "left"], "r": [1.0, None, 3.0], "end": [0, 1, 0],
        "color": ["blue", None, "red"], "size": [1.5, 2.5, None],
    }  # fmt: skip
    write(tmp_path / name, columns, a=pa.dictionary(pa.int32(), pa.string()) if name != "x.csv" else None)
    options: dict[str, Any] = {
        "actions": ["a"], "observations": ["size", "color"], "truncated": None, "next_observations": None,
        "categories": {"a": ["left", "right"], "color": ["red", "blue", "none"]},
        "missing": {"color": "none", "size": 9, "r": 0.5},
    }  # fmt: skip
    data = table(tmp_path / name, **options)
    assert data.spec.action_space == spaces.Discrete(2)
    assert data.actions.tolist() == [0, 1, 0]
    assert data.rewards.tolist() == [1.0, 0.5, 3.0]
    assert data.observations[[0, 1, 3]].tolist() == [[1.5, 1], [2.5, 2], [9, 0]]
    first = 2 if name == "x.csv" else 1
    with pytest.raises(DataError, match=rf"row {first + 1}: column 'r' has no value; `missing: {{r: VALUE}}`"):
        table(tmp_path / name, **{**options, "missing": {"color": "none", "size": 9}})
    categories = {"a": ["left"], "color": ["red", "blue", "none"]}
    with pytest.raises(DataError, match=rf"row {first + 1}: column 'a' is 'right', which is none of its"):
        table(tmp_path / name, **{**options, "categories": categories})
    said = "invalid value 'blue'" if name == "x.csv" else "'color' holds string, expected numbers; say what texts mean"
    with pytest.raises(DataError, match=said):
        table(tmp_path / name, **{**options, "categories": {"a": ["left", "right"]}})


@pytest.mark.parametrize(
    ("actions", "options", "space"),
    [
        ({"a0": [0, 2, 1]}, {}, spaces.Discrete(3)),
        ({"a0": [0, 1, 1], "a1": [0, 2, 0]}, {}, spaces.Discrete(6)),
        ({"a0": [0, 1, 1]}, {"discrete": False}, spaces.Box(-1, 1, (1,))),
        ({"a0": [0.0, 5.5, 1.0]}, {}, spaces.Box(-np.inf, np.inf, (1,))),
    ],
    ids=["whole", "several", "as told", "wide"],
)
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_spaces_of_actions(
    name: str, actions: Columns, options: dict[str, Any], space: spaces.Space, tmp_path: Path
) -> None:
    write(tmp_path / name, {"run": [1, 1, 1], "s0": [1, 2, 3], "r": [1, 2, 3], **actions})
    options |= {"actions": list(actions), "observations": ["s0"], "terminated": None, "truncated": None}
    assert table(tmp_path / name, next_observations=None, **options).spec.action_space == space


def put(name: str, row: int, value: Any) -> Callable[[Columns], None]:
    def change(columns: Columns) -> None:
        column = list(columns[name])
        column[row] = value
        columns[name] = column

    return change


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("r", 6, None), "row {row}: column 'r' has no value"),
        (put("s1", 6, float("nan")), "row {row}: column 's1' has no value"),
        (put("run", 6, None), "row {row}: column 'run' has no value; give it one"),
        (put("end", 6, None), "row {row}: column 'end' has no value"),
        (put("a1", 6, float("inf")), "episode 1, step 1: action .* is not finite"),
        (put("s1", 6, 1e300), "episode 1, step 1: observation .* is not finite"),
        (put("end", 6, True), "episode 1, step 1: termination True is before the last step"),
        (put("cut", 1, True), "episode 0, step 1: truncation True is before the last step"),
        (lambda columns: columns.pop("s1"), "has no columns 's1'. Did you mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_faults_have_their_row(
    name: str, change: Callable[[Columns], None], said: str, original: Episodes, tmp_path: Path
) -> None:
    columns = rows(original)
    change(columns)
    write(tmp_path / name, columns)
    with pytest.raises(DataError, match=said.format(row=8 if name == "x.csv" else 7)) as error:
        table(tmp_path / name)
    assert str(error.value).startswith(f"table:{tmp_path / name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Empty CSV file"),
        ("run,s0,a0,r\n", "holds no episodes"),
        ("run,s0,a0,r\n1,2,3,4\n1,2,x,4\n", "Row #3: CSV conversion error to float: invalid value 'x'"),
        ("run,s0,a0,r\n1,2,3,4\n1,2,3\n", "Row #3: Expected 4 columns, got 3"),
        ("run,s0,a0,r,r\n1,2,3,4,5\n", "has 2 columns 'r'. Expected one"),
        ("run;s0;a0;r\n1;2;3;4\n", "has no columns 's0'"),
        ("run,s0,a0,r\n1,red,3,4\n", "Row #2: CSV conversion error to float: invalid value 'red'"),
    ],
)
def test_csv_files_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    nothing = dict.fromkeys(("terminated", "truncated", "next_observations"))
    with pytest.raises(DataError, match=re.escape(said)) as error:
        table(tmp_path / "x.csv", observations=["s0"], actions=["a0"], **nothing)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"next_observations": ["n0"]}, "next_observations: has 1 columns, and observations 3; name as many"),
        ({"missing": {"x": 1}}, "missing: 'x' is no column of observations, actions or reward"),
        ({"observations": []}, "observations"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        table(tmp_path / "x.csv", **options)


def saved_to_disk(folder: Path, columns: Columns) -> None:
    """As `datasets.Dataset.save_to_disk` does it."""
    folder.mkdir(parents=True)
    found = pa.table(columns)
    halves = [found[:2], found[2:]]
    names = [f"data-{i:05}-of-00002.arrow" for i in range(2)]
    for name, half in zip(names, halves, strict=True):
        with ipc.new_stream(str(folder / name), found.schema) as writer:
            writer.write_table(half, max_chunksize=1)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def in_splits(folder: Path, columns: Columns) -> None:
    """As `datasets.DatasetDict.save_to_disk` does it."""
    saved_to_disk(folder / "train", columns)
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')


def from_hub(folder: Path, columns: Columns) -> None:
    """As a repository that was downloaded."""
    (folder / "data").mkdir(parents=True)
    found = pa.table(columns)
    parquet.write_table(found[:2], folder / "data" / "train-00000-of-00002.parquet")
    parquet.write_table(found[2:], folder / "data" / "train-00001-of-00002.parquet", row_group_size=1)
    parquet.write_table(found[:1], folder / "data" / "test-00000-of-00001.parquet")


def one_arrow_file(path: Path, columns: Columns) -> None:
    found = pa.table(columns)
    with ipc.new_file(str(path.parent / "x.arrow"), found.schema) as writer:
        writer.write_table(found, max_chunksize=2)
    path.symlink_to(path.parent / "x.arrow")


@pytest.mark.parametrize("put_there", [saved_to_disk, in_splits, from_hub, one_arrow_file])
def test_the_hubs_layout_is_the_same_but_for_what_came_last(
    put_there: Callable[[Path, Columns], None],
    original: Episodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlutils.data.hf_source._ROWS", 2)
    path = tmp_path / ("y.arrow" if put_there is one_arrow_file else "folder")
    put_there(path, {**hub(original), "seed": list(range(5)), "note": list("abcde")})
    data = hf(path)
    assert not data.has_final.any()
    assert data.info["seed"].tolist() == [0, 1, 2, 3, 4]
    assert set(data.info) == {"seed"}
    for name in ("actions", "rewards", "terminations", "truncations", "starts"):
        assert torch.equal(getattr(data, name), getattr(original, name)), name
    kept = flat(original)["observations"]
    assert np.array_equal(flat(data)["observations"], kept)
    if put_there is from_hub:
        assert len(hf(path, split="test")) == 1
        with pytest.raises(DataError, match=r"has no \.parquet or \.arrow files of 'tst'"):
            hf(path, split="tst")


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda x: pa.list_(x, 3)])
def test_lists_of_every_kind_and_numbers_of_any_precision(kind: Any, original: Episodes, tmp_path: Path) -> None:
    columns = hub(original)
    columns["dones"] = [[int(x) for x in part] for part in columns["dones"]]
    columns["rewards"] = [[[x] for x in part] for part in columns["rewards"]]
    found = {name: pa.array(column) for name, column in columns.items()}
    found["observations"] = pa.array(columns["observations"], pa.large_list(kind(pa.float64())))
    parquet.write_table(pa.table(found), tmp_path / "x.parquet")
    data = hf(tmp_path / "x.parquet")
    assert np.array_equal(flat(data)["observations"], flat(original)["observations"])
    assert torch.equal(data.rewards, original.rewards)


def test_what_convert_writes_is_the_same_bit_for_bit(original: Episodes, tmp_path: Path) -> None:
    write_hf(original, tmp_path / "x.parquet")
    data = hf(tmp_path / "x.parquet")
    assert data.spec == original.spec
    assert fingerprint(data) == fingerprint(original)
    assert_same(data, original)
    assert losses(data) == losses(original)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("dones"), "has no columns 'dones'"),
        (lambda c: c["actions"][1].pop(), "episode 1: 2 actions but 3 rewards"),
        (lambda c: c["rewards"].__setitem__(2, None), "episode 2: rewards have no value"),
        (lambda c: c["rewards"][2].__setitem__(4, None), "episode 2, step 4: rewards have no value"),
        (lambda c: c["observations"][2].__setitem__(4, None), "episode 2, step 4: observations have no value"),
        (lambda c: c["observations"][2][4].__setitem__(1, None), "episode 2, step 4: observations have no value"),
        (lambda c: c["observations"][2][4].append(1.0), "episode 2, step 4: observations have 4 numbers, expected 3"),
        (
            lambda c: c["observations"][2][4].__setitem__(1, float("nan")),
            "episode 2, step 4: observation .* not finite",
        ),
        (lambda c: c["dones"][2].__setitem__(4, True), "episode 2, step 4: termination True is before the last"),
        (lambda c: [c[name][2].clear() for name in c], "episode 2 is empty"),
        (lambda c: [c[name].clear() for name in c], "holds no episodes|expected a list|holds null"),
        (lambda c: c.__setitem__("rewards", [1.0] * 5), "column 'rewards' holds double, expected a list"),
        (lambda c: c.__setitem__("actions", [[str(x) for x in a] for a in c["actions"]]), "actions are string, exp"),
    ],
)
def test_faults_have_episode_and_step(
    change: Callable[[Columns], Any], said: str, original: Episodes, tmp_path: Path
) -> None:
    columns = hub(original)
    change(columns)
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=said) as error:
        hf(tmp_path / "x.parquet")
    assert str(error.value).startswith(f"hf:{tmp_path / 'x.parquet'}")
    assert "\n" not in str(error.value)


def test_the_hub_is_not_asked_and_it_is_said_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"for a dataset on the hub give its subset, too"):
        hf(Path("some-one/a_name"))
    with pytest.raises(DataError, match=r"there is no such file or folder here$"):
        hf(tmp_path / "x.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"has no \.parquet or \.arrow files"):
        hf(tmp_path / "folder")
    for state in ("{}", "[", '{"_data_files": []}', '{"_data_files": [{"filename": 3}]}'):
        (tmp_path / "folder" / "state.json").write_text(state)
        with pytest.raises(DataError, match=r"state\.json"):
            hf(tmp_path / "folder")
    (tmp_path / "folder" / "state.json").write_text('{"_data_files": [{"filename": "../../etc/passwd"}]}')
    with pytest.raises(DataError, match="folder/passwd is missing"):
        hf(tmp_path / "folder")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.arrow"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_files_are_told_in_one_line(name: str, draw: st.DataObject, original: Episodes, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "x.arrow":
        found = pa.table(hub(original))
        with ipc.new_stream(str(path), found.schema) as writer:
            writer.write_table(found)
    else:
        write(path, rows(original))
    damage(path, draw)
    assert_one_line(lambda: hf(path) if name == "x.arrow" else table(path))


def test_rows_that_would_not_fit_are_not_read(
    original: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x.parquet", rows(original))
    monkeypatch.setattr("rlutils.data.arrow.host_memory", lambda: 4 * original.steps * 10)
    with pytest.raises(DataError, match=r"takes 880 B of memory, and there are 800 B"):
        table(tmp_path / "x.parquet")


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'needs pyarrow to be read: pip install "rlalgo\[arrow\]"'):
        table(tmp_path / "x.csv")


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_any_numbers_there_and_back(draw: st.DataObject, lengths: list[int], tmp_path: Path) -> None:
    n = sum(lengths)
    columns: Columns = {
        "run": np.repeat(np.arange(len(lengths)), lengths),
        **{name: np.array(draw.draw(st.lists(floats, min_size=n, max_size=n)), np.float32) for name in ("s0", "r")},
        "a0": np.array(draw.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
    }
    options: dict[str, Any] = dict.fromkeys(("terminated", "truncated", "next_observations"))
    options |= {"observations": ["s0"], "actions": ["a0"]}
    found = []
    for name in ("x.csv", "x.parquet"):
        write(tmp_path / name, columns)
        found.append(table(tmp_path / name, **options))
        assert found[-1].lengths().tolist() == lengths
        assert np.array_equal(found[-1].rewards.numpy(), columns["r"])
        assert np.array_equal(found[-1].actions.numpy(), columns["a0"])
    write_hf(found[0], tmp_path / "y.parquet")
    found.append(hf(tmp_path / "y.parquet"))
    assert len({fingerprint(data) for data in found}) == 1
