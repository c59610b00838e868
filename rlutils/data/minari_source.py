"""Minari datasets as Episodes; those that are not here are downloaded first, where the network allows it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes
from rlalgo.config import Count
from rlalgo.core.spaces import to_mapping
from rlalgo.errors import DataError
from rlutils.data.images import Images
from rlutils.data.mapped import Allocate, fingerprint, map_episodes, worthwhile
from rlutils.data.minari_disk import Metadata, read_metadata
from rlutils.data.minari_file import EpisodeFile
from rlutils.data.minari_remote import require
from rlutils.data.spaces import needs_flatten, stored_space


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
        """Observations that a policy sees at once; 4 is usual for Atari frames. Stacked when needed, stored once."""
        gray: bool = False
        """Turn color images gray, here and in the environment."""
        resize: tuple[Count, Count] | None = None
        """Height and width to bring images to, here and in the environment."""
        clip_rewards: bool = False
        """Train on the sign of rewards, as is usual for Atari; playing counts them as they are."""
        memory_map: bool | None = None
        """Map observations from a converted copy on disk instead of reading them; null: if they would take more than
        half of the memory."""

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
        config = self.config
        require(config.id, config.download)
        metadata = read_metadata(config.id)
        space, images = self._prepared(metadata.observation_space)
        episodes = self._load(metadata, space, images)
        return episodes.clipped() if config.clip_rewards else episodes

    def _load(self, metadata: Metadata, space: spaces.Box, images: Images | None) -> Episodes:
        """The episodes with rewards as recorded, read or mapped."""
        config = self.config
        size = (metadata.steps + metadata.episodes) * np.dtype(space.dtype).itemsize * int(np.prod(space.shape))
        if not worthwhile(config.memory_map, size):
            return self._read(metadata, space, images, np.empty)
        # One copy serves every frame_stack, since what is stacked is not stored, and every choice of rewards.
        options = {name: getattr(config, name) for name in ("id", "clip_actions", "gray", "resize")}
        key = {**options, **fingerprint(metadata.folder / "main_data.hdf5")}
        episodes = map_episodes(self.label, key, lambda allocate: self._read(metadata, space, images, allocate))
        return replace(episodes, spec=replace(episodes.spec, frame_stack=config.frame_stack))

    def _prepared(self, recorded: spaces.Space) -> tuple[spaces.Box, Images | None]:
        """The space of one observation as it is stored, and what is done to images."""
        try:
            images = Images.needed(recorded, self.config.gray, self.config.resize)
            stored = stored_space(recorded)
        except TypeError as error:
            raise DataError(f"{self.label}: observation space: {error}") from error
        return (stored if images is None else images.space(stored)), images

    def _read(self, metadata: Metadata, space: spaces.Box, images: Images | None, allocate: Allocate) -> Episodes:
        with EpisodeFile(metadata) as file:
            spec = self._spec(metadata, space, images, int(file.lengths.max(initial=1)))
            return self._checked(_fill(file, spec, images, allocate))

    def _spec(self, metadata: Metadata, space: spaces.Box, images: Images | None, longest: int) -> DataSpec:
        preprocess = preprocess_record(metadata.observation_space, metadata.env)
        if images is not None:
            preprocess["images"] = images.record()
        try:
            return DataSpec(
                observation_space=space,
                action_space=metadata.action_space,
                frame_stack=self.config.frame_stack,
                max_steps=max(metadata.env.get("max_episode_steps") or 1, longest),
                env_id=metadata.env.get("id"),
                ref_scores=metadata.ref_scores,
                preprocess=preprocess,
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
    """`DataSpec.preprocess`: plain values by which rlutils.envs.gym rebuilds what the data was recorded in.

    flatten: the original observation space, if observations are flattened.
    env_module: the package that registers the environment, if that is not gymnasium itself.
    env_kwargs: arguments that the environment was made with.
    env_wrappers: wrappers that the environment was recorded with, innermost first.
    images: what is done to images after that (rlutils.data.images), added by sources that do it.

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


def _fill(file: EpisodeFile, spec: DataSpec, images: Images | None, allocate: Allocate) -> Episodes:
    """Flat columns, allocated once and filled by one copy per episode."""
    facts = file.facts()
    lengths = file.lengths
    starts = np.concatenate([[0], lengths.cumsum()])  # (E+1,)
    n, e = int(starts[-1]), len(lengths)
    raw, box, action = file.metadata.observation_space, spec.observation_space, spec.action_space
    discrete = isinstance(action, spaces.Discrete)
    observations = allocate((n + e, *(box.shape or ())), box.dtype)
    actions = np.empty((n, *(action.shape or ())), np.int64 if discrete else np.float32)
    rewards = np.empty(n, np.float32)
    terminations, truncations = np.empty(n, bool), np.empty(n, bool)
    has_final = np.empty(e, bool)
    for i, (first, end) in enumerate(pairwise(starts)):
        rows = observations[first + i : end + i + 1]
        recorded = rows if images is None else np.empty((len(rows), *(raw.shape or ())), np.uint8)
        has_final[i] = file.observations(i, recorded)
        if images is not None:
            rows[:] = images(recorded)
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
