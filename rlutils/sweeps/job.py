"""A run of a suite: how far it has come, whether its settings are still the planned ones, and how it failed."""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError
from rlutils.checkpoints import store as checkpoint
from rlutils.config.files import read_yaml
from rlutils.sweeps.suite import Cell

HOW_NOT_WHAT = ("threads", "plugins")
"""Settings that may change before a run goes on: they say how it runs and where code is found."""


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
    if not (job.folder / "config.yaml").exists():
        files = [path for path in job.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        if files:
            raise ConfigError([f"{job.folder} holds {files[0].name} and is not a run; choose another --out"])
        return job
    if changes := differences(read_yaml(job.folder / "config.yaml"), to_mapping(cell.settings)):
        texts = [f"{path}: {json.dumps(was)}, now {json.dumps(now)}" for path, (was, now) in changes.items()]
        more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
        job.state, job.note = "changed", "; ".join(texts[:3]) + more
        return job
    record = read_yaml(job.folder / "run.yaml") if (job.folder / "run.yaml").exists() else {}
    last = checkpoint.last_of(job.folder)
    if record.get("state") == "finished":
        job.state = "finished"
    elif last is not None:
        failed = f", failed with: {one_line(str(record['error']))}" if record.get("state") == "failed" else ""
        job.reached = checkpoint.step_of(last)
        job.note = f"stopped at step {job.reached:,}{failed}"
    return job


def progress(job: Job) -> tuple[int, float]:
    """The step that a run has come to and the seconds it took, as its own files say, but for those of a try before."""
    found = (job.reached, 0.0)
    with contextlib.suppress(OSError, ValueError, KeyError, ConfigError):  # not yet written, or just being replaced
        path = job.folder / "run.yaml"
        if path.stat().st_mtime >= job.since:
            record = read_yaml(path)
            found = (int(record["step"]), float(record["seconds"]))
    with contextlib.suppress(OSError, ValueError), (job.folder / "metrics.csv").open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")[1:-1]  # whole ones, without the header
        if lines and status.st_mtime >= job.since:
            step, seconds = lines[-1].split(",")[:2]
            found = max(found, (int(step), float(seconds)))
    return found


def differences(one: Any, two: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted path -> both values, where two configurations differ in what matters to a result."""
    pairs: dict[Any, tuple[Any, Any]]
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        pairs = {key: (one.get(key), two.get(key)) for key in {**one, **two} if path or key not in HOW_NOT_WHAT}
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = dict(enumerate(zip(one, two, strict=True)))
    else:  # JSON tells 1 from 1.0 and from true
        return {} if json.dumps(one, default=str) == json.dumps(two, default=str) else {path: (one, two)}
    nested = (differences(*pair, f"{path}.{key}" if path else str(key)) for key, pair in pairs.items())
    return {path: pair for found in nested for path, pair in found.items()}


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
