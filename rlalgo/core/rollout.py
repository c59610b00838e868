"""rollout: a policy plays its own list of environments in lockstep and the result is Episodes again.

`traces` is the one player. `rollout` stacks what it played for whoever trains or evaluates; who records, films or
searches takes its traces as they come.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy, batch
from rlalgo.core.spec import DataSpec
from rlalgo.core.stepping import facts, refuse_misfit, reset, step


@dataclass
class Trace:
    """One episode as it was played, in the types that the environment gave it."""

    row: int
    """Which environment."""
    seed: int
    """What the environment was reset with."""
    observations: list[Any]
    """T+1 raw observations; only the last one if they are not kept."""
    actions: list[np.ndarray] = field(default_factory=list)
    """T actions, (A,) or ()."""
    rewards: list[float] = field(default_factory=list)
    """T rewards."""
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, float] = field(default_factory=dict)
    """Of its last step: `success`, if that is said, and what else was asked for."""

    @property
    def over(self) -> bool:
        """Whether the last observation was the episode's last."""
        return self.terminated or self.truncated

    @property
    def ret(self) -> float:
        """Undiscounted return."""
        return sum(self.rewards)


def traces(
    policy: Policy,
    envs: Sequence[gymnasium.Env],
    seeds: Sequence[Iterable[int]],
    keep_observations: bool = True,
    info: Sequence[str] = (),
) -> Iterator[Trace]:
    """Plays rows side by side, all of them in one `act` per step, and yields a trace at each of its observations.

    The trace that is yielded grows until it is `over`. Finished rows leave the batch.

    Args:
        policy: one row per environment. Where observations are no arrays (Dict, Tuple or Discrete spaces), `act` gets
            the list of them.
        envs: only `reset`, `step` and the two spaces are used.
        seeds: for each row the seeds of its episodes, each taken when its episode begins.
        keep_observations: False keeps but the last observation of a trace.
        info: numbers to keep, besides `success`, of what an episode's last step gives as its info.

    Raises:
        EnvironmentFault: an environment raised, or answered what is no observation, reward or flag of its own; with
            the seed of the episode and the step. Or it is not of the kind that a trained policy plays in.
    """
    refuse_misfit(policy, envs)
    discrete = [isinstance(env.action_space, gymnasium.spaces.Discrete) for env in envs]
    queues = [iter(row) for row in seeds]
    playing: list[Trace] = []
    free: Iterable[int] = range(len(envs))
    while True:
        started = []
        for row in free:
            if (seed := next(queues[row], None)) is not None:
                observation = reset(envs[row], int(seed))  # Gymnasium refuses numpy's integers
                started.append(Trace(row, int(seed), [_copy(observation)]))
        if started:
            policy.reset(torch.tensor([trace.row for trace in started]))
            yield from started
        playing = sorted([*playing, *started], key=lambda trace: trace.row)
        if not playing:
            return
        index = torch.tensor([trace.row for trace in playing])
        free = []
        while not free:  # the rows stay the same until an episode ends
            actions = policy.act(batch([trace.observations[-1] for trace in playing]), index).numpy().copy()
            for trace, action in zip(playing, actions, strict=True):
                given = int(action) if discrete[trace.row] else action.copy()  # environments may overwrite it
                at = trace.seed, len(trace.actions)
                observation, reward, terminated, truncated, said = step(envs[trace.row], given, *at)
                if not keep_observations:
                    trace.observations.clear()
                trace.observations.append(_copy(observation))
                trace.actions.append(action)
                trace.rewards.append(reward)
                if terminated or truncated:
                    trace.terminated, trace.truncated = terminated, truncated
                    trace.info = facts(envs[trace.row], said, info, *at)
                    free.append(trace.row)
            rewards = np.array([trace.rewards[-1] for trace in playing], np.float32)
            policy.observe(torch.from_numpy(rewards), index)
            yield from playing
        playing = [trace for trace in playing if not trace.over]


def episode(policy: Policy, env: gymnasium.Env, seed: int) -> Trace:
    """One episode of a policy of one row."""
    return next(trace for trace in traces(policy, [env], [[seed]]) if trace.over)


def rollout(
    policy: Policy,
    envs: Sequence[gymnasium.Env],
    episodes: int,
    seed: int,
    keep_observations: bool = True,
    info: Sequence[str] = (),
) -> Episodes:
    """Plays `episodes` episodes for every distinct option of the policy, all rows in one batched `act`.

    Rows with equal options share those episodes: row j of g plays numbers j, j+g, j+2g, ... Each row plays
    its quota however short its episodes are, so that early deaths are not counted more often than long lives.
    Episode number k is seeded with `seed + k` whatever row plays it, so targets meet the same starts and the
    number of environments does not change which starts are met. Finished rows leave the batch.

    Args:
        policy: n rows, one per environment.
        envs: n environments; only `reset`, `step` and the two spaces are used.
        episodes: episodes per distinct option.
        seed: seed of episode number 0.
        keep_observations: False where only actions and rewards are wanted: observations are then zeros that take
            no memory, since those of long episodes of images would fill it.
        info: numbers to keep, besides `success`, of what an episode's last step gives as its info.

    Returns:
        Episodes ordered by option, then number. `info` holds `option` (which distinct one), `seed`, every number
        among the options (`target_return`, ...), and of the last step's info what any episode has: `success` (or
        Gymnasium-Robotics' `is_success`), 0 where an episode does not say so, and what `info` names, NaN where an
        episode has none; each of shape (E,).

    Raises:
        ValueError: the policy's rows are not as many as the environments, or there is nothing to play.
        EnvironmentFault: see `traces`.
    """
    n, seed = len(envs), int(seed)
    if n != len(policy.options) or n == 0:
        raise ValueError(f"{len(policy.options)} policy rows for {n} environments: give one for each row")
    if episodes < 1:
        raise ValueError(f"episodes must be 1 or more, got {episodes}")
    options = distinct(policy.options)
    group = [options.index(option) for option in policy.options]  # row -> which of the distinct options
    quotas = []
    for row in range(n):
        rank, size = group[:row].count(group[row]), group.count(group[row])
        quotas.append(range(seed + rank, seed + episodes, size))
    played = [trace for trace in traces(policy, envs, quotas, keep_observations, info) if trace.over]
    spec = _spec_of(envs[0], longest=max(len(trace.rewards) for trace in played))
    played.sort(key=lambda trace: (group[trace.row], trace.seed))
    columns = {
        name: torch.tensor([trace.info.get(name, 0.0 if name == "success" else math.nan) for trace in played])
        for name in dict.fromkeys(name for trace in played for name in trace.info)
    }
    columns["option"] = torch.tensor([group[trace.row] for trace in played])
    columns["seed"] = torch.tensor([trace.seed for trace in played])
    for option_field in fields(options[0]) if is_dataclass(options[0]) else ():
        values = [getattr(option, option_field.name) for option in options]
        if all(isinstance(value, int | float) for value in values):
            columns[option_field.name] = torch.tensor([float(values[group[trace.row]]) for trace in played])
    return _stacked(played, spec, columns, keep_observations)


def distinct(options: Sequence[Any]) -> list[Any]:
    """The options without repetitions, in order; they need not be hashable."""
    return [option for i, option in enumerate(options) if option not in options[:i]]


def _copy(observation: Any) -> Any:
    """Environments may reuse their arrays."""
    return observation.copy() if isinstance(observation, np.ndarray) else deepcopy(observation)


def _spec_of(env: gymnasium.Env, longest: int) -> DataSpec:
    """What an environment's episodes are made of, of which the longest had so many steps."""
    made_by = getattr(env, "spec", None)  # None where the environment was not made by its id
    return DataSpec(
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_steps=(made_by and made_by.max_episode_steps) or longest,
        env_id=made_by and made_by.id,
    )


def _stacked(played: list[Trace], spec: DataSpec, info: dict[str, Tensor], kept: bool) -> Episodes:
    """Traces as flat columns, in the precision of the spec."""
    lengths = [len(trace.rewards) for trace in played]
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64)
    terminations = torch.zeros(int(starts[-1]), dtype=torch.bool)
    truncations = torch.zeros_like(terminations)
    terminations[starts[1:] - 1] = torch.tensor([trace.terminated for trace in played])
    truncations[starts[1:] - 1] = torch.tensor([trace.truncated for trace in played])
    if kept:
        seen = np.array([o for trace in played for o in trace.observations], spec.observation_space.dtype)
        observations = torch.from_numpy(seen)
    else:
        nothing = torch.from_numpy(np.zeros(spec.observation_space.shape, spec.observation_space.dtype))
        observations = nothing.expand(int(starts[-1]) + len(played), *nothing.shape)
    return Episodes(
        observations=observations,
        actions=torch.from_numpy(np.array([a for trace in played for a in trace.actions], spec.action_space.dtype)),
        rewards=torch.tensor([r for trace in played for r in trace.rewards], dtype=torch.float32),
        terminations=terminations,
        truncations=truncations,
        starts=starts,
        info=info,
        spec=spec,
    )
