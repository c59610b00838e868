"""A run goes on with the data that it began with, and with no other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rlutils
from rlalgo.errors import CheckpointError
from tests.rlutils.minari_data import ID, edit, edit_metadata, write_dataset


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path)
    config = {
        "source": {"name": "minari", "id": ID},
        "algo": {"name": "bc", "hidden_dims": [8]},
        "trainer": {"name": "offline", "steps": 3, "batch_size": 4},
        "evaluation": {"episodes": 0},
        "callbacks": [],
    }
    return rlutils.train(config, out=tmp_path / "run")


def test_flipped_actions_are_refused(run: Any, tmp_path: Path) -> None:
    with edit(tmp_path) as file:
        actions = file["episode_1/actions"]
        actions[:] = -actions[:]
    with pytest.raises(CheckpointError, match=rf"run: minari:{ID} is not the data that it began with: fingerprint"):
        rlutils.resume(run.folder, ["trainer.steps=5"])
    with edit(tmp_path) as file:
        file["episode_1/actions"][:] = -file["episode_1/actions"][:]
    rlutils.resume(run.folder, ["trainer.steps=5"])


def test_what_is_not_learnt_from_may_change(run: Any, tmp_path: Path) -> None:
    edit_metadata(tmp_path, description="told anew")
    assert rlutils.resume(run.folder, ["trainer.steps=5"]).step == 5


@pytest.mark.parametrize("how", ["older", "broken", "gone"])
def test_a_run_without_a_fingerprint_goes_on(run: Any, tmp_path: Path, how: str) -> None:
    path = run.folder / "data.json"
    if how == "older":
        facts = json.loads(path.read_text())
        del facts["fingerprint"]
        path.write_text(json.dumps(facts))
    else:
        path.write_text("{") if how == "broken" else path.unlink()
    with edit(tmp_path) as file:
        file["episode_1/rewards"][:] = 0
    assert rlutils.resume(run.folder, ["trainer.steps=5"]).step == 5
    assert torch.isfinite(next(rlutils.load(run.folder).parameters())).all()
