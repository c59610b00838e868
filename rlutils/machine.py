"""The machine: device, versions, seconds."""

from __future__ import annotations

import contextlib
import platform
import re
import time
from importlib import metadata

import torch

from rlalgo.errors import ConfigError


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self.start


def pick_device(name: str) -> torch.device:
    """`auto`, or what is named; ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name)  # of other names torch lists twenty, most of no use here
        why = f" ({str(error).splitlines()[0]})" if known else ""
        choices = "choose auto, cpu, cuda, cuda:N or mps"
        raise ConfigError([f"device: '{name}' cannot be used here{why}; {choices}"]) from error
    return device


def versions() -> dict[str, str]:
    """What a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("rlalgo", "torch", "numpy", "gymnasium", "mujoco", "minari"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
