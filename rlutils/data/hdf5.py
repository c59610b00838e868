"""HDF5 files read with distrust: what they claim is compared with their size, and no link is followed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from h5py import h5d, h5l

from rlalgo.errors import DataError

_DENSEST = 2200
"""How often the bytes of a file its arrays may take: gzip makes 1,030 zeros one, and some are opened twice."""


def damaged(label: str, message: str, episode: int | None = None) -> DataError:
    """What to raise for files that do not hold what they have to."""
    where = label if episode is None else f"{label}: episode {episode}"
    return DataError(f"{where}: {message}; the file is damaged or half-written: copy or record the dataset again")


def limit_cache(file: h5py.File) -> None:
    """The library's cache of metadata would grow to several times the data when episodes are short."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.initial_size = config.min_size = config.max_size = 2**20
    file.id.set_mdc_config(config)


class Hdf5:
    """An HDF5 file; use it as a context manager.

    Args:
        label: how messages call the data.
        path: of the file.
    """

    def __init__(self, label: str, path: Path) -> None:
        self.label, self.path = label, path

    def __enter__(self) -> Self:
        if not self.path.is_file():
            raise self.damaged(f"{self.path} is missing, or is no file")
        self._claimed, self._most = 0, _DENSEST * self.path.stat().st_size
        with self.reading():
            self.file = h5py.File(self.path, "r")
            limit_cache(self.file)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        if isinstance(error, MemoryError):
            raise DataError(f"{self.label}: {self.path} does not fit into the memory: {error}") from error

    @contextmanager
    def reading(self, episode: int | None = None, path: str = "") -> Iterator[None]:
        """HDF5's own errors as DataError."""
        try:
            yield
        except (BlockingIOError, PermissionError) as error:
            why = "is being written" if isinstance(error, BlockingIOError) else "may not be read"
            raise DataError(f"{self.label}: {self.path} {why}: {error}") from error
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            text = error.args[0] if error.args else error
            raise self.damaged(f"{self.path} cannot be read: {path and path + ': '}{text}", episode) from error

    def damaged(self, message: str, episode: int | None = None) -> DataError:
        """`damaged` about this file."""
        return damaged(self.label, message, episode)

    def array(self, path: str, episode: int | None = None) -> tuple[h5d.DatasetID, tuple[int, ...], np.dtype]:
        """An array with its shape and type, if it lies in this file and can be as large as it says."""
        parts = path.encode().split(b"/")
        with self.reading(episode, path if episode is None else path.partition("/")[2]):
            for depth in range(len(parts)):
                if self.file.id.links.get_info(b"/".join(parts[: depth + 1])).type != h5l.TYPE_HARD:
                    raise ValueError("a link, which is not followed")
            array = h5d.open(self.file.id, b"/".join(parts))
            plan = array.get_create_plist()
            layout = plan.get_layout()
            if layout == h5d.VIRTUAL or plan.get_external_count():
                raise ValueError("kept in other files, which are not opened")
            shape, dtype = array.shape, array.dtype
            held = map(max, shape, plan.get_chunk()) if layout == h5d.CHUNKED else shape  # a chunk is read as a whole
            self._claimed += math.prod(held) * dtype.itemsize
            if self._claimed > self._most:
                raise ValueError(f"shape {shape}, more than the file can hold")
        return array, shape, dtype
