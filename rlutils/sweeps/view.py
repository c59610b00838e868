"""What a person sees of a sweep: a table that lives in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlalgo.errors import ConfigError
from rlutils.config.files import read_yaml

if TYPE_CHECKING:
    from rlutils.sweeps.job import Job

STYLES = {"finished": "green", "running": "cyan", "failed": "red", "changed": "yellow", "waiting": "dim"}
EVERY = 1.0
"""Seconds between looks at the running runs' files."""


class View:
    """Runs by algorithm and dataset, those at work with their speed, and the whole; a context of its own."""

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.jobs, self.console = jobs, console
        self.stopping = ""
        self.began = self.shown = time.monotonic()
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> View:
        if self.live is not None:
            self.live.start()
            self.refresh(now=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.refresh(now=True)
            self.live.stop()

    def say(self, job: Job, what: str) -> None:
        """A line for each thing that happens; in a terminal, where the table shows the rest, only for faults."""
        if self.live is not None and not (job.note and job.state in ("waiting", "failed")):
            return
        count = f"[{sum(j.state == 'finished' for j in self.jobs)}/{len(self.jobs)}]"
        took = f" in {clock(time.monotonic() - job.began)}" if job.state == "finished" else ""
        note = f": {job.note}" if job.note else ""
        self.console.print(f"{count} {job.name} {what}{took}{note}", markup=False, soft_wrap=True)

    def refresh(self, now: bool = False) -> None:
        if self.live is not None and (now or time.monotonic() - self.shown >= EVERY):
            self.shown = time.monotonic()
            self.live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        parts: list[RenderableType] = [self._grid(), Text()]
        running = [job for job in self.jobs if job.state == "running"]
        if running:
            parts += [_at_work(running), Text()]
        parts.append(self._whole())
        if self.stopping:
            left = f"stopped by {self.stopping}; {len(running)} to write a checkpoint. Once more kills them."
            parts.append(Text(left if running else f"stopped by {self.stopping}", style="yellow"))
        return Group(*parts)

    def _grid(self) -> Table:
        """How many of each algorithm's runs on each dataset are finished, at work, failed."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("")
        datasets = list(dict.fromkeys(job.cell.dataset for job in self.jobs))
        for dataset in datasets:
            table.add_column(dataset)
        for row in dict.fromkeys((job.cell.algo, job.cell.options) for job in self.jobs):
            cells = []
            for dataset in datasets:
                mine = [job.state for job in self.jobs if (job.cell.algo, job.cell.options) == row
                        and job.cell.dataset == dataset]  # fmt: skip
                cells.append(_counts(mine))
            table.add_row(" ".join(row).strip(), *cells)
        return table

    def _whole(self) -> Table:
        states = [job.state for job in self.jobs]
        share = sum(_share(job) for job in self.jobs)
        table = Table.grid(padding=(0, 2, 0, 0))
        said = ", ".join(f"{states.count(s)} {s}" for s in ("running", "failed", "changed", "waiting") if s in states)
        done = f"{states.count('finished')} of {len(states)} runs finished"
        bar = ProgressBar(total=len(states), completed=share, width=30)
        table.add_row(bar, done + (f", {said}" if said else ""), clock(time.monotonic() - self.began))
        return table


def progress(job: Job) -> tuple[int, float]:
    """The step that a run has come to and the seconds it took, as its own files say, but for those of a try before."""
    found = (job.reached, 0.0)
    with contextlib.suppress(OSError, ValueError, ConfigError):  # not yet written, or just being replaced
        file_of_record = job.folder / "run.yaml"
        record = read_yaml(file_of_record) if file_of_record.stat().st_mtime >= job.since else {}
        found = (int(record["step"]), float(record["seconds"])) if "step" in record else found
        with (job.folder / "metrics.csv").open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < job.since:
                return found
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")[1:-1]  # whole lines, without the header
        step, seconds = lines[-1].split(",")[:2] if lines else (0, 0)  # what the file begins with
        found = max(found, (int(step), float(seconds)))
    return found


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _at_work(running: Sequence[Job]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("running", no_wrap=True)
    for column in ("step", "of", "a second", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    for job in running:
        step, seconds = progress(job)
        rate = step / seconds if seconds else 0.0
        total = job.steps
        left = clock((total - step) / rate) if rate and total else "–"
        speed = f"{rate:,.0f}" if rate else "–"
        table.add_row(job.name, f"{step:,}", f"{total:,}" if total else "–", speed, left)
    return table


def _counts(states: Sequence[str]) -> Text:
    if not states:
        return Text("–", style="dim")
    text = Text(f"{states.count('finished')}/{len(states)}")
    text.stylize("green" if states.count("finished") == len(states) else "")
    for state in ("running", "failed"):
        if count := states.count(state):
            text.append(f" {count} {state}", STYLES[state])
    return text


def _share(job: Job) -> float:
    """How much of a run is done, 0 to 1."""
    if job.state == "finished":
        return 1.0
    return min(1.0, progress(job)[0] / job.steps) if job.steps and job.state != "changed" else 0.0
