"""What a person sees of a sweep: a table that lives in a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlutils.machine import clock
from rlutils.sweeps.job import Job, progress

STYLES = {"finished": "green", "running": "cyan", "failed": "red"}


class View:
    """Runs by algorithm and dataset, those at work with their speed, and the whole."""

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self.jobs, self.console = jobs, console
        self.stopping = ""
        """The signal that asked to stop."""
        self.began = time.monotonic()
        self.in_terminal = console.is_terminal

    def live(self) -> AbstractContextManager:
        """Shows the table in a terminal while this lasts, as it is at each second."""
        if not self.in_terminal:
            return contextlib.nullcontext()
        return Live(get_renderable=self.picture, console=self.console, refresh_per_second=1)

    def say(self, job: Job, event: str) -> None:
        """A line for each thing that happens; in a terminal, where the table shows the rest, only for faults."""
        if self.in_terminal and not (job.note and job.state in ("waiting", "failed")):
            return
        count = f"[{sum(job.state == 'finished' for job in self.jobs)}/{len(self.jobs)}]"
        took = f" in {clock(time.monotonic() - job.began)}" if job.state == "finished" else ""
        note = f": {job.note}" if job.note else ""
        self.console.print(f"{count} {job.name} {event}{took}{note}", soft_wrap=True)

    def picture(self) -> Group:
        parts: list[RenderableType] = [self._grid(), Text()]
        running = [job for job in self.jobs if job.state == "running"]
        if running:
            parts += [_at_work(running), Text()]
        parts.append(self._whole())
        if self.stopping:
            left = f"; {len(running)} to write a checkpoint. Once more kills them." if running else ""
            parts.append(Text(f"stopped by {self.stopping}{left}", style="yellow"))
        return Group(*parts)

    def _grid(self) -> Table:
        """How many of each algorithm's runs on each dataset are finished, at work, failed."""
        states: dict[str, dict[str, list[str]]] = {}  # row -> dataset -> of each run
        for job in self.jobs:
            row = states.setdefault(job.cell.row, {})
            row.setdefault(job.cell.dataset, []).append(job.state)
        datasets = list(dict.fromkeys(job.cell.dataset for job in self.jobs))
        table = Table("", *datasets, box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name, row in states.items():
            table.add_row(name, *(_counts(row.get(dataset, [])) for dataset in datasets))
        return table

    def _whole(self) -> Table:
        states = [job.state for job in self.jobs]
        counts = [f"{states.count('finished')} of {len(states)} runs finished"]
        counts += [f"{states.count(s)} {s}" for s in ("running", "failed", "changed", "waiting") if s in states]
        table = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=len(states), completed=sum(map(_share, self.jobs)), width=30)
        table.add_row(bar, ", ".join(counts), clock(round(time.monotonic() - self.began)))
        return table


def _at_work(running: Sequence[Job]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("running", no_wrap=True)
    for column in ("step", "of", "a second", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    for job in running:
        step, seconds = progress(job)
        rate = step / seconds if seconds else 0.0
        left = clock(round((job.steps - step) / rate)) if rate and job.steps else "–"
        speed = f"{rate:,.0f}" if rate else "–"
        table.add_row(job.name, f"{step:,}", f"{job.steps:,}" if job.steps else "–", speed, left)
    return table


def _counts(states: Sequence[str]) -> Text:
    if not states:
        return Text("–", style="dim")
    finished = states.count("finished")
    text = Text(f"{finished}/{len(states)}", style=STYLES["finished"] if finished == len(states) else "")
    for state in ("running", "failed"):
        if count := states.count(state):
            text.append(f" {count} {state}", STYLES[state])
    return text


def _share(job: Job) -> float:
    """How much of a run is done, 0 to 1."""
    if job.state == "finished":
        return 1.0
    return min(1.0, progress(job)[0] / job.steps) if job.steps and job.state != "changed" else 0.0
