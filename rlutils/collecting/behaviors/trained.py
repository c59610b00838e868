"""A trained run as behavior, so that every algorithm can make data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field

from rlalgo.config import parse
from rlalgo.core.policy import Controller
from rlutils.collecting.recording import MakeEnv, Recorded, Say, play_episode
from rlutils.envs.gym import Prepared


class RunPolicy:
    """The policy of a run folder, with noise whose level is drawn anew for each episode."""

    name: ClassVar[str] = "run"

    @dataclass(frozen=True)
    class Config:
        run: str
        """Run folder."""
        checkpoint: str = "last"
        """last, best or step_N."""
        policies: tuple[dict[str, Any], ...] = ({},)
        """Options of the policies to play in turn, {target_return: 3600} for dt."""
        noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 0.0)
        """Least and largest level: standard deviation in half ranges of a Box, share of random Discrete actions."""
        plugins: tuple[str, ...] = ()
        """Modules and files that the run was trained with."""

        def __post_init__(self) -> None:
            if self.noise[0] > self.noise[1]:
                raise ValueError(f"noise: the least level {self.noise[0]} is above the largest {self.noise[1]}")
            if not self.policies:
                raise ValueError("policies is empty: give at least one, {} for the defaults")

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self, make_env: MakeEnv, steps: int, seed: int, say: Say) -> Iterator[Recorded]:
        """Episodes until `steps` are reached; episode k is reset with `seed + k` and plays policy k modulo n."""
        from rlutils.checkpoints.loading import load
        from rlutils.config.catalogue import catalogue

        config = self.config
        algo = load(config.run, config.checkpoint, config.plugins)
        env, rng = make_env(), np.random.default_rng(seed)
        prepared = Prepared(env, algo.spec)  # refuses an environment that the run does not fit
        known = catalogue(config.plugins)
        options: list[Any] = [parse(algo.PolicyConfig, o, known, "behavior.policies") for o in config.policies]
        done = number = 0
        while done < steps:
            which = number % len(options)
            noise = float(rng.uniform(*config.noise))
            with torch.random.fork_rng(devices=()):  # a policy that samples seeds its generator from torch's
                torch.manual_seed(seed + number)
                controller = Controller(algo.policy([options[which]]))
            controller.reset()

            def act(observation: Any, controller: Controller = controller, noise: float = noise) -> Any:
                return _noisy(controller.act(prepared.observation(observation)), env.action_space, noise, rng)

            label = f"{algo.name} {config.policies[which]}"
            episode = play_episode(env, act, seed + number, label, noise, controller.observe)
            yield episode
            done, number = done + len(episode.rewards), number + 1
        env.close()


def _noisy(action: Any, space: spaces.Space, noise: float, rng: np.random.Generator) -> Any:
    """Gaussian noise in half ranges of a Box; another action now and then in a Discrete space."""
    if noise == 0:
        return action
    if isinstance(space, spaces.Discrete):
        return int(rng.integers(space.n)) if rng.random() < noise else action
    assert isinstance(space, spaces.Box)
    half = (space.high - space.low) / 2 if space.is_bounded() else 1.0
    return np.clip(action + noise * half * rng.standard_normal(space.shape), space.low, space.high).astype(space.dtype)
