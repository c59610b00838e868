"""The files of a dataset in LeRobot's format v3, and what its metadata say of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from rlalgo.config import Count, Positive
from rlalgo.errors import CheckpointError, DataError, near, shown
from rlutils.config.files import read_as
from rlutils.data.arrow import ArrowTable, stacked

_ROWS = 2**20
"""Episodes read at a time."""
_SPANS = ("episode_index", "length", "dataset_from_index", "dataset_to_index")
_PLACE = ("chunk_index", "file_index")


@dataclass(frozen=True)
class Feature:
    """A column of the data, or the films of a camera."""

    dtype: str
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    info: dict[str, Any] | None = None

    @property
    def image(self) -> bool:
        """Whether it is one at each step."""
        return self.dtype in ("image", "video")


@dataclass(frozen=True)
class Info:
    """meta/info.json, as far as it matters here."""

    codebase_version: str
    fps: Positive
    total_episodes: Count
    total_frames: Count
    features: dict[str, Feature]
    data_path: str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video_path: str | None = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


class LerobotFiles:
    """The folder of a dataset.

    Raises:
        DataError: it is none, or of another version of the format.
    """

    def __init__(self, label: str, folder: Path) -> None:
        self.label, self.folder = label, folder
        if not folder.is_dir():
            raise DataError(f"{label}: there is no such folder; for a dataset on the hub give OWNER/NAME")
        try:
            self.info: Info = read_as(Info, folder / "meta" / "info.json")
        except CheckpointError as error:
            raise DataError(f"{label}: {error}; give a folder of LeRobot's format v3") from error
        if not re.match(r"v?3(\.|$)", self.info.codebase_version):
            cure = "`python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=OWNER/NAME` of lerobot 0.4"
            what = f"{label}: meta/info.json: LeRobot's format {shown(self.info.codebase_version)}, expected v3"
            raise DataError(f"{what}; bring older ones to v3 with {cure} (v2.0 to v2.1 first, with lerobot 0.3)")

    def feature(self, name: str) -> Feature:
        """A column by its name; DataError if there is none."""
        if name not in self.info.features:
            there = ", ".join(map(shown, sorted(self.info.features)))
            raise DataError(f"{self.label}: has no feature '{name}'; it has {there}.{near(name, self.info.features)}")
        return self.info.features[name]

    def episodes(self, videos: Sequence[str]) -> dict[str, np.ndarray]:
        """(E,) of each column of meta/episodes that says where an episode lies, in their order, compared.

        Args:
            videos: features whose films are needed, too.
        """
        names = [*_SPANS, *(f"data/{part}" for part in _PLACE)]
        names += [f"videos/{key}/{part}" for key in videos for part in (*_PLACE, "from_timestamp")]
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for path in sorted((self.folder / "meta" / "episodes").glob("*/*.parquet")):
            table = self._table(path.relative_to(self.folder).as_posix())
            where = partial("{}: row {}".format, table.label)
            for batch in table.batches(names, _ROWS):
                for name in names:
                    found[name].append(stacked(batch[name], name, where))
        if not found[names[0]]:
            raise DataError(f"{self.label}: meta/episodes holds no episodes")
        columns = {name: np.concatenate(parts) for name, parts in found.items()}
        order = columns["episode_index"].argsort(kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        ends = columns["length"].cumsum()
        expected = dict(zip(_SPANS, (np.arange(len(ends)), None, ends - columns["length"], ends), strict=True))
        for name, right in expected.items():
            if right is not None and len(wrong := np.flatnonzero(columns[name] != right)):
                i = int(wrong[0])
                why = f"{name} is {columns[name][i]}, expected {right[i]} as the episodes before are that long"
                raise DataError(f"{self.label}: meta/episodes: episode {i}: {why}")
        for key in videos:
            self._check_films(columns, key)
        for name, got in (("total_episodes", len(ends)), ("total_frames", ends[-1])):
            if got != (said := getattr(self.info, name)):
                raise DataError(f"{self.label}: meta/info.json: {name} is {said:,}, and meta/episodes has {got:,}")
        return columns

    def _check_films(self, columns: dict[str, np.ndarray], key: str) -> None:
        """DataError where two episodes would have the same frames."""
        begin, *place = (columns[f"videos/{key}/{part}"] for part in ("from_timestamp", *_PLACE))  # each (E,)
        order = np.lexsort((begin, *place))
        lasts = (columns["length"][order[:-1]] - 0.5) / self.info.fps
        same = np.all([np.diff(part[order]) == 0 for part in place], 0)
        if len(wrong := np.flatnonzero(same & (np.diff(begin[order]) < lasts))):
            one, other = order[wrong[0]], order[wrong[0] + 1]
            why = f"videos/{key}/from_timestamp is {begin[other]:g}, before the end of episode {one} in the same film"
            raise DataError(f"{self.label}: meta/episodes: episode {other}: {why}")

    def tables(self, episodes: dict[str, np.ndarray]) -> Iterator[ArrowTable]:
        """The files with the steps, one after another."""
        places = (episodes[f"data/{part}"].astype(np.int64).tolist() for part in _PLACE)
        for chunk, file in dict.fromkeys(zip(*places, strict=True)):
            yield self._table(self.place(self.info.data_path, chunk, file))

    def film(self, episodes: dict[str, np.ndarray], key: str, episode: int) -> Path:
        """The film in which an episode is."""
        chunk, file = (int(episodes[f"videos/{key}/{part}"][episode]) for part in _PLACE)
        return self.folder / self.place(self.info.video_path or "", chunk, file, key)

    def place(self, template: str, chunk: int, file: int, key: str = "") -> str:
        """A path within the folder, of `data_path` or `video_path`; not by `str.format`, which could do more."""
        values = {"chunk_index": chunk, "file_index": file, "video_key": key}

        def value(found: re.Match) -> str:
            return f"{values[found[1]]:0{found[2]}d}" if found[2] else str(values[found[1]])

        path = re.sub(r"\{(chunk_index|file_index|video_key)(?::0?(\d)d)?\}", value, template)
        if "{" in path or not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{self.label}: meta/info.json: no path within the folder: {template!r:.100}")
        return path

    def _table(self, path: str) -> ArrowTable:
        return ArrowTable(self.folder / path, f"{self.label}: {path}")
