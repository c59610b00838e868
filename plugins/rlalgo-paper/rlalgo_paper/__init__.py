"""The Decision Transformer paper's toy tasks: `KeyToDoor-v0` and `ShortestPath-v0`, with random data of both."""

from __future__ import annotations

from typing import Any

import gymnasium
from rlalgo import hookimpl

from rlalgo_paper.key_to_door import KeyToDoor, KeyToDoorSource
from rlalgo_paper.rooms import LAYOUTS, Rooms, Rules
from rlalgo_paper.shortest_path import (
    Graph,
    GraphRules,
    ShortestPath,
    ShortestPathSource,
    histogram,
    mean_return,
    mean_steps,
)

__all__ = [
    "LAYOUTS",
    "Graph",
    "GraphRules",
    "KeyToDoor",
    "KeyToDoorSource",
    "Rooms",
    "Rules",
    "ShortestPath",
    "ShortestPathSource",
    "histogram",
    "mean_return",
    "mean_steps",
]

gymnasium.register(KeyToDoor.id, KeyToDoor)
gymnasium.register(ShortestPath.id, ShortestPath, max_episode_steps=10)


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(KeyToDoorSource)
    register(ShortestPathSource)
