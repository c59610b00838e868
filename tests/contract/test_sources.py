"""What every registered source of data must fulfil. A row in MAKERS writes a tiny dataset and gives the options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import rlutils
from rlalgo import DataSpec, Episodes
from rlalgo.config import parse
from rlalgo.core.dataset import Transitions
from rlalgo.errors import ConfigError
from rlalgo.plugins import make
from rlalgo.registry import Choice
from rlalgo.schema import field_docs
from rlutils.data.minari_source import MinariSource
from tests.rlutils.data.files import NAMES, flat, lerobot_features, write, write_lerobot
from tests.rlutils.minari_data import ID, write_dataset

CATALOGUE = rlutils.catalogue()
Maker = Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]


def minari(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_dataset(folder, lengths=(5, 3, 7))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return {"id": ID}


def table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (folder / "x.csv").write_text("run,x,y,left,reward,end\na,0.1,2,0,1,0\na,0.2,3,1,1,1\nb,0.3,4,1,0,0\n")
    names = {"episode": "run", "observations": ["x", "y"], "actions": ["left"], "reward": "reward", "terminated": "end"}
    return {"path": str(folder / "x.csv"), **names}


def hf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    steps = {"observations": [[0.1, 0.2], [0.3, 0.4]], "actions": [[0.5], [-1.0]], "rewards": [1.0, 2.0]}
    parquet.write_table(pa.Table.from_pylist([{**steps, "dones": [False, True]}] * 2), folder / "x.parquet")
    return {"path": str(folder / "x.parquet")}


def lerobot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    episodes = MinariSource(MinariSource.Config(**minari(folder, monkeypatch))).load()
    write_lerobot(folder / "set", lerobot_features(flat(episodes)), episodes.lengths())
    return {"path": str(folder / "set"), "terminated": "next.done", "truncated": "next.truncated"}


def by_name(name: str) -> Maker:
    """Of the sources that read the columns of a Minari dataset in another file."""

    def make_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        ident = minari(folder, monkeypatch)
        episodes = MinariSource(MinariSource.Config(**ident)).load()
        path = folder / "data.npz"  # numpy adds the ending where it is missing; of others it says nothing
        write(name, path, flat(episodes))
        return {"path": str(path), **({"keys": ["first", "second"]} if name == "robomimic" else {})}

    return make_file


MAKERS: dict[str, Maker] = {"table": table, "hf": hf, "lerobot": lerobot, "minari": minari}
MAKERS |= {name: by_name(name) for name in NAMES}


@pytest.fixture(params=CATALOGUE.names("source"))
def choice(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choice:
    maker = MAKERS.get(request.param)
    options = maker(tmp_path, monkeypatch) if maker else {}
    entry = CATALOGUE.get("source", request.param)
    try:
        config = parse(entry.Config, options, CATALOGUE, request.param)
    except ConfigError as error:
        if maker is not None:
            raise
        pytest.skip(f"needs options, and there is no row in MAKERS: {error}")
    return Choice(request.param, options, entry, config)


def test_gives_episodes_that_pass_every_check(choice: Choice) -> None:
    episodes = make("source", choice).load()
    assert isinstance(episodes, Episodes)
    assert episodes.check(choice.name) is episodes
    assert len(episodes) > 0
    assert episodes.steps == int(episodes.lengths().sum())
    assert int(episodes.lengths().max()) <= episodes.spec.max_steps
    ends = torch.zeros(episodes.steps, dtype=torch.bool)
    ends[episodes.starts[1:] - 1] = True
    assert not (episodes.terminations | episodes.truncations)[~ends].any()


def test_gives_the_same_episodes_again(choice: Choice) -> None:
    first, second = (make("source", choice).load() for _ in range(2))
    for name in ("observations", "actions", "rewards", "terminations", "truncations", "starts", "has_final"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.spec == second.spec
    assert {key: value.tolist() for key, value in first.info.items()} == {
        key: value.tolist() for key, value in second.info.items()
    }


def test_the_spec_can_be_saved(choice: Choice) -> None:
    spec = make("source", choice).load().spec
    assert DataSpec.from_mapping(spec.to_mapping()) == spec


def test_the_episodes_can_be_learnt_from(choice: Choice) -> None:
    episodes = make("source", choice).load()
    batch = Transitions(episodes).gather(torch.arange(2))
    assert batch.observations.shape[1:] == episodes.spec.encoder_space().shape


def test_every_option_has_its_docstring(choice: Choice) -> None:
    assert choice.entry is not None
    config: Any = choice.entry.Config
    assert set(config.__dataclass_fields__) <= set(field_docs(config))
