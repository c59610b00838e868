"""safetensors files. What they claim is asked of the file alone, before memory is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rlalgo.errors import CheckpointError
from rlutils.checkpoints.plain import DTYPES
from rlutils.machine import host_memory

WORDS = ("BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64")
"""What the files call `DTYPES`."""


def read_shapes(file: Path, cure: str) -> dict[str, Tensor]:
    """The tensors of a file without their memory (on torch's meta device).

    Args:
        file: to read.
        cure: what to do about a file that is none, for the error to end with.

    Raises:
        CheckpointError: it is missing, broken, or larger than the memory.
    """
    with _opened(file, cure) as found:
        parts = {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118 (it is no mapping)
        kinds = {name: DTYPES[WORDS.index(part.get_dtype())] for name, part in parts.items()}
        return {name: torch.empty(part.get_shape(), dtype=kinds[name], device="meta") for name, part in parts.items()}


def read_tensors(file: Path, cure: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and what else was written into it; as `read_shapes`.

    They are no map of the file: it may be cut while they are used.
    """
    with _opened(file, cure) as found:
        return safetensors.torch.load(file.read_bytes()), found.metadata() or {}


@contextlib.contextmanager
def _opened(file: Path, cure: str) -> Iterator[Any]:
    try:
        if not file.is_file():
            raise OSError("there is no such file")
        if file.stat().st_size > host_memory():
            raise OSError("it is larger than this machine's memory")
        with safetensors.safe_open(file, "pt") as found:
            yield found
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise CheckpointError(f"{file}: cannot be read as safetensors ({first}); {cure}") from error
