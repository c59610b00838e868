"""What `torch.save` writes of tensors, a zip with a pickle, read so that nothing in it is ever called."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlalgo.errors import CheckpointError, told
from rlutils.data.unpickling import Machine, Refused
from rlutils.machine import host_memory


class _State(dict):
    """What stands for an OrderedDict, which is filled after it is made."""

    def __init__(self) -> None:
        super().__init__()

    def build(self, state: Any) -> None:
        """Leaves its attributes: torch keeps the versions of modules there."""


def _tensor(storage: Tensor, first: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Tensor:
    if not all(type(size) is int for size in shape) or math.prod(shape) > len(storage):
        raise Refused(f"a tensor of shape {shape!r:.60} of {len(storage):,} numbers")
    return storage.as_strided(shape, strides, first)


_NAMES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _State,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}


def read_pickled(file: Path) -> dict[str, Tensor]:
    """The tensors by their names, on the CPU.

    Raises:
        CheckpointError: the file holds anything else, is damaged, or larger than the memory.
    """
    try:
        with zipfile.ZipFile(file) as zipped:
            return _read(file, zipped)
    except Exception as error:
        why = f"is not the zip of plain tensors that torch.save writes, or is damaged ({told(error)})"
        raise CheckpointError(f"{file}: {why}; nothing of it was run; ask for a model.safetensors") from error


def _read(file: Path, zipped: zipfile.ZipFile) -> dict[str, Tensor]:
    members = zipped.infolist()
    if sum(member.file_size for member in members) > min(file.stat().st_size, host_memory()):
        raise Refused("packed, or larger than the memory")
    (pickle,) = (member.filename for member in members if member.filename.endswith("/data.pkl"))
    folder, storages = pickle.removesuffix("data.pkl"), dict[str, Tensor]()
    if f"{folder}byteorder" in zipped.namelist() and zipped.read(f"{folder}byteorder") != b"little":
        raise Refused("its bytes are in another order")

    def storage(ident: Any) -> Tensor:
        _, dtype, key, *_ = ident
        if not isinstance(key, str):  # hashing tuples in tuples overflows the stack
            raise Refused("a storage without a name")
        if key not in storages:
            data = bytearray(zipped.read(f"{folder}data/{key}"))
            storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return storages[key]

    found = Machine(file, io.BytesIO(zipped.read(pickle)), _NAMES, storage).run()
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in found.items()
    ):
        raise Refused("no mapping of tensors")
    return found
