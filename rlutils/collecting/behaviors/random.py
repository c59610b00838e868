"""Uniformly random actions: the floor that everything else is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo import Policy
from rlutils.collecting.behavior import Facts, Progress


class Random:
    """Samples the action space."""

    name: ClassVar[str] = "random"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def policies(self, env: gymnasium.Env, seed: int, progress: Progress) -> Iterator[tuple[Policy, Facts]]:
        env.action_space.seed(int(np.random.default_rng(seed).integers(2**31)))
        return repeat((_Uniform(env.action_space), {"policy": "random", "noise": 1.0}))


class _Uniform(Policy):
    def __init__(self, space: spaces.Space) -> None:
        self.space = space

    def act(self, observations: Any, rows: Tensor) -> Tensor:
        return torch.as_tensor(np.stack([self.space.sample() for _ in rows]))
