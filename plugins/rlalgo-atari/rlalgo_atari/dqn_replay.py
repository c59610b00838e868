"""The DQN-replay data (Agarwal et al. 2020): what an online DQN saw, as dopamine's replay buffer wrote it to disk.

Two things in the files are no steps: dopamine adds three blank rows (zero frame, action and reward) before each
episode, so that its stacks of four frames never reach into the episode before; they are dropped. And an episode's
last row is its last step: what was seen after it is not in the files (`has_final` is False). Checkpoints that
follow each other without a gap, as all of a recording do, are read as one stream, so that an episode which one
begins and the next one ends is whole. An episode of which the files hold only a part is kept; its last step is
then a truncation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from rlalgo import DataSpec, Episodes
from rlalgo.config import Count, Few, Size, Whole
from rlalgo.errors import DataError, near
from rlutils.data.mapped import Allocate, identity, map_episodes, worthwhile

from rlalgo_atari.env import env_id, preprocessing
from rlalgo_atari.replay_files import FILES, Checkpoint, numbers, read
from rlalgo_atari.replay_parts import Part, close, cut, joined, read_frames, take

_LIMIT = 27_000
"""Steps after which dopamine cut an episode. It marks that end as terminal, which it is not."""


class DQNReplay:
    """The DQN-replay recordings of Atari games: a folder of $store$_*_ckpt.N.gz files."""

    name: ClassVar[str] = "dqn_replay"

    @dataclass(frozen=True)
    class Config:
        path: Path
        """Folder of the files, GAME/1/replay_logs in the original's layout; ~ is your home."""
        game: str
        """The game as the ALE calls it: Breakout, Qbert, SpaceInvaders, ..."""
        checkpoints: tuple[Whole, ...] | None = None
        """Numbers of the checkpoints to read, in that order; null: all in the folder, ascending."""
        steps: Count | None = None
        """Stop at the end of the episode that reaches this many steps; null: read everything."""
        frame_stack: Few = 4
        """Frames that a policy sees at once."""
        clip_rewards: bool = True
        """Train on the sign of each reward. The original files hold clipped rewards in either case."""
        actions: Size | None = None
        """Number of actions; null: as many as the ALE's minimal set for the game has."""
        memory_map: bool | None = None
        """Map frames from a converted copy on disk instead of reading them; null: if they would take more than half of
        the memory."""

        def __post_init__(self) -> None:
            if self.checkpoints is not None and len(set(self.checkpoints)) < max(len(self.checkpoints), 1):
                raise ValueError(f"checkpoints: name one or more, each once, got {list(self.checkpoints)}")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"dqn_replay:{self.config.game}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: files are missing, damaged or not what the configuration says.
        """
        mapped, parts = self.config.memory_map, None
        if mapped is None:
            parts = self._parts()
            mapped = worthwhile(None, sum(len(part.steps) for part in parts) * int(np.prod(parts[0].source.frame)))
        if mapped:
            read = functools.partial(self._read, parts)
            episodes = map_episodes(self.label, self._key(), read)
            episodes = replace(episodes, spec=replace(episodes.spec, frame_stack=self.config.frame_stack))
        else:
            episodes = self._read(parts, np.empty)
        return episodes.clipped() if self.config.clip_rewards else episodes

    def _key(self) -> dict[str, Any]:
        """What a copy depends on: not frame_stack, since what is stacked is not stored, nor clip_rewards."""
        folder = self.config.path.expanduser()
        chosen = self.config.checkpoints or numbers(folder, self.label)
        return {
            **{name: getattr(self.config, name) for name in ("game", "steps", "actions")},
            "files": [identity(folder / FILES["observation"].format(number)) for number in chosen],
        }

    def _read(self, parts: list[Part] | None, allocate: Allocate) -> Episodes:
        """The episodes with rewards as stored, their frames in the array that `allocate` makes, block by block."""
        parts = parts or self._parts()
        actions, rewards, terminals, number, last, headless = joined(parts)  # (N,) each
        ended = np.flatnonzero(last)  # (E,) the last step of each episode
        starts = np.concatenate([[0], ended + 1])  # (E+1,)
        lengths = np.diff(starts)
        terminations = terminals.copy()
        terminations[ended[lengths >= _LIMIT]] = False
        observations = allocate((len(last) + len(ended), *parts[0].source.frame), np.uint8)
        rows = np.arange(len(last)) + np.cumsum(last) - last  # (N,) row of `observations` of each step
        read_frames(parts, rows, observations)
        for row in rows[ended]:
            observations[row + 1] = observations[row]
        return Episodes(
            observations=torch.from_numpy(observations),
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(rewards),
            terminations=torch.from_numpy(terminations),
            truncations=torch.from_numpy(last & ~terminations),
            starts=torch.from_numpy(starts),
            has_final=torch.zeros(len(ended), dtype=torch.bool),
            info={
                "checkpoint": torch.from_numpy(number[starts[:-1]]),
                "whole": torch.from_numpy(terminals[ended] & ~headless[starts[:-1]]),
            },
            spec=self._spec(parts[0].source.frame, int(lengths.max())),
        ).check(self.label)

    def _spec(self, frame: tuple[int, ...], longest: int) -> DataSpec:
        return DataSpec(
            observation_space=spaces.Box(0, 255, frame, np.uint8),
            action_space=spaces.Discrete(self._actions()),
            frame_stack=self.config.frame_stack,
            max_steps=max(_LIMIT, longest),
            env_id=env_id(self.config.game),
            preprocess=preprocessing(frame, full_action_space=self.config.actions == 18),
        )

    def _actions(self) -> int:
        """Number of actions."""
        name = env_id(self.config.game)
        if name not in gymnasium.registry:
            games = [known[4:-3] for known in gymnasium.registry if known.startswith("ALE/") and known.endswith("-v5")]
            raise DataError(f"{self.label}: the ALE has no such game.{near(self.config.game, games)}")
        return self.config.actions or _minimal_actions(name)

    def _parts(self) -> list[Part]:
        """What to take of each checkpoint, one or more steps in all; the frames are not read yet."""
        config = self.config
        folder, actions = config.path.expanduser(), self._actions()
        there = numbers(folder, self.label)
        for number in config.checkpoints or ():
            if number not in there:
                raise DataError(f"{self.label}: {folder} has no checkpoint {number}; it has {there}")
        parts: list[Part] = []
        before: Checkpoint | None = None
        due = 0
        for number in there if config.checkpoints is None else config.checkpoints:
            source = read(folder, number, self.label)
            if not source.follows(before):
                close(parts)
                if cut(parts, config.steps):
                    break
            part, due = take(source, before, due)
            part.check(actions, parts[0].source.frame if parts else source.frame)
            parts.append(part)
            if cut(parts, config.steps):
                break
            before = source
        close(parts)
        if not any(len(part.steps) for part in parts):
            raise DataError(f"{self.label}: the checkpoints in {folder} hold no steps; choose others")
        return parts


@functools.cache
def _minimal_actions(name: str) -> int:
    """How many actions a game itself has."""
    env = gymnasium.make(name, disable_env_checker=True)
    assert isinstance(env.action_space, spaces.Discrete)
    env.close()
    return int(env.action_space.n)
