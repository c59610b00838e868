"""A game that only pixels tell; as a plugin file its source, its environment maker and a way to stop a run midway.

A ball falls, straight down or one column aside a step; the paddle below must stand right under it when it lands. The
way that the ball goes is not to be seen in one frame: of two balls at one place, one may fall straight and one aside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes, hookimpl

ROWS, COLUMNS, FALL, PIXELS = 9, 10, 7, 2


class Catch(gymnasium.Env):
    """Frames (18, 20) of bytes; stay, left, right; 1 for a ball that is caught, at the end of seven steps."""

    observation_space = spaces.Box(0, 255, (PIXELS * ROWS, PIXELS * COLUMNS), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.paddle = 0, COLUMNS // 2
        self.ball = int(self.np_random.integers(COLUMNS))
        landings = [way for way in (-1, 0, 1) if 0 <= self.ball + FALL * way < COLUMNS]
        self.way = int(self.np_random.choice(landings))
        return self.frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        self.ball += self.way
        self.paddle = int(np.clip(self.paddle + (0, -1, 1)[action], 0, COLUMNS - 1))
        landed = self.t == FALL
        return self.frame(), float(landed and self.ball == self.paddle), landed, False, {}

    def frame(self) -> np.ndarray:
        pixels = np.zeros((ROWS, COLUMNS), np.uint8)
        pixels[self.t, self.ball] = pixels[ROWS - 1, self.paddle] = 255
        return pixels.repeat(PIXELS, 0).repeat(PIXELS, 1)

    def expert(self) -> int:
        """The action towards where the ball will land."""
        aside = self.ball + self.way * (FALL - self.t) - self.paddle
        return 0 if aside == 0 else 1 if aside < 0 else 2


def record(choose: Callable[[Catch, int], int], episodes: int, seed: int = 0, stack: int = 2) -> Episodes:
    """Episodes of what `choose(env, number of the episode)` does."""
    env = Catch()
    frames, actions, rewards = [], [], []
    for number in range(episodes):
        frames.append(env.reset(seed=seed + number)[0])
        for _ in range(FALL):
            actions.append(choose(env, number))
            frame, reward, *_ = env.step(actions[-1])
            frames.append(frame)
            rewards.append(reward)
    ends = torch.arange(len(rewards)) % FALL == FALL - 1
    return Episodes(
        observations=torch.from_numpy(np.stack(frames)),
        actions=torch.tensor(actions),
        rewards=torch.tensor(rewards),
        terminations=ends,
        truncations=torch.zeros_like(ends),
        starts=torch.arange(0, len(rewards) + 1, FALL),
        spec=DataSpec(env.observation_space, env.action_space, frame_stack=stack, max_steps=FALL),
    ).check("catch")


@functools.cache
def mixed(episodes: int, stack: int = 2) -> Episodes:
    """From nearly the expert to nearly random: each episode has its own share of random actions, 0 to 1."""
    rng = np.random.default_rng(0)
    noise = rng.random(episodes)

    def choose(env: Catch, number: int) -> int:
        return int(rng.integers(3)) if rng.random() < noise[number] else env.expert()

    return record(choose, episodes, stack=stack)


class CatchSource:
    name = "catch"

    @dataclass(frozen=True)
    class Config:
        episodes: int = 40
        """How many to make."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self) -> Episodes:
        return mixed(self.config.episodes)


class CatchEnv:
    name = "catch"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def make(self, spec: DataSpec, n: int, render_mode: str | None = None) -> list[gymnasium.Env]:
        return [Catch() for _ in range(n)]


class Stopper:
    """Stops a run as a signal does."""

    name = "stopper"

    @dataclass(frozen=True)
    class Config:
        at: int = 0
        """After this step."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def rlalgo_on_step(self, run: Any, step: int) -> None:
        if step == self.config.at:
            run.stop_signal = "SIGTERM"


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(CatchSource)


@hookimpl
def rlalgo_register_envs(register: Any) -> None:
    register(CatchEnv)


@hookimpl
def rlalgo_register_callbacks(register: Any) -> None:
    register(Stopper)
