"""Runs of a suite: how far they are, what differs, how they failed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rlutils.config.files import write_yaml
from rlutils.config.recorded import differences
from rlutils.sweeps import sweep as sweeping
from rlutils.sweeps.job import last_error, progress
from tests.rlutils.sweeps.suites import write_suite


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("step 10\nerror: 1 fault here\n  a: it is 3.\n  b: no\n", "1 fault here; a: it is 3; b: no"),
        (
            "error: old\nTraceback (most recent call last):\n  File x\n    y()\nValueError: y is bad:\n  very\n",
            "ValueError: y is bad:; very",
        ),
        ("Traceback (most recent call last):\n  File x\n", "File x"),
        ("step 10\n\nSegmentation fault\n", "Segmentation fault"),
        ("\n", ""),
    ],
)
def test_the_error_of_a_log_is_all_of_it_in_one_line(tmp_path: Path, log: str, said: str) -> None:
    (tmp_path / "log").write_text("error: of another try\n" + log)
    assert last_error(tmp_path / "log", len("error: of another try\n")) == said
    assert last_error(tmp_path / "none") == ""


def test_progress_of_a_try_before_is_not_shown(tmp_path: Path) -> None:
    job = sweeping.plan(write_suite(tmp_path))[0][0]
    job.state, job.since = "running", time.time()
    job.folder.mkdir(parents=True)
    record, rows = job.folder / "run.yaml", job.folder / "metrics.csv"
    write_yaml(record, {"state": "finished", "step": 2000, "seconds": 9.5})
    rows.write_text("step,seconds,loss\n1900,9.0,3\n2000,9.5,2.0\n")
    for file in (record, rows):
        os.utime(file, (job.since - 5, job.since - 5))
    assert progress(job) == (0, 0.0)
    job.reached = 25  # it goes on from there
    assert progress(job) == (25, 0.0)
    write_yaml(record, {"state": "running", "step": 30, "seconds": 1.5})
    os.utime(record, (job.since + 5, job.since + 5))
    assert progress(job) == (30, 1.5)
    rows.write_text("step,seconds,loss\n30,1.5,3\n40,2.0,2.0\n")
    os.utime(rows, (job.since + 5, job.since + 5))
    assert progress(job) == (40, 2.0)


def test_differences_are_named_by_their_paths_and_tell_types_apart() -> None:
    one = {"algo": {"lr": 1, "dims": [8, 8], "gone": 2}, "callbacks": [{"name": "csv", "every": 5}], "threads": 1}
    two = {"algo": {"lr": 1.0, "dims": [8]}, "callbacks": [{"name": "csv", "every": 6}], "threads": 4}
    assert differences(one, two) == {
        "algo.lr": (1, 1.0),
        "algo.dims": ([8, 8], [8]),
        "algo.gone": (2, None),
        "callbacks.0.every": (5, 6),
    }
    assert differences({"plugins": ["a"], "x": True}, {"x": True}) == {}  # where code is found changes no result
