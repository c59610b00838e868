"""What the tests of checkpoints share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that the module has trained, to be meddled with."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"
