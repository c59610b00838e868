"""Tiny deterministic environments for tests: the seed decides the start, the actions everything after it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Chain(gymnasium.Env):
    """Walk right along a line of `size` cells: action 1 steps right, 0 steps left (or waits at the wall).

    The far end terminates with reward 1, every other step costs 0.1, and `limit` steps truncate. Starts
    anywhere but at the end, so lengths differ. Hands out one observation array again and again, as some do.
    """

    def __init__(self, size: int = 6, limit: int = 12) -> None:
        self.size, self.limit = size, limit
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)  # place, time
        self.action_space = spaces.Discrete(2)
        self.seen = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.time = int(self.np_random.integers(self.size - 1)), 0
        return self._look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert isinstance(action, int)
        self.time += 1
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        done = self.place == self.size - 1
        return self._look(), 1.0 if done else -0.1, done, self.time >= self.limit, {}

    def _look(self) -> np.ndarray:
        self.seen[:] = self.place / (self.size - 1), self.time / self.limit
        return self.seen


class Goal(Chain):
    """Says `success` at the far end, and nothing elsewhere."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        *answer, terminated, truncated, _ = super().step(action)
        return *answer, terminated, truncated, {"success": True} if terminated else {}


class Drift(gymnasium.Env):
    """A point on a plane is pushed by the action and must stay near the origin, on which its reward depends.

    Leaving the disc of radius 3 terminates, `limit` steps truncate. Observations are float64, like MuJoCo's,
    and the action space is neither symmetric nor [-1, 1]. Overwrites the action it is given.
    """

    def __init__(self, limit: int = 10) -> None:
        self.limit = limit
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)  # x, y, time
        self.action_space = spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([1.0, 3.0], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.point, self.time = self.np_random.uniform(-2, 2, 2), 0
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.time += 1
        self.point = self.point + action
        action[:] = 0
        distance = float(np.linalg.norm(self.point))
        return self._look(), 1 - distance, distance > 3, self.time >= self.limit, {}

    def _look(self) -> np.ndarray:
        return np.array([*self.point, self.time])


class Blink(gymnasium.Env):
    """uint8 frames (5, 5) with one bright pixel that wanders; naming its column is worth 1. `limit` steps."""

    def __init__(self, limit: int = 6) -> None:
        self.limit = limit
        self.observation_space = spaces.Box(0, 255, (5, 5), np.uint8)
        self.action_space = spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.pixel, self.time = int(self.np_random.integers(25)), 0
        return self._look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        reward = float(action == self.pixel % 5)
        self.pixel, self.time = (self.pixel * 7 + 3 + action) % 25, self.time + 1
        return self._look(), reward, False, self.time >= self.limit, {}

    def _look(self) -> np.ndarray:
        frame = np.zeros((5, 5), np.uint8)
        frame.flat[self.pixel] = 255
        return frame


gymnasium.register("toy/Chain-v0", entry_point=f"{__name__}:Chain", max_episode_steps=12)
gymnasium.register("toy/Goal-v0", entry_point=f"{__name__}:Goal", max_episode_steps=12)
gymnasium.register("toy/Drift-v0", entry_point=f"{__name__}:Drift", max_episode_steps=10)
gymnasium.register("toy/Blink-v0", entry_point=f"{__name__}:Blink", max_episode_steps=6)
