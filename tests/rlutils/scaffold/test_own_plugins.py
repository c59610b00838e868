"""The distributions under plugins/, installed as a user installs them, and what is said where they are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces

import rlutils
from rlalgo.errors import ConfigError
from rlutils.config.files import write_yaml
from tests.rlutils.environments import ROOT, fresh, python
from tests.rlutils.minari_data import write_dataset

FRAME = spaces.Box(0, 255, (36, 40), "uint8")


def config(ident: str) -> dict[str, Any]:
    return {
        "source": {"name": "minari", "id": ident, "frame_stack": 2},
        "algo": {"name": "bc", "hidden_dims": [8], "state_encoder": {"name": "cnn"}},
        "trainer": {"name": "offline", "steps": 2, "batch_size": 4},
        "evaluation": {"episodes": 0},
        "callbacks": [],
    }


def test_without_it_the_distribution_is_named_before_any_data_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLALGO_PLUGINS", "")
    told = r"algo\.state_encoder: no encoder called 'cnn' here; pip install rlalgo-cnn "
    with pytest.raises(ConfigError, match=told):
        rlutils.train(config("toy/there-is-none-v0"))


@pytest.mark.slow
def test_installed_they_are_found_and_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    options: dict[str, Any] = {"observation_space": FRAME, "action_space": spaces.Discrete(4), "jpeg_encoding": False}
    write_dataset(tmp_path, "toy/frame-v0", **options)
    write_yaml(tmp_path / "bc.yaml", config("toy/frame-v0"))
    executable = fresh(tmp_path, sorted((ROOT / "plugins").glob("rlalgo-*")))
    cli = ["-m", "rlutils.cli"]
    help = python(*cli, "--help", executable=executable)
    for command in ("import-hf", "export-hf", "push", "pull"):
        assert f" {command} " in help
    listed = python(*cli, "plugins", "--short", executable=executable, RLALGO_PLUGINS="cnn,atari,trackers")
    for line in (
        "encoder cnn  rlalgo-cnn 0.1.0, plugin cnn",
        "encoder impala  rlalgo-cnn 0.1.0, plugin cnn",
        "env atari  rlalgo-atari 0.1.0, plugin atari",
        "source dqn_replay  rlalgo-atari 0.1.0, plugin atari",
        "callback tracker  rlalgo-trackers 0.1.0, plugin trackers",
    ):
        assert line in listed
    words = [*cli, "train", str(tmp_path / "bc.yaml"), "--out", str(tmp_path / "run")]
    python(*words, executable=executable, RLALGO_PLUGINS="cnn")
    loaded = "import rlutils, sys; print(any(type(m).__name__ == 'CNN' for m in rlutils.load(sys.argv[1]).modules()))"
    assert python("-c", loaded, str(tmp_path / "run"), executable=executable, RLALGO_PLUGINS="cnn") == "True\n"

    python(*cli, "export-hf", "--help", executable=executable)

    # Uninstalled, neither trains nor loads, and both say what to install.
    for again in ([*words, "--replace"], ["-c", loaded, str(tmp_path / "run")]):
        done = subprocess.run([sys.executable, *again], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode != 0
        assert "pip install" in done.stderr
        assert "rlalgo-cnn" in done.stderr
    assert (tmp_path / "run" / "run.yaml").exists()  # and the run was not replaced
