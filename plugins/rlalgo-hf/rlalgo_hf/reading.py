"""Checkpoints of transformers, read with distrust: nothing of them runs, and sizes are asked before memory is."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator
from torch import Tensor

from rlalgo import DataSpec
from rlalgo.batchrl.dt.hugging_face import HuggingFaceConfig
from rlalgo.errors import CheckpointError, ConfigError
from rlalgo_hf.pickled import read_pickled
from rlutils.checkpoints.tensors import read_tensors
from rlutils.config.files import read_as, read_text
from rlutils.data.hub import is_repo
from rlutils.evaluation.statistics import Finite
from rlutils.machine import host_memory

CURE = "give the folder or the repository of a DecisionTransformerModel"
FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "README.md")
OWN = "rlalgo.yaml"
"""The file that `export-hf` adds to a checkpoint, with all that transformers keeps nowhere."""
LARGEST_CARD = 1_000_000


@dataclass(frozen=True)
class Own:
    """rlalgo.yaml: what `import-hf` needs to make an equal run of an exported one."""

    config: dict[str, Any]
    """The run's config.yaml."""
    spec: Annotated[DataSpec, PlainValidator(DataSpec.from_mapping)]
    state_mean: list[Finite]
    state_std: list[Annotated[Finite, Field(gt=0)]]
    """Observations become (x - mean) / std."""
    action_center: list[Finite]
    action_radius: list[Annotated[Finite, Field(gt=0)]]
    """The model's actions are (a - center) / radius."""
    best_return: Finite
    """Asked for where no target return is given."""
    rlalgo: str
    """The version that wrote it."""


@dataclass(frozen=True)
class _Shards:
    weight_map: dict[str, str]
    """Name of a weight -> the file that has it."""


def find_folder(place: str, revision: str | None = None) -> Path:
    """The folder that is called so, else a copy of what the hub has under that name."""
    if (folder := Path(place).expanduser()).is_dir():
        return folder
    if not is_repo(place):
        raise CheckpointError(f"{place}: there is no such folder, nor is it OWNER/NAME, a repository; {CURE}")
    from rlalgo_hf.hub import snapshot

    return snapshot(place, revision, [*FILES, OWN])


def read_config(folder: Path) -> HuggingFaceConfig:
    """Raises CheckpointError: there is none, or it asks for what is not supported; with its key."""
    return read_as(HuggingFaceConfig, _inside(folder, "config.json"), CURE)


def read_own(folder: Path) -> Own | None:
    """Of a folder that `export-hf` wrote; None of others."""
    file = _inside(folder, OWN)
    return read_as(Own, file, "remove it, and give what it says as options") if file.is_file() else None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights by transformers' names, on the CPU.

    Raises:
        CheckpointError: there are none, a file is damaged or larger than the memory, holds more than tensors, or lies
            elsewhere.
    """
    single, shards, pickled = (
        _inside(folder, name) for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    )
    if single.is_file():
        return read_tensors(single, CURE)[0]
    if shards.is_file():
        files = {_inside(folder, name) for name in read_as(_Shards, shards, CURE).weight_map.values()}
        if sum(file.stat().st_size for file in files if file.is_file()) > host_memory():
            raise CheckpointError(f"{shards}: its files are larger than this machine's memory; {CURE}")
        return {name: weight for file in files for name, weight in read_tensors(file, CURE)[0].items()}
    if pickled.is_file():
        return read_pickled(pickled)
    raise CheckpointError(f"{folder}: has neither model.safetensors nor pytorch_model.bin; {CURE}")


def card_statistics(folder: Path, size: int) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of the states, as the model card prints them; None where it does not.

    Args:
        folder: with a README.md, if there is a card.
        size: of a state: lists of other lengths are not meant.
    """
    file = _inside(folder, "README.md")
    try:
        text = read_text(file, LARGEST_CARD)
    except ConfigError:  # there is none, or it is no text
        return None
    mean = next(_lists(text, "mean", size), None)
    std = next((found for found in _lists(text, "std", size) if min(found) > 0), None)
    return (mean, std) if mean and std else None


def _lists(text: str, name: str, size: int) -> Iterator[list[float]]:
    """Lists of so many finite numbers that are said to be it, `mean = [1, 2]` or `mean: np.array([1, 2])`, in the order
    of the text; what is said of another mean (`mean return 5 [4, 6]`) is not."""
    called = rf"\b(?:states?_)?{name}\b[^\w\[\]]{{0,20}}(?:[a-z.]+\(\s*)?"
    for found in re.finditer(rf"{called}\[([^\[\]]*)\]", text, re.IGNORECASE):
        words = found[1].replace(",", " ").split()
        try:
            numbers = [float(word) for word in words] if len(words) == size else []
        except ValueError:
            continue
        if numbers and all(map(math.isfinite, numbers)):
            yield numbers


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder, be it there or not. In the hub's cache all files are links to the blobs beside."""
    path, home = folder / name, folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(path.resolve().is_relative_to(place) for place in homes):
        raise CheckpointError(f"{path}: leads out of its folder, to {path.resolve()}; put the file itself there")
    return path
