"""`train --dry-run` and `info`: everything is looked at, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rlutils import train
from rlutils.cli import app
from rlutils.config.files import write_yaml
from rlutils.machine import cores, size
from tests.rlutils.runs import PLUGIN, toy_config


def ask(*words: str) -> tuple[int, dict[str, str], str]:
    """Exit status, what was said by name, and what was complained of."""
    result = CliRunner().invoke(app, words)
    said = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    return result.exit_code, said, result.stderr


@pytest.fixture
def config(tmp_path: Path) -> str:
    write_yaml(tmp_path / "config.yaml", toy_config("bc", holdout=0.25))
    return str(tmp_path / "config.yaml")


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_says_what_is_trained_on_what_and_writes_nothing(tmp_path: Path, config: str) -> None:
    run, before = tmp_path / "run", files(tmp_path)
    status, said, _ = ask("train", config, "--dry-run", "--out", str(run))
    assert status == 0
    assert files(tmp_path) == before
    memory = said.pop("memory")
    assert memory.startswith("2")
    assert " kB (data 1" in memory
    assert said == {
        "data": "toy, 30 episodes, 360 steps; 10 more episodes are held out",
        "algo": "bc, 354 parameters",
        "trainer": "offline, 60 updates of 16 items",
        "device": "cpu, 1 threads",
        "evaluation": "3 times 3 episodes of the policy in Point",
        "folder": f"{run}: begins",
    }


def test_says_what_becomes_of_a_folder(tmp_path: Path, config: str) -> None:
    run = tmp_path / "run"
    train(config, run, ["trainer.steps=40"])
    before = files(tmp_path)
    out = ("--dry-run", "--out", str(run))
    assert ask("train", config, "trainer.steps=40", *out, "--continue")[:2] == (
        0,
        {"folder": f"{run}: is finished, and would be left alone"},
    )
    status, said, _ = ask("train", config, "trainer.steps=70", *out, "--continue")
    assert (status, said["folder"]) == (0, f"{run}: goes on from step 40")
    assert said["trainer"] == "offline, 30 updates of 16 items"
    assert said["evaluation"].startswith("2 times ")  # at 60 and at the end
    status, said, _ = ask("train", config, *out, "--replace")
    assert (status, said["folder"]) == (0, f"{run}: begins anew, and deletes what is there")
    status, _, why = ask("train", config, *out)
    assert status == 2
    assert f"{run} holds a run already; go on with --continue" in why
    status, _, why = ask("train", config, "algo.lr=0.5", *out, "--continue")
    assert status == 2
    assert "algo.lr" in why
    status, said, _ = ask("train", "--resume", str(run), "trainer.steps=50", "--dry-run", "--plugin", PLUGIN)
    assert (status, said["folder"]) == (0, f"{run}: goes on from step 40")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("source.bad_step=4", "step 4"),
        ("algo=dqn", "dqn needs a Discrete action space"),
        ("evaluation.evaluators=[fqe]; algo={name: dt, n_layers: 1}", "fqe needs a policy"),
        ("env={name: gym, id: Nowhere-v0}", "there is no environment 'Nowhere-v0'"),
        ("trainer.batch_size=1000000000000", "trainer.batch_size or algo: training does not fit into the memory"),
        ("algo.hidden_dims=[1000000, 1000000]", "algo: training does not fit into the memory"),
    ],
)
def test_what_would_fail_fails_at_once(tmp_path: Path, config: str, override: str, why: str) -> None:
    before = files(tmp_path)
    status, _, said = ask("train", config, *override.split("; "), "--dry-run", "--out", str(tmp_path / "run"))
    assert status == 2, said
    assert why in said
    assert files(tmp_path) == before


def test_info_says_what_a_report_of_a_fault_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    status, said, _ = ask("info", "--plugin", PLUGIN)
    assert status == 0
    assert torch.__version__.startswith(said["torch"])  # some builds say more of themselves there
    assert {"python", "platform", "rlalgo", "numpy", "gymnasium", "minari"} <= set(said)
    assert said[f"plugin {PLUGIN}"] == PLUGIN
    assert said["cpu"].startswith(f"{cores()} cores, {torch.get_num_threads()} threads, ")
    assert said["MINARI_DATASETS_PATH"] == f"{tmp_path}, 0 datasets"
    assert said["RLALGO_CACHE"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e11, "250 GB"), (3e18, "3,000,000 TB")]
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert size(count) == text
