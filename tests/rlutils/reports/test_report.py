"""What `rlalgo report` writes and prints."""

from __future__ import annotations

import statistics
from pathlib import Path

from typer.testing import CliRunner

from rlutils.cli import app
from rlutils.reports.suite_page import markdown
from rlutils.reports.suite_results import suite_results
from tests.rlutils.reports.fake_runs import (
    Page,
    fake_suite,
    scores,
)


def test_the_command_reports_suites_and_runs(tmp_path: Path) -> None:
    folder = fake_suite(tmp_path / "out")
    result = CliRunner().invoke(app, ["report", str(folder), "--markdown", str(tmp_path / "new" / "table.md")])
    assert result.exit_code == 0, result.stderr
    assert (folder / "report.html").is_file()
    assert (tmp_path / "new" / "table.md").read_text() == markdown(suite_results(folder))
    runs = [str(folder / algo / "cheetah" / f"s{seed}") for algo in ("bc", "iql") for seed in (0, 1)]
    result = CliRunner().invoke(app, ["report", *runs, "--out", str(tmp_path / "page.html"),
                                      "--markdown", str(tmp_path / "table.md")])  # fmt: skip
    assert result.exit_code == 0, result.stderr
    means = [statistics.fmean(scores("iql", "cheetah", seed)) for seed in range(2)]
    cell = f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}"
    assert f"| iql | **{cell}**<br>" in (tmp_path / "table.md").read_text()
    assert cell in Page(tmp_path / "page.html").text
    result = CliRunner().invoke(app, ["report", str(folder), runs[0]])
    assert result.exit_code == 2
    assert "is a suite's folder; report it alone" in result.stderr
