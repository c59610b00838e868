"""A trained run as behavior, so that every algorithm can make data."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rlalgo import Policy
from rlalgo.config import parse
from rlutils.checkpoints.loading import load
from rlutils.collecting.behavior import Facts, Progress
from rlutils.collecting.behaviors.noise import Levels, Noisy, check_levels
from rlutils.config.catalogue import catalogue
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
        noise: Levels = (0.0, 0.0)
        """Least and largest level: standard deviation in half ranges of a Box, else the share of random actions."""
        plugins: tuple[str, ...] = ()
        """Modules and files that the run was trained with."""

        def __post_init__(self) -> None:
            check_levels(self.noise)
            if not self.policies:
                raise ValueError("policies is empty: give at least one, {} for the defaults")

    def __init__(self, config: Config) -> None:
        self.config = config

    def policies(self, env: gymnasium.Env, seed: int, progress: Progress) -> Iterator[tuple[Policy, Facts]]:
        """Episode k has policy k modulo n.

        Raises:
            CheckpointError, ConfigError: the run or the options of its policies are at fault.
            EnvironmentFault: the environment does not fit the run's data.
        """
        config, rng = self.config, np.random.default_rng(seed)
        algo = load(config.run, config.checkpoint, config.plugins)
        prepared, known = Prepared(env, algo.spec), catalogue(config.plugins)
        options: list[Any] = [parse(algo.PolicyConfig, o, known, "behavior.policies") for o in config.policies]
        for number in count():
            which = number % len(options)
            level = float(rng.uniform(*config.noise))
            with torch.random.fork_rng(devices=()):  # a policy that samples seeds its generator from torch's
                torch.manual_seed(seed + number)
                policy = algo.policy([options[which]])
            facts = {"policy": f"{algo.name} {config.policies[which]}", "noise": level}
            yield _Prepared(prepared, policy, prepared.action_space, level, rng), facts


class _Prepared(Noisy):
    """A run's policy that takes the environment's own observations and gives its own actions."""

    def __init__(self, prepared: Prepared, *noisy: Any) -> None:
        super().__init__(*noisy)
        self.prepared = prepared

    def act(self, observations: Any, rows: Tensor) -> Tensor:
        raw = observations.numpy() if isinstance(observations, Tensor) else observations
        actions = super().act(torch.from_numpy(np.stack([self.prepared.observation(o) for o in raw])), rows)
        return torch.from_numpy(np.stack([self.prepared.raw_action(action) for action in actions.numpy()]))
