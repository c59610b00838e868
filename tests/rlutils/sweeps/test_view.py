"""What is shown of a sweep."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from rlutils.config.files import write_yaml
from rlutils.sweeps import sweep as sweeping
from rlutils.sweeps.job import progress
from rlutils.sweeps.view import View
from tests.rlutils.sweeps.suites import write_suite


def test_the_table_counts_and_tells_how_far_runs_are(tmp_path: Path) -> None:
    jobs, _, _ = sweeping.plan(write_suite(tmp_path))
    jobs[0].state, jobs[1].state, jobs[2].state = "finished", "running", "failed"
    jobs[1].folder.mkdir(parents=True)
    write_yaml(jobs[1].folder / "run.yaml", {"state": "running", "step": 0, "seconds": 0.5})
    (jobs[1].folder / "metrics.csv").write_text("step,seconds,loss\n10,1.0,3\n30,2.0,2\n40,2.")
    assert progress(jobs[1]) == (30, 2.0)
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(View(jobs, console).picture())
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0] == "small large/one"
    assert lines[1] == "bc 1/2 0/2 1 running"
    assert lines[2] == "dt 0/2 1 failed 0/2"
    assert "bc/large/one/s3 30 60 15 2 s" in lines
    assert "1 of 8 runs finished, 1 running, 1 failed, 5 waiting" in lines[-1]


def test_runs_that_are_to_start_anew_are_counted(tmp_path: Path) -> None:
    jobs = sweeping.plan(write_suite(tmp_path))[0]
    jobs[0].state = jobs[1].state = "changed"
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(View(jobs, console).picture())
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0 of 8 runs finished, 2 changed, 6 waiting" in said


def test_a_terminal_shows_the_table_and_lines_only_for_faults(tmp_path: Path) -> None:
    jobs = sweeping.plan(write_suite(tmp_path))[0]
    console = Console(file=io.StringIO(), width=120, force_terminal=True, highlight=False)
    view = View(jobs, console)
    with view.live():
        jobs[0].state = "finished"
        view.say(jobs[0], "finished")
        jobs[1].state, jobs[1].note = "failed", "it broke"
        view.say(jobs[1], "failed")
        view.stopping = "SIGINT"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"[1/8] {jobs[1].name} failed: it broke" in text
    assert f"{jobs[0].name} finished" not in text
    assert "1 of 8 runs finished, 1 failed, 6 waiting" in text
    assert "stopped by SIGINT" in text
