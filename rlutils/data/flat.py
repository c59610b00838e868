"""Files of flat columns, a row for each step: read in blocks, with their ends of episodes."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlalgo import DataSpec, Episodes
from rlalgo.errors import DataError, RlalgoWarning, near
from rlutils.data.columns import Columns, Told, like

COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations")
"""Of steps; the last two may be missing, as others may that `read_flat` knows."""
_BLOCK = 2**20
"""Numbers that are read at a time."""

_SAME = 1e-3
"""Difference, for its own part and for each unit of size, up to which an observation is the one announced."""


class CutWarning(RlalgoWarning):
    """Episodes were cut where next_observations do not go on."""


@dataclass(frozen=True)
class Array:
    """A stored array that is read in parts, from its first row on."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    """(first, end) -> these rows."""

    def whole(self) -> np.ndarray:
        """All rows."""
        return self.read(0, self.shape[0])


def named(label: str, found: Mapping[str, Array], names: Mapping[Any, str]) -> dict[str, Array]:
    """Arrays of a file by our names, where `names` says how the file calls some of them.

    Raises:
        DataError: one that is needed, or that `names` asks for, is missing.
    """
    for name in dict.fromkeys((*COLUMNS[:3], *names)):
        own = names.get(name, name)
        if own not in found:
            there = ", ".join(sorted(found)) or "nothing"
            raise DataError(f"{label}: has no '{own}' ({name}); it holds {there}.{near(own, found)}")
    return {**found, **{name: found[own] for name, own in names.items()}}


def read_flat(
    label: str,
    arrays: Mapping[str, Array],
    told: Told,
    spec: DataSpec | None = None,
    info: Mapping[str, np.ndarray] | None = None,
) -> Episodes:
    """Episodes of flat columns, checked.

    An episode ends where the file's `starts` (E+1,) say, else at a termination or truncation, and every `max_steps` if
    there are no truncations. What was seen after its last step is `final_observations` (E, *S), where `has_final` (E,)
    says so, or the row of `next_observations` (N, *S); where these do not go on, the episode is cut, with a CutWarning.

    Args:
        label: how messages call the data, with its file.
        arrays: by the names of `Episodes` and those above; each (N, ...) if nothing else is said.
        told: what the user says of the data.
        spec: what the file says of it.
        info: (E, ...) numbers of each episode.

    Raises:
        DataError: they hold something that training must not see.
    """
    n = arrays["rewards"].shape[:1]
    for name in (*COLUMNS, "next_observations"):
        if name in arrays and arrays[name].shape[:1] != n:
            raise DataError(f"{label}: {name} have shape {arrays[name].shape}, and rewards {arrays['rewards'].shape}")
    if not n or n[0] == 0:
        raise DataError(f"{label}: holds no steps; record some before training on it")
    starts = _starts(label, arrays, told)
    seen, action = arrays["observations"], arrays["actions"]
    columns = Columns(
        label,
        np.diff(starts),
        spec.observation_space if spec else like(seen.shape[1:], seen.dtype),
        spec.action_space if spec else like(action.shape[1:], action.dtype, actions=True),
        spec,
    )
    for name in (name for name in COLUMNS if name in arrays):
        for first, end in _blocks(arrays[name]):
            columns.fill(first, **{name: arrays[name].read(first, end)})
    if "final_observations" in arrays:
        had = arrays["has_final"].whole() != 0 if "has_final" in arrays else np.ones(len(starts) - 1, bool)
        final = arrays["final_observations"].whole()
        if had.shape != (len(starts) - 1,) or len(final) != len(had):
            raise DataError(f"{label}: {len(final)} final_observations, expected {len(starts) - 1}, one per episode")
        columns.finish(np.flatnonzero(had), final[had])
    elif "next_observations" in arrays:
        then = arrays["next_observations"]
        for first, end in _blocks(then):
            ids = np.arange(*np.searchsorted(starts[1:] - 1, (first, end)))
            columns.finish(ids, then.read(first, end)[starts[ids + 1] - 1 - first])
    return columns.checked(told, info)


def _starts(label: str, arrays: Mapping[str, Array], told: Told) -> np.ndarray:
    """(E+1,) first step of each episode, then N."""
    n = arrays["rewards"].shape[0]
    if "starts" in arrays:
        starts = arrays["starts"].whole()
        whole = starts.dtype.kind in "iu" and starts.ndim == 1 and len(starts) > 1
        if not whole or starts[0] != 0 or starts[-1] != n or (starts[1:] <= starts[:-1]).any():
            raise DataError(f"{label}: starts do not rise from 0 to {n}, the number of steps")
        return starts.astype(np.int64)
    ends = np.zeros(n, bool)
    for name in ("truncations",) if told.continues else ("terminations", "truncations"):
        if name in arrays:
            ends |= arrays[name].whole().reshape(n) != 0
    if told.max_steps and "truncations" not in arrays:
        begins = np.concatenate([[0], np.flatnonzero(ends) + 1])
        played = np.arange(n) - np.repeat(begins, np.diff(np.append(begins, n)))  # (N,) steps of the episode before
        ends |= (played + 1) % told.max_steps == 0
    if "next_observations" in arrays:
        broken = _broken(arrays["observations"], arrays["next_observations"]) & ~ends
        if broken.any():
            where = f"{label}: next_observations do not go on as observations do after step {int(broken.argmax())}"
            warnings.warn(f"{where} ({broken.sum()} such steps): episodes end there", CutWarning, stacklevel=2)
            ends |= broken
    ends[-1] = True
    return np.concatenate([[0], np.flatnonzero(ends) + 1])


def _broken(observations: Array, then: Array) -> np.ndarray:
    """(N,) bool: what was seen next is not the observation of the step that follows."""
    if then.shape != observations.shape:
        return np.zeros(then.shape[0], bool)  # which is refused by its shape
    differs, before = np.zeros(then.shape[0] + 1, bool), np.empty(0)
    for first, end in _blocks(then):
        seen, after = observations.read(first, end), then.read(first, end)
        expected = np.concatenate([before if first else seen[:1], after[:-1]])
        same = np.isclose(expected, seen, _SAME, _SAME, equal_nan=True)  # a file may round one column otherwise
        differs[first:end] = ~same.reshape(end - first, -1).all(1)
        before = after[-1:]
    return differs[1:]


def _blocks(array: Array) -> Iterator[tuple[int, int]]:
    """(first, end) of parts of so many numbers."""
    rows = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    for first in range(0, array.shape[0], rows):
        yield first, min(first + rows, array.shape[0])
