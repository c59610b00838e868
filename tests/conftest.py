"""Fixtures and settings that all tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings

from rlalgo import Episodes
from tests.rlalgo.toy_data import make_episodes

torch.set_num_threads(1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, here and by what tests start
settings.register_profile("tests", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _no_plugin_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLALGO_PLUGINS", raising=False)


@pytest.fixture(scope="session")
def small_episodes() -> Callable[..., Episodes]:
    """`small_episodes("box", lengths=(3, 1, 4))`; kinds: box, discrete, frames, channels."""
    return make_episodes
