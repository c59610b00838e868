"""Episodes to a Minari dataset, complete or not at all."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium import spaces

from rlalgo.errors import DataError
from rlutils.collecting.recording import Recorded
from rlutils.collecting.settings import CollectSettings
from rlutils.config.files import alive

_OURS = f".collect-{platform.node()}-"
"""Prefix of the folders that collections on this machine write in, before the process's number."""


def _refuse_occupied(root: Path, ident: str, replace: bool) -> None:
    """A dataset gives way only when told to; a folder that is something else, never."""
    target = root / ident
    for parent in Path(ident).parents[:-1]:
        if (root / parent / "data").exists():
            raise DataError(f"{ident} would lie within the dataset {parent}, unseen; choose another id")
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / "data").exists()):
        raise DataError(f"{target} exists and is not a dataset (it may be a namespace); choose another id")
    if not replace:
        raise DataError(f"dataset {ident} exists ({target}); replace it with --replace, or choose another id")


@contextlib.contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    """A hidden folder under the root (Minari lists only visible ones), removed in the end whatever happens."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob(f"{_OURS}*"):  # a kill -9 left it; a process that still lives is another's business
            number = old.name.removeprefix(_OURS).partition("-")[0]
            if number.isdigit() and not alive(int(number)):
                _remove(old, root)
        folder = Path(tempfile.mkdtemp(prefix=f"{_OURS}{os.getpid()}-", dir=root))
    except OSError as error:
        why = f"{root} cannot be written: {error.strerror}"
        raise DataError(f"{why}; set MINARI_DATASETS_PATH to another folder") from error
    try:
        yield folder
    finally:
        _remove(folder, root)


def _remove(folder: Path, root: Path) -> None:
    """Removes a temporary folder; a dataset that lies in it and was not replaced after all goes back first."""
    aside = folder / "replaced"
    for data in list(aside.rglob("data")):
        place = root / data.parent.relative_to(aside)
        if not place.exists():
            os.replace(data.parent, place)
    shutil.rmtree(folder, ignore_errors=True)


def _write(settings: CollectSettings, env: gymnasium.Env, episodes: list[Recorded], folder: Path) -> None:
    """The dataset with Minari's own writer under `folder`, then repacked: HDF5 spends 20 KB an episode otherwise."""
    import minari
    from minari.data_collector import EpisodeBuffer

    space = _as_stored(env.observation_space)
    buffers = []
    for number, episode in enumerate(episodes):
        flags = np.zeros((2, len(episode.rewards)), bool)
        flags[:, -1] = episode.terminated, episode.truncated
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=episode.seed,
                observations=_stacked(space, episode.observations),
                actions=np.asarray(episode.actions, env.action_space.dtype),
                rewards=list(np.asarray(episode.rewards, np.float64)),
                terminations=list(flags[0]),
                truncations=list(flags[1]),
            )
        )
    _reserve(folder, sum(_size(buffer.observations) + 64 * len(buffer.rewards) + 40_000 for buffer in buffers))
    low, high = settings.ref_scores or (None, None)
    with _minari_root(folder):
        dataset = minari.create_dataset_from_buffers(
            settings.id,
            buffers,
            env=env.spec,
            eval_env=env.spec,
            observation_space=space,
            action_space=env.action_space,
            algorithm_name=settings.behavior.name,
            author=settings.author,
            author_email="none",
            code_permalink="none",
            description=settings.description or f"{settings.behavior.name} in {settings.env.id}, seed {settings.seed}",
            ref_min_score=low,
            ref_max_score=high,
            jpeg_encoding=False,
        )
        dataset.storage.update_episode_metadata(
            [{"policy": e.policy, "noise": e.noise, "return": e.ret, "seed": e.seed} for e in episodes]
        )
    del dataset
    _repack(folder / settings.id / "data" / "main_data.hdf5")


def _reserve(folder: Path, size: int) -> None:
    """OSError if a file of that many bytes does not fit: HDF5 answers a full disk by a crash of the process."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _size(observations: Any) -> int:
    """Bytes in the arrays of a Dict, Tuple or Box observation."""
    if isinstance(observations, np.ndarray):
        return observations.nbytes
    return sum(map(_size, observations.values() if isinstance(observations, dict) else observations))


def _repack(path: Path) -> None:
    """Rewrites the file with compact groups and gzip; Minari reads it unchanged."""
    packed = path.with_suffix(".packed")
    with h5py.File(path, "r") as old, h5py.File(packed, "w", libver="latest") as new:
        new.attrs.update(old.attrs)

        def copy(source: h5py.Group, into: h5py.Group) -> None:
            for name, item in source.items():
                if isinstance(item, h5py.Group):
                    group = into.create_group(name)
                    group.attrs.update(item.attrs)
                    copy(item, group)
                else:
                    packs = {"compression": "gzip", "shuffle": True} if item.shape and item.nbytes > 512 else {}
                    into.create_dataset(name, data=item[()], **packs).attrs.update(item.attrs)

        copy(old, new)
    os.replace(packed, path)


def _install(temporary: Path, root: Path, ident: str) -> None:
    """Moves the complete dataset into place; an old one is moved aside first and removed last."""
    target = root / ident
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in reversed(Path(ident).parents[:-1]):  # Minari wants a file in every namespace
        name = "namespace_metadata.json"
        made = temporary / parent / name
        if made.exists() and not (root / parent / name).exists():
            os.replace(made, root / parent / name)
    if target.exists():
        aside = temporary / "replaced" / ident  # `_remove` puts it back from here if the next line is not reached
        aside.parent.mkdir(parents=True)
        os.replace(target, aside)
    os.replace(temporary / ident, target)


@contextlib.contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Minari writes where this variable says and nowhere else."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _as_stored(space: spaces.Space) -> spaces.Space:
    """float64 Boxes as float32: half the size, and what networks compute in."""
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _as_stored(part) for key, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(_as_stored(part) for part in space))
    return space


def _stacked(space: spaces.Space, observations: Any) -> Any:
    """T+1 observations as Minari takes them: an array, or arrays in the structure of a Dict or Tuple space."""
    if isinstance(space, spaces.Dict):
        return {key: _stacked(part, [o[key] for o in observations]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_stacked(part, [o[i] for o in observations]) for i, part in enumerate(space))
    return np.asarray(observations, dtype=space.dtype)
