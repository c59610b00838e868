"""Sweeps: the runs of a suite as local processes, several at a time, whose state is nothing but their own folders.

Each is a process of the line that `--commands` prints, which any scheduler may start instead. A finished run is left
alone, a stopped one goes on from its checkpoint, one that crashed or hung is tried again once, after all the others.
So a sweep may be stopped at any time, and started again to go on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rlalgo.errors import ConfigError
from rlutils.config.claim import ClaimError, claimed, is_claimed, refuse_claimed
from rlutils.machine import GRACE, PARENT, clock, cores, listening
from rlutils.sweeps.job import Job, last_error, look, stands_still
from rlutils.sweeps.plan import refuse_foreign, write_plan
from rlutils.sweeps.suite import Cell, Suite, check_data, matches, read_suite
from rlutils.sweeps.view import View
from rlutils.terminal import Terminal

TRAIN = (sys.executable, "-P", "-m", "rlutils", "train")  # -P: nothing is imported from the working folder
FAULT = 2
"""The exit status of an error that a person has to mend, so that trying again is no use; a crash has 1."""


class Stop:
    """How often a signal has asked the sweep to stop, and which."""

    times = 0
    name = ""

    def __call__(self, name: str) -> None:
        self.times += 1
        self.name = name


def plan(
    path: Path, only: Sequence[str] = (), out: Path | None = None, plugins: Sequence[str] = ()
) -> tuple[list[Job], list[Cell], Suite]:
    """The chosen runs of a suite file in their present state, all of its runs, and the suite; arguments as of `sweep`.

    Raises:
        ConfigError: every fault of the suite or of its runs' settings and local data; a pattern that matches no run;
            a folder of something else.
    """
    suite, cells = read_suite(path, plugins)
    folder = out or Path(suite.out or Path("runs") / path.stem)
    patterns = only or ("*",)
    for pattern in patterns:
        if not any(matches(pattern, cell.name) for cell in cells):
            raise ConfigError([f"--only '{pattern}' matches no run; they have names such as {cells[0].name}"])
    jobs = [look(cell, folder) for cell in cells if any(matches(pattern, cell.name) for pattern in patterns)]
    refuse_foreign(folder)
    absent = check_data([job.cell for job in jobs if job.state != "finished"], download=False)
    for job in jobs:
        if job.name in absent and job.state == "waiting" and not job.note:
            job.note = "its dataset is not on this machine and is to be downloaded first"
    return jobs, cells, suite


def commands(path: Path, only: Sequence[str] = (), out: Path | None = None, plugins: Sequence[str] = ()) -> list[str]:
    """A line for each of the chosen runs; suite.yaml is written, by which the folder is known. Arguments as of `sweep`.

    Raises:
        ConfigError: as of `plan`; a run is there already with other settings.
    """
    jobs, cells, _ = plan(path, only, out, plugins)
    _refuse_changed(jobs)
    write_plan(jobs[0].out, path, cells)
    return [job.cell.command(job.out) for job in jobs]


def sweep(
    path: str | Path,
    only: Sequence[str] = (),
    processes: int | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    plugins: Sequence[str] = (),
    console: Console | None = None,
) -> list[Job]:
    """Does what is left to do of a suite, and returns all of its (chosen) runs, each finished or failed.

    Args:
        path: the suite file.
        only: patterns of names such as `td3_bc/hopper/medium/s0`; none does every run.
        processes: runs at a time; None takes the suite's number, else one for each core.
        out: folder of all runs; None takes the suite's own.
        replace: start runs anew whose settings have changed since; else they are an error.
        plugins: modules and files to load besides those that the suite names.
        console: where to show the progress.

    Raises:
        ConfigError: every fault of the suite, of any run's settings, and of runs that are there already.
        KeyboardInterrupt: a signal asked to stop; what ran has written a checkpoint.
    """
    path = Path(path)
    planned, cells, suite = plan(path, only, None if out is None else Path(out), plugins)
    folder = planned[0].out
    with claimed(folder):
        jobs = [look(job.cell, folder) for job in planned]  # another sweep may have been at work until now
        if not replace:
            _refuse_changed(jobs)
        todo = [job for job in jobs if job.state != "finished"]
        check_data([job.cell for job in todo], download=True)
        write_plan(folder, path, cells)
        at_once = max(1, min(processes or suite.processes or cores(), len(todo)))
        patience = None if suite.stall_minutes is None else 60 * suite.stall_minutes
        stop = Stop()
        with listening(stop):
            view = View(jobs, console or Terminal())
            Runner(todo, at_once, max(1, cores() // at_once), patience, stop).work(view)
    if stop.times:
        done = sum(job.state == "finished" for job in jobs)
        counts = f"{done} of {len(jobs)} runs finished"
        raise KeyboardInterrupt(f"stopped by {stop.name}: {counts}, nothing is lost; the same command goes on")
    return jobs


class Runner:
    """Keeps so many processes at work until nothing is left to do."""

    def __init__(self, jobs: Sequence[Job], processes: int, threads: int, patience: float | None, stop: Stop) -> None:
        self.queue, self.running = deque(jobs), list[Job]()
        self.processes, self.threads, self.stop = processes, threads, stop
        self.patience = float("inf") if patience is None else patience
        """Seconds that a run may stand still."""
        self.looked = 0.0

    def work(self, view: View) -> None:
        """Returns when every job is finished or failed, or when a signal has stopped those at work."""
        heeded = 0
        try:
            with view.live():
                while self.running or (self.queue and not self.stop.times):
                    while len(self.running) < self.processes and not self.stop.times and (job := self._next()):
                        self._start(job)
                        view.say(job, "goes on" if job.note else "started")
                    for job in [job for job in self.running if job.process and job.process.poll() is not None]:
                        self._settle(job)
                        again = "stopped" if self.stop.times else "failed and will be tried again"
                        view.say(job, again if job.state == "waiting" else job.state)
                    if self.stop.times > heeded:
                        heeded = self.stop.times
                        self._signal(self.running, signal.SIGTERM if heeded == 1 else signal.SIGKILL)
                        view.stopping = self.stop.name
                    self._end_hung()
                    time.sleep(0.1)
        finally:
            self._end()

    def _next(self) -> Job | None:
        """The first job that no other process of this machine is at work on."""
        for _ in range(len(self.queue)):
            job = self.queue.popleft()
            try:
                refuse_claimed(job.folder)
                return job
            except ClaimError:
                self.queue.append(job)
        return None

    def _start(self, job: Job) -> None:
        """A process group of its own, so that a terminal's Ctrl-C reaches it through us only, and once."""
        now = look(job.cell, job.out)
        threads = job.cell.settings.threads or self.threads
        how = "--replace" if now.state == "changed" else "--continue"
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            job.log_start, job.since = log.tell(), time.time()
            job.process = subprocess.Popen(
                [*TRAIN, *job.cell.words, f"threads={threads}", "--out", str(job.folder), how],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **limits, PARENT: str(os.getpid())},
                start_new_session=True,
            )
        self.running.append(job)
        goes_on = now.state == "waiting"
        job.state, job.note, job.reached = "running", now.note if goes_on else "", now.reached if goes_on else 0
        job.tries, job.began, job.hung, job.moved = job.tries + 1, time.monotonic(), None, (0, time.monotonic())

    def _settle(self, job: Job) -> None:
        """What became of a process that has ended."""
        assert job.process is not None
        self.running.remove(job)
        status, job.process = job.process.returncode, None
        if status == 0:
            job.state, job.note = "finished", ""
        elif self.stop.times:
            job.state, job.note = "waiting", ""
        else:
            killed = f"killed by {signal.Signals(-status).name}" if status < 0 else ""
            hung = "" if job.hung is None else f"hung: no progress for {clock(self.patience)}"
            job.note = hung or killed or last_error(job.log, job.log_start) or "it said nothing"
            elsewhere = status == FAULT and is_claimed(job.folder)  # another machine is at work on it
            job.tries -= elsewhere
            job.state = "waiting" if elsewhere or (job.tries < 2 and status != FAULT) else "failed"
            if job.state == "waiting":
                self.queue.append(job)

    def _end_hung(self) -> None:
        """Asks runs that stand still to end, and kills those that do not; once a second, as files may be far away."""
        if time.monotonic() - self.looked < 1.0:
            return
        self.looked = time.monotonic()
        for job in self.running:
            if job.hung is not None and time.monotonic() - job.hung > GRACE:
                self._signal([job], signal.SIGKILL)
            elif job.hung is None and stands_still(job) > self.patience:
                job.hung = time.monotonic()
                self._signal([job], signal.SIGTERM)

    def _signal(self, jobs: Sequence[Job], number: int) -> None:
        """Sends a signal to runs at work; SIGTERM asks for a checkpoint and an end."""
        for job in jobs:
            if job.process is not None and job.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.process.pid, number)

    def _end(self) -> None:
        """Leaves no process behind, whatever the reason to end is."""
        until = time.monotonic() + GRACE
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(self.running, number)
            for job in self.running:
                if job.process is not None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        job.process.wait(max(0.0, until - time.monotonic()) if number == signal.SIGTERM else None)


def _refuse_changed(jobs: Sequence[Job]) -> None:
    faults = [f"{job.name} was trained with other settings: {job.note}" for job in jobs if job.state == "changed"]
    if faults:
        raise ConfigError([*faults, "start such runs anew with --replace, or choose another --out"])
