"""A run of a suite: how far it has come, whether its settings are still the planned ones, and how it failed."""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlutils.checkpoints.description import step_of
from rlutils.checkpoints.store import last_of
from rlutils.config.files import read_yaml
from rlutils.config.recorded import changes, in_words
from rlutils.sweeps.suite import Cell
from rlutils.training.facts import run_facts
from rlutils.training.folder import stage


@dataclass
class Job:
    """A run of the suite and how far it has come."""

    cell: Cell
    out: Path
    """The suite's folder."""
    state: Literal["waiting", "running", "finished", "failed", "changed"] = "waiting"
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
    moved: tuple[int, float] = (0, 0.0)
    """The newest time of its files, and when that was first seen."""
    hung: float | None = None
    """When it was asked to end because it hangs."""

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
    """A run as its folder shows it.

    Raises:
        ConfigError: its folder holds something else, or its files cannot be read.
    """
    job = Job(cell, out)
    if (at := stage(job.folder)) == "free":
        return job
    if found := changes(read_yaml(job.folder / "config.yaml"), cell.settings):
        job.state, job.note = "changed", in_words(found)
        return job
    facts, last = run_facts(job.folder), last_of(job.folder)
    if at == "finished":
        job.state = "finished"
    elif last is not None:
        failed = f", failed with: {one_line(str(facts.error))}" if facts.state == "failed" else ""
        job.reached = step_of(last)
        job.note = f"stopped at step {job.reached:,}{failed}"
    return job


def progress(job: Job) -> tuple[int, float]:
    """The step that a run has come to and the seconds it took, as its own files say, but for those of a try before."""
    found = (job.reached, 0.0)
    with contextlib.suppress(OSError):  # not yet written, or just being replaced
        if (job.folder / "run.yaml").stat().st_mtime >= job.since:
            facts = run_facts(job.folder)
            found = (facts.step, facts.seconds)
    with contextlib.suppress(OSError, ValueError), (job.folder / "metrics.csv").open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")[1:-1]  # whole ones, without the header
        if lines and status.st_mtime >= job.since:
            step, seconds = lines[-1].split(",")[:2]
            found = max(found, (int(step), float(seconds)))
    return found


def stands_still(job: Job) -> float:
    """Seconds since the run's files or its output have changed. That its process holds the folder says nothing."""
    newest = 0
    with contextlib.suppress(OSError):  # one is just being replaced
        files = [job.log, *(path for path in job.folder.glob("[!.]*"))]
        newest = max(path.stat().st_mtime_ns for path in files)
    if newest != job.moved[0]:
        job.moved = newest, time.monotonic()
    return time.monotonic() - job.moved[1]


def last_error(log: Path, start: int = 0) -> str:
    """What a run's log ends with from this byte on, in one line: its error, else its last line, else nothing."""
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(("error: ", "Traceback"))), None)
    if at is not None and lines[at].startswith("Traceback"):  # its frames are indented, the error is not
        at = next((i for i in range(at + 1, len(lines)) if not lines[i].startswith(" ")), None)
    return one_line("\n".join(lines[-1:] if at is None else lines[at:]).removeprefix("error: "))


def one_line(text: str) -> str:
    """The lines of a message one after another."""
    return "; ".join(line.strip().rstrip(".") for line in text.splitlines() if line.strip())
