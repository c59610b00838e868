"""A suite's table from fabricated run folders; every number is computed again here."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from rlalgo.errors import ConfigError
from rlutils.config.files import write_yaml
from rlutils.reports.experiments import experiments
from rlutils.reports.suite_page import markdown
from rlutils.reports.suite_results import results_of, suite_results
from tests.rlutils.reports.fake_runs import fake_run, fake_suite, policy, returns_of, scores, write_evaluation


@pytest.mark.parametrize(("best", "step"), [(False, 1500), (True, 1000)])
def test_numbers_of_the_table_are_those_of_the_seeds(tmp_path: Path, best: bool, step: int) -> None:
    results = suite_results(fake_suite(tmp_path / "out"))
    assert (results.rows, results.datasets) == (["bc", "dt", "iql"], ["hopper/medium", "cheetah"])
    for algo in results.rows:
        for dataset in results.datasets:
            found = results.summary(algo, dataset, best)
            assert found is not None
            each = [scores(algo, dataset, seed, step) for seed in range(3)]
            means = [statistics.fmean(values) for values in each]
            assert found.seeds == [0, 1, 2]
            assert found.scores == pytest.approx(means)
            assert found.mean == pytest.approx(statistics.fmean(means))
            assert found.sd == pytest.approx(statistics.stdev(means))
            pooled = sorted(value for values in each for value in values)
            assert found.iqm == pytest.approx(statistics.fmean(pooled[9:27]))  # 36 episodes, a quarter off each end
            assert found.low < found.iqm < found.high


def test_what_is_not_measured_is_a_dash_and_counted(tmp_path: Path) -> None:
    states = {f"iql/cheetah/s{seed}": None for seed in range(3)}
    states |= {"bc/cheetah/s0": "interrupted", "bc/cheetah/s1": "failed"}
    folder = fake_suite(tmp_path / "out", states, error="it broke")
    text = markdown(suite_results(folder))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| algorithm | hopper/medium<br>score | cheetah<br>score |"
    assert lines[4].startswith("| iql | **")
    assert lines[4].endswith(" | – |")
    alone = statistics.fmean(scores("bc", "cheetah", 2))
    assert f"| **{alone:.1f}**<br>" in lines[2]
    assert lines[2].endswith("1 seed |")
    assert "13 of 18 planned runs are measured; – is not measured." in text
    assert "- bc/cheetah/s0 is not counted: interrupted: it broke" in text
    assert "- bc/cheetah/s1 is not counted: failed" in text
    assert f"| cheetah | bc | – | – | {alone:.1f} (" in text
    assert "| cheetah | iql | – | – | – | – | – |" in text


def test_runs_that_are_no_longer_planned_and_those_that_never_began_are_told(tmp_path: Path) -> None:
    folder = fake_suite(tmp_path / "out", {"bc/cheetah/s0": None, "bc/cheetah/s1": None, "bc/cheetah/s2": "failed"},
                        error="two\nlines")  # fmt: skip
    for name in ("old/cheetah/s0", "old/cheetah/s1"):
        fake_run(folder / name)
    log = folder / "logs" / "bc" / "cheetah" / "s0.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: minari:x is not on this machine\n  to copy it in: run this\n")
    assert suite_results(folder).notes() == [
        "bc/cheetah/s2 is not counted: failed: two; lines",
        "bc/cheetah/s0 is not counted: it did not get as far as training, and said last: "
        "minari:x is not on this machine; to copy it in: run this",
        "2 runs in this folder are no longer in the suite: old/cheetah/s0, old/cheetah/s1.",
    ]
    assert "- 2 runs in this folder are no longer in the suite" in markdown(suite_results(folder))


def test_without_reference_scores_returns_are_shown(tmp_path: Path) -> None:
    results = suite_results(fake_suite(tmp_path / "out", scored=False))
    assert [results.unit(dataset) for dataset in results.datasets] == ["return", "return"]
    found = results.summary("bc", "cheetah")
    expected = statistics.fmean(float(returns_of("bc", "cheetah", seed, 1500).mean()) for seed in range(3))
    assert found is not None
    assert found.mean == pytest.approx(expected)
    assert "D4RL" not in markdown(results)


def test_runs_evaluated_once_have_no_best(tmp_path: Path) -> None:
    folder = fake_suite(tmp_path / "out")
    for file in folder.rglob("step_*.json"):
        if "1500" not in file.name:
            file.unlink()
    results = suite_results(folder)
    assert not results.has_best
    assert "est checkpoint" not in markdown(results)
    assert "(" not in "".join(cell for row in results.each_seed() for cell in row)


def test_seeds_with_other_settings_are_told(tmp_path: Path) -> None:
    folder = fake_suite(tmp_path / "out")
    config = folder / "bc" / "cheetah" / "s1" / "config.yaml"
    config.write_text(config.read_text().replace("threads: null", "threads: 4"))
    assert suite_results(folder).notes() == []
    config.write_text(config.read_text().replace("context: 10", "context: 11"))
    assert suite_results(folder).notes() == ["bc on cheetah: the seeds' runs have different settings."]


def test_a_broken_plan_is_named(tmp_path: Path) -> None:
    write_yaml(tmp_path / "suite.yaml", {"suite": "x", "runs": [{"name": 3}]})
    with pytest.raises(ConfigError, match=r"suite\.yaml: runs\[0\]\.name: should be a valid string, got 3; run"):
        suite_results(tmp_path)


def test_the_best_of_negative_returns_may_be_zero(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", targets=(), steps=(500, 1000, 1500), best=None, scored=False)
    for step, mean in ((500, -5.0), (1000, 0.0), (1500, -3.0)):
        write_evaluation(run, step, [policy({}, np.array([mean - 1, mean + 1]), scored=False)])
    results = results_of(experiments([run]))
    summary = results.summary(results.rows[0], results.datasets[0], best=True)
    assert summary is not None
    assert summary.mean == 0.0
