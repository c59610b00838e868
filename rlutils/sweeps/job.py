"""A run of a suite, and how far it has come."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError
from rlutils.checkpoints import store as checkpoint
from rlutils.config.files import read_yaml
from rlutils.sweeps.plan import (
    differences,
    one_line,
)
from rlutils.sweeps.suite import Cell


@dataclass
class Job:
    """A run of the suite and how far it has come."""

    cell: Cell
    out: Path
    """The suite's folder."""
    state: Literal["waiting", "running", "finished", "failed", "changed"]
    note: str = ""
    """Of a waiting run what there is of it, of a failed one its error."""
    reached: int = 0
    """Updates made before: the step of the checkpoint that it goes on from."""
    tries: int = 0
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    since: float = 0.0
    """When this try began, as files tell the time; what is older is of another."""
    log_start: int = 0
    """Where in the log it begins."""

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @property
    def log(self) -> Path:
        return self.out / "logs" / f"{self.name}.log"

    @property
    def steps(self) -> int | None:
        """How many updates it is to make, where its trainer says so."""
        return getattr(self.cell.settings.trainer.config, "steps", None)


def look(cell: Cell, out: Path) -> Job:
    """A run as its folder shows it."""
    job, folder = Job(cell, out, "waiting"), out / cell.name
    if not (folder / "config.yaml").exists():
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        if files:
            raise ConfigError([f"{folder} holds {files[0].name} and is not a run; choose another --out"])
        return job
    if differ := differences(read_yaml(folder / "config.yaml"), to_mapping(cell.settings)):
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        job.state, job.note = "changed", "; ".join(differ[:3]) + more
        return job
    record = read_yaml(folder / "run.yaml") if (folder / "run.yaml").exists() else {}
    last = checkpoint.find(folder, or_none=True)
    if record.get("state") == "finished":
        job.state = "finished"
    elif last is not None:
        failed = f", failed with: {one_line(str(record['error']))}" if record.get("state") == "failed" else ""
        job.reached = int(last.resolve().name.removeprefix("step_"))
        job.note = f"stopped at step {job.reached:,}{failed}"
    return job
