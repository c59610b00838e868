"""The HDF5 file of a Minari dataset, read column by column into arrays that are there already.

Minari's own reader is not used: it decodes the infos of every step, holds each episode twice and answers
damage with bare assertions. The format is small: a group `episode_N` for each episode, in it an array for
each column, or groups of arrays where the space is a Dict or Tuple.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from h5py import h5a, h5d, h5g, h5s
from PIL import Image

from rlalgo.errors import DataError
from rlutils.data.minari_disk import Metadata
from rlutils.data.spaces import OutsideSpace, flatten_batch, is_image, needs_flatten

_BLOCK = 2**20
"""Numbers that are converted at a time."""
_PLAIN: dict[str, type] = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
_NUMBER = spaces.Box(-np.inf, np.inf, ())


class EpisodeFile:
    """The HDF5 file of a dataset; use it as a context manager.

    Low-level calls of h5py are used where they are made for every episode: they take half the time.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.label = metadata.label
        self.path = metadata.folder / "main_data.hdf5"

    def __enter__(self) -> EpisodeFile:
        if not self.path.is_file():
            raise self._damaged(f"{self.path} is missing")
        with self._reading():
            self._file = h5py.File(self.path, "r")
            # The library's cache of metadata would grow to several times the data when episodes are short.
            config = self._file.id.get_mdc_config()
            config.set_initial_size = True
            config.initial_size = config.min_size = config.max_size = 2**20
            self._file.id.set_mdc_config(config)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @contextmanager
    def _reading(self, episode: int | None = None) -> Iterator[None]:
        """HDF5's own errors as DataError."""
        try:
            yield
        except (BlockingIOError, PermissionError) as error:
            why = "is being written" if isinstance(error, BlockingIOError) else "may not be read"
            raise DataError(f"{self.label}: {self.path} {why}: {error}") from error
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            text = error.args[0] if error.args else error
            raise self._damaged(f"{self.path} cannot be read: {text}", episode) from error

    def _damaged(self, message: str, episode: int | None = None) -> DataError:
        where = self.label if episode is None else f"{self.label}: episode {episode}"
        return DataError(f"{where}: {message}; the file is damaged or half-written: copy or record the dataset again")

    def count(self) -> int:
        """E, counted in the file and compared with what the metadata says."""
        with self._reading():
            found = len(self._file)
        if found != self.metadata.episodes:
            raise self._damaged(f"the metadata says {self.metadata.episodes} episodes, the file holds {found}")
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) int64 steps of each episode, counted in the file and compared with what the metadata says."""
        found = self.count()
        lengths = np.zeros(found, np.int64)
        for episode in range(found):
            with self._reading(episode):
                shape = h5d.open(self._file.id, b"episode_%d/rewards" % episode).shape
            where = f"{self.label}: episode {episode}"
            if len(shape) != 1:
                raise DataError(f"{where}: rewards have shape {shape}, expected one dimension")
            if shape[0] == 0:
                raise DataError(f"{where} is empty (no steps); record the dataset without it")
            lengths[episode] = shape[0]
        if lengths.sum() != self.metadata.steps:
            raise self._damaged(f"the metadata says {self.metadata.steps} steps, the file holds {lengths.sum()}")
        return lengths

    def facts(self) -> dict[str, np.ndarray]:
        """(E, ...) per name: the numbers stored with every episode (seed, return, noise, ...)."""
        columns: dict[str, np.ndarray] = {}
        seen: dict[str, int] = {}
        for episode in range(len(self.lengths)):
            with self._reading(episode):
                group = h5g.open(self._file.id, b"episode_%d" % episode)
                for i in range(h5a.get_num_attrs(group)):
                    attribute = h5a.open(group, index=i)
                    plain = _PLAIN.get(attribute.dtype.kind)
                    if plain is None:
                        continue
                    name, shape = attribute.name.decode(), attribute.shape
                    column = columns.get(name)
                    if column is None:
                        column = np.zeros((len(self.lengths), *shape), plain)
                    if column.shape[1:] == shape:
                        column = column.astype(np.promote_types(column.dtype, plain), copy=False)
                        attribute.read(column[episode, ...])
                        seen[name] = seen.get(name, 0) + 1
                    columns[name] = column
        columns = {name: column for name, column in columns.items() if seen[name] == len(column)}
        columns.pop("id", None)
        wrong = np.flatnonzero(columns.pop("total_steps", self.lengths) != self.lengths)
        if len(wrong):
            first = int(wrong[0])
            raise self._damaged(f"its total_steps is not the {self.lengths[first]} steps that it holds", first)
        return columns

    def rewards(self, episode: int, out: np.ndarray) -> None:
        """Into out (T,) float32."""
        self._column(episode, "rewards", _NUMBER, out)

    def flags(self, episode: int, name: str, out: np.ndarray) -> None:
        """`terminations` or `truncations` into out (T,) bool."""
        self._column(episode, name, _NUMBER, out)

    def actions(self, episode: int, out: np.ndarray) -> None:
        """Into out (T, A) float32 or (T,) int64."""
        self._column(episode, "actions", self.metadata.action_space, out)

    def observations(self, episode: int, out: np.ndarray) -> bool:
        """Into out (T+1, *S), flattened if the space needs it.

        Returns:
            Whether the last row was there; if not, the row before it is repeated.
        """
        space, steps = self.metadata.observation_space, len(out) - 1
        leaves = [self._leaf(episode, path, part, out.dtype) for path, part in _leaves("observations", space)]
        rows = sorted({leaf.rows for leaf in leaves})
        if rows not in ([steps], [steps + 1]):
            counts = " and ".join(map(str, rows))
            raise self._damaged(f"{steps} rewards but {counts} observations, expected {steps + 1}", episode)
        if needs_flatten(space):
            self._flatten(episode, out[: rows[0]])
        else:
            self._copy(episode, leaves[0], out[: rows[0]])
        if rows == [steps]:
            out[steps] = out[steps - 1]
        return rows == [steps + 1]

    def _column(self, episode: int, name: str, space: spaces.Space, out: np.ndarray) -> None:
        leaf = self._leaf(episode, name, space, out.dtype)
        if leaf.rows != len(out):
            raise self._damaged(f"{leaf.rows} {name} but {len(out)} rewards", episode)
        self._copy(episode, leaf, out)

    def _leaf(self, episode: int, path: str, space: spaces.Space, expected: np.dtype) -> _Leaf:
        """One stored array, if its shape and type are what they have to be."""
        with self._reading(episode):
            dataset = h5d.open(self._file.id, f"episode_{episode}/{path}".encode())
            (rows, *shape), stored = dataset.shape, dataset.dtype
        where = f"{self.label}: episode {episode}: {path}"
        if _is_jpeg(space, 1 + len(shape)):
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

    def _copy(self, episode: int, leaf: _Leaf, out: np.ndarray) -> None:
        """One stored array into `out`, cast."""
        with self._reading(episode):
            if leaf.direct:
                leaf.dataset.read(h5s.ALL, h5s.ALL, out)  # HDF5 casts on the way: no copy in between
                return
            for rows in _blocks(out):
                out[rows] = self._rows(episode, leaf.path, leaf.space, rows)

    def _flatten(self, episode: int, out: np.ndarray) -> None:
        """The observations into out (rows, D)."""
        space = self.metadata.observation_space
        for rows in _blocks(out):
            with self._reading(episode):
                values = self._rows(episode, "observations", space, rows)
            try:
                out[rows] = flatten_batch(space, values)
            except OutsideSpace as error:
                where = f"{self.label}: episode {episode}, step {rows.start + error.row}"
                raise DataError(f"{where}: observations: {error}") from error

    def _rows(self, episode: int, path: str, space: spaces.Space, rows: slice) -> Any:
        """Some rows of a column, nested as its space is."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            found = _children(path, space)
            parts = {key: self._rows(episode, inner, part, rows) for key, inner, part in found}
            return parts if isinstance(space, spaces.Dict) else list(parts.values())
        dataset = self._file[f"episode_{episode}/{path}"]
        if _is_jpeg(space, dataset.ndim):
            return np.stack([_decode_jpeg(row) for row in dataset[rows]])
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


def _is_jpeg(space: spaces.Space, rank: int) -> bool:
    """Minari's default for images, a row of bytes per frame: too few dimensions for the space."""
    return is_image(space) and rank <= len(space.shape or ())


def _decode_jpeg(row: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row.tobytes())), dtype=np.uint8)
