"""Minari datasets on disk: `ROOT/ID/data/metadata.json` beside the steps, which are in HDF5, Arrow or Parquet."""

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gymnasium import spaces
from pydantic import TypeAdapter, ValidationError

from rlalgo.config import Count, Whole
from rlalgo.core.spaces import from_mapping
from rlalgo.errors import CheckpointError, DataError, first_fault
from rlutils.config.files import read_as

ROOT_VARIABLE = "MINARI_DATASETS_PATH"

_MOST_FOLDERS = 2_000
"""That are searched for datasets: links may lead anywhere."""


def root() -> Path:
    """The folder that Minari keeps its datasets in."""
    return Path(os.environ.get(ROOT_VARIABLE) or "~/.minari/datasets").expanduser()


def local_ids() -> list[str]:
    """Ids of every dataset here, sound or not."""
    return sorted(folder.relative_to(root()).as_posix() for folder in _datasets())


def _datasets() -> Iterator[Path]:
    """Every folder is searched once, by its own name rather than a link's: links may lead to their parents."""
    waiting, seen = deque([root()]), set[str]()
    while waiting and len(seen) < _MOST_FOLDERS:
        folder = waiting.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            inside = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError:  # a folder that is missing or may not be read holds no dataset for us
            continue
        for entry in inside:
            path = folder / entry.name
            if not os.path.isdir(path):
                continue
            if os.path.isdir(path / "data") or re.search(r"-v\d+$", entry.name):
                yield path
            elif entry.is_symlink():
                waiting.append(path)
            else:
                waiting.appendleft(path)


@dataclass(frozen=True)
class EnvRecord:
    """The environment of the data, as Gymnasium writes it down; what is missing is not known."""

    id: str | None = None
    entry_point: str | None = None
    max_episode_steps: Count | None = None
    kwargs: dict[str, Any] | None = None
    additional_wrappers: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class _Written:
    """metadata.json, as far as it matters here."""

    total_episodes: Whole
    total_steps: Whole
    observation_space: str
    action_space: str
    data_format: Literal["hdf5", "arrow", "parquet"] = "hdf5"
    jpeg_encoding: bool = True
    env_spec: str | None = None
    eval_env_spec: str | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    description: str | None = None


@dataclass(frozen=True)
class Metadata:
    """What a dataset says of itself."""

    label: str
    """How messages call it: minari:ID."""
    folder: Path
    """The folder of the files."""
    episodes: int
    steps: int
    observation_space: spaces.Space
    """As recorded, before anything is flattened or cast."""
    action_space: spaces.Space
    env: EnvRecord = field(default_factory=EnvRecord)
    """The one for evaluation if there is one."""
    ref_scores: tuple[float, float] | None = None
    description: str = ""
    format: str = "hdf5"
    jpeg: bool = True
    """Whether images are stored as jpegs."""


def read_metadata(ident: str) -> Metadata:
    """The metadata of a local dataset.

    Raises:
        DataError: its metadata.json is missing, is no JSON, or lacks something that is needed.
    """
    label, folder = f"minari:{ident}", root() / ident / "data"
    path = folder / "metadata.json"
    cure = f"the dataset is half-written or damaged: delete {folder.parent} and copy or record it again"
    try:
        written: _Written = read_as(_Written, path, cure)
    except CheckpointError as error:
        raise DataError(f"{label}: {error}") from error

    def space(name: str) -> spaces.Space:
        try:
            return from_mapping(json.loads(getattr(written, name)))
        except (DataError, ValueError, RecursionError) as error:
            raise DataError(f"{label}: '{name}' in {path}: {error}") from error

    try:
        env = TypeAdapter(EnvRecord).validate_json(written.eval_env_spec or written.env_spec or "{}")
    except ValidationError as error:
        raise DataError(f"{label}: 'env_spec' in {path} is not understood: {first_fault(error)}; {cure}") from error
    low, high = written.ref_min_score, written.ref_max_score
    return Metadata(
        label=label,
        folder=folder,
        episodes=written.total_episodes,
        steps=written.total_steps,
        observation_space=space("observation_space"),
        action_space=space("action_space"),
        env=env,
        ref_scores=(low, high) if low is not None and high is not None and low != high else None,
        description=written.description or "",
        format=written.data_format,
        jpeg=written.jpeg_encoding,
    )
