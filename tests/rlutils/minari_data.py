"""Tiny Minari datasets for tests, written by Minari itself: what reads them meets the real format."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import minari
import numpy as np
from gymnasium import Space, spaces
from minari.data_collector import EpisodeBuffer

ID = "toy/line-v0"


def stack(space: Space, values: Sequence[Any]) -> Any:
    """Values of a space, time first: arrays, nested in dicts and tuples as the space is."""
    if isinstance(space, spaces.Dict):
        return {key: stack(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(part, [value[i] for value in values]) for i, part in enumerate(space.spaces))
    return np.stack([np.asarray(value, space.dtype) for value in values])


def write_dataset(
    root: Path,
    ident: str = ID,
    *,
    lengths: Sequence[int] = (5, 3, 7),
    observation_space: Space | None = None,
    action_space: Space | None = None,
    facts: Mapping[str, Sequence[Any]] | None = None,
    ref_scores: tuple[float, float] | None = (0.0, 10.0),
    buffers: Sequence[EpisodeBuffer] | None = None,
    seed: int = 0,
    **options: Any,
) -> list[EpisodeBuffer]:
    """Writes ROOT/ID of random values and returns what was written: one buffer for each episode.

    Odd episodes end in a terminal state, even ones are cut.

    Args:
        root: what MINARI_DATASETS_PATH is to be for the reader.
        lengths: steps of each episode.
        observation_space: of the values drawn; Box(3) float32 if None.
        action_space: of the values drawn; Box(2) float32 in [-1, 1] if None.
        facts: further attributes, a value for each episode.
        buffers: episodes to write in place of random ones.
        options: for minari.create_dataset_from_buffers (env, jpeg_encoding, description, ...).
    """
    observation_space = observation_space or spaces.Box(-np.inf, np.inf, (3,))
    action_space = spaces.Box(-1, 1, (2,)) if action_space is None else action_space
    observation_space.seed(seed)
    action_space.seed(seed + 1)
    rng = np.random.default_rng(seed)
    buffers = list(buffers or ())
    for number, length in enumerate(lengths if not buffers else ()):
        ends = np.zeros(length, bool)
        ends[-1] = True
        buffers.append(
            EpisodeBuffer(
                seed=100 + number,
                observations=stack(observation_space, [observation_space.sample() for _ in range(length + 1)]),
                actions=stack(action_space, [action_space.sample() for _ in range(length)]),
                rewards=rng.normal(size=length).astype(np.float32),
                terminations=ends & bool(number % 2),
                truncations=ends & (not number % 2),
            )
        )
    with mock.patch.dict(os.environ, {"MINARI_DATASETS_PATH": str(root)}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses a description, an evaluation environment, ...
        dataset = minari.create_dataset_from_buffers(
            ident,
            buffers,
            observation_space=observation_space,
            action_space=action_space,
            **{"jpeg_encoding": False, "author": "tests", "author_email": "tests", "code_permalink": "none",
               "algorithm_name": "random", **options},
        )  # fmt: skip
        if ref_scores is not None:  # Minari drops them where there is no environment
            dataset.storage.update_metadata(dict(zip(("ref_min_score", "ref_max_score"), ref_scores, strict=True)))
        for name, values in (facts or {}).items():
            for number, value in enumerate(values):
                if value is not None:
                    dataset.storage.update_episode_metadata([{name: value}], [number])
    return buffers


def edit(root: Path, ident: str = ID) -> h5py.File:
    """The file of a dataset, open for changes: to break it."""
    return h5py.File(root / ident / "data" / "main_data.hdf5", "a")


def replace_column(root: Path, path: str, values: Any, ident: str = ID) -> None:
    """Puts other values in the place of one stored array, such as episode_1/rewards."""
    with edit(root, ident) as file:
        del file[path]
        file.create_dataset(path, data=values)


def edit_metadata(root: Path, ident: str = ID, drop: str | None = None, **values: Any) -> None:
    """Changes or drops keys of a dataset's metadata.json."""
    path = root / ident / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **values}
    metadata.pop(drop, None)
    path.write_text(json.dumps(metadata))
