"""Episodes to a Minari dataset, complete or not at all."""

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from rlalgo.core.rollout import Trace
from rlalgo.core.spaces import as_float32
from rlalgo.errors import DataError
from rlutils.collecting.behavior import Facts
from rlutils.collecting.settings import CollectSettings
from rlutils.config.files import own_folder, persist, reserve
from rlutils.data.hdf5 import limit_cache
from rlutils.data.minari_disk import ROOT_VARIABLE, root
from rlutils.data.spaces import time_first

Recorded = tuple[Trace, Facts]
"""An episode and what to note of it."""

Write = Callable[[Callable[[Path], None]], Path]
"""What writes ID under the folder that it is given -> the dataset's folder, once it is in its place."""


@contextlib.contextmanager
def new_dataset(ident: str, replace: bool) -> Iterator[Write]:
    """The function that writes a dataset and puts it in its place; nothing else is left, whatever happens before.

    Raises:
        DataError: the id is taken, or nothing can be written.
    """
    _refuse_occupied(ident, replace)
    try:
        # Minari lists only visible folders.
        folder = own_folder(root(), "collect", partial(_remove, to=root()))
    except OSError as error:
        why = f"{root()} cannot be written: {error.strerror}"
        raise DataError(f"{why}; set {ROOT_VARIABLE} to another folder") from error

    def write(fill: Callable[[Path], None]) -> Path:
        try:
            fill(folder)
            return _install(folder, ident)
        except OSError as error:
            why = f"cannot write {ident} under {root()}: {error.strerror or error}"
            raise DataError(f"{why}; nothing was changed") from error

    try:
        yield write
    finally:
        _remove(folder, root())


def _refuse_occupied(ident: str, replace: bool) -> None:
    """A dataset gives way only when told to; a folder that is something else, never."""
    target = root() / ident
    for parent in Path(ident).parents[:-1]:
        if (root() / parent / "data").exists():
            raise DataError(f"{ident} would lie within the dataset {parent}, unseen; choose another id")
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / "data").exists()):
        raise DataError(f"{target} exists and is not a dataset (it may be a namespace); choose another id")
    if not replace:
        raise DataError(f"dataset {ident} exists ({target}); replace it with --replace, or choose another id")


def _remove(folder: Path, to: Path) -> None:
    """Removes a hidden folder; a dataset that lies in it and was not replaced after all goes back first."""
    aside = folder / "replaced"
    for data in list(aside.rglob("data")):
        place = to / data.parent.relative_to(aside)
        if not place.exists():
            os.replace(data.parent, place)
    shutil.rmtree(folder, ignore_errors=True)


def _install(folder: Path, ident: str) -> Path:
    """Moves the complete dataset into place; an old one is moved aside first and removed last."""
    target = root() / ident
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder / ident).rglob("*"):
        persist(path)
    for parent in reversed(Path(ident).parents[:-1]):  # Minari wants a file in every namespace
        namespace = parent / "namespace_metadata.json"
        if (folder / namespace).exists() and not (root() / namespace).exists():
            os.replace(folder / namespace, root() / namespace)
    if target.exists():
        aside = folder / "replaced" / ident  # `_remove` puts it back from here if the next line is not reached
        aside.parent.mkdir(parents=True)
        os.replace(target, aside)
    os.replace(folder / ident, target)
    persist(target.parent)
    return target


def write_recorded(settings: CollectSettings, env: gymnasium.Env, episodes: Sequence[Recorded], folder: Path) -> None:
    """What was collected, as the dataset ID under `folder`."""
    from minari.data_collector import EpisodeBuffer

    space = _as_stored(env.observation_space)
    buffers = [
        EpisodeBuffer(
            id=number,
            seed=trace.seed,
            observations=time_first(space, trace.observations),
            actions=np.asarray(trace.actions, env.action_space.dtype),
            rewards=trace.rewards,
            terminations=[False] * (len(trace.rewards) - 1) + [trace.terminated],
            truncations=[False] * (len(trace.rewards) - 1) + [trace.truncated],
        )
        for number, (trace, _) in enumerate(episodes)
    ]
    said = any(trace.info for trace, _ in episodes)  # an episode that does not say success had none
    metadata = []
    for trace, facts in episodes:
        success = {"success": trace.info.get("success", 0.0)} if said else {}
        metadata.append({**success, **facts, "seed": trace.seed, "return": trace.ret})
    size = sum(_size(buffer.observations) + 64 * len(buffer.rewards) for buffer in buffers)
    author, text = settings.author, f"{settings.behavior.name} in {settings.env.id}, seed {settings.seed}"
    said_of = Said(settings.behavior.name, settings.description or text, author, settings.ref_scores)
    write_minari(folder, settings.id, buffers, metadata, size, (space, env.action_space), env.spec, said_of)


@dataclass(frozen=True)
class Said:
    """What a dataset says of itself besides its steps."""

    algorithm: str
    description: str
    author: str = "rlalgo"
    ref_scores: tuple[float, float] | None = None


def write_minari(
    folder: Path,
    ident: str,
    buffers: Iterable[Any],
    metadata: Sequence[Facts],
    size: int,
    of: tuple[spaces.Space, spaces.Space],
    env: EnvSpec | None,
    said: Said,
) -> None:
    """A dataset with Minari's own writer under `folder`, then repacked: HDF5 spends 20 KB an episode otherwise.

    Args:
        folder: to write ID into.
        ident: of the dataset.
        buffers: Minari's EpisodeBuffer of each episode, asked for one after the other.
        metadata: what to store with each episode.
        size: bytes of all steps.
        of: spaces of observations and of actions.
        env: of the data.
        said: of the dataset.
    """
    import minari  # takes a second

    room = folder / "room"  # HDF5 answers a full disk by a crash of the process
    reserve(room, size + 40_000 * len(metadata))
    room.unlink()
    low, high = said.ref_scores or (None, None)
    with _minari_root(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses an environment, which it is told of below
        dataset = minari.create_dataset_from_buffers(
            ident,
            buffers,
            observation_space=of[0],
            action_space=of[1],
            eval_env=env,
            algorithm_name=said.algorithm,
            author=said.author,
            author_email="none",
            code_permalink="none",
            description=said.description,
            jpeg_encoding=False,
        )
        # Given to the writer itself, the environment would be made once more, and the scores be lost without one.
        told = {"env_spec": env and env.to_json(), "ref_min_score": low, "ref_max_score": high}
        dataset.storage.update_metadata({name: value for name, value in told.items() if value is not None})
        dataset.storage.update_episode_metadata(metadata)
    del dataset
    _repack(folder / ident / "data" / "main_data.hdf5")


@contextlib.contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Minari writes where this variable says and nowhere else."""
    before = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[ROOT_VARIABLE]
        if before is not None:
            os.environ[ROOT_VARIABLE] = before


def _size(observations: Any) -> int:
    """Bytes in the arrays of a Dict, Tuple or Box observation."""
    if isinstance(observations, np.ndarray):
        return observations.nbytes
    return sum(map(_size, observations.values() if isinstance(observations, dict) else observations))


def _repack(path: Path) -> None:
    """Rewrites the file with compact groups and gzip; Minari reads it unchanged."""
    packed = path.with_suffix(".packed")
    with h5py.File(path, "r") as old, h5py.File(packed, "w", libver="latest") as new:
        limit_cache(old)
        limit_cache(new)
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


def _as_stored(space: spaces.Space) -> spaces.Space:
    """float64 Boxes as float32: half the size, and what networks compute in."""
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        return as_float32(space)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _as_stored(part) for key, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(_as_stored(part) for part in space))
    return space
