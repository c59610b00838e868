"""Flat columns of episodes, allocated once, filled piece by piece and checked at the end: what all sources build with.

columns = Columns(label, lengths, like(observations.shape[1:], observations.dtype), like(..., actions=True))
columns.fill(first, observations=..., actions=..., rewards=..., terminations=..., truncations=...)  # any steps
columns.finish(ids, last_observations)  # of these episodes, where the data has them
return columns.checked(config)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes
from rlalgo.config import Count
from rlalgo.core.spaces import MOST, to_mapping
from rlalgo.errors import DataError
from rlutils.data.images import Images
from rlutils.data.mapped import Allocate
from rlutils.data.preparation import Preparation
from rlutils.data.spaces import OutsideSpace, flatten_actions, leaves, stored_actions
from rlutils.machine import host_memory, size

_NUMBER = spaces.Box(-np.inf, np.inf, ())
_WITHIN = 1 + 2e-5
"""Actions up to here are within [-1, 1]: `Episodes.check` forgives as much."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """Options of every source whose files do not say where they come from."""

    env_id: str | None = None
    """Gymnasium id of the environment that the data comes from, to play in; null: none is known."""
    ref_scores: tuple[float, float] | None = None
    """Returns of a random and of an expert policy: 0 and 100 of the normalized score."""
    max_steps: Count | None = None
    """The environment's time limit in steps; null: that of `env_id`, or else the longest episode. Where a file of one
    row a step says nothing of truncations, episodes are cut there."""
    clip_actions: bool = False
    """Clip actions to their space: the file's, or [-1, 1] where it names none."""
    continues: bool = False
    """Episodes go on after a termination, as in recordings of goal tasks: windows go on there, while transitions
    stop bootstrapping. In files of one row a step, truncations alone end episodes then."""


def like(shape: tuple[int, ...], dtype: Any, actions: bool = False) -> spaces.Box:
    """The space of values of which nothing is known but their shape per step and type.

    Actions are whole numbers or others by it, and `Columns.checked` finds the range.

    Raises:
        ValueError: a step claims more numbers than a space may have.
    """
    dtype = np.dtype(dtype)
    if math.prod(shape) > MOST:
        raise ValueError(f"{shape} numbers per step, and {MOST:,} are the most")
    if actions and dtype.kind in "biu":
        whole = np.iinfo(np.int64)
        return spaces.Box(whole.min, whole.max, shape, np.int64)
    if not actions and dtype == np.uint8 and len(shape) in (2, 3):
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape)


def require_file(label: str, path: Path) -> None:
    """DataError unless this is a plain file: a pipe or device might never end."""
    if not path.is_file():
        raise DataError(f"{label}: there is no such file, or it is a folder, pipe or device")


class Columns:
    """Columns of E episodes with N steps, and T+1 observations for each episode of T steps.

    Args:
        label: how messages call the data, with its file.
        lengths: (E,) steps of each episode.
        observations: their space, raw: a Dict of arrays too.
        actions: their space, as `like` gives it.
        spec: what the file says of the data, if that is stored as `Episodes` are: its spaces are those two.
        allocate: makes the array of observations.
        images: what is done to those among observations besides bringing their channels first.

    Raises:
        DataError: there are no episodes, or one without steps; no memory for so much; or observations are of no kind
            that can be stored.
    """

    def __init__(
        self,
        label: str,
        lengths: Any,
        observations: spaces.Space,
        actions: spaces.Space,
        spec: DataSpec | None = None,
        allocate: Allocate = np.empty,
        images: Images | None = None,
    ) -> None:
        self.label, self.spec, lengths = label, spec, np.asarray(lengths)
        if not len(lengths) or lengths.min() < 1:
            which = f"episode {lengths.argmin()} is empty (no steps); drop it" if len(lengths) else "holds no episodes"
            raise DataError(f"{label}: {which}")
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])  # (E+1,)
        self._prepare = self._preparation(observations, images or Images()) if spec is None else None
        self._raw = {"observations": observations, "actions": actions}
        seen = self._prepare.space if self._prepare else observations
        n, e, action = int(self.starts[-1]), len(self.starts) - 1, np.dtype(actions.dtype)
        rows = (n + e, *(seen.shape or ()))
        needed = math.prod(rows) * np.dtype(seen.dtype).itemsize if allocate is np.empty else 0
        needed += n * (math.prod(actions.shape or ()) * action.itemsize + 6)
        if needed > host_memory():
            raise DataError(f"{label}: takes {size(needed)} of memory, and there are {size(host_memory())}")
        self.observations = allocate(rows, seen.dtype)
        self.actions = np.empty((n, *(actions.shape or (() if action.kind == "i" else (1,)))), action)
        self.rewards = np.empty(n, np.float32)
        self.terminations, self.truncations = np.zeros(n, bool), np.zeros(n, bool)
        self.has_final = np.zeros(e, bool)

    def fill(self, first: Any, **columns: Any) -> None:
        """Steps `first`, `first + 1`, ... of all, of columns by the names that `Episodes` has; T values of each.

        Where they do not follow one another, `first` (T,) says which step each is.

        Raises:
            DataError: a value has another shape or kind than its column, with episode and step.
        """
        for name, values in columns.items():
            steps = first if np.ndim(first) else np.arange(first, first + _rows(values))
            self._store(name, steps + self._episode(steps) if name == "observations" else steps, steps, values)

    def finish(self, episodes: Any, observations: Any) -> None:
        """What was seen after the last step of these episodes (M,); where nothing was, the last observation repeats."""
        episodes = np.asarray(episodes)
        self._store("observations", self.starts[episodes + 1] + episodes, self.starts[episodes + 1] - 1, observations)
        self.has_final[episodes] = True

    def checked(self, told: Told, info: Mapping[str, np.ndarray] | None = None) -> Episodes:
        """The episodes, with the spaces of the file or of what was found; those of which nothing says how they ended
        were cut.

        Args:
            told: what the user says of the data.
            info: (E, ...) numbers of each episode by name.

        Raises:
            DataError: they hold something that training must not see.
        """
        last = self.starts[1:] - 1
        if self.spec is None:
            self.truncations[last] |= ~self.terminations[last]
        try:
            spec = self.spec or self._found(told)
            limit = getattr(gymnasium.registry.get(told.env_id or ""), "max_episode_steps", None)
            most = max(told.max_steps or limit or spec.max_steps, int(np.diff(self.starts).max()))
            spec = replace(
                spec,
                max_steps=most,
                env_id=told.env_id or spec.env_id,
                ref_scores=told.ref_scores or spec.ref_scores,
            )
        except OutsideSpace as error:
            raise DataError(f"{self.place(error.row)}: actions: {error}") from error
        except DataError as error:
            raise DataError(f"{self.label}: {error}") from error
        episodes = replace(self.episodes(spec, info or {}), continues=told.continues)
        return checked(episodes, self.label, told.clip_actions)

    def episodes(self, spec: DataSpec, info: Mapping[str, np.ndarray]) -> Episodes:
        """What was filled, not checked."""
        final = self.starts[1:] + np.arange(len(self.has_final))  # (E,) rows after the last steps
        final = final[~self.has_final]
        self.observations[final] = self.observations[final - 1]
        return Episodes(
            observations=torch.from_numpy(self.observations),
            actions=torch.from_numpy(self.actions),
            rewards=torch.from_numpy(self.rewards),
            terminations=torch.from_numpy(self.terminations),
            truncations=torch.from_numpy(self.truncations),
            starts=torch.from_numpy(self.starts),
            has_final=torch.from_numpy(self.has_final),
            info={name: torch.tensor(column) for name, column in info.items()},
            spec=spec,
        )

    def place(self, step: Any) -> str:
        """Of step 0 to N-1 of all, for messages: `LABEL: episode 3, step 17`."""
        episode = int(self._episode(step))
        return f"{self.label}: episode {episode}, step {step - self.starts[episode]}"

    def _episode(self, steps: Any) -> Any:
        return np.searchsorted(self.starts, steps, "right") - 1

    def _preparation(self, space: spaces.Space, images: Images) -> Preparation:
        try:
            return Preparation(space, images)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.label}: observations: {error}") from error

    def _store(self, name: str, rows: np.ndarray, steps: np.ndarray, values: Any) -> None:
        """Values (T, ...) into these rows (T,); they belong to these steps (T,), for messages."""
        if not len(rows):
            return
        out = getattr(self, name)
        for inner, space, part in leaves(self._raw.get(name, _NUMBER), values):
            what = f"{self.place(steps[0])}: {name}{inner and '/' + inner}"
            if part.shape != (len(rows), *(space.shape or ())):
                raise DataError(f"{what} have shape {part.shape[1:]} per step, expected {space.shape}")
            right = {"i": "biu", "u": "u"}.get(np.dtype(space.dtype).kind, "biuf")
            if part.dtype.kind not in right or (right == "u" and part.dtype != np.uint8):
                raise DataError(f"{what} are {part.dtype}, expected {space.dtype}")
        if out.dtype == bool and len(bad := np.flatnonzero((values != 0) & (values != 1))):
            got = values[bad[0]]
            raise DataError(f"{self.place(steps[bad[0]])}: {name.removesuffix('s')} is {got}, expected 0 or 1")
        if name == "observations" and self._prepare and not self._prepare.casts:
            values = self._prepare(values)
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinity, which is refused
            out[rows] = values.reshape(len(rows), *out.shape[1:])

    def _found(self, told: Told) -> DataSpec:
        """What the columns themselves say."""
        assert self._prepare is not None
        action: spaces.Space = self._raw["actions"]
        record = dict(self._prepare.record)
        if action.dtype != np.int64:
            within = told.clip_actions or (self.actions.min() >= -_WITHIN and self.actions.max() <= _WITHIN)
            action = spaces.Box(-1, 1, self.actions.shape[1:]) if within else like(self.actions.shape[1:], np.float32)
        else:
            most = self.actions.max(0)
            if most.ndim == 0:
                action = spaces.Discrete(max(int(most), 0) + 1)
            else:
                choices = spaces.MultiDiscrete(np.maximum(most, 0) + 1)
                self.actions = flatten_actions(choices, self.actions)
                action, record["actions"] = stored_actions(choices), to_mapping(choices)
        return DataSpec(self._prepare.space, action, preprocess=record, max_steps=1)


def checked(episodes: Episodes, label: str, clip_actions: bool) -> Episodes:
    """`Episodes.check`, after actions are clipped to their space where that is wanted.

    Raises:
        DataError: they hold something that training must not see.
    """
    box = episodes.spec.action_space
    if clip_actions and isinstance(box, spaces.Box):
        actions = episodes.actions.numpy()
        np.clip(actions, box.low, box.high, out=actions, casting="same_kind")
    try:
        return episodes.check(label)
    except DataError as error:
        if isinstance(box, spaces.Box) and "outside the action space" in str(error):
            raise DataError(f"{error}. Set `clip_actions: true` in the source to clip them") from error
        raise


def _rows(values: Any) -> int:
    """T of an array, or of a Dict of arrays."""
    return _rows(next(iter(values.values()))) if isinstance(values, Mapping) else len(values)
