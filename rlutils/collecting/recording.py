"""Recorded episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rlalgo.errors import DataError

MakeEnv = Callable[[], gymnasium.Env]


Say = Callable[[str, float], None]
"""Told what is going on: a phase and how much of it is done, 0 to 1."""


@dataclass(frozen=True)
class Recorded:
    """One recorded episode of T steps."""

    observations: Any
    """(T+1, *S) array, or a list of T+1 observations of a Dict or Tuple space."""
    actions: np.ndarray
    """(T, A) or (T,)."""
    rewards: np.ndarray
    """(T,)."""
    terminated: bool
    truncated: bool
    seed: int
    """What the environment was reset with."""
    policy: str
    """Which policy acted."""
    noise: float
    """How much noise it acted with."""

    @property
    def ret(self) -> float:
        """Undiscounted return."""
        return float(np.sum(self.rewards, dtype=np.float64))


def play_episode(
    env: gymnasium.Env, act: Callable[[Any], Any], seed: int, policy: str = "", noise: float = 0.0,
    observe: Callable[[float], None] | None = None,
) -> Recorded:  # fmt: skip
    """One episode with a function of the observation; `observe` is told each reward."""
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [_copy(observation)], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = act(observation)
        actions.append(np.array(action))  # before the environment can change it
        if isinstance(env.action_space, spaces.Discrete):
            action = int(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        if observe is not None:
            observe(float(reward))
        observations.append(_copy(observation))
        rewards.append(float(reward))
    plain = isinstance(observation, np.ndarray)
    return Recorded(
        np.stack(observations) if plain else observations,
        np.stack(actions), np.array(rewards), bool(terminated), bool(truncated), seed, policy, noise,
    )  # fmt: skip


def _refuse_bad(episode: Recorded, env: gymnasium.Env, where: str) -> None:
    """What a behavior recorded has to fit together and into the spaces, before it is written."""
    steps, space = len(episode.rewards), env.action_space
    actions = np.asarray(episode.actions)
    if not steps or len(actions) != steps or len(episode.observations) != steps + 1:
        raise DataError(
            f"{where}: {len(episode.observations)} observations, {len(actions)} actions and {steps} rewards; "
            "T steps need T+1 observations, and T is 1 or more"
        )
    if isinstance(space, spaces.Box):
        fits = actions.shape[1:] == space.shape and bool(((space.low <= actions) & (actions <= space.high)).all())
    else:
        assert isinstance(space, spaces.Discrete)
        first = space.start
        fits = actions.ndim == 1 and bool(((first <= actions) & (actions < first + space.n)).all())
    if not fits:
        raise DataError(f"{where}: an action of shape {actions.shape[1:]} is outside {space}")
    numbers = [("reward", episode.rewards)]
    if isinstance(episode.observations, np.ndarray):
        numbers.append(("observation", episode.observations))
    for what, values in numbers:
        if not np.isfinite(values).all():
            raise DataError(f"{where}: a {what} is not finite")


def _copy(observation: Any) -> Any:
    """Environments may reuse their buffers."""
    if isinstance(observation, Mapping):
        return {key: _copy(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(value) for value in observation)
    return np.array(observation)
