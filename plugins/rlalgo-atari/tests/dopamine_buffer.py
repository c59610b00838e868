"""The writing side for tests: dopamine's rules for its replay buffer, once more and plainly, with a full memory of
what went in; and what a reader should make of the files, worked out from that memory alone."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("observation", "action", "reward", "terminal")


@dataclass
class Step:
    """A step as it was played."""

    episode: int
    frame: np.ndarray
    action: int
    reward: float
    terminal: bool
    first: bool


@dataclass
class Buffer:
    """A circular buffer of `capacity` rows; three blank rows precede each episode."""

    capacity: int
    shape: tuple[int, int] = (2, 3)
    count: int = 0
    history: list[Step | None] = field(default_factory=list)
    """Everything that was ever added, None for blanks."""

    def __post_init__(self) -> None:
        self.observation = np.full((self.capacity, *self.shape), 77, np.uint8)  # what was never written is anything
        self.action = np.full(self.capacity, 99, np.int32)
        self.reward = np.full(self.capacity, np.nan, np.float32)
        self.terminal = np.full(self.capacity, 1, np.uint8)

    def add(self, step: Step) -> None:
        if self.count == 0 or self.terminal[(self.count - 1) % self.capacity] == 1:
            for _ in range(3):
                self._write(np.zeros(self.shape, np.uint8), 0, 0.0, False, None)
        self._write(step.frame, step.action, step.reward, step.terminal, step)

    def _write(self, frame: np.ndarray, action: int, reward: float, terminal: bool, step: Step | None) -> None:
        row = self.count % self.capacity
        self.observation[row], self.action[row] = frame, action
        self.reward[row], self.terminal[row] = reward, terminal
        self.count += 1
        self.history.append(step)

    def save(self, folder: Path, number: int) -> tuple[int, int]:
        """Writes a checkpoint and returns the part of `history` that it holds: (from, to)."""
        folder.mkdir(exist_ok=True)
        for column in COLUMNS:
            write(folder, f"$store$_{column}", number, getattr(self, column))
        write(folder, "add_count", number, np.array(self.count))
        write(folder, "invalid_range", number, (self.count % self.capacity - 1 + np.arange(5)) % self.capacity)
        return max(0, self.count - self.capacity), self.count


def write(folder: Path, name: str, number: int, values: np.ndarray) -> None:
    with gzip.open(folder / f"{name}_ckpt.{number}.gz", "wb", compresslevel=1) as file:
        np.save(file, values, allow_pickle=False)


def expected(history: list[Step | None], windows: list[tuple[int, int]]) -> list[list[Step]]:
    """The episodes, as far as these parts of a history hold them; parts that touch are one."""
    runs: list[list[int]] = []
    for begin, end in windows:
        if runs and runs[-1][1] == begin:
            runs[-1][1] = end
        else:
            runs.append([begin, end])
    found: list[list[Step]] = []
    for begin, end in runs:
        now = None
        for step in history[begin:end]:
            if step is None:
                continue
            if step.episode != now:
                found.append([])
                now = step.episode
            found[-1].append(step)
    return found


def play(rng: np.random.Generator, lengths: list[int], shape: tuple[int, int] = (2, 3)) -> list[Step]:
    """Episodes of these lengths with random actions and rewards, and no frame like another."""
    steps: list[Step] = []
    for episode, length in enumerate(lengths):
        for t in range(length):
            frame = np.ones(shape, np.uint8)
            frame.flat[:2] = divmod(len(steps), 256)
            action, reward = int(rng.integers(4)), float(rng.integers(-1, 2))
            steps.append(Step(episode, frame, action, reward, t == length - 1, t == 0))
    return steps


def assert_same(episodes: Any, wanted: list[list[Step]]) -> None:
    """Compares what was read, step by step, with what was played."""
    assert len(episodes) == len(wanted)
    for e, steps in enumerate(wanted):
        first, row = int(episodes.starts[e]), int(episodes.first_rows()[e])
        assert int(episodes.lengths()[e]) == len(steps)
        for t, step in enumerate(steps):
            assert np.array_equal(episodes.observations[row + t], step.frame)
            assert int(episodes.actions[first + t]) == step.action
            assert float(episodes.rewards[first + t]) == step.reward
            is_last = t == len(steps) - 1
            assert bool(episodes.terminations[first + t]) == step.terminal
            assert bool(episodes.truncations[first + t]) == (is_last and not step.terminal)
        assert np.array_equal(episodes.observations[row + len(steps)], steps[-1].frame)
    assert not episodes.has_final.any()
