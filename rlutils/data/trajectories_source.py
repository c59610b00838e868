"""Pickled lists of trajectories, as the Decision Transformer's authors write them, as Episodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rlalgo import Episodes
from rlalgo.errors import DataError, blaming, shown
from rlutils.data.columns import Columns, Told, like, require_file
from rlutils.data.unpickling import require_unshared, unpickle

_NEEDED = ("observations", "actions", "rewards")
_ENDS = {"dones": "terminations", "terminals": "terminations", "timeouts": "truncations"}
"""Terminals come later and stand, where both are there: dones may mean the end of the time, too."""


class TrajectoriesSource:
    """A pickle of a list of dicts, one a trajectory: observations (T, *S), actions, rewards, and where they are there
    terminals or dones, timeouts, and next_observations, of which the last one is taken.

    Nothing in the pickle is called: only arrays of numbers and plain containers are read, each array in its turn.
    """

    name: ClassVar[str] = "trajectories"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """The file, such as hopper-medium-v2.pkl."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"trajectories:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the file cannot be read, or holds something that training must not see.
        """
        require_file(self.label, self.config.path)
        with blaming(DataError, f"{self.label} cannot be read"):
            found = unpickle(self.config.path)
            if not isinstance(found, list) or not found or not all(isinstance(part, dict) for part in found):
                raise DataError(f"{self.label}: expected a list of dicts, one for each trajectory")
            lengths, steps, most = list[int](), 0, self.config.path.stat().st_size
            for i in range(len(found)):
                lengths.append(len(self._values(found, i, "rewards")))
                if (steps := steps + lengths[i]) > most:
                    raise DataError(f"{self.label}: {steps:,} steps and more, and the file has {most:,} bytes")
            seen, action = (self._values(found, 0, name) for name in ("observations", "actions"))
            spaces = like(seen.shape[1:], seen.dtype), like(action.shape[1:], action.dtype, actions=True)
            columns = Columns(self.label, lengths, *spaces)
            for i, length in enumerate(lengths):
                more = [name for name in (*_ENDS, "next_observations") if name in found[i]]
                for name in (*_NEEDED, *more):
                    values = self._values(found, i, name)
                    if len(values) != length:
                        raise DataError(f"{self.label}: episode {i}: {len(values)} {name} but {length} rewards")
                    if name == "next_observations":
                        columns.finish([i], values[-1:])
                    else:
                        columns.fill(columns.starts[i], **{_ENDS.get(name, name): values})
                found[i] = {}  # lists that were copied take no memory any more
            return columns.checked(self.config)

    def _values(self, found: list[dict], episode: int, name: str) -> np.ndarray:
        """One array of a trajectory."""
        where = f"{self.label}: episode {episode}"
        if name not in found[episode]:
            there = ", ".join(map(shown, list(found[episode])[:40]))
            raise DataError(f"{where}: has no '{name}'; it has {there}")
        values: Any = found[episode][name]
        with blaming(DataError, f"{where}: {name}"):
            require_unshared(values, self.config.path.stat().st_size)
            array = np.asarray(values)
            if array.ndim == 0:
                raise DataError(f"{where}: {name} are no array")
        return array
