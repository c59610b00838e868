"""Several datasets in one source: joined without a copy on disk, drawn by steps or by weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
from rlalgo import Transitions
from rlalgo.config import parse
from rlalgo.core.episodes import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import CheckpointError, ConfigError, DataError
from rlalgo.registry import Catalogue
from rlutils.config.files import write_yaml
from rlutils.data.minari_source import MinariSource
from rlutils.sweeps.suite import check_data, read_suite
from tests.rlutils.minari_data import write_dataset

ONE, TWO = "toy/medium-v0", "toy/expert-v0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path, ONE, facts={"noise": [1, 2, 3], "old": [1, 2, 3]}, ref_scores=(0.0, 10.0))
    write_dataset(tmp_path, TWO, lengths=(45, 20), seed=7, facts={"noise": [0.5, 0.0]}, ref_scores=(0.0, 50.0))
    return tmp_path


def load(*ids: str, **options: Any) -> Episodes:
    return MinariSource(MinariSource.Config(id=ids, **options)).load()


def test_joined_is_one_after_the_other(root: Path) -> None:
    data, one, two = load(ONE, TWO), load(ONE), load(TWO)
    assert fingerprint(data) == fingerprint(one.concat(two))
    assert data.spec.ref_scores == (0.0, 10.0)
    assert data.spec.max_steps == 45
    assert data.info["dataset"].tolist() == [0, 0, 0, 1, 1]
    assert data.info["noise"].tolist() == [1.0, 2.0, 3.0, 0.5, 0.0]
    assert set(data.info) == {"dataset", "noise", "seed"}
    assert data.weights is None
    assert fingerprint(load(TWO, ONE)) == fingerprint(two.concat(one))
    assert not (root / "cache").exists()


def test_mapped_ones_are_converted_into_one_copy(root: Path) -> None:
    plain = load(ONE, TWO, weights=(2, 1))
    for _ in range(2):
        data = load(ONE, TWO, weights=(2, 1), memory_map=True)
        assert data.mapped
        assert fingerprint(data) == fingerprint(plain)
    load(ONE, TWO, memory_map=True)
    assert len(list((root / "cache").iterdir())) == 1


@pytest.mark.parametrize("weights", [(1, 1), (3.0, 1.0)])
def test_weights_are_shares_of_what_is_drawn(root: Path, weights: tuple[float, float]) -> None:
    data = load(ONE, TWO, weights=weights)
    steps = Transitions(data)
    rows = steps.steps[steps.rows(20_000, torch.Generator().manual_seed(0))]
    drawn = data.info["dataset"][data.episode_ids()[rows]]
    assert abs(float((drawn == 0).double().mean()) - weights[0] / sum(weights)) < 0.02
    assert len(rows.unique()) == data.steps
    best, rest = data.split(0.5, torch.Generator().manual_seed(0))
    assert best.weights is not None
    assert torch.equal(torch.cat([best.weights, rest.weights]).sort().values, data.weights.sort().values)


def test_the_faults_of_each_are_its_own(root: Path) -> None:
    wide = spaces.Box(-np.inf, np.inf, (4,))
    write_dataset(root, "toy/wide-v0", observation_space=wide)
    write_dataset(root, "toy/discrete-v0", action_space=spaces.Discrete(3))
    for other, word in (("toy/wide-v0", "Box of 4 float32"), ("toy/discrete-v0", r"Discrete\(3\)")):
        with pytest.raises(DataError, match=f"minari:{ONE} and minari:{other} have different spaces: .*{word}"):
            load(ONE, other)
    with pytest.raises(DataError, match=r"minari:toy/experd-v0 is not on this machine: .*Did you mean 'toy/expert-v0'"):
        load(ONE, "toy/experd-v0", download=False)
    (root / TWO / "data" / "main_data.hdf5").unlink()
    with pytest.raises(DataError, match=f"^minari:{TWO}: .*main_data.hdf5 is missing"):
        load(ONE, TWO)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"id": []}, "id: "),
        ({"id": [ONE, 3]}, "id"),
        ({"id": [ONE, ONE]}, "name each dataset once"),
        ({"id": [ONE, TWO], "weights": [1]}, "weights: give several datasets one each"),
        ({"id": [ONE, TWO], "weights": [1, 0]}, "weights[1]: should be greater than 0, got 0"),
        ({"id": ONE, "weights": [1]}, "weights: give several datasets one each"),
    ],
)
def test_what_is_no_mixture(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(MinariSource.Config, values, Catalogue())
    assert fault in str(caught.value)


def test_a_sweep_looks_for_all_of_them(root: Path, tmp_path: Path) -> None:
    base = {"source": {"name": "minari", "id": [ONE, TWO], "download": False}, "algo": "bc"}
    write_yaml(tmp_path / "base.yaml", base)
    write_yaml(tmp_path / "suite.yaml", {"algos": {"bc": "base.yaml"}, "datasets": {"mix": {"source.weights": [1, 1]}}})
    _, cells = read_suite(tmp_path / "suite.yaml")
    assert check_data(cells, download=False) == set()
    (root / TWO).rename(root / "old-v0")
    with pytest.raises(ConfigError, match=f"minari:{TWO} is not on this machine"):
        check_data(cells, download=False)


def test_a_run_on_a_mixture_says_so_and_is_resumed_on_the_same_data_alone(root: Path, tmp_path: Path) -> None:
    config = {
        "source": {"name": "minari", "id": [ONE, TWO], "weights": [1, 1]},
        "algo": {"name": "bc", "hidden_dims": [8]},
        "trainer": {"name": "offline", "steps": 3, "batch_size": 4},
        "evaluation": {"episodes": 0},
        "holdout": 0.3,
        "callbacks": [],
    }
    run = rlutils.train(config, out=tmp_path / "run")
    facts = json.loads((run.folder / "data.json").read_text())
    assert facts["name"] == f"minari:{ONE}+{TWO}"
    assert facts["fingerprint"] == fingerprint(load(ONE, TWO, weights=(1, 1)))
    rlutils.resume(run.folder, ["trainer.steps=5"])
    write_dataset(root / "again", TWO, lengths=(45, 20), seed=8)
    (root / TWO).rename(root / "old-v0")
    (root / "again" / TWO).rename(root / TWO)
    with pytest.raises(CheckpointError, match=r"is not the data that it began with: fingerprint .*; give that data"):
        rlutils.resume(run.folder, ["trainer.steps=7"])
