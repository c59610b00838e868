"""What a checkpoint claims is compared with what is there before memory is asked for."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

import rlutils
from rlalgo.errors import CheckpointError, RlalgoError
from rlutils.checkpoints.store import find
from rlutils.config.files import read_yaml, write_yaml
from tests.rlutils.runs import PLUGIN, toy_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return rlutils.train(toy_config("bc"), tmp_path_factory.mktemp("trained") / "run").folder


def box(shape: list[int]) -> dict[str, Any]:
    return {"type": "Box", "low": -1, "high": 1, "shape": shape, "dtype": "float32"}


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("spec", {"observation_space": box([10**12])}, "claims 1,000,000,000,000 numbers"),
        ("spec", {"observation_space": box([2**25])}, "does not fit bc"),
        ("spec", {"action_space": {"type": "Discrete", "n": 10**9}}, "claims 1,000,000,000 numbers or choices"),
        ("spec", {"frame_stack": 10**9}, "frame_stack 1000000000"),
        ("spec", {"max_steps": 10**30}, "spec: max_steps"),
        ("algo", {"hidden_dims": [2**20] * 3}, "does not fit bc as configured: weights"),
        ("algo", {"hidden_dims": [2**21]}, "hidden_dims"),
    ],
)
def test_claims_take_no_memory(part: str, changes: dict[str, Any], said: str, run: Path) -> None:
    file = find(run) / "algo.yaml"
    described = read_yaml(file)
    write_yaml(file, {**described, part: {**described[part], **changes}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RlalgoError, match=said):
        rlutils.load(run, plugins=[PLUGIN])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_tensors_beyond_the_memory_are_not_read(run: Path) -> None:
    file = find(run) / "model.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(10**13)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*larger than this machine's memory"):
        rlutils.load(run, plugins=[PLUGIN])
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        rlutils.load(run, plugins=[PLUGIN])
