"""Atari for rlalgo: the environment maker `atari` and the data source `dqn_replay`."""

from __future__ import annotations

from typing import Any

from rlalgo import hookimpl

from rlalgo_atari.dqn_replay import DQNReplay
from rlalgo_atari.env import Atari, preprocessing

__all__ = ["Atari", "DQNReplay", "preprocessing"]


@hookimpl
def rlalgo_register_envs(register: Any) -> None:
    register(Atari)


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(DQNReplay)
