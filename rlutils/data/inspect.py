"""Looking at datasets: what lies on this machine and what is in one of them, as text and as a picture."""

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gymnasium import spaces

from rlalgo import Choice
from rlalgo.errors import DataError
from rlutils.data.minari_arrow import episode_files
from rlutils.data.minari_disk import local_ids, read_metadata, root
from rlutils.data.minari_remote import require
from rlutils.data.named import load_source
from rlutils.data.preparation import read_record


@dataclass(frozen=True)
class DatasetInfo:
    """What a list says of a dataset. Of a broken one nothing but its id, size and fault is known."""

    id: str
    size: int
    """Bytes on disk."""
    broken: str | None = None
    """Why it cannot be used, or None."""
    episodes: int = 0
    steps: int = 0
    env_id: str | None = None
    ref_scores: tuple[float, float] | None = None


@dataclass(frozen=True)
class Inspection:
    """What is in a dataset of E episodes."""

    label: str
    """How messages call it: minari:ID."""
    path: Path | None
    """None where it was loaded, whatever it was made of."""
    size: int
    """Bytes on disk, or in memory."""
    env_id: str | None
    observation_space: spaces.Space
    """As recorded."""
    action_space: spaces.Space
    returns: np.ndarray
    """(E,) float64 undiscounted return of each episode."""
    lengths: np.ndarray
    """(E,) int64 steps of each episode."""
    terminated: np.ndarray
    """(E,) bool: ended in a terminal state; the others were cut."""
    ref_scores: tuple[float, float] | None = None
    """Returns of a random and of an expert policy."""
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(E, ...) numbers stored with every episode: seed, noise, ..."""
    description: str = ""

    @property
    def steps(self) -> int:
        """Steps in all episodes."""
        return int(self.lengths.sum())

    def histogram(self, bins: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Counts (B,) and edges (B+1,) at round numbers, with at most `bins` of them."""
        edges = _round_edges(float(self.returns.min()), float(self.returns.max()), bins)
        return np.histogram(self.returns, edges)[0], edges


def list_datasets() -> list[DatasetInfo]:
    """Every dataset on this machine; broken and half-written ones too, with what is wrong with them."""
    return [_info(ident) for ident in local_ids()]


def inspect_dataset(ident: str) -> Inspection:
    """Reads everything of a local dataset but its observations and actions.

    Raises:
        DataError: it is not on this machine, or is broken.
    """
    require(ident, download=False)
    metadata = read_metadata(ident)
    with episode_files(metadata) as file:
        facts, lengths = file.facts(), file.lengths
        if len(lengths) == 0:
            raise DataError(f"{metadata.label}: holds no episodes; record some before looking at it")
        returns = np.zeros(len(lengths))
        terminated = np.zeros(len(lengths), bool)
        for i, length in enumerate(lengths):
            rewards, ends = np.empty(length, np.float32), np.empty(length, bool)
            file.rewards(i, rewards)
            file.flags(i, "terminations", ends)
            returns[i], terminated[i] = rewards.sum(dtype=np.float64), ends[-1]
    if not np.isfinite(returns).all():
        bad = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise DataError(f"{metadata.label}: episode {bad}: its rewards are not all finite numbers")
    return Inspection(
        label=metadata.label,
        path=metadata.folder.parent,
        size=_size(metadata.folder.parent),
        env_id=metadata.env.id,
        observation_space=metadata.observation_space,
        action_space=metadata.action_space,
        returns=returns,
        lengths=lengths,
        terminated=terminated,
        ref_scores=metadata.ref_scores,
        facts=facts,
        description=metadata.description,
    )


def inspect_source(choice: Choice) -> Inspection:
    """What is in the data of any source; that of one local Minari dataset is looked at without loading it."""
    if choice.name == "minari" and set(choice.options) == {"id"} and isinstance(choice.config.id, str):
        return inspect_dataset(choice.config.id)
    episodes, label = load_source(choice)
    spec, record = episodes.spec, read_record(episodes.spec.preprocess)
    columns = (episodes.observations, episodes.actions, episodes.rewards, episodes.terminations, episodes.truncations)
    return Inspection(
        label=label,
        path=None,
        size=sum(column.nbytes for column in columns),
        env_id=spec.env_id,
        observation_space=record.flatten or spec.observation_space,
        action_space=record.actions or spec.action_space,
        returns=episodes.returns().numpy(),
        lengths=episodes.lengths().numpy(),
        terminated=episodes.terminations[episodes.starts[1:] - 1].numpy(),
        ref_scores=spec.ref_scores,
        facts={name: column.numpy() for name, column in episodes.info.items()},
    )


def _info(ident: str) -> DatasetInfo:
    size = _size(root() / ident)
    try:
        metadata = read_metadata(ident)
        with episode_files(metadata) as file:
            file.count()
    except DataError as error:
        return DatasetInfo(ident, size, broken=str(error))
    return DatasetInfo(ident, size, None, metadata.episodes, metadata.steps, metadata.env.id, metadata.ref_scores)


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile, or not for us to see
                size += os.stat(os.path.join(place, name)).st_size
    return size


def _round_edges(low: float, high: float, bins: int) -> np.ndarray:
    """(B+1,) edges at multiples of 1, 2, 2.5 or 5 times a power of ten around [low, high], B <= bins."""
    if high - low <= 1e-9 * max(1.0, abs(low)):
        return np.array([low - 0.5, low + 0.5])
    scale = 10.0 ** math.floor(math.log10((high - low) / bins))
    for step in (scale, 2 * scale, 2.5 * scale, 5 * scale, 10 * scale, 20 * scale):
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first <= bins:
            break
    return step * np.arange(first, last + 1)
