"""Collecting: a behaviour plays, and what it did becomes a Minari dataset, complete or not at all."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import h5py
import numpy as np
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlalgo import plugins as core_plugins
from rlalgo.config import Count, Whole, parse
from rlalgo.errors import DataError, EnvironmentFault
from rlalgo.registry import Choice, Kind
from rlutils.config.files import alive
from rlutils.data import minari_disk
from rlutils.envs.gym import make_env

MakeEnv = Callable[[], gymnasium.Env]
Say = Callable[[str, float], None]
"""Told what is going on: a phase and how much of it is done, 0 to 1."""

_OURS = f".collect-{platform.node()}-"
"""Prefix of the folders that collections on this machine write in, before the process's number."""


@dataclass(frozen=True)
class Recorded:
    """One recorded episode of T steps."""

    observations: Any
    """(T+1, *S) array, or a list of T+1 observations of a Dict or Tuple space."""
    actions: np.ndarray
    """(T, A) or (T,)."""
    rewards: np.ndarray
    """(T,)."""
    terminated: bool
    truncated: bool
    seed: int
    """What the environment was reset with."""
    policy: str
    """Which policy acted."""
    noise: float
    """How much noise it acted with."""

    @property
    def ret(self) -> float:
        """Undiscounted return."""
        return float(np.sum(self.rewards, dtype=np.float64))


@dataclass(frozen=True)
class Environment:
    id: str
    """Gymnasium id."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments."""


@dataclass(frozen=True)
class CollectSettings:
    id: str
    """Id of the dataset to make: namespace/name-v0."""
    env: Environment
    """Where to play."""
    behaviour: Annotated[Choice, Kind("behaviour")]
    """Who plays."""
    steps: Count = 10_000
    """Steps to record, rounded up to whole episodes."""
    seed: Whole = 0
    """Seed of everything that is drawn."""
    ref_scores: tuple[float, float] | None = None
    """Returns of a random and of an expert policy, for normalised scores; null stores none."""
    description: str = ""
    """Stored with the dataset."""
    author: str = "rlalgo"
    """Stored with the dataset."""
    plugins: tuple[str, ...] = ()
    """Modules and files to load besides what is installed."""

    def __post_init__(self) -> None:
        namespace = self.id.rpartition("/")[0]
        if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", self.id) or len(namespace) == 1:
            raise ValueError(
                f"id: '{self.id}' is no dataset id; it looks like local/hopper/ars-v0 (to Minari, "
                "a namespace has two letters or more)"
            )
        if self.ref_scores is not None and self.ref_scores[0] == self.ref_scores[1]:
            raise ValueError("ref_scores: the random and the expert return are the same")


@dataclass(frozen=True)
class CollectResult:
    """What was recorded."""

    id: str
    path: Path
    episodes: int
    steps: int
    returns: list[float]
    seconds: float


def collect_file(
    path: Path, overrides: Sequence[str], replace: bool, plugins: Sequence[str], console: Console
) -> CollectResult:
    """`collect` as a YAML file says, with a progress bar."""
    from rlutils.app import catalogue  # the application knows the behaviours, which need this module
    from rlutils.config.settings import load_mapping, override

    values = override(load_mapping(path), overrides)
    values["plugins"] = [*(values.get("plugins") or []), *plugins]
    settings = parse(CollectSettings, values, catalogue(values["plugins"]), str(path))
    columns = TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        said = ""

        def say(phase: str, done: float) -> None:
            nonlocal said
            bar.update(task, description=phase, completed=done)
            if not console.is_terminal and phase.split(":")[0] != said:
                said = phase.split(":")[0]
                console.print(phase, markup=False)

        return collect(settings, replace, say)


def collect(settings: CollectSettings, replace: bool = False, say: Say | None = None) -> CollectResult:
    """Records a dataset under MINARI_DATASETS_PATH.

    It is written in a hidden folder beside the others and moved into place when complete: whatever goes wrong before,
    nothing half-made is left under its name, and an existing dataset stays as it is.

    Args:
        settings: what to record.
        replace: put the new dataset in the place of one of the same id.
        say: told of the progress.

    Raises:
        DataError: the dataset exists and is not to be replaced, the folder cannot be written, or the behaviour
            recorded nothing.
        EnvironmentFault: the environment cannot be made, or does not suit the behaviour.
    """
    watch = time.perf_counter()
    say = say or (lambda phase, done: None)
    root = minari_disk.root()
    _refuse_occupied(root, settings.id, replace)
    with _temporary(root) as temporary, contextlib.ExitStack() as opened:

        def open_env() -> gymnasium.Env:
            return opened.enter_context(contextlib.closing(make_env(settings.env.id, settings.env.kwargs)))

        env = open_env()
        if not isinstance(env.action_space, spaces.Box | spaces.Discrete):
            raise EnvironmentFault(f"env: {settings.env.id} acts in {env.action_space}; expected Box or Discrete")
        name = settings.behaviour.name
        behaviour = core_plugins.make("behaviour", settings.behaviour)
        episodes: list[Recorded] = []
        steps = 0
        for episode in behaviour.episodes(open_env, settings.steps, settings.seed, say):
            _refuse_bad(episode, env, f"behaviour '{name}', episode {len(episodes)}")
            episodes.append(episode)
            steps += len(episode.rewards)
            say(f"recording: {steps:,} steps, {len(episodes)} episodes", min(steps / settings.steps, 1.0))
            if steps >= settings.steps:
                break
        if not episodes:
            raise DataError(f"behaviour '{name}' recorded no episode; there is nothing to write")
        if steps < settings.steps:
            raise DataError(f"behaviour '{name}' ended after {steps:,} of {settings.steps:,} steps; lower `steps`")
        say("writing", 0.0)
        try:
            _write(settings, env, episodes, temporary)
            _install(temporary, root, settings.id)
        except OSError as error:
            why = f"cannot write {settings.id} under {root}: {error.strerror or error}"
            raise DataError(f"{why}; nothing was changed") from error
    returns = [episode.ret for episode in episodes]
    return CollectResult(settings.id, root / settings.id, len(episodes), steps, returns, time.perf_counter() - watch)


def play_episode(
    env: gymnasium.Env, act: Callable[[Any], Any], seed: int, policy: str = "", noise: float = 0.0,
    observe: Callable[[float], None] | None = None,
) -> Recorded:  # fmt: skip
    """One episode with a function of the observation; `observe` is told each reward."""
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [_copy(observation)], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = act(observation)
        actions.append(np.array(action))  # before the environment can change it
        if isinstance(env.action_space, spaces.Discrete):
            action = int(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        if observe is not None:
            observe(float(reward))
        observations.append(_copy(observation))
        rewards.append(float(reward))
    plain = isinstance(observation, np.ndarray)
    return Recorded(
        np.stack(observations) if plain else observations,
        np.stack(actions), np.array(rewards), bool(terminated), bool(truncated), seed, policy, noise,
    )  # fmt: skip


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


def _refuse_bad(episode: Recorded, env: gymnasium.Env, where: str) -> None:
    """What a behaviour recorded has to fit together and into the spaces, before it is written."""
    steps, space = len(episode.rewards), env.action_space
    actions = np.asarray(episode.actions)
    if not steps or len(actions) != steps or len(episode.observations) != steps + 1:
        raise DataError(
            f"{where}: {len(episode.observations)} observations, {len(actions)} actions and {steps} rewards; "
            "T steps need T+1 observations, and T is 1 or more"
        )
    if isinstance(space, spaces.Box):
        fits = actions.shape[1:] == space.shape and bool(((space.low <= actions) & (actions <= space.high)).all())
    else:
        assert isinstance(space, spaces.Discrete)
        first = space.start
        fits = actions.ndim == 1 and bool(((first <= actions) & (actions < first + space.n)).all())
    if not fits:
        raise DataError(f"{where}: an action of shape {actions.shape[1:]} is outside {space}")
    numbers = [("reward", episode.rewards)]
    if isinstance(episode.observations, np.ndarray):
        numbers.append(("observation", episode.observations))
    for what, values in numbers:
        if not np.isfinite(values).all():
            raise DataError(f"{where}: a {what} is not finite")


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
            algorithm_name=settings.behaviour.name,
            author=settings.author,
            author_email="none",
            code_permalink="none",
            description=settings.description or f"{settings.behaviour.name} in {settings.env.id}, seed {settings.seed}",
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


def _copy(observation: Any) -> Any:
    """Environments may reuse their buffers."""
    if isinstance(observation, Mapping):
        return {key: _copy(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(value) for value in observation)
    return np.array(observation)
