"""Minari datasets as Episodes; those that are not here are downloaded first, where the network allows it."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field

from rlalgo import DataSpec, Episodes
from rlalgo.config import Few, Positive, Size
from rlalgo.core.spaces import described, to_mapping
from rlalgo.errors import DataError
from rlutils.data.columns import Columns, checked
from rlutils.data.images import Images
from rlutils.data.mapped import Allocate, identity, map_episodes, worthwhile
from rlutils.data.minari_arrow import ArrowFiles, episode_files
from rlutils.data.minari_disk import EnvRecord, Metadata, read_metadata
from rlutils.data.minari_file import EpisodeFile
from rlutils.data.minari_remote import require
from rlutils.data.preparation import Preparation
from rlutils.data.spaces import flatten_actions, stored_actions
from rlutils.machine import host_memory, size

Side = Annotated[Size, Field(le=4096)]


class MinariSource:
    """Minari datasets, local ones and those on Minari's server."""

    name: ClassVar[str] = "minari"

    @dataclass(frozen=True)
    class Config:
        id: str | Annotated[tuple[str, ...], Field(min_length=1)]
        """Dataset id, such as mujoco/hopper/medium-v0; `rlalgo data list` shows what is here. Or several of one kind,
        [a, b], which are joined; environment and reference scores are the first one's."""
        weights: tuple[Positive, ...] | None = None
        """How much of what is drawn comes from each of several datasets, such as [1, 1]; null: all steps alike."""
        download: bool = True
        """Fetch the dataset if it is not on this machine."""
        clip_actions: bool = False
        """Clip recorded actions to the action space instead of refusing those outside it."""
        frame_stack: Few = 1
        """Observations that a policy sees at once; 4 is usual for Atari frames. Stacked when needed, stored once."""
        gray: bool = False
        """Turn color images gray, here and in the environment."""
        resize: tuple[Side, Side] | None = None
        """Height and width to bring images to, here and in the environment."""
        clip_rewards: bool = False
        """Train on the sign of rewards, as is usual for Atari; playing counts them as they are."""
        memory_map: bool | None = None
        """Map observations from a converted copy on disk instead of reading them; null: if they would take more than
        half of the memory."""
        continues: bool = False
        """Episodes go on after a termination, as in recordings of goal tasks: windows go on there, while transitions
        stop bootstrapping. Otherwise such data is refused."""

        def __post_init__(self) -> None:
            if len(set(self.ids)) < len(self.ids):
                raise ValueError(f"id: name each dataset once, got {list(self.ids)}")
            if self.weights is not None and not 1 < len(self.weights) == len(self.ids):
                raise ValueError(f"weights: give several datasets one each, got {list(self.weights)}")

        @property
        def ids(self) -> tuple[str, ...]:
            """Of all datasets."""
            return (self.id,) if isinstance(self.id, str) else self.id

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"minari:{'+'.join(self.config.ids)}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the dataset cannot be found, or holds something that training must not see.
        """
        config, found = self.config, []
        for ident in config.ids:
            require(ident, config.download)
            found.append(read_metadata(ident))
        episodes = self._load(found)
        if config.weights is not None:
            which = episodes.info["dataset"]
            steps = torch.zeros(len(found), dtype=torch.float64).index_add(0, which, episodes.lengths().double())
            episodes = replace(episodes, weights=(torch.tensor(config.weights, dtype=torch.float64) / steps)[which])
        return episodes.clipped() if config.clip_rewards else episodes

    def _load(self, found: Sequence[Metadata]) -> Episodes:
        """The episodes of all datasets, one after another, with rewards as recorded, read or mapped."""
        config, preparations = self.config, [self._preparation(metadata) for metadata in found]
        box, rows = preparations[0].space, sum(metadata.steps + metadata.episodes for metadata in found)
        needed, there = rows * np.dtype(box.dtype).itemsize * math.prod(box.shape), host_memory()
        read = partial(self._read, list(zip(found, preparations, strict=True)))
        if not worthwhile(config.memory_map, needed):
            if needed > there:
                fits = f"{size(needed)} of memory, and there are {size(there)}"
                raise DataError(f"{self.label}: observations take {fits}; leave `memory_map: false` out")
            return read(np.empty)
        # One copy serves every frame_stack, since what is stacked is not stored, and every choice of rewards.
        key = {name: getattr(config, name) for name in ("ids", "clip_actions", "gray", "resize", "continues")}
        files = [identity(file) for metadata in found for file in sorted(metadata.folder.rglob("*"))]
        episodes = map_episodes(self.label, {**key, "files": files}, read)
        spec = replace(episodes.spec, frame_stack=config.frame_stack)
        return replace(episodes, spec=spec, continues=config.continues)

    def _preparation(self, metadata: Metadata) -> Preparation:
        try:
            return Preparation(metadata.observation_space, Images(gray=self.config.gray, size=self.config.resize))
        except (TypeError, ValueError) as error:
            raise DataError(f"{metadata.label}: observation space: {error}") from error

    def _read(self, found: Sequence[tuple[Metadata, Preparation]], allocate: Allocate) -> Episodes:
        with ExitStack() as stack:
            parts = []
            for metadata, preparation in found:
                file = episode_files(metadata)
                stack.enter_context(file)
                spec = self._spec(metadata, preparation, int(file.lengths.max(initial=1)))
                parts.append(_Part(file, preparation, spec))
                if parts[0].kind != parts[-1].kind:
                    names = f"{parts[0].file.label} and {metadata.label}"
                    raise DataError(f"{names} have different spaces: {parts[0].spaces} and {parts[-1].spaces}")
            episodes = replace(_fill(parts, allocate), continues=self.config.continues)
            return checked(episodes, self.label, self.config.clip_actions)

    def _spec(self, metadata: Metadata, preparation: Preparation, longest: int) -> DataSpec:
        try:
            return DataSpec(
                observation_space=preparation.space,
                action_space=stored_actions(metadata.action_space),
                frame_stack=self.config.frame_stack,
                max_steps=max(metadata.env.max_episode_steps or 1, longest),
                env_id=metadata.env.id,
                ref_scores=metadata.ref_scores,
                preprocess={**preparation.record, **preprocess_record(metadata.action_space, metadata.env)},
            )
        except DataError as error:
            raise DataError(f"{metadata.label}: {error}") from error


def preprocess_record(action_space: spaces.Space, env: EnvRecord) -> dict[str, Any]:
    """What `rlutils.data.preparation.Record` says of actions and environment, as plain values.

    Args:
        action_space: as recorded.
        env: as recorded.
    """
    kwargs = {key: value for key, value in (env.kwargs or {}).items() if key != "render_mode"}
    limit = env.max_episode_steps
    registered = gymnasium.registry.get(env.id or "")
    if limit is not None and limit != getattr(registered, "max_episode_steps", None):
        kwargs["max_episode_steps"] = limit
    module = (env.entry_point or "").partition(":")[0].partition(".")[0]
    record = {
        "actions": None if stored_actions(action_space) == action_space else to_mapping(action_space),
        "env_module": module if module != "gymnasium" else None,
        "env_kwargs": kwargs,
        "env_wrappers": env.additional_wrappers,
    }
    return {key: value for key, value in record.items() if value}


@dataclass(frozen=True)
class _Part:
    """One of the datasets that are joined."""

    file: EpisodeFile | ArrowFiles
    preparation: Preparation
    spec: DataSpec

    @property
    def spaces(self) -> str:
        return f"{described(self.spec.observation_space)}, {described(self.spec.action_space)}"

    @property
    def kind(self) -> tuple:
        """What is the same in all that are joined."""
        done = [self.spec.preprocess.get(name) for name in ("flatten", "images", "actions")]
        return self.spec.observation_space, self.spec.action_space, done


def _fill(parts: Sequence[_Part], allocate: Allocate) -> Episodes:
    """Columns of all datasets, filled by one copy per episode."""
    spec = replace(parts[0].spec, max_steps=max(part.spec.max_steps for part in parts))
    facts = _facts(parts)
    lengths = np.concatenate([part.file.lengths for part in parts])
    columns = Columns(parts[0].file.label, lengths, spec.observation_space, spec.action_space, spec, allocate)
    numbered = ((part, i) for part in parts for i in range(len(part.file.lengths)))
    for row, ((part, i), (first, end)) in enumerate(zip(numbered, pairwise(columns.starts), strict=True)):
        file, prepare = part.file, None if part.preparation.casts else part.preparation
        flatten = partial(flatten_actions, file.metadata.action_space) if "actions" in spec.preprocess else None
        columns.has_final[row] = file.observations(i, columns.observations[first + row : end + row + 1], prepare)
        file.actions(i, columns.actions[first:end], flatten)
        file.rewards(i, columns.rewards[first:end])
        file.flags(i, "terminations", columns.terminations[first:end])
        file.flags(i, "truncations", columns.truncations[first:end])
    return columns.episodes(spec, facts)


def _facts(parts: Sequence[_Part]) -> dict[str, np.ndarray]:
    """(E, ...) per name: the numbers that all datasets have of every episode; of several also which one it is from."""
    tables = [part.file.facts() for part in parts]
    found = {
        name: np.concatenate([table[name] for table in tables])
        for name, column in tables[0].items()
        if all(name in table and table[name].shape[1:] == column.shape[1:] for table in tables)
    }
    if len(parts) > 1:
        found["dataset"] = np.repeat(np.arange(len(parts)), [len(part.file.lengths) for part in parts])
    return found
