"""Noise on the actions of a policy, so that recorded data holds more than what one policy does."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo import Policy
from rlalgo.config import NonNegative

Levels = tuple[NonNegative, NonNegative]
"""Least and largest level; that of an episode is drawn between them."""


def check_levels(levels: Levels) -> None:
    """ValueError if the least level is above the largest."""
    if levels[0] > levels[1]:
        raise ValueError(f"noise: the least level {levels[0]} is above the largest {levels[1]}")


class Noisy(Policy):
    """A policy of one row with noise, kept inside the action space.

    Args:
        policy: what acts.
        space: a Box, to whose actions Gaussian noise is added, or Discrete or MultiDiscrete, where another action is
            drawn now and then.
        noise: standard deviation in half ranges of a Box (in its units where it has no bounds), otherwise the share of
            the steps with a random action.
        rng: what is drawn from, at every step.
    """

    def __init__(self, policy: Policy, space: spaces.Space, noise: float, rng: np.random.Generator) -> None:
        self.policy, self.space, self.noise, self.rng = policy, space, noise, rng
        self.steps = 0
        """Steps played so far."""

    def reset(self, rows: Tensor) -> None:
        self.policy.reset(rows)

    def act(self, observations: Any, rows: Tensor) -> Tensor:
        actions, space = self.policy.act(observations, rows), self.space
        self.steps += 1
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            if self.rng.random() < self.noise:
                n = space.n if isinstance(space, spaces.Discrete) else space.nvec
                return torch.as_tensor(space.start + self.rng.integers(n)).unsqueeze(0)
            return actions
        assert isinstance(space, spaces.Box)
        deviation = self.noise * ((space.high - space.low) / 2 if space.is_bounded() else 1.0)
        noisy = actions[0].numpy() + deviation * self.rng.standard_normal(space.shape)
        return torch.from_numpy(np.clip(noisy, space.low, space.high).astype(space.dtype))[None]

    def observe(self, rewards: Tensor, rows: Tensor) -> None:
        self.policy.observe(rewards, rows)
