"""Minari datasets in Arrow or Parquet, by Minari's own reader: a folder for each episode, with its metadata.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlalgo.config import Count
from rlalgo.errors import CheckpointError, DataError, blaming
from rlutils.config.files import read_as
from rlutils.data.arrow import needing_pyarrow
from rlutils.data.hdf5 import damaged
from rlutils.data.minari_disk import Metadata
from rlutils.data.minari_file import NO_FACTS, Convert, EpisodeFile
from rlutils.data.spaces import OutsideSpace


@dataclass(frozen=True)
class _Episode:
    """metadata.json of an episode, as far as it is needed."""

    total_steps: Count


class ArrowFiles:
    """The episodes of a dataset, one at a time, with the verbs of `EpisodeFile`; needs pyarrow."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.label = metadata.label
        self._at: int | None = None

    def __enter__(self) -> "ArrowFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self._at = None

    def count(self) -> int:
        """E, counted by folders and compared with what the metadata says."""
        try:
            found = sum(entry.name.isdigit() for entry in self.metadata.folder.iterdir())
        except OSError as error:
            raise damaged(self.label, f"{self.metadata.folder} cannot be read: {error}") from error
        if found != self.metadata.episodes:
            raise damaged(self.label, f"the metadata says {self.metadata.episodes} episodes, there are {found}")
        return found

    def _told(self, kind: Any) -> Iterator[Any]:
        """What every episode's metadata.json says, as this type."""
        for episode in range(self.count()):
            try:
                yield read_as(kind, self._folder(episode) / "metadata.json")
            except CheckpointError as error:
                raise damaged(self.label, str(error), episode) from error

    def _folder(self, episode: int) -> Path:
        return self.metadata.folder / str(episode)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) int64 steps of each episode, as the episodes' metadata say; compared with the dataset's."""
        lengths = np.array([told.total_steps for told in self._told(_Episode)], np.int64)
        if lengths.sum() != self.metadata.steps:
            raise damaged(self.label, f"the metadata says {self.metadata.steps} steps, episodes say {lengths.sum()}")
        return lengths

    def facts(self) -> dict[str, np.ndarray]:
        """(E,) per name: the numbers that every episode's metadata have."""
        found: dict[str, list[float]] = {}
        for told in self._told(dict[str, Any]):
            for name, value in told.items():
                if isinstance(value, int | float) and name not in (*NO_FACTS, "total_steps"):
                    found.setdefault(name, []).append(value)
        columns = {name: np.array(values) for name, values in found.items() if len(values) == len(self.lengths)}
        return {name: column for name, column in columns.items() if column.dtype.kind in "bif"}

    def rewards(self, episode: int, out: np.ndarray) -> None:
        """Into out (T,) float32."""
        self._column(episode, "rewards", out)

    def flags(self, episode: int, name: str, out: np.ndarray) -> None:
        """`terminations` or `truncations` into out (T,) bool."""
        self._column(episode, name, out)

    def actions(self, episode: int, out: np.ndarray, convert: Convert | None = None) -> None:
        """Into out (T, A) float32, (T,) or (T, M) int64."""
        self._column(episode, "actions", out, convert)

    def observations(self, episode: int, out: np.ndarray, convert: Convert | None = None) -> bool:
        """Into out (T+1, *S); True, since Minari writes the last one always."""
        self._column(episode, "observations", out, convert)
        return True

    def _column(self, episode: int, name: str, out: np.ndarray, convert: Convert | None = None) -> None:
        where, values = f"{self.label}: episode {episode}", self._values(episode)[name]
        with blaming(DataError, f"{where}: {name} are not what their space says"):
            try:
                found = np.asarray(values if convert is None else convert(values))
            except OutsideSpace as error:
                raise DataError(f"{where}, step {error.row}: {name}: {error}") from error
        if found.shape != out.shape:
            raise damaged(self.label, f"{name} have shape {found.shape}, expected {out.shape}", episode)
        images, kinds = out.dtype == np.uint8, "biu" if out.dtype.kind == "i" else "biuf"
        if found.dtype.kind not in kinds or (images and found.dtype != np.uint8):
            raise DataError(f"{where}: {name} are {found.dtype}, expected {out.dtype}")
        out[:] = found

    def _values(self, episode: int) -> dict[str, Any]:
        """An episode's columns as Minari decodes them; the last one is kept, as columns are asked for one by one."""
        if episode != self._at:
            with blaming(DataError, f"{self.label}: {self._folder(episode)} cannot be read"):
                found: dict[str, Any] = next(iter(self._storage.get_episodes([episode])), {"rewards": ()})
            got, steps = len(found["rewards"]), self.lengths[episode]
            if got != steps:
                why = f"{steps} steps, of which Minari's reader gives {got} (32,767 at most, as pyarrow reads in parts)"
                raise damaged(self.label, f"{self._folder(episode)} should hold {why}", episode)
            self._read, self._at = found, episode
        return self._read

    @cached_property
    def _storage(self) -> Any:
        from minari.dataset.minari_storage import MinariStorage

        with needing_pyarrow(f"{self.label} is stored as {self.metadata.format}, which needs pyarrow"):
            return MinariStorage.read(self.metadata.folder)


def episode_files(metadata: Metadata) -> EpisodeFile | ArrowFiles:
    """What reads the episodes of a dataset, in whatever format it is; use it as a context manager."""
    return EpisodeFile(metadata) if metadata.format == "hdf5" else ArrowFiles(metadata)
