"""Flat arrays in one .npz file, as numpy.savez writes them, as Episodes."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from rlalgo import DataSpec, Episodes
from rlalgo.errors import DataError, blaming
from rlutils.data.columns import Told, require_file
from rlutils.data.flat import Array, named, read_flat
from rlutils.machine import host_memory

_DENSEST = 1100
"""How often the bytes of a file its arrays may take: zip makes 1,030 zeros one."""

Name = Literal["observations", "actions", "rewards", "terminations", "truncations", "next_observations"]


class NpzSource:
    """Flat arrays in a .npz file, a row for each step.

    `observations` (N, *S), `actions` (N, A) or (N,), `rewards` (N,), and where they are there `terminations` and
    `truncations` (N,) and `next_observations` (N, *S). What `rlalgo data convert` writes besides says the rest:
    `starts` (E+1,), `final_observations` (E, *S), `has_final` (E,), `spec` (JSON) and `info/NAME` (E, ...).
    """

    name: ClassVar[str] = "npz"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """The file."""
        columns: Mapping[Name, str] = field(default_factory=dict)
        """What the file calls a column, where that is another name, such as {terminations: dones}."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"npz:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the file cannot be read, or holds something that training must not see.
        """
        require_file(self.label, self.config.path)
        with blaming(DataError, f"{self.label} cannot be read"), zipfile.ZipFile(self.config.path) as file:
            arrays = _arrays(self.label, file, self.config.path.stat().st_size)
            arrays = named(self.label, arrays, self.config.columns)
            info = {name[5:]: arrays[name].whole() for name in arrays if name.startswith("info/")}
            spec = _spec(self.label, arrays)
            return read_flat(self.label, arrays, self.config, spec, info)


def _arrays(label: str, file: zipfile.ZipFile, size: int) -> dict[str, Array]:
    """The arrays by name, none of which is larger than the file can hold."""
    found, claimed = dict[str, Array](), 0
    for member in file.infolist():
        claimed += member.file_size
        if claimed > _DENSEST * size or member.file_size > host_memory():
            raise DataError(f"{label}: {member.filename} claims {member.file_size:,} bytes, more than there can be")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{label}: {member.filename} is packed otherwise than numpy does; save it with numpy.savez")
        found[member.filename.removesuffix(".npy")] = _array(label, file, member)
    return found


def _array(label: str, file: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """One array, whose header has to say what the member holds."""
    stream = file.open(member)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, transposed, dtype = header(stream)
    shape, begin = shape or (1,), stream.tell()
    row = math.prod(shape[1:]) * dtype.itemsize
    plain = dtype.kind in "biufU"
    if plain and (min(shape) < 0 or begin + shape[0] * row != member.file_size):
        raise DataError(
            f"{label}: {member.filename} has {member.file_size - begin:,} bytes, not those of {shape} {dtype}"
        )

    def read(first: int, end: int) -> np.ndarray:
        if transposed and len(shape) > 1:
            return read_rows(0, shape[0]).reshape(shape[::-1]).T[first:end]
        return read_rows(first, end)

    def read_rows(first: int, end: int) -> np.ndarray:
        if not plain:
            raise DataError(f"{label}: {member.filename} is of {dtype}, not of numbers, and nothing is unpickled")
        stream.seek(begin + first * row)
        found = stream.read((end - first) * row)
        if len(found) < (end - first) * row:
            raise DataError(f"{label}: {member.filename} ends before it should")
        return np.frombuffer(found, dtype).reshape(end - first, *shape[1:])

    return Array(shape, dtype, read)


def _spec(label: str, arrays: Mapping[str, Array]) -> DataSpec | None:
    """What the file says of the data, if `rlalgo data convert` wrote it."""
    if "spec" not in arrays:
        return None
    with blaming(DataError, f"{label}: spec is none"):
        return DataSpec.from_mapping(json.loads(str(arrays["spec"].whole()[0])))
