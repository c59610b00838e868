"""Datasets in LeRobot's format v3 as Episodes: tables of steps, and films or images of the cameras."""

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from gymnasium import spaces
from pydantic import Field

from rlalgo import Episodes
from rlalgo.config import Few, Size
from rlalgo.errors import DataError, blaming, shown
from rlutils.data.arrow import stacked
from rlutils.data.columns import Columns, Told, like
from rlutils.data.hub import fetched, is_repo
from rlutils.data.images import Images, decode_image
from rlutils.data.lerobot_files import Feature, LerobotFiles
from rlutils.data.mapped import Allocate, identity, map_episodes, worthwhile
from rlutils.data.preparation import Preparation
from rlutils.data.video_frames import VideoFrames

Side = Annotated[Size, Field(le=4096)]

_BLOCK = 2**22
"""Numbers of observations that are read at a time."""
_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_SUCCESS = "next.success"


class LerobotSource:
    """Datasets of LeRobot's format v3, local ones and those on the hub; needs pyarrow, not `lerobot`."""

    name: ClassVar[str] = "lerobot"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """A folder with `meta`, `data` and, if there are films, `videos`; or OWNER/NAME of a dataset on the hub, which
        rlalgo-hf fetches to its cache, films only of cameras that are used."""
        revision: str = "main"
        """Branch, tag or commit of a dataset on the hub."""
        observations: Annotated[tuple[str, ...], Field(min_length=1)] = ("observation.state",)
        """Features that are the observation; several are joined in this order, where one is a camera as a Dict."""
        actions: str = "action"
        """Feature that is the action."""
        reward: str = "next.reward"
        """Feature that is the reward, such as next.reward or next.success; or, where there is none, `zero` for learning
        by imitation, or `last` for demonstrations that all reach their goal: 1 at the last step and 0 before."""
        terminated: str | None = None
        """Feature that says whether a step led to a terminal state, such as next.done or next.success; or `last`: the
        last step of each episode did; or `never`. Null means `never`, and is refused where there is a next.done that is
        not `truncated`, as it may mean the task's end or that of the time."""
        truncated: str | None = None
        """Feature that says whether a step was the last for another reason. An episode whose last step says neither
        counts as cut there."""
        frame_stack: Few = 1
        """Observations that a policy sees at once. Stacked when needed, stored once."""
        gray: bool = False
        """Turn color images gray, here and in the environment."""
        resize: tuple[Side, Side] | None = None
        """Height and width to bring images to, here and in the environment."""
        memory_map: bool | None = None
        """Map observations from a converted copy on disk instead of reading them; null: if they would take more than
        half of the memory."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"lerobot:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the dataset cannot be found or read, or holds something that training must not see.
        """
        config, files = self.config, self._files()
        with blaming(DataError, f"{self.label}: is damaged"):
            reader = _Reader(config, files)
            if worthwhile(config.memory_map, reader.needed()):
                # One copy serves every frame_stack, since what is stacked is not stored.
                options = repr(replace(config, frame_stack=1, memory_map=None))
                parts = [identity(path) for path in sorted(files.folder.rglob("*"))]
                episodes = map_episodes(self.label, {"options": options, "files": parts}, reader.episodes)
            else:
                episodes = reader.episodes(np.empty)
        spec = replace(episodes.spec, frame_stack=config.frame_stack)
        return replace(episodes, spec=spec, continues=config.continues)

    def _files(self) -> LerobotFiles:
        """The dataset's folder, fetched where it is on the hub."""
        path, revision = self.config.path, self.config.revision
        if path.exists() or not is_repo(path):
            return LerobotFiles(self.label, path)
        files = LerobotFiles(self.label, fetched(str(path), revision, ["meta/*"], "dataset"))
        films = [f"videos/{key}/*" for key in self.config.observations if files.feature(key).dtype == "video"]
        return LerobotFiles(self.label, fetched(str(path), revision, ["meta/*", "data/*", *films], "dataset"))


class _Reader:
    """The dataset, once its options are compared with what it has."""

    def __init__(self, config: LerobotSource.Config, files: LerobotFiles) -> None:
        self.config, self.files, self.label = config, files, files.label
        features = files.info.features
        self.seen = {key: self._known(key, image=True) for key in config.observations}
        self.action = self._known(config.actions)
        if config.reward == "next.reward" and config.reward not in features:
            cure = "name the feature that is the reward, or say `reward: zero` or `reward: last`"
            raise DataError(f"{self.label}: has no next.reward; {cure}")
        if config.terminated is None and "next.done" in {*features} - {config.truncated}:
            cure = "say `terminated: next.done`, another feature, `last` or `never`"
            raise DataError(f"{self.label}: has next.done, which may mean the task's end or that of the time; {cure}")
        told = {"rewards": config.reward, "terminations": config.terminated, "truncations": config.truncated}
        self.told = {column: name for column, name in told.items() if name not in (None, "never", "zero")}
        self.cameras = [key for key, feature in self.seen.items() if feature.dtype == "video"]
        self.spans = files.episodes(self.cameras)
        self.numbers = {config.actions: self.action} | {k: f for k, f in self.seen.items() if f.dtype != "video"}
        self.numbers |= {name: self._known(name, single=True) for name in self.told.values() if name != "last"}
        if _SUCCESS in features:
            self.numbers[_SUCCESS] = self._known(_SUCCESS, single=True)

    def needed(self) -> int:
        """Bytes that observations take."""
        images = Images(gray=self.config.gray, size=self.config.resize)
        try:
            space = Preparation(self._space(), images).space
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.label}: observations: {error}") from error
        rows = self.files.info.total_frames + self.files.info.total_episodes
        return rows * math.prod(space.shape) * np.dtype(space.dtype).itemsize

    def episodes(self, allocate: Allocate) -> Episodes:
        """What is in the files, checked."""
        config, whole = self.config, self.action.dtype.startswith(("int", "uint", "bool"))
        choice = () if whole and self.action.shape == (1,) else self.action.shape
        actions, images = like(choice, self.action.dtype, actions=True), Images(gray=config.gray, size=config.resize)
        columns = Columns(self.label, self.spans["length"], self._space(), actions, allocate=allocate, images=images)
        last = columns.starts[1:] - 1
        facts = {"task": np.zeros(len(last), np.int64), "success": np.zeros(len(last), bool)}
        with ExitStack() as stack:
            films = {key: _Films(self.files, self.spans, key, self.seen[key].shape, stack) for key in self.cameras}
            for first, found in self._batches(columns):
                steps = np.arange(first, first + len(found["index"]))
                ids = np.searchsorted(columns.starts, steps, "right") - 1
                self._compare(columns, steps, ids, found)
                for key, film in films.items():
                    found[key] = film.frames(columns, steps, ids, found["timestamp"])
                seen = {key: found[key] for key in self.seen}
                ends = steps == last[ids]
                parts = {column: ends if name == "last" else found[name] for column, name in self.told.items()}
                parts = {"rewards": np.zeros(len(steps))} | parts
                columns.fill(
                    first,
                    observations=seen if len(seen) > 1 else found[config.observations[0]],
                    actions=found[config.actions].reshape(-1, *choice),
                    **{name: values.reshape(-1) for name, values in parts.items()},
                )
                facts["task"][ids] = found["task_index"]
                if _SUCCESS in found:
                    facts["success"][ids[ends]] = found[_SUCCESS].reshape(-1)[ends]
        columns.label = self.label
        if _SUCCESS not in self.numbers:
            del facts["success"]
        return columns.checked(config, facts)

    def _known(self, name: str, image: bool = False, single: bool = False) -> Feature:
        """A feature that is of the right kind."""
        feature = self.files.feature(name)
        if feature.image and image and len(feature.shape) == 3:
            depth = any(key.endswith("is_depth_map") and said for key, said in (feature.info or {}).items())
            height, width, channels = feature.shape
            if channels not in (1, 3):  # channels come first in what some cameras say, not in their images
                channels, height, width = feature.shape
            if channels in (1, 3) and not depth and (channels == 3 or feature.dtype == "image"):
                return replace(feature, shape=(height, width, channels))
        elif _NUMBER.fullmatch(feature.dtype) and (not single or math.prod(feature.shape) == 1):
            return feature
        expected = "one number" if single else "numbers or images in color" if image else "numbers"
        raise DataError(
            f"{self.label}: feature '{name}' is {shown(feature.dtype)} {feature.shape}, expected {expected}"
        )

    def _space(self) -> spaces.Space:
        """Of raw observations."""
        parts = [(key, like(part.shape, np.uint8 if part.image else part.dtype)) for key, part in self.seen.items()]
        return spaces.Dict(parts) if len(parts) > 1 else parts[0][1]

    def _batches(self, columns: Columns) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(number of the first step, columns of the steps that follow one another)."""
        first, steps = 0, int(columns.starts[-1])
        names = ["index", "episode_index", "frame_index", "timestamp", "task_index", *self.numbers]
        size = max(1, *(math.prod(feature.shape) for feature in self.seen.values()))
        for table in self.files.tables(self.spans):
            columns.label = table.label
            for batch in table.batches(list(dict.fromkeys(names)), max(1, min(2**13, _BLOCK // size))):
                if first + batch.num_rows > steps:
                    raise DataError(f"{table.label}: has more than the {steps:,} steps of meta/episodes")
                yield first, {name: self._values(columns, batch, name, first) for name in batch.schema.names}
                first += batch.num_rows
        if first < steps:
            raise DataError(f"{columns.label}: the data ends after {first:,} steps of the {steps:,} of meta/episodes")

    def _values(self, columns: Columns, batch: Any, name: str, first: int) -> np.ndarray:
        """(T, ...) of a column, from this step on."""
        feature = self.numbers.get(name, Feature("int64", (1,)))
        if feature.image:
            return np.stack([self._image(columns, name, first + i, row) for i, row in enumerate(batch[name])])
        column = getattr(batch[name], "storage", batch[name])  # of an extension type, as `datasets` has for arrays
        values = stacked(column, f"values of '{name}'", lambda i: columns.place(first + i))
        shape = feature.shape if name in self.numbers else ()
        if values.shape[1:] not in (shape, () if shape == (1,) else shape):
            what = f"'{name}' has shape {values.shape[1:]} per step, and {feature.shape} in meta/info.json"
            raise DataError(f"{columns.place(first)}: {what}")
        return values.reshape(len(values), *shape)

    def _image(self, columns: Columns, name: str, step: int, row: Any) -> np.ndarray:
        """(H, W, C) of an image that is a file in the table."""
        content, shape = row["bytes"].as_py(), self.seen[name].shape
        try:
            return decode_image(content or b"", shape, ("PNG", "JPEG")).reshape(shape)
        except (OSError, ValueError) as error:
            raise DataError(f"{columns.place(step)}: '{name}': {error}") from error

    @staticmethod
    def _compare(columns: Columns, steps: np.ndarray, ids: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """DataError where the table's own numbers are not those that the metadata say."""
        for name, right in (("episode_index", ids), ("frame_index", steps - columns.starts[ids]), ("index", steps)):
            if len(wrong := np.flatnonzero(found[name] != right)):
                i = int(wrong[0])
                raise DataError(f"{columns.place(steps[i])}: {name} is {found[name][i]}, expected {right[i]}")


class _Films:
    """The films of one camera, in which the episodes stand one after another."""

    path: Path | None = None

    def __init__(
        self, files: LerobotFiles, spans: dict[str, np.ndarray], key: str, shape: tuple[int, ...], stack: ExitStack
    ) -> None:
        self.files, self.spans, self.key, self.shape = files, spans, key, shape
        self.stack = stack.enter_context(ExitStack())

    def frames(self, columns: Columns, steps: np.ndarray, ids: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 of these steps (T,) of these episodes (T,), so many seconds (T,) after their begin."""
        begin = self.spans[f"videos/{self.key}/from_timestamp"][ids]  # (T,) float64
        fps = self.files.info.fps
        right = (steps - columns.starts[ids]) / fps
        if len(wrong := np.flatnonzero(~(abs(seconds - right) <= 0.5 / fps))):  # NaN is nowhere
            i = int(wrong[0])
            why = f"timestamp is {seconds[i]:.4f}, expected {right[i]:.4f} at {fps:g} frames a second"
            raise DataError(f"{columns.place(steps[i])}: {why}")
        return np.stack([self._one(columns, *one) for one in zip(steps, ids, begin + seconds, strict=True)])

    def _one(self, columns: Columns, step: int, episode: int, time: float) -> np.ndarray:
        path = self.files.film(self.spans, self.key, episode)
        try:
            if path != self.path:
                if not path.is_file():
                    raise ValueError("is missing, or is no file")
                self.stack.close()
                self.film, self.path = self.stack.enter_context(VideoFrames(path, self.shape)), path
            return self.film.at(time, 0.5 / self.files.info.fps)
        except ValueError as error:
            raise DataError(f"{columns.place(step)}: {path.relative_to(self.files.folder)}: {error}") from error
