"""Results as a terminal shows them."""

from __future__ import annotations

import io
import statistics
from pathlib import Path

import numpy as np
from rich.console import Console

from rlutils.evaluation.statistics import EvalResult, PolicyResult
from rlutils.reports.experiments import experiments
from rlutils.reports.result_view import print_result, print_results, print_suite
from rlutils.reports.suite_results import SuiteResults, suite_results
from tests.rlutils.reports.fake_runs import (
    fake_suite,
    policy,
    read_returns,
    scores,
    three_seeds,
)


def test_printed_tables_of_runs_hold_the_same_numbers(tmp_path: Path) -> None:
    runs = three_seeds(tmp_path)
    text = io.StringIO()
    print_results(experiments(runs), Console(file=text, width=100))
    means = [statistics.fmean(read_returns(run, 4000)["target 2400"]) for run in runs]
    [line] = [line for line in text.getvalue().splitlines() if line.startswith("target 2400")][:1]
    assert f" {statistics.fmean(means):,.0f} " in line
    assert f" {statistics.stdev(means):,.0f} " in line
    assert "last, step 4,000" in text.getvalue()
    assert "over 300 single episodes" in text.getvalue()


def test_tables_are_never_cut_to_the_terminals_width(tmp_path: Path) -> None:
    texts = io.StringIO(), io.StringIO()
    for text, width in zip(texts, (40, 300), strict=True):
        print_results(experiments(three_seeds(tmp_path / str(width))), Console(file=text, width=width))
    narrow, wide = (text.getvalue().splitlines() for text in texts)
    assert narrow == wide


def test_printed_tables_of_a_suite_hold_the_same_numbers(tmp_path: Path) -> None:
    results: SuiteResults = suite_results(fake_suite(tmp_path / "out", {"dt/cheetah/s0": "failed"}))
    console = Console(file=io.StringIO(), width=200)
    print_suite(results, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    means = [statistics.fmean(scores("iql", "hopper/medium", seed)) for seed in range(3)]
    assert f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}" in said
    assert "best (optimistic) checkpoint" in said
    assert "dt/cheetah/s0 is not counted: failed" in said


def test_one_evaluation_shows_its_policies_and_what_was_measured() -> None:
    values = np.array([1.0, 2.0, 3.0, 6.0])
    played = [PolicyResult(**policy({"target_return": target}, values * target)) for target in (200.0, 100.0)]
    text = io.StringIO()
    print_result(EvalResult(500, played, {"held_out/loss": 0.25}), Console(file=text, width=100))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[0] == "step 500 episodes mean sd IQM 95% score length"
    assert lines[1].startswith("target 100 4 300.0 216.0 250.0 ")
    assert lines[2].startswith("target 200 4 600.0 432.0 500.0 ")
    assert lines[3] == "held_out/loss: 0.25"
    print_result(EvalResult(500, [], {"held_out/loss": 0.25}), Console(file=text, width=100))
    assert text.getvalue().endswith("step 500\nheld_out/loss: 0.25\n")


def test_returns_of_0_and_1_keep_their_digits() -> None:
    values = np.array([0.0] * 29 + [1.0])
    text = io.StringIO()
    print_result(EvalResult(1, [PolicyResult(**policy({}, values))]), Console(file=text, width=100))
    assert "policy 30 0.033 0.183 0.000 " in " ".join(text.getvalue().split())
