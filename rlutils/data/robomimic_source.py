"""robomimic's HDF5 files of demonstrations, as Episodes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import h5py
import numpy as np
from gymnasium import spaces
from pydantic import Field

from rlalgo import Episodes
from rlalgo.errors import DataError, blaming, near
from rlutils.data.columns import Columns, Told, like, require_file
from rlutils.data.hdf5 import Hdf5


class RobomimicSource:
    """`data/demo_N/{obs/KEY, next_obs/KEY, actions, rewards, dones}`, in the order of N.

    Observations are a Dict of the keys that are chosen: vectors are joined in this order, images kept as such.
    """

    name: ClassVar[str] = "robomimic"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """The file."""
        keys: Annotated[tuple[str, ...], Field(min_length=1)]
        """Which observations to use, such as [object, robot0_eef_pos, robot0_eef_quat, robot0_gripper_qpos]."""
        demos: str | None = None
        """Which demonstrations: the name of a list in the file's `mask`, such as train; null: all."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"robomimic:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the file cannot be read, or holds something that training must not see.
        """
        require_file(self.label, self.config.path)
        with blaming(DataError, f"{self.label} cannot be read"), Hdf5(self.label, self.config.path) as file:
            demos = [f"data/{name}" for name in self._demos(file)]
            self._check_keys(file, demos[0])
            parts = [(key, self._like(file, f"{demos[0]}/obs/{key}")) for key in self.config.keys]
            action = self._like(file, f"{demos[0]}/actions", actions=True)
            lengths = [next(iter(file.array(f"{demo}/rewards", i)[1]), 0) for i, demo in enumerate(demos)]
            columns = Columns(self.label, lengths, spaces.Dict(parts), action)
            for i, demo in enumerate(demos):
                found = {name: _read(file, f"{demo}/{name}", i) for name in ("actions", "rewards", "dones")}
                seen = {f"obs/{key}": _read(file, f"{demo}/obs/{key}", i) for key in self.config.keys}
                for name, values in (found | seen).items():
                    if values.shape[:1] != (lengths[i],):
                        where = f"{self.label}: episode {i}: {demo}/{name}"
                        raise DataError(f"{where} have shape {values.shape}, expected {lengths[i]} steps")
                columns.fill(
                    columns.starts[i],
                    observations={name.removeprefix("obs/"): values for name, values in seen.items()},
                    actions=found["actions"],
                    rewards=found["rewards"],
                    terminations=found["dones"],
                )
                with file.reading(i):
                    has_final = "next_obs" in file.file[demo]
                if has_final:
                    last = {key: _read(file, f"{demo}/next_obs/{key}", i, -1) for key in self.config.keys}
                    columns.finish([i], last)
        return columns.checked(self.config)

    def _demos(self, file: Hdf5) -> list[str]:
        """Names of demonstrations, by their number."""
        if self.config.demos:
            names = [name.decode() for name in _read(file, f"mask/{self.config.demos}").tolist()]
        else:
            with file.reading():
                names = list(file.file["data"])
        found = [name for name in names if re.fullmatch(r"demo_\d{1,9}", name)]
        if not found:
            raise DataError(f"{self.label}: holds no demonstrations (data/demo_0, ...)")
        return sorted(found, key=lambda name: int(name[5:]))

    def _check_keys(self, file: Hdf5, demo: str) -> None:
        with file.reading(path=demo):
            if "obs" not in file.file[demo]:
                cure = "add observations by robomimic's dataset_states_to_obs.py"
                raise DataError(f"{self.label}: {demo} has no obs, only {', '.join(file.file[demo])}; {cure}")
            there = list(file.file[f"{demo}/obs"])
        for key in self.config.keys:
            if key not in there:
                raise DataError(
                    f"{self.label}: no observation is called '{key}'; there are {', '.join(there)}.{near(key, there)}"
                )

    @staticmethod
    def _like(file: Hdf5, path: str, actions: bool = False) -> spaces.Box:
        _, shape, dtype = file.array(path)
        return like(shape[1:], dtype, actions)


def _read(file: Hdf5, path: str, episode: int | None = None, first: int = 0) -> np.ndarray:
    """Rows of an array, from this one on."""
    dataset, _, _ = file.array(path, episode)
    with file.reading(episode, path):
        rows: np.ndarray = h5py.Dataset(dataset)[first:]
    return rows
