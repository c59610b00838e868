"""Reading run folders, whole and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlalgo.errors import ConfigError, RlalgoError
from rlutils.reports.experiments import experiments
from rlutils.reports.records import load_run_record
from rlutils.reports.runs_page import write_report
from tests.rlutils.reports.fake_runs import (
    fake_run,
)


def test_empty_cells_are_no_points(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    (run / "metrics.csv").write_text("step,seconds,loss,late\n100,1,0.5,\n200,2,0.25,7\n300,3,0.")
    metrics = load_run_record(run).metrics
    assert [list(values) for values in metrics["loss"]] == [
        [100, 200],
        [0.5, 0.25],
    ]  # the cut row is not read
    assert [list(values) for values in metrics["late"]] == [[200], [7.0]]


def test_a_folder_that_is_no_run_is_an_error_that_helps(tmp_path: Path) -> None:
    fake_run(tmp_path / "runs" / "one")
    with pytest.raises(RlalgoError, match="no such folder"):
        write_report(experiments([tmp_path / "nowhere"]), tmp_path / "page.html")
    with pytest.raises(RlalgoError, match=r"it holds 1 of them, such as .*one"):
        write_report(experiments([tmp_path / "runs"]), tmp_path / "page.html")
    with pytest.raises(RlalgoError, match="name at least one run"):
        write_report(experiments([]), tmp_path / "page.html")
    (tmp_path / "runs" / "one" / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        write_report(experiments([tmp_path / "runs" / "one"]), tmp_path / "page.html")
    (tmp_path / "runs" / "one" / "config.yaml").write_text("- a\n")
    with pytest.raises(RlalgoError, match="expected a mapping"):
        write_report(experiments([tmp_path / "runs" / "one"]), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_reading_a_run_needs_nothing_that_draws_or_prints(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rlutils.reports.records import load_run_record;"
        "assert load_run_record(Path(sys.argv[1])).curve;"
        "assert not {'matplotlib', 'jinja2', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, fake_run(tmp_path / "run")], check=True)
