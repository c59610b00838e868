"""What is taken of each checkpoint of a recording: which rows are steps, which are blank, where episodes end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rlalgo.errors import DataError

from rlalgo_atari.replay_files import Checkpoint

BLANKS = 3
"""Blank rows before each episode: dopamine's stack of four, less one."""


@dataclass
class Part:
    """What is taken of a checkpoint: m steps, as rows in the order of recording."""

    source: Checkpoint
    steps: np.ndarray
    """(m,) int64"""
    blanks: np.ndarray
    """(b,) int64: rows that have to be blank."""
    last: np.ndarray
    """(m,) bool: steps that are the last of their episode as far as the files have it."""
    headless: bool
    """Whether the first step is not the first of its episode, and those before it are not in the files."""

    def check(self, actions: int, frame: tuple[int, ...]) -> None:
        """Raises DataError unless the steps have actions below that number and the frames that shape."""
        source, taken = self.source, self.source.actions[self.steps]
        if source.frame != frame:
            raise DataError(f"{source.where}: frames are {source.frame}, those before it {frame}; read them apart")
        outside = (taken < 0) | (taken >= actions)
        if outside.any():
            row = source.rows[self.steps[outside.argmax()]]
            raise DataError(
                f"{source.where}: row {row}: action {taken[outside.argmax()]} is outside 0 to {actions - 1} "
                f"({outside.sum()} such rows in all). Is `game` right? If it was played with all 18 actions, "
                "set `actions: 18`"
            )
        for column in (source.actions, source.rewards, source.terminals):
            if column[self.blanks].any():
                self.refuse_blank(source.rows[self.blanks[column[self.blanks].argmax()]])

    def refuse_blank(self, row: int) -> None:
        """Raises DataError for a file row that should be blank and is not."""
        raise DataError(
            f"{self.source.where}: row {row} should be one of the {BLANKS} blank rows before an episode, and is not; "
            "only buffers that dopamine wrote with stacks of four can be read"
        )


def take(source: Checkpoint, before: Checkpoint | None, due: int) -> tuple[Part, int]:
    """All steps of a checkpoint, and how many blank rows are still to come after its end.

    Args:
        source: the checkpoint.
        before: the one read before it, whose last episode goes on here if this one follows it.
        due: blank rows that were still to come then.
    """
    n, joins = len(source.rows), source.follows(before)
    if not joins:
        due = _leading_blanks(source)
    blank = np.zeros(n + BLANKS, bool)
    blank[:due] = True
    ends = np.flatnonzero(source.terminals)
    for k in range(1, BLANKS + 1):
        blank[ends + k] = True
    steps = np.flatnonzero(~blank[:n])
    part = Part(source, steps, np.flatnonzero(blank[:n]), source.terminals[steps], not joins and due == 0)
    return part, int(blank[n:].sum())


def _leading_blanks(source: Checkpoint) -> int:
    """Blank rows at the beginning; the place alone does not tell, for a wrapped buffer begins anywhere."""
    head = slice(0, BLANKS)
    idle = (source.actions[head] == 0) & (source.rewards[head] == 0) & ~source.terminals[head]
    rows = source.rows[head][np.logical_and.accumulate(idle)]
    black = source.black(rows)
    return int(np.logical_and.accumulate([black[int(row)] for row in rows]).sum())


def close(parts: Sequence[Part]) -> None:
    """Nothing follows what was read so far: the last step read is the last of its episode."""
    for part in reversed(parts):
        if len(part.steps):
            part.last[-1] = True
            return


def cut(parts: Sequence[Part], steps: int | None) -> bool:
    """Whether an episode of the newest part ends at that many steps in all or above; what follows it is dropped."""
    if steps is None or not parts:
        return False
    newest = parts[-1]
    before = sum(len(part.steps) for part in parts[:-1])
    enough = np.flatnonzero(newest.last & (before + np.arange(1, len(newest.steps) + 1) >= steps))
    if not len(enough):
        return False
    end = enough[0] + 1
    newest.blanks = newest.blanks[newest.blanks < newest.steps[end - 1]]
    newest.steps, newest.last = newest.steps[:end], newest.last[:end]
    return True


def joined(parts: Sequence[Part]) -> tuple[np.ndarray, ...]:
    """(N,) each: actions int64, rewards float32, terminals, number of the checkpoint, `last`, `headless`."""

    def join(column: Callable[[Part], Any], dtype: Any) -> np.ndarray:
        return np.concatenate([column(part) for part in parts]).astype(dtype)

    return (
        join(lambda part: part.source.actions[part.steps], np.int64),
        join(lambda part: part.source.rewards[part.steps], np.float32),
        join(lambda part: part.source.terminals[part.steps], bool),
        join(lambda part: np.full(len(part.steps), part.source.number), np.int64),
        join(lambda part: part.last, bool),
        join(lambda part: (np.arange(len(part.steps)) == 0) & part.headless, bool),
    )


def read_frames(parts: Sequence[Part], rows: np.ndarray, out: np.ndarray) -> None:
    """Every step's frame into its row of `out`, block by block in the order of the files."""
    done = 0
    for part in parts:
        count, source = len(part.steps), part.source
        if not count:
            continue
        end = 1 + int(source.rows[np.concatenate([part.steps, part.blanks])].max())
        target = np.full(end, -1)
        target[source.rows[part.steps]] = rows[done : done + count]
        blank = np.zeros(end, bool)
        blank[source.rows[part.blanks]] = True
        for first, block in source.blocks(end - 1):
            here = slice(first, first + len(block))
            wanted = target[here] >= 0
            out[target[here][wanted]] = block[: len(wanted)][wanted]
            blanks = np.flatnonzero(blank[here])
            shown = block[blanks].any(axis=(1, 2))
            if shown.any():
                part.refuse_blank(first + int(blanks[shown.argmax()]))
        done += count
