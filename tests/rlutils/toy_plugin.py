"""A plugin file for tests: a source and an environment small enough to train on in a second.

A point in the plane is pushed towards the origin; each recorded episode pushes with its own strength, so that returns
spread and a return-conditioned policy has something to condition on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes, StopTraining, hookimpl
from rlalgo.config import Count

HORIZON = 12


class PointEnv(gymnasium.Env):
    """Reward 1 - |x| for HORIZON steps; actions push by up to 0.2 along each axis."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, discrete: bool = False, render_mode: str | None = None, multi: bool = False) -> None:
        self.discrete, self.render_mode = discrete, render_mode
        self.action_space: spaces.Space = spaces.Box(-1, 1, (2,), np.float32)
        if discrete:
            self.action_space = spaces.Discrete(5)
        elif multi:
            self.action_space = spaces.MultiDiscrete([3, 3], start=[-1, -1])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.t = 0
        return self.x.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        moves = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
        push = moves[action] if self.discrete else np.asarray(action, np.float32)
        self.x = (self.x + 0.2 * push).astype(np.float32)
        self.t += 1
        return self.x.copy(), float(1 - np.abs(self.x).sum()), False, self.t == HORIZON, {}

    def render(self) -> np.ndarray:
        frame = np.zeros((64, 64, 3), np.uint8)
        row, column = ((self.x.clip(-1.5, 1.5) + 1.5) / 3 * 63).astype(int)
        frame[row, column] = 255
        return frame


class ToySource:
    name = "toy"

    @dataclass(frozen=True)
    class Config:
        episodes: Count = 40
        """How many to make."""
        discrete: bool = False
        """Five moves instead of a push."""
        multi: bool = False
        """Three pushes along each axis, two choices at a time."""
        bad_step: int | None = None
        """Step of episode 1 whose reward is NaN."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self) -> Episodes:
        config, rng = self.config, np.random.default_rng(0)
        env = PointEnv(config.discrete, multi=config.multi)
        observations, actions, rewards = [], [], []
        for number in range(config.episodes):
            x, _ = env.reset(seed=number)
            strength = rng.uniform(-1, 5)
            observations.append(x)
            for _ in range(HORIZON):
                if config.discrete:
                    axis = int(np.abs(x).argmax())
                    action: Any = 1 + 2 * axis + int(x[axis] > 0) if rng.random() < strength / 5 else rng.integers(5)
                elif config.multi:
                    expert = rng.random() < strength / 5
                    action = -np.sign(x).astype(np.int64) if expert else rng.integers(-1, 2, 2)
                else:
                    action = np.clip(-strength * x, -1, 1).astype(np.float32)
                x, reward, *_ = env.step(action)
                observations.append(x)
                actions.append(action)
                rewards.append(reward)
        if config.bad_step is not None:
            rewards[HORIZON + config.bad_step] = float("nan")
        ends = torch.arange(len(rewards)) % HORIZON == HORIZON - 1
        return Episodes(
            observations=torch.from_numpy(np.stack(observations)),
            actions=torch.as_tensor(np.array(actions)),
            rewards=torch.tensor(rewards, dtype=torch.float32),
            terminations=torch.zeros(len(rewards), dtype=torch.bool),
            truncations=ends,
            starts=torch.arange(0, len(rewards) + 1, HORIZON),
            spec=DataSpec(
                env.observation_space,
                env.action_space,
                max_steps=HORIZON,
                env_id="Point",
                ref_scores=(-10.0, 10.0),
            ),
        )


class ToyEnv:
    name = "toy"

    @dataclass(frozen=True)
    class Config:
        id: str | None = None
        """Another name than the data's, as if it were another environment."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def make(self, spec: DataSpec, n: int, render_mode: str | None = None) -> list[gymnasium.Env]:
        kinds = (isinstance(spec.action_space, kind) for kind in (spaces.Discrete, spaces.MultiDiscrete))
        discrete, multi = kinds
        return [PointEnv(discrete, render_mode, multi) for _ in range(n)]


class Meddler:
    """Stops, signals, breaks or kills at a given step: what the tests of the run need to happen."""

    name = "meddler"

    @dataclass(frozen=True)
    class Config:
        at: int = 0
        """Step at which to act."""
        how: str = "signal"
        """signal, stop, raise, nan, kill, end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.calls: list[str] = []

    @hookimpl
    def rlalgo_on_start(self, run: Any, algo: Any) -> None:
        self.algo = algo
        torch.rand(3)  # a watcher that draws must not change what training draws
        self.calls.append("start")

    @hookimpl
    def rlalgo_on_step(self, run: Any, step: int, metrics: dict[str, Any]) -> None:
        self.calls.append(f"step {step}")
        if step != self.config.at:
            return
        if self.config.how == "signal":
            run.stop_signal = "SIGTERM"
        elif self.config.how == "stop":
            raise StopTraining("enough")
        elif self.config.how == "raise":
            raise RuntimeError("the meddler broke")
        elif self.config.how == "nan":
            with torch.no_grad():
                next(self.algo.parameters()).fill_(float("nan"))

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: Any) -> None:
        self.calls.append(f"evaluation {step} {len(result.policies)}")

    @hookimpl
    def rlalgo_on_checkpoint(self, step: int, path: Any) -> None:
        assert (path / "model.safetensors").exists()
        self.calls.append(f"checkpoint {step}")

    @hookimpl
    def rlalgo_on_end(self, run: Any, error: BaseException | None) -> None:
        self.calls.append(f"end {type(error).__name__}")
        if self.config.how == "end":
            raise RuntimeError("the meddler broke at the end")


class ToyError:
    """Mean squared error of the policy's actions on the first episodes of the data."""

    name = "toy_error"

    @dataclass(frozen=True)
    class Config:
        rows: int = 32
        """Items to look at."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def evaluate(self, algo: Any, episodes: Episodes, run: Any) -> dict[str, float]:
        batch = algo.dataset(episodes).gather(torch.arange(self.config.rows))
        return {"mse": float((algo.predict(batch) - batch.actions).square().mean())}


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(ToySource)


@hookimpl
def rlalgo_register_envs(register: Any) -> None:
    register(ToyEnv)


@hookimpl
def rlalgo_register_callbacks(register: Any) -> None:
    register(Meddler)


@hookimpl
def rlalgo_register_evaluators(register: Any) -> None:
    register(ToyError)
