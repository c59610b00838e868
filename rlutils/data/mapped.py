"""Observations that need not fit into memory: a converted copy on disk, mapped rather than read.

The first load converts; later ones open the copy in milliseconds, and only the pages that batches touch take memory.
A process dies (SIGBUS) when a mapped file is cut. So a copy is complete before it gets its name, is never written again
(it may not even be opened for writing), and goes as a whole: whoever has it mapped keeps it. Its folder has to be the
user's own and closed to others, and a checksum says whether it is what was written.
"""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from rlalgo import DataSpec, Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import DataError, RlalgoError
from rlutils.config.files import cache_folder, own_folder, read_as, reserve, write_atomic, write_yaml
from rlutils.machine import host_memory

Allocate = Callable[[tuple[int, ...], Any], np.ndarray]
"""Shape and type -> the array to fill with observations: `numpy.empty`, or one that lies on disk."""

_COLUMNS = ("actions", "rewards", "terminations", "truncations", "starts", "has_final")
_FORMAT = 2


def worthwhile(option: bool | None, size: int) -> bool:
    """The option if there is one; else whether `size` bytes are more than half of this machine's memory."""
    return size > host_memory() // 2 if option is None else option


def identity(file: Path) -> dict[str, Any]:
    """What changes when a file does, without reading it; DataError if it is not there."""
    try:
        found = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    return {"path": str(file.resolve()), "size": found.st_size, "mtime": found.st_mtime_ns}


def map_episodes(label: str, key: Mapping[str, Any], load: Callable[[Allocate], Episodes]) -> Episodes:
    """Episodes whose observations are mapped from a converted copy.

    Args:
        label: how messages call the data.
        key: plain values that say which data it is and what was done to it; another key is another copy.
        load: makes the episodes, checked, with their observations in the array that its argument allocates. Called
            where there is no copy yet.

    Raises:
        DataError: the copy cannot be written (no room, say) or read.
    """
    digest = hashlib.sha256(json.dumps({**key, "format": _FORMAT}, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-')[:80]}-{digest}"
    if not folder.exists():
        _convert(label, folder, load)
    try:
        return _open(folder)
    except (OSError, safetensors.SafetensorError, RlalgoError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{label}: its converted copy {folder} is not used ({_why(error)}); delete the folder, and it will be "
            "converted again, or set RLALGO_CACHE to a folder of your own"
        ) from error


def _convert(label: str, folder: Path, load: Callable[[Allocate], Episodes]) -> None:
    """Writes the copy under another name, and renames it when it is complete."""
    with _writing(label, folder):
        temporary = own_folder(folder.parent, folder.name, partial(shutil.rmtree, ignore_errors=True))
    arrays: list[np.memmap] = []

    def allocate(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        path, size = temporary / "observations.bin", int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not size:
            return np.empty(shape, dtype)  # no episodes, which `load` will refuse
        with _writing(label, folder):
            reserve(path, size)
            arrays.append(np.memmap(path, dtype, "r+", shape=shape))
        return arrays[-1]

    try:
        episodes = load(allocate)
        columns = {name: getattr(episodes, name) for name in _COLUMNS}
        columns |= {f"info/{name}": column for name, column in episodes.info.items()}
        columns = {name: column.contiguous() for name, column in columns.items()}
        with _writing(label, folder):
            for array in arrays:
                array.flush()
            stored, spec = safetensors.torch.save(columns), episodes.spec.to_mapping()
            write_atomic(temporary / "columns.safetensors", stored)
            made = {"spec": spec, "checksum": _checksum(folder, spec, stored, episodes)}
            write_yaml(temporary / "copy.yaml", made)
            for file in temporary.iterdir():
                file.chmod(0o400)
            try:
                os.replace(temporary, folder)
            except OSError:
                if not folder.exists():  # else another process was faster, and its copy is as good
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _writing(label: str, folder: Path) -> Iterator[None]:
    """What the disk has against a copy, as DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{label}: no converted copy can be written to {folder} ({_why(error)}); set RLALGO_CACHE to a folder with "
            "room, or `memory_map: false` in the source"
        ) from error


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class _Made:
    """copy.yaml."""

    spec: dict[str, Any]
    checksum: str


def _checksum(folder: Path, spec: Mapping[str, Any], columns: bytes, episodes: Episodes) -> str:
    """Of all that a copy is; of large observations a part (`fingerprint`)."""
    text = f"{folder.name} {json.dumps(spec, sort_keys=True)} {fingerprint(episodes)} "
    return hashlib.blake2b(text.encode() + columns, digest_size=16).hexdigest()


def _open(folder: Path) -> Episodes:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, "it is a link, belongs to another user or may be written by others")
    if not all(stat.S_ISREG(path.lstat().st_mode) for path in folder.iterdir()):
        raise ValueError("not all in it are files")
    made: _Made = read_as(_Made, folder / "copy.yaml")
    spec, stored = DataSpec.from_mapping(made.spec), (folder / "columns.safetensors").read_bytes()
    columns = safetensors.torch.load(stored)
    rows = len(columns["rewards"]) + len(columns["has_final"])
    shape = (rows, *(spec.observation_space.shape or ()))
    dtype = torch.from_numpy(np.empty(0, spec.observation_space.dtype)).dtype
    # Private, so that whoever writes into the tensor changes it for themselves alone; and without memory set aside for
    # that, since the file may be larger than all there is.
    with (folder / "observations.bin").open("rb") as file:
        if os.fstat(file.fileno()).st_size != int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(f"observations.bin has another size than {shape} {dtype} takes")
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    observations = torch.frombuffer(pages, dtype=dtype).view(shape)
    info = {name.removeprefix("info/"): column for name, column in columns.items() if name.startswith("info/")}
    rest: dict[str, Any] = {name: columns[name] for name in _COLUMNS}
    episodes = Episodes(observations=observations, **rest, info=info, spec=spec, mapped=True)
    if _checksum(folder, made.spec, stored, episodes) != made.checksum:
        raise ValueError("its checksum is another than that of what was written")
    return episodes
