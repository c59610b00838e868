"""rollout: a policy plays its own list of environments in lockstep and the result is Episodes again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec


def rollout(
    policy: Policy, envs: Sequence[gymnasium.Env], episodes: int, seed: int, keep_observations: bool = True
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

    Returns:
        Episodes ordered by option, then number. `info` holds `option` (which distinct one), `seed` and every
        number among the options (`target_return`, ...), each of shape (E,).
    """
    n, seed = len(envs), int(seed)  # Gymnasium refuses numpy's integers
    if n != len(policy.options) or n == 0:
        raise ValueError(f"{len(policy.options)} policy rows for {n} environments: give one for each row")
    if episodes < 1:
        raise ValueError(f"episodes must be 1 or more, got {episodes}")
    asked = distinct(policy.options)
    group = [asked.index(option) for option in policy.options]
    quota = []  # per row, the episode numbers still to play, last one first
    for row in range(n):
        rank, size = group[:row].count(group[row]), group.count(group[row])
        quota.append(list(range(rank, episodes, size))[::-1])

    spec = _spec_of(envs[0])
    dtype = spec.observation_space.dtype
    discrete = isinstance(spec.action_space, gymnasium.spaces.Discrete)
    record: dict[tuple[int, int], _Trace] = {}
    now: dict[int, _Trace] = {}  # row -> the episode it is in

    def begin(rows: list[int]) -> None:
        started = [row for row in rows if quota[row]]
        for row in started:
            number = quota[row].pop()
            observation, _ = envs[row].reset(seed=seed + number)
            now[row] = record[group[row], number] = _Trace(observation, dtype, keep_observations)
        if started:
            policy.reset(torch.tensor(started))

    begin(list(range(n)))
    while now:
        rows = sorted(now)
        index = torch.tensor(rows)
        observations = torch.from_numpy(np.stack([now[row].observations[-1] for row in rows]))
        actions = policy.act(observations, index).numpy().copy()  # (m, A) | (m,)
        rewards = np.zeros(len(rows), np.float32)
        ended = []
        for i, row in enumerate(rows):
            action = int(actions[i]) if discrete else actions[i].copy()
            observation, reward, terminated, truncated, _ = envs[row].step(action)
            now[row].add(observation, actions[i], float(reward), bool(terminated), bool(truncated))
            rewards[i] = reward
            if terminated or truncated:
                ended.append(row)
        policy.observe(torch.from_numpy(rewards), index)
        for row in ended:
            del now[row]
        begin(ended)
    return _to_episodes(record, asked, spec, seed)


class _Trace:
    """One episode while it is being played. Observations are copied: environments may reuse their arrays."""

    def __init__(self, observation: Any, dtype: Any, keep: bool) -> None:
        self.dtype, self.keep = dtype, keep
        self.observations = [np.array(observation, dtype)]
        self.actions: list[Any] = []
        self.rewards: list[float] = []
        self.terminated = self.truncated = False

    def add(self, observation: Any, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        if not self.keep:
            self.observations.clear()
        self.observations.append(np.array(observation, self.dtype))
        self.actions.append(action)
        self.rewards.append(reward)
        self.terminated, self.truncated = terminated, truncated


def distinct(options: Sequence[Any]) -> list[Any]:
    """The options without repetitions, in order; they need not be hashable."""
    found: list[Any] = []
    for option in options:
        if option not in found:
            found.append(option)
    return found


def _spec_of(env: gymnasium.Env) -> DataSpec:
    made_by = getattr(env, "spec", None)  # None where the environment was not made by its id
    return DataSpec(
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_steps=(made_by and made_by.max_episode_steps) or 2**31 - 1,
        env_id=made_by and made_by.id,
    )


def _to_episodes(record: dict[tuple[int, int], _Trace], asked: list[Any], spec: DataSpec, seed: int) -> Episodes:
    keys = sorted(record)
    traces = [record[key] for key in keys]
    lengths = [len(trace.rewards) for trace in traces]
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64)
    terminations = torch.zeros(int(starts[-1]), dtype=torch.bool)
    truncations = torch.zeros_like(terminations)
    terminations[starts[1:] - 1] = torch.tensor([trace.terminated for trace in traces])
    truncations[starts[1:] - 1] = torch.tensor([trace.truncated for trace in traces])
    info: dict[str, Tensor] = {
        "option": torch.tensor([option for option, _ in keys]),
        "seed": torch.tensor([seed + number for _, number in keys]),
    }
    for field in fields(asked[0]) if is_dataclass(asked[0]) else ():
        values = [getattr(option, field.name) for option in asked]
        if all(isinstance(value, int | float) for value in values):
            info[field.name] = torch.tensor([float(values[option]) for option, _ in keys])
    dtype = torch.int64 if isinstance(spec.action_space, gymnasium.spaces.Discrete) else torch.float32
    if traces[0].keep:
        observations = torch.from_numpy(np.stack([o for trace in traces for o in trace.observations]))
    else:
        nothing = torch.from_numpy(np.zeros_like(traces[0].observations[0]))
        observations = nothing.expand(int(starts[-1]) + len(traces), *nothing.shape)
    return Episodes(
        observations=observations,
        actions=torch.from_numpy(np.stack([a for trace in traces for a in trace.actions])).to(dtype),
        rewards=torch.tensor([r for trace in traces for r in trace.rewards], dtype=torch.float32),
        terminations=terminations,
        truncations=truncations,
        starts=starts,
        info=info,
        spec=spec,
    )
