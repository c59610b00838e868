"""The HDF5 file of a Minari dataset, read column by column into arrays that are there already.

Minari's own reader is not used: it decodes the infos of every step, holds each episode twice and answers
damage with bare assertions. The format is small: a group `episode_N` for each episode, in it an array for
each column, or groups of arrays where the space is a Dict or Tuple.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from h5py import h5a, h5d, h5g, h5s

from rlalgo.errors import DataError
from rlutils.data.hdf5 import Hdf5
from rlutils.data.images import decode_image, is_jpeg
from rlutils.data.minari_disk import Metadata
from rlutils.data.spaces import OutsideSpace, is_image

_BLOCK = 2**20
"""Numbers that are converted at a time."""
_LARGEST_FACT = 1000
"""Numbers of one fact of an episode."""
NO_FACTS = ("id", "episode", "unclipped_return")
"""Names that numbers of an episode may not have: the last two mean something else in training."""
_PLAIN: dict[str, type] = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
_NUMBER = spaces.Box(-np.inf, np.inf, ())

Convert = Callable[[Any], np.ndarray]
"""T raw values, time first and nested as their space is -> T stored ones; OutsideSpace for what cannot be stored."""


class EpisodeFile(Hdf5):
    """The HDF5 file of a dataset; use it as a context manager.

    Low-level calls of h5py are used where they are made for every episode: they take half the time.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        super().__init__(metadata.label, metadata.folder / "main_data.hdf5")

    def count(self) -> int:
        """E, counted in the file and compared with what the metadata says."""
        with self.reading():
            found = len(self.file)
        if found != self.metadata.episodes:
            raise self.damaged(f"the metadata says {self.metadata.episodes} episodes, the file holds {found}")
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) int64 steps of each episode, counted in the file and compared with what the metadata says."""
        found = self.count()
        lengths = np.zeros(found, np.int64)
        for episode in range(found):
            _, shape, _ = self.array(f"episode_{episode}/rewards", episode)
            where = f"{self.label}: episode {episode}"
            if len(shape) != 1:
                raise DataError(f"{where}: rewards have shape {shape}, expected one dimension")
            if shape[0] == 0:
                raise DataError(f"{where} is empty (no steps); record the dataset without it")
            lengths[episode] = shape[0]
        if lengths.sum() != self.metadata.steps:
            raise self.damaged(f"the metadata says {self.metadata.steps} steps, the file holds {lengths.sum()}")
        return lengths

    def facts(self) -> dict[str, np.ndarray]:
        """(E, ...) per name: the numbers stored with every episode (seed, return, noise, ...)."""
        columns: dict[str, np.ndarray] = {}
        seen: dict[str, int] = {}
        for episode in range(len(self.lengths)):
            with self.reading(episode):
                group = h5g.open(self.file.id, b"episode_%d" % episode)
                for i in range(h5a.get_num_attrs(group)):
                    attribute = h5a.open(group, index=i)
                    plain, name, shape = _PLAIN.get(attribute.dtype.kind), attribute.name.decode(), attribute.shape
                    if plain is None or name in NO_FACTS or math.prod(shape) > _LARGEST_FACT:
                        continue
                    column = columns.get(name)
                    if column is None:
                        column = np.zeros((len(self.lengths), *shape), plain)
                    if column.shape[1:] == shape:
                        column = column.astype(np.promote_types(column.dtype, plain), copy=False)
                        attribute.read(column[episode, ...])
                        seen[name] = seen.get(name, 0) + 1
                    columns[name] = column
        columns = {name: column for name, column in columns.items() if seen[name] == len(column)}
        told = columns.pop("total_steps", self.lengths)  # (E,), or of any shape
        wrong = np.flatnonzero(told != self.lengths if told.ndim == 1 else self.lengths)
        if len(wrong):
            first = int(wrong[0])
            raise self.damaged(f"its total_steps is not the {self.lengths[first]} steps that it holds", first)
        return columns

    def rewards(self, episode: int, out: np.ndarray) -> None:
        """Into out (T,) float32."""
        self._column(episode, "rewards", _NUMBER, out)

    def flags(self, episode: int, name: str, out: np.ndarray) -> None:
        """`terminations` or `truncations` into out (T,) bool."""
        self._column(episode, name, _NUMBER, out)

    def actions(self, episode: int, out: np.ndarray, convert: Convert | None = None) -> None:
        """Into out (T, A) float32, (T,) or (T, M) int64."""
        self._column(episode, "actions", self.metadata.action_space, out, convert)

    def observations(self, episode: int, out: np.ndarray, convert: Convert | None = None) -> bool:
        """Into out (T+1, *S).

        Returns:
            Whether the last row was there; if not, the row before it is repeated.
        """
        space, steps = self.metadata.observation_space, len(out) - 1
        leaves = [
            self._leaf(episode, path, part, np.dtype(np.uint8 if is_image(part) else np.float32))
            for path, part in _leaves("observations", space)
        ]
        rows = sorted({leaf.rows for leaf in leaves})
        if rows not in ([steps], [steps + 1]):
            counts = " and ".join(map(str, rows))
            raise self.damaged(f"{steps} rewards but {counts} observations, expected {steps + 1}", episode)
        self._fill(episode, "observations", space, leaves[0], out[: rows[0]], convert)
        if rows == [steps]:
            out[steps] = out[steps - 1]
        return rows == [steps + 1]

    def _column(
        self, episode: int, name: str, space: spaces.Space, out: np.ndarray, convert: Convert | None = None
    ) -> None:
        leaf = self._leaf(episode, name, space, out.dtype)
        if leaf.rows != len(out):
            raise self.damaged(f"{leaf.rows} {name} but {len(out)} rewards", episode)
        self._fill(episode, name, space, leaf, out, convert)

    def _leaf(self, episode: int, path: str, space: spaces.Space, expected: np.dtype) -> _Leaf:
        """One stored array, if its shape and type are what they have to be."""
        dataset, found, stored = self.array(f"episode_{episode}/{path}", episode)
        with self.reading(episode, path):
            rows, *shape = found
        where = f"{self.label}: episode {episode}: {path}"
        if is_jpeg(space, 1 + len(shape)) and np.uint8 in (stored, h5py.check_vlen_dtype(stored)):
            return _Leaf(path, space, dataset, rows, direct=False)
        if tuple(shape) != space.shape:
            raise DataError(f"{where} have shape {tuple(shape)} per step, their space says {space.shape}")
        if expected == np.uint8:
            right, kind = stored == np.uint8, "uint8"
        elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            right, kind = stored.kind in "iub", "integers"
        else:
            right, kind = stored.kind in "iubf", "numbers"
        if not right:
            raise DataError(f"{where} are {stored}, expected {kind}")
        direct = stored == expected or (expected.kind == "f" and stored.kind in "iuf")
        return _Leaf(path, space, dataset, rows, direct)

    def _fill(
        self, episode: int, name: str, space: spaces.Space, leaf: _Leaf, out: np.ndarray, convert: Convert | None
    ) -> None:
        """A column into `out`: the one stored array, cast, or what becomes of all of them."""
        if leaf.direct and convert is None:
            with self.reading(episode):
                leaf.dataset.read(h5s.ALL, h5s.ALL, out)  # HDF5 casts on the way: no copy in between
            return
        for rows in _blocks(out):
            with self.reading(episode):
                values = self._rows(episode, name, space, rows)
            try:
                out[rows] = values if convert is None else convert(values)
            except OutsideSpace as error:
                where = f"{self.label}: episode {episode}, step {rows.start + error.row}"
                raise DataError(f"{where}: {name}: {error}") from error

    def _rows(self, episode: int, path: str, space: spaces.Space, rows: slice) -> Any:
        """Some rows of a column, nested as its space is."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            found = _children(path, space)
            parts = {key: self._rows(episode, inner, part, rows) for key, inner, part in found}
            return parts if isinstance(space, spaces.Dict) else list(parts.values())
        dataset = self.file[f"episode_{episode}/{path}"]
        if is_jpeg(space, dataset.ndim):
            return np.stack([decode_image(row.tobytes(), space.shape or ()) for row in dataset[rows]])
        return dataset[rows]


@dataclass(frozen=True)
class _Leaf:
    """One array of an episode."""

    path: str
    space: spaces.Space
    dataset: h5d.DatasetID
    rows: int
    direct: bool
    """Whether HDF5 itself can cast it to what is needed."""


def _children(path: str, space: spaces.Dict | spaces.Tuple) -> Iterator[tuple[Any, str, spaces.Space]]:
    """(key, path in the file, space) of each part."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield key, f"{path}/{key}", part
    else:
        for i, part in enumerate(space.spaces):
            yield i, f"{path}/_index_{i}", part


def _leaves(path: str, space: spaces.Space) -> Iterator[tuple[str, spaces.Space]]:
    """(path in the file, space) of every array that a column of this space is stored as."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, inner, part in _children(path, space):
            yield from _leaves(inner, part)
    else:
        yield path, space


def _blocks(out: np.ndarray) -> Iterator[slice]:
    """The rows in parts, so that one huge episode needs no more memory than many small ones."""
    size = max(1, _BLOCK // max(1, out[:1].size))
    for first in range(0, len(out), size):
        yield slice(first, min(first + size, len(out)))
