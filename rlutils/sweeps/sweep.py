"""Sweeps: the runs of a suite as local processes, several at a time, whose state is nothing but their own folders.

A finished run is left alone, a stopped one goes on from its checkpoint, one that crashed is tried again once, after
all the others. So a sweep may be stopped at any time, and started again to go on.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError, RlalgoError
from rlutils.checkpoints import store as checkpoint
from rlutils.machine import listening
from rlutils.sweeps.job import Job, last_error, look
from rlutils.sweeps.plan import refuse_foreign, write_plan
from rlutils.sweeps.suite import Cell, Suite, check_data, matches, read_suite
from rlutils.sweeps.view import View
from rlutils.sweeps.worker import FAULT

WORKER = (sys.executable, "-P", "-m", "rlutils.sweeps.worker")  # -P: nothing is imported from the working folder
GRACE = 60.0
"""Seconds that runs have to write a checkpoint when a sweep ends by an error of its own."""


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
    with _locked(folder) as lock:
        jobs = [look(job.cell, folder) for job in planned]  # another sweep may have been at work until now
        if not replace:
            _refuse_changed(jobs)
        todo = [job for job in jobs if job.state != "finished"]
        check_data([job.cell for job in todo], download=True)
        write_plan(folder, path, cells)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = max(1, min(processes or suite.processes or cores, len(todo)))
        stop = Stop()
        with listening(stop):
            view = View(jobs, console or Console(highlight=False))
            Runner(todo, at_once, max(1, cores // at_once), lock, stop).work(view)
    if stop.times:
        done = sum(job.state == "finished" for job in jobs)
        counts = f"{done} of {len(jobs)} runs finished"
        raise KeyboardInterrupt(f"stopped by {stop.name}: {counts}, nothing is lost; the same command goes on")
    return jobs


class Runner:
    """Keeps so many processes at work until nothing is left to do."""

    def __init__(self, jobs: Sequence[Job], processes: int, threads: int, lock: IO, stop: Stop) -> None:
        self.queue, self.running = deque(jobs), list[Job]()
        self.processes, self.threads, self.lock, self.stop = processes, threads, lock, stop

    def work(self, view: View) -> None:
        """Returns when every job is finished or failed, or when a signal has stopped those at work."""
        heeded = 0
        try:
            with view.live():
                while self.running or (self.queue and not self.stop.times):
                    while self.queue and len(self.running) < self.processes and not self.stop.times:
                        job = self.queue.popleft()
                        self._start(job)
                        view.say(job, "goes on" if job.note else "started")
                    for job in [job for job in self.running if job.process and job.process.poll() is not None]:
                        self._settle(job)
                        again = "stopped" if self.stop.times else "failed and will be tried again"
                        view.say(job, again if job.state == "waiting" else job.state)
                    if self.stop.times > heeded:
                        heeded = self.stop.times
                        self._signal(signal.SIGTERM if heeded == 1 else signal.SIGKILL)
                        view.stopping = self.stop.name
                    time.sleep(0.1)
        finally:
            self._end()

    def _start(self, job: Job) -> None:
        """A process group of its own, so that a terminal's Ctrl-C reaches it through us only, and once."""
        now = look(job.cell, job.out)
        resume = now.state != "changed" and checkpoint.last_of(job.folder) is not None
        if not (job.folder / "config.yaml").exists():  # it was killed before it had written anything
            shutil.rmtree(job.folder, ignore_errors=True)
        threads = job.cell.settings.threads or self.threads
        request = {
            "settings": to_mapping(dataclasses.replace(job.cell.settings, threads=threads)),
            "folder": str(job.folder),
            "command": job.cell.command(job.out),
            "resume": resume,
        }
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            job.log_start, job.since = log.tell(), time.time()
            job.process = subprocess.Popen(
                WORKER,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **limits},
                start_new_session=True,
                pass_fds=[self.lock.fileno()],  # the suite stays locked for as long as any of its runs lives
            )
        self.running.append(job)
        job.state, job.note, job.reached = "running", now.note if resume else "", now.reached if resume else 0
        job.tries, job.began = job.tries + 1, time.monotonic()
        assert job.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; its log says why
            job.process.stdin.write(json.dumps(request).encode() + b"\n")
            job.process.stdin.flush()

    def _settle(self, job: Job) -> None:
        """What became of a process that has ended."""
        assert job.process is not None
        assert job.process.stdin is not None
        self.running.remove(job)
        with contextlib.suppress(BrokenPipeError):
            job.process.stdin.close()
        status, job.process = job.process.returncode, None
        if status == 0:
            job.state, job.note = "finished", ""
        elif self.stop.times:
            job.state, job.note = "waiting", ""
        else:
            killed = f"killed by {signal.Signals(-status).name}" if status < 0 else ""
            job.note = killed or last_error(job.log, job.log_start) or "it said nothing"
            job.state = "waiting" if job.tries < 2 and status != FAULT else "failed"
            if job.state == "waiting":
                self.queue.append(job)

    def _signal(self, number: int) -> None:
        """Sends a signal to every run; SIGTERM asks for a checkpoint and an end."""
        for job in self.running:
            if job.process is not None and job.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.process.pid, number)

    def _end(self) -> None:
        """Leaves no process behind, whatever the reason to end is."""
        until = time.monotonic() + GRACE
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            for job in self.running:
                if job.process is not None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        job.process.wait(max(0.0, until - time.monotonic()) if number == signal.SIGTERM else None)


def _refuse_changed(jobs: Sequence[Job]) -> None:
    faults = [f"{job.name} was trained with other settings: {job.note}" for job in jobs if job.state == "changed"]
    if faults:
        raise ConfigError([*faults, "start such runs anew with --replace, or choose another --out"])


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO]:
    """One sweep at a time for each folder; the system lets go of the lock when the last process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise ConfigError([f"{folder} cannot be written: {error.strerror}; choose another --out"]) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise RlalgoError(
                f"{folder}: a sweep is at work here already ({owner}); wait for it, or stop it"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield lock
