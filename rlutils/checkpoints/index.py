"""checkpoints/index.json: which checkpoints a run has completed, and which of them are called `last` and `best`.

Names in a file, not links, so that a run survives copying by any tool. A folder without it is told by what lies there.
"""

import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlutils.config.files import read_as, write_json

PATTERN = re.compile(r"step_(\d{9,18})")
NEEDED = ("model.safetensors", "algo.yaml")
FILES = (*NEEDED, "trainer.safetensors", "trainer.json")


@dataclass(frozen=True)
class Index:
    run: str
    """Tells the run from every other one."""
    last: str | None = None
    best: str | None = None
    complete: list[str] = field(default_factory=list)
    """Names of the checkpoints, oldest first."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in (self.last, self.best, *self.complete):
            if name is not None and (not PATTERN.fullmatch(name) or name not in self.complete):
                raise ValueError("last, best and complete name checkpoints as step_000001000")


def new_index() -> Index:
    """Of a run that has no checkpoints yet. The system draws its name: seeds have no part in it."""
    return Index(secrets.token_hex(8))


def step_of_name(name: str | None) -> int | None:
    """The step that `step_000001000` says; None for other names."""
    found = PATTERN.fullmatch(name or "")
    return int(found[1]) if found else None


def is_complete(path: Path) -> bool:
    """Whether a folder holds what playing needs."""
    return all((path / name).is_file() for name in NEEDED)


def read_index(folder: Path) -> Index | None:
    """Of a run's `checkpoints` folder; None where there is no such file.

    Raises:
        CheckpointError: it is not what `write_index` wrote.
    """
    file = folder / "index.json"
    if not os.path.lexists(file):
        return None
    return read_as(Index, file, "remove this index, and the newest complete checkpoint is the last")


def is_listed(path: Path) -> bool:
    """Whether a checkpoint is there and its run's index lists it."""
    index = read_index(path.parent)
    return index is not None and path.name in index.complete and is_complete(path)


def write_index(folder: Path, index: Index) -> None:
    """Replaces index.json in one step.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    write_json(folder / "index.json", asdict(index))


def look(folder: Path) -> Index:
    """What the index says; without one, the complete checkpoints that lie there, of a run of unknown name ('').

    Raises:
        CheckpointError: see `read_index`.
    """
    if (index := read_index(folder)) is not None:
        return index
    found = [(step, path) for path in folder.glob("step_*") if (step := step_of_name(path.name)) is not None]
    names = [path.name for _, path in sorted(found) if is_complete(path)]
    return Index("", names[-1] if names else None, None, names)
