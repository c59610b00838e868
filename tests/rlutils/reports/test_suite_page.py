"""A suite's table from fabricated run folders; every number is computed again here."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from rlalgo.errors import ConfigError
from rlutils.cli import app
from rlutils.config.files import write_yaml
from rlutils.evaluation.statistics import seed_interval
from rlutils.reports.suite_page import markdown, print_suite, write_suite_report
from rlutils.reports.suite_results import SuiteResults, each_seed, suite_results
from tests.rlutils.reports.test_runs_page import Page, fake_run, policy, write_evaluation

REFERENCE = (-20.27, 3234.3)


def returns_of(algo: str, dataset: str, seed: int, step: int) -> np.ndarray:
    """(12,) episodes, of a skewed kind, so that mean and IQM differ."""
    rng = np.random.default_rng([*algo.encode(), len(dataset), seed, step])
    return rng.gamma(2.0, 300 + step / 20 + 100 * seed, 12)


def fake_suite(folder: Path, states: dict[str, str | None] | None = None, scored: bool = True, **changes: Any) -> Path:
    """3 algorithms, 2 datasets, 3 seeds: all finished but those named, None being never started."""
    runs = []
    for algo in ("bc", "dt", "iql"):
        for dataset in ("hopper/medium", "cheetah"):
            for seed in range(3):
                name = f"{algo}/{dataset}/s{seed}"
                runs.append({"name": name, "algo": algo, "dataset": dataset, "options": "", "seed": seed})
                state = (states or {}).get(name, "finished")
                if state is None:
                    continue
                targets = (800.0, 3600.0, 1600.0) if algo == "dt" else ()
                options = {"algo": algo, "targets": targets, "scored": scored, "best": 1000, **changes}
                run = fake_run(folder / name, seed=seed, steps=(500, 1000, 1500), episodes=12, state=state, **options)
                for step in (500, 1000, 1500):
                    values = returns_of(algo, dataset, seed, step)
                    played = [
                        policy({"target_return": t} if t else {}, values + (t or 3600) - 3600, scored)
                        for t in targets or (None,)
                    ]
                    write_evaluation(run, step, played)
    write_yaml(folder / "suite.yaml", {"suite": "suites/mine.yaml", "runs": runs})
    return folder


def scores(algo: str, dataset: str, seed: int, step: int = 1500) -> list[float]:
    low, high = REFERENCE
    return [100 * (float(value) - low) / (high - low) for value in returns_of(algo, dataset, seed, step)]


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


def test_the_interval_draws_seeds_and_then_episodes() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.normal(mean, 1, 20) for mean in (0.0, 4.0, 9.0)]
    loop = []
    for _ in range(4000):
        picked = [groups[rng.integers(3)] for _ in range(3)]
        drawn = np.sort(np.concatenate([rng.choice(group, 20) for group in picked]))
        loop.append(drawn[15:45].mean())
    assert seed_interval(groups) == pytest.approx(np.percentile(loop, (2.5, 97.5)), abs=0.5)
    assert np.ptp(seed_interval(groups)) > 2 * np.ptp(seed_interval([np.concatenate(groups)]))


def test_the_interval_of_one_seed_is_scipys_over_episodes() -> None:
    values = np.random.default_rng(4).gamma(2, 10, 40)
    found = stats.bootstrap((values,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile",
                            n_resamples=5000, rng=np.random.default_rng(5)).confidence_interval  # fmt: skip
    assert seed_interval([values]) == pytest.approx((found.low, found.high), rel=0.05)
    assert seed_interval([np.full(5, 2.0), np.full(3, 2.0)]) == (2.0, 2.0)


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


def test_markdown_has_every_number(tmp_path: Path) -> None:
    results = suite_results(fake_suite(tmp_path / "out"))
    text = markdown(results)
    means = [statistics.fmean(scores("dt", "cheetah", seed)) for seed in range(3)]
    best = [statistics.fmean(scores("dt", "cheetah", seed, 1000)) for seed in range(3)]
    assert f"**{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}**<br>" in text
    assert f"**{statistics.fmean(best):.1f} ± {statistics.stdev(best):.1f}**<br>" in text
    shown = " | ".join(f"{mean:.1f} ({top:.1f})".replace("-", "−") for mean, top in zip(means, best, strict=True))
    assert f"| cheetah | dt | {shown} | 1,500 | 2 min 5 s |" in text
    assert "chosen by these very episodes, so optimistic" in text
    assert "not with D4RL's" in text
    assert "(dt: target return=3600)" in text  # the highest that was asked for, wherever it stands
    assert "torch 2.13.0" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| cheetah | ")}
    assert widths == {6}


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
    assert "(" not in "".join(cell for row in each_seed(results) for cell in row)


def test_seeds_with_other_settings_are_told(tmp_path: Path) -> None:
    folder = fake_suite(tmp_path / "out")
    config = folder / "bc" / "cheetah" / "s1" / "config.yaml"
    config.write_text(config.read_text().replace("threads: null", "threads: 4"))
    assert suite_results(folder).notes() == []
    config.write_text(config.read_text().replace("context: 10", "context: 11"))
    assert suite_results(folder).notes() == ["bc on cheetah: the seeds' runs have different settings."]


def test_the_page_has_tables_figures_and_nothing_from_outside(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>"
    folder = fake_suite(tmp_path / "out", {"bc/cheetah/s0": "failed", "iql/hopper/medium/s1": None}, error=evil)
    page = Page(write_suite_report(suite_results(folder), tmp_path / "page.html"))
    assert page.tags.count("img") == 4  # scores and curves of each dataset
    assert "script" not in page.tags
    assert evil in page.text
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in page.references)
    last, best, each = page.tables
    assert len(last) == len(best) == 4
    means = [statistics.fmean(scores("bc", "hopper/medium", seed)) for seed in range(3)]
    assert last[1][1][0].startswith(f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}")
    assert len(each) == 7
    assert "16 of 18" in page.text


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


def test_a_broken_plan_is_named(tmp_path: Path) -> None:
    write_yaml(tmp_path / "suite.yaml", {"suite": "x", "runs": [{"name": 3}]})
    with pytest.raises(ConfigError, match=r"suite\.yaml: runs\.0"):
        suite_results(tmp_path)


def test_printed_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    results: SuiteResults = suite_results(fake_suite(tmp_path / "out", {"dt/cheetah/s0": "failed"}))
    console = Console(file=io.StringIO(), width=200)
    print_suite(results, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    means = [statistics.fmean(scores("iql", "hopper/medium", seed)) for seed in range(3)]
    assert f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}" in said
    assert "best (optimistic) checkpoint" in said
    assert "dt/cheetah/s0 is not counted: failed" in said
