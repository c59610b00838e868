"""Fixtures and settings that all tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings

from rlalgo import Episodes
from tests.rlalgo.toy_data import make_episodes

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    # Every hook in rlalgo.hookspecs must be named so by a test somewhere under tests/ (see test_hooks.py).
    config.addinivalue_line("markers", "covers_hook(*names): the hooks that this test proves to be called")


@pytest.fixture(autouse=True)
def _no_plugin_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLALGO_PLUGINS", raising=False)


@pytest.fixture(scope="session")
def small_episodes() -> Callable[..., Episodes]:
    """`small_episodes("box", lengths=(3, 1, 4))`; kinds: box, discrete, frames, channels."""
    return make_episodes
