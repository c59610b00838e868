"""The data of any source, written in every format and read again; and looked at, on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from typer.testing import CliRunner

from rlalgo import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import ConfigError, DataError
from rlutils.cli import app
from rlutils.collecting.convert import FORMATS, UnknownEnvironment, convert
from rlutils.data.named import find_source, load_source
from tests.rlutils.minari_data import ID, write_dataset

IMAGE = spaces.Box(0, 255, (3, 8, 9), np.uint8)
SPACES: dict[str, dict[str, Any]] = {
    "plain": {},
    "discrete": {"action_space": spaces.Discrete(4, start=2)},
    "bounded": {"observation_space": spaces.Box(-np.inf, np.array([1, 2, np.inf], np.float32), (3,)),
                "lengths": (1, 4, 2)},
    "image": {"observation_space": IMAGE},
    "dict": {"observation_space": spaces.Dict(at=spaces.Box(-1, 1, (2,)), door=spaces.Discrete(3))},
    "packed": {"observation_space": spaces.Dict(eye=IMAGE, at=spaces.Box(-1, 1, (2,)))},
    "several": {"action_space": spaces.MultiDiscrete([3, 2])},
    "environment": {"observation_space": spaces.Box(-8, 8, (3,)), "action_space": spaces.Box(-2, 2, (1,)),
                    "env": "Pendulum-v1", "ref_scores": (-1500.0, -150.0)},
}  # fmt: skip
PREPARED = ("dict", "packed", "several")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path


def written(root: Path, **options: Any) -> Episodes:
    write_dataset(root / "datasets", **options)
    return load_source(find_source([ID]))[0]


def target(root: Path, to: str) -> str:
    return {"minari": "local/copy-v0", "npz": str(root / "x.npz"), "hf": str(root / "x.parquet")}[to]


def words(root: Path, to: str) -> list[str]:
    """What the command line calls it then."""
    return ["local/copy-v0"] if to == "minari" else [to, f"path={target(root, to)}"]


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("to", FORMATS)
def test_there_and_back_is_the_same_bit_for_bit(
    to: str, kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.writers._NUMBERS", 20)  # some episodes at a time, but one at least
    episodes = written(root, **{"facts": {"noise": [0.5, 0.25, 1.0]}, **SPACES[kind]})
    if to == "minari" and kind in PREPARED:
        with pytest.raises(DataError, match="are prepared, which a Minari dataset would not say; write `--to npz`"):
            convert(episodes, "it", to, target(root, to))
        return
    convert(episodes, "it", to, target(root, to))
    data, label = load_source(find_source(words(root, to)))
    assert label.startswith(to)
    assert data.spec == episodes.spec
    assert fingerprint(data) == fingerprint(episodes)
    assert {name: x.tolist() for name, x in data.info.items()} == {n: x.tolist() for n, x in episodes.info.items()}


@pytest.mark.parametrize("to", FORMATS)
def test_what_was_not_seen_is_not_made_up(to: str, root: Path) -> None:
    """Not even by a dataset that Minari itself reads: its observations are then as many as its steps."""
    episodes = written(root)
    episodes.has_final[:2] = False
    final = episodes.starts[1:3] + torch.arange(2)
    episodes.observations[final] = episodes.observations[final - 1]
    episodes.truncations[4] = False  # nor how the first one ended
    convert(episodes, "it", to, target(root, to))
    data = load_source(find_source(words(root, to)))[0]
    assert data.has_final.tolist() == [False, False, True]
    assert fingerprint(data) == fingerprint(episodes)


def test_minari_reads_it_with_its_environment(root: Path) -> None:
    spec = {"max_episode_steps": 77, "kwargs": {"g": 5.0}}
    episodes = written(root, **SPACES["environment"])
    episodes.spec.preprocess.update({"env_kwargs": {"max_episode_steps": 77, "g": 5.0}})  # type: ignore[attr-defined]
    convert(episodes, "it", "minari", "local/copy-v0")
    dataset = minari.load_dataset("local/copy-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 15)
    assert {name: getattr(dataset.env_spec, name) for name in spec} == spec
    assert dataset.storage.metadata["description"] == "converted from it"
    assert np.array_equal(next(iter(dataset)).observations, episodes.observations[:6].numpy())
    assert load_source(find_source(["local/copy-v0"]))[0].spec.preprocess == episodes.spec.preprocess


def test_an_environment_that_is_not_here_is_said_to_be_missing(root: Path) -> None:
    convert(written(root), "it", "npz", str(root / "x.npz"))
    there = load_source(find_source(["npz", f"path={root / 'x.npz'}", "env_id=Nowhere-v0"]))[0]
    with pytest.warns(UnknownEnvironment, match="Nowhere-v0 is not registered here"):
        convert(there, "it", "minari", "local/copy-v0")
    assert load_source(find_source(["local/copy-v0"]))[0].spec.env_id is None


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_is_replaced_unless_told(to: str, root: Path) -> None:
    episodes = written(root)
    convert(episodes, "it", to, target(root, to))
    with pytest.raises(DataError, match="exists"):
        convert(episodes, "it", to, target(root, to))
    convert(episodes.select(torch.tensor([2])), "it", to, target(root, to), replace=True)
    assert len(load_source(find_source(words(root, to)))[0]) == 1


@pytest.mark.parametrize("to", ["npz", "hf"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(to: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = written(root)
    convert(episodes, "it", to, target(root, to))
    before = Path(target(root, to)).read_bytes()

    def broken(*_: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr("rlutils.data.writers._parts", broken)
    with pytest.raises(DataError, match=r"cannot be written: .*no room"):
        convert(episodes, "it", to, target(root, to), replace=True)
    assert Path(target(root, to)).read_bytes() == before
    assert [path.name for path in root.iterdir() if path.is_file()] == [Path(target(root, to)).name]
    with pytest.raises(DataError, match="cannot be written: FileExistsError"):
        convert(episodes, "it", to, f"{target(root, to)}/x{Path(target(root, to)).suffix}")


@pytest.mark.parametrize(
    ("to", "out", "said"),
    [
        ("npz", "x.npy", "--out x.npy: the name of such a file ends in .npz"),
        ("hf", "folder", "--out folder: the name of such a file ends in .parquet"),
        ("minari", "copy", "--out: id: 'copy' is no dataset id"),
    ],
)
def test_names_that_cannot_be(to: str, out: str, said: str, root: Path) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        convert(written(root), "it", to, out)


def call(*said: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *said])
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def test_on_the_command_line(root: Path) -> None:
    write_dataset(root / "datasets", facts={"noise": [0.5, 0.0, 1.0]})
    file = root / "x.npz"
    assert call("convert", ID, "--to", "npz", "--out", str(file)) == (
        0,
        f"minari:{ID}: 3 episodes, 15 steps, at {file}",
    )
    code, text = call("inspect", "npz", f"path={file}", "env_id=CartPole-v1", "--plot", str(root / "x.png"))
    assert code == 0, text
    for part in (
        f"npz:{file} environment CartPole-v1",
        "noise 0 to 1, mean 0.5",
        "in memory",
        "normalized: 0 is random",
    ):
        assert part in text
    assert (root / "x.png").stat().st_size > 1000
    returns = text.partition("median")[2].partition(" plot: ")[0]
    assert call("inspect", ID)[1].partition("median")[2] == returns
    for content, option in (
        (f"name: npz\npath: {file}\n", "max_steps=9"),
        (f"source: {{name: npz, path: {file}}}\nalgo: bc\n", "source.max_steps=9"),
    ):
        (root / "x.yaml").write_text(content)
        code, text = call(
            "convert", str(root / "x.yaml"), option, "--to", "hf", "--out", str(root / "new/x.parquet"), "--replace"
        )
        assert code == 0, text
        assert load_source(find_source(["hf", f"path={root / 'new/x.parquet'}"]))[0].spec.max_steps == 9
    code, text = call("convert", ID, "--to", "csv", "--out", "x")
    assert code != 0
    assert "--to csv: expected minari, npz, hf" in text


def test_sources_that_cannot_be_found(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.pth: unknown key 'pth'. Did you mean 'path'"):
        find_source(["npz", "pth=x"])
    (root / "x.csv").write_text("a,b\n")
    with pytest.raises(ConfigError, match=r"x\.csv is a file: say which source reads it, as in `d4rl path="):
        find_source([str(root / "x.csv")])
    with pytest.raises(DataError, match="minari:npy"):
        load_source(find_source(["npy", "download=false"]))
    (root / "x.yaml").write_text("algo: bc\n")
    with pytest.raises(ConfigError, match="source"):
        find_source([str(root / "x.yaml")])
