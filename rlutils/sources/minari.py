"""Minari datasets as Episodes; those that are not here are downloaded first, where the network allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlalgo.config import Count
from rlalgo.core.episodes import DataSpec, Episodes
from rlalgo.errors import DataError
from rlutils.sources.minari_disk import Metadata, read_metadata
from rlutils.sources.minari_file import EpisodeFile
from rlutils.sources.minari_remote import require
from rlutils.spaces import needs_flatten, stored_space, to_mapping


class MinariSource:
    """Minari datasets, local ones and those on Minari's server."""

    name: ClassVar[str] = "minari"

    @dataclass(frozen=True)
    class Config:
        id: str
        """Dataset id, such as mujoco/hopper/medium-v0; `rlalgo data list` shows what is here."""
        download: bool = True
        """Fetch the dataset if it is not on this machine."""
        clip_actions: bool = False
        """Clip recorded actions to the action space instead of refusing those outside it."""
        frame_stack: Count = 1
        """Observations that a policy sees at once; 4 is usual for Atari frames."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"minari:{self.config.id}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the dataset cannot be found, or holds something that training must not see.
        """
        require(self.config.id, self.config.download)
        metadata = read_metadata(self.config.id)
        with EpisodeFile(metadata) as file:
            spec = self._spec(metadata, int(file.lengths.max(initial=1)))
            episodes = _fill(file, spec)
        return self._checked(episodes)

    def _spec(self, metadata: Metadata, longest: int) -> DataSpec:
        try:
            observation_space = stored_space(metadata.observation_space)
        except TypeError as error:
            raise DataError(f"{self.label}: observation space: {error}") from error
        try:
            return DataSpec(
                observation_space=observation_space,
                action_space=metadata.action_space,
                frame_stack=self.config.frame_stack,
                max_steps=max(metadata.env.get("max_episode_steps") or 1, longest),
                env_id=metadata.env.get("id"),
                ref_scores=metadata.ref_scores,
                preprocess=preprocess_record(metadata.observation_space, metadata.env),
            )
        except DataError as error:
            raise DataError(f"{self.label}: {error}") from error

    def _checked(self, episodes: Episodes) -> Episodes:
        space = episodes.spec.action_space
        box = space if isinstance(space, spaces.Box) else None
        if box is not None and self.config.clip_actions:
            actions = episodes.actions.numpy()
            np.clip(actions, box.low, box.high, out=actions, casting="same_kind")
        try:
            return episodes.check(self.label)
        except DataError as error:
            if box is not None and "outside the action space" in str(error):
                raise DataError(f"{error}. Set `clip_actions: true` in the source to clip them") from error
            raise


def preprocess_record(observation_space: spaces.Space, env: Mapping[str, Any]) -> dict[str, Any]:
    """`DataSpec.preprocess`: plain values by which rlutils.envs rebuilds what the data was recorded in.

    flatten: the original observation space, if observations are flattened.
    env_module: the package that registers the environment, if that is not gymnasium itself.
    env_kwargs: arguments that the environment was made with.
    env_wrappers: wrappers that the environment was recorded with, innermost first.

    Args:
        observation_space: as recorded.
        env: Gymnasium's environment spec as plain values; may be empty.
    """
    kwargs = {key: value for key, value in (env.get("kwargs") or {}).items() if key != "render_mode"}
    limit = env.get("max_episode_steps")
    registered = gymnasium.registry.get(env.get("id", ""))
    if limit is not None and limit != getattr(registered, "max_episode_steps", None):
        kwargs["max_episode_steps"] = limit
    module = str(env.get("entry_point") or "").partition(":")[0].partition(".")[0]
    record = {
        "flatten": to_mapping(observation_space) if needs_flatten(observation_space) else None,
        "env_module": module if module != "gymnasium" else None,
        "env_kwargs": kwargs,
        "env_wrappers": list(env.get("additional_wrappers") or ()),
    }
    return {key: value for key, value in record.items() if value}


def _fill(file: EpisodeFile, spec: DataSpec) -> Episodes:
    """Flat columns, allocated once and filled by one copy per episode."""
    facts = file.facts()
    lengths = file.lengths
    starts = np.concatenate([[0], lengths.cumsum()])  # (E+1,)
    n, e = int(starts[-1]), len(lengths)
    box, action = spec.observation_space, spec.action_space
    discrete = isinstance(action, spaces.Discrete)
    observations = np.empty((n + e, *(box.shape or ())), box.dtype)
    actions = np.empty((n, *(action.shape or ())), np.int64 if discrete else np.float32)
    rewards = np.empty(n, np.float32)
    terminations, truncations = np.empty(n, bool), np.empty(n, bool)
    has_final = np.empty(e, bool)
    for i, (first, end) in enumerate(pairwise(starts)):
        has_final[i] = file.observations(i, observations[first + i : end + i + 1])
        file.actions(i, actions[first:end])
        file.rewards(i, rewards[first:end])
        file.flags(i, "terminations", terminations[first:end])
        file.flags(i, "truncations", truncations[first:end])
    return Episodes(
        observations=torch.from_numpy(observations),
        actions=torch.from_numpy(actions),
        rewards=torch.from_numpy(rewards),
        terminations=torch.from_numpy(terminations),
        truncations=torch.from_numpy(truncations),
        starts=torch.from_numpy(starts),
        has_final=torch.from_numpy(has_final),
        info={name: torch.from_numpy(column) for name, column in facts.items()},
        spec=spec,
    )
