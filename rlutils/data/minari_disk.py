"""Minari datasets on disk: `ROOT/ID/data/metadata.json` beside `main_data.hdf5`."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gymnasium import spaces

from rlalgo.core.spaces import from_mapping
from rlalgo.errors import DataError

ROOT_VARIABLE = "MINARI_DATASETS_PATH"


def root() -> Path:
    """The folder that Minari keeps its datasets in."""
    return Path(os.environ.get(ROOT_VARIABLE) or "~/.minari/datasets").expanduser()


def local_ids() -> list[str]:
    """Ids of every dataset here, sound or not."""
    return sorted(folder.relative_to(root()).as_posix() for folder in _datasets_in(root()))


def _datasets_in(folder: Path) -> Iterator[Path]:
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # a folder that is missing or may not be read holds no dataset for us
        return
    for entry in inside:
        if (entry / "data").is_dir() or re.search(r"-v\d+$", entry.name):
            yield entry
        else:
            yield from _datasets_in(entry)


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
    env: Mapping[str, Any] = field(default_factory=dict)
    """Gymnasium's environment spec as plain values (the one for evaluation if there is one); may be empty."""
    ref_scores: tuple[float, float] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """All of metadata.json."""


def read_metadata(ident: str) -> Metadata:
    """The metadata of a local dataset.

    Raises:
        DataError: its metadata.json is missing, is no JSON, or lacks something that is needed.
    """
    label, folder = f"minari:{ident}", root() / ident / "data"
    path = folder / "metadata.json"
    redo = f"the dataset is half-written or damaged: delete {folder.parent} and copy or record it again"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{label}: {path} is missing; {redo}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{label}: {path} cannot be read: {error}; {redo}") from error
    if not isinstance(values, dict):
        raise DataError(f"{label}: {path} holds {type(values).__name__}, expected a mapping; {redo}")

    def get(key: str, convert: Any) -> Any:
        if key not in values:
            raise DataError(f"{label}: {path} has no '{key}'; {redo}")
        try:
            return convert(values[key])
        except (TypeError, KeyError, ValueError, AssertionError) as error:
            raise DataError(f"{label}: '{key}' in {path} is not understood: {error}") from error

    def space(text: str) -> spaces.Space:
        return from_mapping(json.loads(text))

    form = values.get("data_format", "hdf5")
    if form != "hdf5":
        raise DataError(f"{label}: is stored as '{form}', expected hdf5; record it with data_format='hdf5'")
    low, high = (_number(values.get(key)) for key in ("ref_min_score", "ref_max_score"))
    env = "eval_env_spec" if values.get("eval_env_spec") else "env_spec"
    return Metadata(
        label=label,
        folder=folder,
        episodes=get("total_episodes", int),
        steps=get("total_steps", int),
        observation_space=get("observation_space", space),
        action_space=get("action_space", space),
        env=get(env, json.loads) if values.get(env) else {},
        ref_scores=(low, high) if low is not None and high is not None and low != high else None,
        values=values,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
