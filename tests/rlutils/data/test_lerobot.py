"""The source lerobot: LeRobot's format v3, of which `write_lerobot` writes what `lerobot` itself reads."""

from __future__ import annotations

import json
import re
import shutil
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
from pyarrow import parquet

from rlalgo import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.core.spaces import Packed
from rlalgo.errors import DataError
from rlutils.collecting.convert import convert
from rlutils.data.lerobot_source import LerobotSource
from rlutils.data.minari_source import MinariSource
from tests.rlutils.data.files import (
    Columns,
    assert_one_line,
    assert_same,
    damage,
    flat,
    lerobot_features,
    load,
    losses,
    write,
    write_film,
    write_lerobot,
)
from tests.rlutils.minari_data import ID, write_dataset

LENGTHS = (5, 3, 7, 1, 4)
ENDS: dict[str, Any] = {"terminated": "next.done", "truncated": "next.truncated"}
DATA = "data/chunk-000/file-000.parquet"
META = "meta/episodes/chunk-000/file-000.parquet"
FILM = "videos/observation.images.top/chunk-000/file-001.mp4"
CAMERA = ("observation.images.top",)


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path / "minari", lengths=LENGTHS)
    return MinariSource(MinariSource.Config(id=ID)).load()


def lerobot(folder: Path, **options: Any) -> Episodes:
    return LerobotSource(LerobotSource.Config(path=folder, **{**ENDS, **options})).load()


def frames() -> np.ndarray:
    """(N, 16, 24, 3): no two of them alike."""
    return np.random.default_rng(0).integers(0, 256, (sum(LENGTHS), 16, 24, 3), np.uint8)


@pytest.fixture
def folder(original: Episodes, tmp_path: Path) -> Path:
    columns = lerobot_features(flat(original)) | {"next.success": np.arange(sum(LENGTHS)) % 2 == 0}
    columns["observation.arm"] = columns["observation.state"][:, 0]
    columns["observation.images.side"] = frames()[:, :8]
    write_lerobot(tmp_path / "set", columns, LENGTHS, {CAMERA[0]: frames()})
    return tmp_path / "set"


@pytest.mark.parametrize("block", [2**22, 7])
def test_the_same_data_is_the_same_bit_for_bit_but_for_what_came_last(
    block: int, folder: Path, original: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.lerobot_source._BLOCK", block)
    columns = flat(original)
    del columns["next_observations"]
    write("npz", tmp_path / "x.npz", columns)
    expected, data = load("npz", tmp_path / "x.npz"), lerobot(folder)
    assert_same(data, expected)
    assert np.array_equal(flat(data)["observations"], columns["observations"])
    assert losses(data) == losses(expected)
    assert data.info["task"].tolist() == [0, 1, 0, 1, 0]
    assert data.info["success"].tolist() == [(end - 1) % 2 == 0 for end in np.cumsum(LENGTHS)]


def test_what_it_has_can_be_written_otherwise(folder: Path, tmp_path: Path) -> None:
    data = lerobot(folder)
    convert(data, "x", "npz", str(tmp_path / "x.npz"))
    assert fingerprint(load("npz", tmp_path / "x.npz")) == fingerprint(data)
    convert(data, "x", "minari", "some/set-v0")
    assert fingerprint(MinariSource(MinariSource.Config(id="some/set-v0")).load()) == fingerprint(data)


def test_several_features_are_joined_in_their_order(folder: Path, original: Episodes) -> None:
    data = lerobot(folder, observations=("observation.arm", "observation.state"))
    state = flat(original)["observations"]
    assert np.array_equal(flat(data)["observations"], np.concatenate([state[:, :1], state], 1))


@pytest.mark.parametrize("block", [2**22, 7])
def test_films_and_images_in_the_table_are_the_frames_that_they_were(
    block: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.lerobot_source._BLOCK", block)
    names = (*CAMERA, "observation.images.side", "observation.state")
    data = lerobot(folder, observations=names)
    assert isinstance(data.spec.observation_space, Packed)
    found = data.spec.observation_space.unpack(torch.from_numpy(flat(data)["observations"]))
    assert np.array_equal(found[names[0]].numpy(), frames().transpose(0, 3, 1, 2))
    assert np.array_equal(found[names[1]].numpy(), frames()[:, :8].transpose(0, 3, 1, 2))
    small = lerobot(folder, observations=CAMERA, gray=True, resize=(8, 12), frame_stack=2)
    assert small.spec.observation_space == spaces.Box(0, 255, (8, 12), np.uint8)
    assert small.spec.frame_stack == 2


def test_episodes_lie_in_films_where_the_metadata_say(folder: Path) -> None:
    columns = read(folder / META)
    key, path = CAMERA[0], folder / FILM
    parts = np.split(frames(), np.cumsum(LENGTHS)[:-1])
    write_film(path, np.concatenate(parts[:0:-1]), 10)  # the last episode comes first
    begins = [0.0, 1.2, 0.5, 0.4, 0.0]
    change(folder / META, columns | {f"videos/{key}/from_timestamp": begins})
    assert np.array_equal(flat(lerobot(folder, observations=CAMERA))["observations"], frames().transpose(0, 3, 1, 2))


def test_a_large_one_is_mapped_from_a_copy(folder: Path, tmp_path: Path) -> None:
    read_whole = lerobot(folder, observations=CAMERA, memory_map=False)
    for _ in range(2):
        data = lerobot(folder, observations=CAMERA, memory_map=True, frame_stack=3)
        assert data.mapped
        assert data.spec.frame_stack == 3
        assert_same(data, read_whole)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "rewards", "terminations"),
    [
        ({"reward": "zero"}, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
        ({"reward": "last", "terminated": "last", "truncated": None}, [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]),
        ({"reward": "next.success", "terminated": "never"}, [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]),
        ({"terminated": "next.success", "continues": True}, None, [1, 0, 1, 0, 1]),
        ({"terminated": None, "truncated": "next.done"}, None, [0, 0, 0, 0, 0]),
    ],
)
def test_rewards_and_ends_are_what_is_said(
    options: dict[str, Any], rewards: list[int] | None, terminations: list[int], folder: Path, original: Episodes
) -> None:
    data = lerobot(folder, **options)
    assert data.rewards[:5].tolist() == (original.rewards[:5].tolist() if rewards is None else rewards)
    assert data.terminations[:5].tolist() == [bool(x) for x in terminations]
    last = data.starts[1:] - 1
    assert (data.terminations | data.truncations)[last].all()


def read(path: Path) -> Columns:
    return parquet.read_table(path).to_pydict()


def change(path: Path, columns: Columns) -> None:
    parquet.write_table(pa.table(columns), path)


def put(path: str, name: str, row: int, value: Any) -> Callable[[Path], None]:
    """One value of a table is another."""

    def done(folder: Path) -> None:
        columns = read(folder / path)
        columns[name][row] = value
        change(folder / path, columns)

    return done


def tell(**values: Any) -> Callable[[Path], None]:
    """meta/info.json says something else."""

    def done(folder: Path) -> None:
        path = folder / "meta" / "info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return done


def drop(name: str) -> Callable[[Path], None]:
    def done(folder: Path) -> None:
        columns = read(folder / DATA)
        del columns[name]
        change(folder / DATA, columns)

    return done


def retyped(path: str, name: str) -> Callable[[Path], None]:
    """A column of numbers as texts."""

    def done(folder: Path) -> None:
        columns = read(folder / path)
        change(folder / path, {**columns, name: list(map(str, columns[name]))})

    return done


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / DATA).unlink(), f": {DATA}.* is missing"),
        (lambda folder: shutil.rmtree(folder / "meta/episodes"), "meta/episodes holds no episodes"),
        (lambda folder: (folder / "meta/info.json").unlink(), "info.json: there is no such file"),
        (lambda folder: (folder / FILM).unlink(), f"episode 1, step 0: {FILM}: is missing"),
        (lambda folder: (folder / FILM).write_bytes(b"x" * 99), f"{FILM}: no film that ffmpeg reads"),
        (
            lambda folder: write_film(folder / FILM, frames()[:10], 10),
            r"episode 3, step 0: .*: no frame at 1\.0000 s; the nearest is at 0\.9000 s",
        ),
        (lambda folder: write_film(folder / FILM, frames()[:, :8], 10), ": frames of 8x24, expected 16x24"),
        (put(DATA, "index", 6, 7), rf"{DATA}: episode 1, step 1: index is 7, expected 6"),
        (put(DATA, "frame_index", 6, 7), "episode 1, step 1: frame_index is 7, expected 1"),
        (put(DATA, "episode_index", 6, 7), "episode 1, step 1: episode_index is 7, expected 1"),
        (put(DATA, "next.reward", 6, float("nan")), "episode 1, step 1: reward nan is not finite"),
        (put(DATA, "timestamp", 6, 0.0), r"episode 1, step 1: timestamp is 0\.0000, expected 0\.1000 at 10 frames"),
        (
            put(META, "videos/observation.images.top/from_timestamp", 2, 0.1),
            r"episode 2: .* is 0\.1, before the end of ep",
        ),
        (retyped(META, "length"), "row 0: length are string, expected numbers"),
        (retyped(META, "data/chunk_index"), "row 0: data/chunk_index are string, expected numbers"),
        (retyped(DATA, "task_index"), "episode 0, step 0: values of 'task_index' are string, expected numbers"),
        (tell(fps=30), r"episode 0, step 1: timestamp is 0\.1000, expected 0\.0333 at 30 frames"),
        (put(DATA, "timestamp", 6, float("nan")), "episode 1, step 1: timestamp is nan"),
        (put(DATA, "next.reward", 6, None), "episode 1, step 1: values of 'next.reward' have no value"),
        (put(DATA, "action", 6, [0.1, None]), "episode 1, step 1: values of 'action' have no value"),
        (put(DATA, "action", 6, [0.1]), "episode 1, step 1: values of 'action' have 1 numbers, expected 2"),
        (put(DATA, "next.done", 6, True), "episode 1, step 1: termination True is before the last step"),
        (
            put(DATA, "observation.images.side", 6, {"bytes": b"x", "path": None}),
            "episode 1, step 1: '.*side': no PNG or JPEG",
        ),
        (drop("action"), f"{DATA}: has no columns 'action'"),
        (put(META, "length", 1, 4), "meta/episodes: episode 2: dataset_from_index is 8, expected 9"),
        (put(META, "dataset_from_index", 1, 4), "meta/episodes: episode 1: dataset_from_index is 4, expected 5"),
        (put(META, "episode_index", 1, 4), "meta/episodes: episode 1: episode_index is 2, expected 1"),
        (put(META, "length", 1, None), f"{META}: row 1: length have no value"),
        (put(META, "data/file_index", 0, 9), r"data/chunk-000/file-009\.parquet.* is missing"),
        (tell(total_episodes=6), "total_episodes is 6, and meta/episodes has 5"),
        (tell(total_frames=6), "total_frames is 6, and meta/episodes has 20"),
        (
            tell(codebase_version="v2.1"),
            "LeRobot's format 'v2.1', expected v3; bring older ones to v3 with `python -m ler",
        ),
        (tell(codebase_version="v30.1"), "LeRobot's format 'v30.1', expected v3"),
        (tell(data_path="/etc/passwd"), "no path within the folder: '/etc/passwd'"),
        (tell(data_path="data/../../{chunk_index}"), "no path within the folder"),
        (tell(data_path="{chunk_index.__class__}"), "no path within the folder"),
        (tell(data_path="{chunk_index:999999999d}"), "no path within the folder"),
        (tell(features={}), "has no feature 'observation.images.top'; it has"),
        (tell(fps=0), "fps: "),
    ],
)
def test_faults_have_file_episode_and_step(spoil: Callable[[Path], Any], said: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=said) as error:
        lerobot(folder, observations=(*CAMERA, "observation.images.side", "observation.state"))
    assert str(error.value).startswith(f"lerobot:{folder}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"terminated": None}, "has next.done, which may mean the task's end or that of the time; say `terminated:"),
        ({"reward": "reward"}, "has no feature 'reward'; it has 'action', .* Did you mean 'next.reward'"),
        ({"reward": "action"}, r"feature 'action' is 'float32' \(2,\), expected one number"),
        ({"actions": CAMERA[0]}, "is 'video' .*, expected numbers"),
        ({"observations": ("observation.state",), "gray": True}, "gray and resize are for images"),
        ({"observations": ("observation.staet",)}, "Did you mean 'observation.state'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(DataError, match=said) as error:
        lerobot(folder, **options)
    assert str(error.value).startswith(f"lerobot:{folder}")


def test_without_a_reward_it_is_asked_for(original: Episodes, tmp_path: Path) -> None:
    columns = lerobot_features(flat(original))
    write_lerobot(tmp_path / "set", {name: columns[name] for name in ("observation.state", "action")}, LENGTHS)
    with pytest.raises(DataError, match=r"has no next\.reward; name .*, or say `reward: zero` or `reward: last`"):
        lerobot(tmp_path / "set", terminated=None, truncated=None)
    data = lerobot(tmp_path / "set", terminated=None, truncated=None, reward="zero")
    assert not data.terminations.any()
    assert "success" not in data.info


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(DataError, match=re.escape(f"lerobot:{path}: there is no such folder")):
            lerobot(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data(), name=st.sampled_from([DATA, META, FILM, "meta/info.json"]))
def test_damaged_files_are_told_in_one_line(draw: st.DataObject, name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    damage(folder / name, draw)
    try:
        assert_one_line(lambda: lerobot(folder, observations=(*CAMERA, "observation.images.side")))
    finally:
        (folder / name).write_bytes(whole)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), whole=st.booleans())
def test_any_numbers_there_and_back(draw: st.DataObject, lengths: list[int], whole: bool, tmp_path: Path) -> None:
    n, floats = sum(lengths), st.floats(width=32, allow_nan=False, allow_infinity=False)
    state = np.array(draw.draw(st.lists(floats, min_size=n, max_size=n)), np.float32)
    choices = np.array(draw.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    folder = tmp_path / "any"
    shutil.rmtree(folder, ignore_errors=True)
    columns = {
        "observation.state": state,
        "action": choices if whole else state,
        "next.reward": state.astype(np.float64),
    }
    write_lerobot(folder, columns, lengths)
    data = lerobot(folder, terminated=None, truncated=None)
    assert data.lengths().tolist() == lengths
    assert np.array_equal(flat(data)["observations"][:, 0], state)
    assert np.array_equal(data.actions.numpy().reshape(-1), columns["action"])
    assert np.array_equal(data.rewards.numpy(), state)
    assert isinstance(data.spec.action_space, spaces.Discrete if whole else spaces.Box)
