"""D4RL's files: flat HDF5 columns, as Episodes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from rlalgo import Episodes
from rlalgo.errors import DataError, blaming
from rlutils.data.columns import Told, require_file
from rlutils.data.flat import Array, named, read_flat
from rlutils.data.hdf5 import Hdf5

_NAMES = {"terminations": "terminals", "truncations": "timeouts"}
_OWN = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
_SINGLE = ("rewards", "terminals", "timeouts")
_SCORES = {
    "maze2d-open-dense": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125),
    "maze2d-large-dense": (30.569041, 303.4857382709002),
    "maze2d-open": (0.01, 20.66),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "minigrid-fourrooms": (0.01442, 2.89685),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "hopper": (-20.272305, 3234.3),
    "antmaze": (0.0, 1.0),
    "ant": (-325.6, 3879.7),
    "kitchen": (0.0, 4.0),
    "flow-ring": (-165.22, 24.42),
    "flow-merge": (118.67993, 330.03179),
    "carla-lane": (-0.8503839912088142, 1023.5784385429523),
    "carla-town": (-114.81579500772153, 2440.1772022247314),
    "bullet-halfcheetah": (-1275.766996, 2381.6725),
    "bullet-hopper": (20.058972, 1441.8059623430963),
    "bullet-ant": (373.705955, 2650.495),
    "bullet-walker2d": (16.523877, 1623.6476303317536),
    "bullet-maze2d-open": (8.75, 64.15),
    "bullet-maze2d-umaze": (32.46, 153.99),
    "bullet-maze2d-medium": (14.87, 238.05),
    "bullet-maze2d-large": (1.82, 285.92),
}
"""Returns of a random and of an expert policy by the beginning of a task's name, as D4RL gives them (d4rl/infos.py)."""


_FILES = {
    "Ant-maze": "antmaze",
    "mini-kitchen": "kitchen",
    "minigrid4rooms": "minigrid-fourrooms",
    "walker-": "walker2d-",
}
"""How the names of files begin that are not called as their tasks."""


def d4rl_scores(task: str) -> tuple[float, float] | None:
    """D4RL's reference scores of a task, such as hopper-medium-v2 or a file's hopper_medium-v2; None of others."""
    task = f"{task.replace('_', '-').replace('-sparse', '')}-"
    for file, name in _FILES.items():
        task = re.sub(f"^{file}", name, task)
    return next((scores for name, scores in _SCORES.items() if task.startswith(f"{name}-")), None)


class D4rlSource:
    """A file of D4RL: observations, actions, rewards, terminals, timeouts, and next_observations in some.

    An episode ends at a terminal or timeout, as in D4RL's qlearning_dataset; the rest after the last of them is an
    episode too. The steps with timeouts, which qlearning_dataset leaves out, are kept: where the file does not have
    what was seen after them, windows contain them and transitions do not. In antmaze every step at the goal is a
    terminal, and the ant walks on: `continues: true` keeps such episodes whole.
    """

    name: ClassVar[str] = "d4rl"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """The file, such as hopper_medium-v2.hdf5."""
        task: str | None = None
        """D4RL's name of the task, such as hopper-medium-v2, which reference scores go by; null: the file's name."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"d4rl:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the file cannot be read, or holds something that training must not see.
        """
        config, scores = self.config, d4rl_scores(self.config.task or self.config.path.stem)
        if config.task and scores is None and config.ref_scores is None:
            raise DataError(f"{self.label}: D4RL has no task {config.task}; leave it out, and give ref_scores if known")
        require_file(self.label, self.config.path)
        with blaming(DataError, f"{self.label} cannot be read"), Hdf5(self.label, config.path) as file:
            with file.reading():
                there = [name for name in _OWN if name in file.file]
            if "timeouts" not in there and not config.max_steps:
                cure = "set `max_steps` to the time limit at which its episodes were cut"
                raise DataError(f"{self.label}: has no 'timeouts'; {cure}")
            names = {own: name for own, name in _NAMES.items() if name in there or own == "terminations"}
            arrays = named(self.label, {name: _array(file, name) for name in there}, names)
            return read_flat(self.label, arrays, replace(config, ref_scores=config.ref_scores or scores))


def _array(file: Hdf5, name: str) -> Array:
    dataset, shape, dtype = file.array(name)

    one = name in _SINGLE and shape[1:] == (1,)  # which D4RL takes for the same

    def read(first: int, end: int) -> np.ndarray:
        with file.reading(path=name):
            rows: np.ndarray = h5py.Dataset(dataset)[first:end]
        return rows[:, 0] if one else rows

    return Array(shape[:1] if one else shape, dtype, read)
