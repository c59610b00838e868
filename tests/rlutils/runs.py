"""What the tests of training share: a toy configuration that runs in a second, and ways to compare runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from rlutils.checkpoints.store import find
from rlutils.checkpoints.training_state import load_trainer_state

ROOT = Path(__file__).parents[2]
PLUGIN = str(Path(__file__).parent / "toy_plugin.py")
OURS = ("rlalgo_cnn", "rlalgo_atari", "rlalgo_trackers", "rlalgo_paper")
"""What this repository offers besides the core."""


def toy_config(algo: str = "dt", **changes: Any) -> dict[str, Any]:
    """A mapping for `rlutils.train`; keyword arguments replace top-level keys."""
    algos: dict[str, dict[str, Any]] = {
        "dt": {"name": "dt", "context_length": 4, "embed_dim": 16, "n_layers": 2, "n_heads": 2, "dropout": 0.1,
               "lr": 3e-3, "warmup": 5, "return_scale": 10.0},
        "bc": {"name": "bc", "hidden_dims": [16, 16], "dropout": 0.1},
    }  # fmt: skip
    policies: list[dict[str, Any]] = [{"target_return": 0}, {"target_return": 8}] if algo == "dt" else [{}]
    config = {
        "plugins": [PLUGIN],
        "threads": 1,
        "source": {"name": "toy"},
        "env": {"name": "toy"},
        "algo": algos[algo],
        "trainer": {
            "name": "offline",
            "steps": 60,
            "batch_size": 16,
            "checkpoint_every": 25,
            "check_every": 10,
        },
        "evaluation": {"every": 20, "episodes": 3, "policies": policies},
        "callbacks": [{"name": "csv", "every": 10}, {"name": "best"}],
    }
    return {**config, **changes}


def weights(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    """The weights of a run's checkpoint."""
    return safetensors.torch.load((find(folder, which) / "model.safetensors").read_bytes())


def state(folder: Path) -> dict[str, Any]:
    """The trainer's state of a run's last checkpoint, without the clock and the run's own name."""
    found = dict(vars(load_trainer_state(find(folder))))
    for name in ("seconds", "run"):
        found.pop(name)
    return found


def equal(a: Any, b: Any) -> bool:
    """Deep and bit-equal, tensors included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def command(*words: str, cwd: Path | None = None, prelude: str = "") -> subprocess.Popen:
    """`rlalgo ...` in a process of its own; `prelude` is Python that runs first."""
    code = f"import sys; sys.argv = ['rlalgo', *sys.argv[1:]]\n{prelude}\nfrom rlutils.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
