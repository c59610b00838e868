"""The same episodes in every kind of file give the same episodes, windows and losses.

By hand with data of one's own, `EPISODES=mujoco/hopper/expert-v0 pytest tests/rlutils/data/test_same_everywhere.py`
takes the first 100 episodes of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlalgo import BatchRLAlgo, Episodes
from rlalgo.batchrl.bc import BC
from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlutils.data.lerobot_source import LerobotSource
from rlutils.data.minari_source import MinariSource
from tests.rlutils.data.files import NAMES, assert_same, flat, lerobot_features, load, write, write_lerobot
from tests.rlutils.data.test_tables import hf, hub, rows, table
from tests.rlutils.data.test_tables import write as write_table
from tests.rlutils.minari_data import ID, write_dataset

GIVEN = os.environ.get("EPISODES")
UPDATES = 120 if GIVEN else 20


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    if GIVEN:
        found = MinariSource(MinariSource.Config(id=GIVEN)).load()
        return found.select(torch.arange(min(100, len(found))))
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        write_dataset(folder, lengths=(5, 3, 7, 1, 4, 30))
        return MinariSource(MinariSource.Config(id=ID)).load()


def by_name(name: str) -> Callable[[Path, Episodes], Episodes]:
    def there_and_back(folder: Path, episodes: Episodes) -> Episodes:
        write(name, folder / "data.npz", flat(episodes))
        return load(name, folder / "data.npz", max_steps=episodes.spec.max_steps)

    return there_and_back


def as_table(name: str) -> Callable[[Path, Episodes], Episodes]:
    def there_and_back(folder: Path, episodes: Episodes) -> Episodes:
        columns = rows(episodes) | {"run": episodes.episode_ids().numpy()}
        write_table(folder / name, columns)
        names = {long: [key for key in columns if key[0] == short] for short, long in zip("sn", KINDS, strict=True)}
        names["actions"] = [key for key in columns if key[0] == "a"]
        return table(folder / name, **names, discrete=False, max_steps=episodes.spec.max_steps)

    return there_and_back


KINDS = ("observations", "next_observations")


def saved_to_disk(*left_out: str) -> Callable[[Path, Episodes], Episodes]:
    """By the library `datasets`, without these columns."""

    def there_and_back(folder: Path, episodes: Episodes) -> Episodes:
        datasets = pytest.importorskip("datasets", reason="datasets writes this layout")
        final = episodes.observations[episodes.starts[1:] + torch.arange(len(episodes))]  # (E, *S)
        ends = episodes.truncations[episodes.starts[1:] - 1].tolist()
        columns = hub(episodes) | {"final_observations": final[:, None].tolist(), "truncated": ends}
        kept = {name: column for name, column in columns.items() if name not in left_out}
        number = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        dataset = datasets.Dataset.from_dict(kept)
        for name in {"observations", "actions", "final_observations"} & {*kept}:
            dataset = dataset.cast_column(name, number)
        dataset.save_to_disk(str(folder / "set"))
        return hf(folder / "set", max_steps=episodes.spec.max_steps)

    return there_and_back


def lerobot(folder: Path, episodes: Episodes) -> Episodes:
    write_lerobot(folder / "set", lerobot_features(flat(episodes)), episodes.lengths())
    options: Any = {"terminated": "next.done", "truncated": "next.truncated", "max_steps": episodes.spec.max_steps}
    return LerobotSource(LerobotSource.Config(path=folder / "set", **options)).load()


WHOLE = {
    **{name: by_name(name) for name in NAMES},
    "csv": as_table("x.csv"),
    "parquet": as_table("x.parquet"),
    "datasets": saved_to_disk(),
}
WITHOUT_LAST = {"hub's own columns": saved_to_disk("final_observations", "truncated"), "lerobot": lerobot}


def losses(algo: BatchRLAlgo, data: Episodes) -> list[float]:
    algo.prepare(data, UPDATES)
    items, generator = algo.dataset(data), torch.Generator().manual_seed(0)
    batches = (items.gather(items.rows(16, generator)) for _ in range(UPDATES))
    return [float(algo.update(batch, step)["actor/loss"]) for step, batch in enumerate(batches)]


def made(kind: Any, data: Episodes, **options: Any) -> BatchRLAlgo:
    torch.manual_seed(0)
    return kind(data.spec, kind.Config(**options))


def dt(data: Episodes) -> DecisionTransformer:
    options = {"context_length": 8, "embed_dim": 32, "n_layers": 1, "return_scale": 1000.0 if GIVEN else 10.0}
    return made(DecisionTransformer, data, **options)  # type: ignore[return-value]


def assert_learns_the_same(data: Episodes, original: Episodes, transitions: bool) -> None:
    windows, expected = (dt(found).dataset(found) for found in (data, original))
    assert len(windows) == len(expected)
    for part in torch.arange(len(windows)).split(4096):
        assert all(map(torch.equal, windows.gather(part), expected.gather(part)))
    assert losses(dt(data), data) == losses(dt(original), original)
    if transitions:
        bc = [losses(made(BC, found, hidden_dims=(32, 32)), found) for found in (data, original)]
        assert bc[0] == bc[1]


@pytest.mark.parametrize("name", WHOLE)
def test_all_of_it_is_the_same(name: str, original: Episodes, tmp_path: Path) -> None:
    data = WHOLE[name](tmp_path, original)
    spec = replace(data.spec, env_id=original.spec.env_id, ref_scores=original.spec.ref_scores, preprocess={})
    assert_same(replace(data, spec=spec), original)
    assert_learns_the_same(data, original, transitions=True)


@pytest.mark.parametrize("name", WITHOUT_LAST)
def test_what_came_last_is_all_that_is_missing(name: str, original: Episodes, tmp_path: Path) -> None:
    data = WITHOUT_LAST[name](tmp_path, original)
    final = original.observations.clone()
    rows_of = original.starts[1:] + torch.arange(len(original))
    final[rows_of] = final[rows_of - 1]
    none = torch.zeros(len(original), dtype=torch.bool)
    assert_same(data, replace(original, observations=final, has_final=none))
    assert np.array_equal(data.lengths(), original.lengths())
    assert_learns_the_same(data, original, transitions=False)
