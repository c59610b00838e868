"""Uniformly random actions: the floor that everything else is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlutils.collecting.recording import MakeEnv, Recorded, Say, play_episode


class Random:
    """Samples the action space."""

    name: ClassVar[str] = "random"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self, make_env: MakeEnv, steps: int, seed: int, say: Say) -> Iterator[Recorded]:
        """Episodes until `steps` are reached; episode k is reset with `seed + k`."""
        env = make_env()
        env.action_space.seed(int(np.random.default_rng(seed).integers(2**31)))
        done = number = 0
        while done < steps:
            episode = play_episode(env, lambda _: env.action_space.sample(), seed + number, "random", 1.0)
            yield episode
            done, number = done + len(episode.rewards), number + 1
        env.close()
