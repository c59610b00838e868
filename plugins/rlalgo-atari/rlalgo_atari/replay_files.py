"""The files of dopamine's replay buffer: gzip'd .npy columns, one of each per checkpoint, in circular order.

The buffer's row `add_count % capacity` is the next to be written, hence the oldest once the buffer is full; before
that the rows from `add_count` on hold nothing. `invalid_range` follows from add_count and is not read.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rlalgo.errors import DataError

FILES = {
    "observation": "$store$_observation_ckpt.{}.gz",
    "action": "$store$_action_ckpt.{}.gz",
    "reward": "$store$_reward_ckpt.{}.gz",
    "terminal": "$store$_terminal_ckpt.{}.gz",
    "add_count": "add_count_ckpt.{}.gz",
}
_KINDS = {"action": "integers", "reward": "floats", "terminal": "integers", "add_count": "an integer"}
_BLOCK = 128
"""Frames that are decompressed at a time."""
_DENSEST = 1100
"""How many bytes gzip makes of one at most."""


@dataclass(frozen=True)
class Checkpoint:
    """The small columns of one checkpoint, n rows in the order in which they were recorded."""

    path: Path
    """Of the frames."""
    where: str
    """How messages call it."""
    number: int
    count: int
    """Rows recorded up to its end, those of earlier checkpoints included."""
    frame: tuple[int, ...]
    """(H, W)"""
    rows: np.ndarray
    """(n,) int64: where in the file each one stands."""
    actions: np.ndarray
    """(n,) integers."""
    rewards: np.ndarray
    """(n,) floats."""
    terminals: np.ndarray
    """(n,) bool."""

    def follows(self, other: Checkpoint | None) -> bool:
        """Whether its first row was recorded right after the other's last one."""
        return other is not None and other.count == self.count - len(self.rows)

    def blocks(self, last: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first file row, frames (b, H, W)) from the file's beginning up to row `last` at least.

        The array is the same one each time, so that frames are never held twice.
        """
        with _npy(self.path, self.where) as (shape, dtype, file):
            buffer = np.empty((_BLOCK, *shape[1:]), dtype)
            for first in range(0, last + 1, _BLOCK):
                block = buffer[: shape[0] - first]
                _fill(file, block)
                if first + len(block) == shape[0]:
                    _finish(file)
                yield first, block

    def black(self, rows: np.ndarray) -> dict[int, bool]:
        """Whether the frames at these file rows are all zero; reads the file as far as needed."""
        wanted = {int(row) for row in rows}
        found: dict[int, bool] = {}
        for first, block in self.blocks(max(wanted, default=-1)):
            found.update({row: not block[row - first].any() for row in wanted if first <= row < first + len(block)})
        return found


def numbers(folder: Path, label: str) -> list[int]:
    """Numbers of the checkpoints that the folder has frames of, ascending.

    Raises:
        DataError: there is no such folder, or it has none.
    """
    if not folder.is_dir():
        raise DataError(f"{label}: {folder} is no folder; set `path` to the one with the $store$_*_ckpt.*.gz files")
    pattern = re.compile(re.escape(FILES["observation"]).replace(r"\{\}", r"(\d+)"))
    found = sorted(int(match[1]) for entry in folder.iterdir() if (match := pattern.fullmatch(entry.name)))
    if not found:
        raise DataError(
            f"{label}: {folder} has no {FILES['observation'].format('N')}; the DQN-replay data has them in "
            "GAME/1/replay_logs"
        )
    return found


def read(folder: Path, number: int, label: str) -> Checkpoint:
    """A checkpoint without its frames.

    Raises:
        DataError: a file is missing or damaged, or the files do not fit together.
    """
    where = f"{label}: checkpoint {number}"
    paths = {column: folder / name.format(number) for column, name in FILES.items()}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(f"{where}: {folder} lacks {', '.join(missing)}; copy all files of the checkpoint")
    with _npy(paths["observation"], where) as (shape, dtype, _):
        if len(shape) != 3 or 0 in shape or dtype != np.uint8:
            raise DataError(f"{where}: {paths['observation'].name} is {shape} {dtype}, expected (rows, H, W) uint8")
    columns = {column: _column(column, path, where) for column, path in paths.items() if column != "observation"}
    capacity, count = shape[0], int(columns["add_count"])
    for column in ("action", "reward", "terminal"):
        if columns[column].shape != (capacity,):
            raise DataError(
                f"{where}: {paths[column].name} is {columns[column].shape}, but there are {capacity} frames; "
                "the files are of different recordings, copy them again"
            )
    if count < 0:
        raise DataError(f"{where}: {paths['add_count'].name} says {count}, expected 0 or more; copy it again")
    oldest = count % capacity if count >= capacity else 0
    rows = (oldest + np.arange(min(count, capacity))) % capacity
    return Checkpoint(
        paths["observation"],
        where,
        number,
        count,
        shape[1:],
        rows,
        columns["action"][rows],
        columns["reward"][rows],
        columns["terminal"][rows] != 0,
    )


def _column(name: str, path: Path, where: str) -> np.ndarray:
    with _npy(path, where) as (shape, dtype, file):
        if shape != () and name == "add_count":
            raise DataError(f"{where}: {path.name} has shape {shape}, expected a single number")
        if dtype.kind not in {"reward": "f", "terminal": "iub"}.get(name, "iu"):
            raise DataError(f"{where}: {path.name} holds {dtype}, expected {_KINDS[name]}")
        values = np.empty(shape, dtype)
        _fill(file, values)
        _finish(file)
    return values


@contextmanager
def _npy(path: Path, where: str) -> Iterator[tuple[tuple[int, ...], np.dtype, gzip.GzipFile]]:
    """Shape, type and the stream of values of a gzip'd .npy file; any damage met while it is read as DataError."""
    try:
        with gzip.open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"unknown version {version}")
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
            if fortran or dtype.hasobject:
                raise ValueError("not a plain array in C order")
            if math.prod(shape) * dtype.itemsize > _DENSEST * path.stat().st_size:
                raise ValueError(f"it says {shape}, more than it can hold")
            yield shape, dtype, file
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{where}: {path} cannot be read ({error}): it is damaged or cut off, copy it again") from error


def _fill(file: gzip.GzipFile, out: np.ndarray) -> None:
    """The next values of the stream into `out`."""
    view = out.reshape(-1).view(np.uint8).data
    while len(view):
        got = file.readinto(view)
        if not got:
            raise EOFError("it ends too early")
        view = view[got:]


def _finish(file: gzip.GzipFile) -> None:
    """Reads the end of the stream, where gzip keeps the checksum."""
    if file.read(1):
        raise ValueError("it holds more than its header says")
