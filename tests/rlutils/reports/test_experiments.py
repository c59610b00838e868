"""Runs by configuration, and their statistics."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from scipy import stats

from rlalgo.config import to_mapping
from rlutils.config.catalogue import read_settings
from rlutils.config.files import read_yaml, write_yaml
from rlutils.reports.experiments import experiments
from tests.rlutils.reports.fake_runs import (
    fake_run,
    read_returns,
    report,
    three_seeds,
)
from tests.rlutils.runs import toy_config


@pytest.mark.usefixtures("undrawn")
def test_spearman_is_scipys_over_all_single_episodes(tmp_path: Path) -> None:
    runs = three_seeds(tmp_path)
    targets: list[float] = []
    returns: list[float] = []
    by_run = []
    for run in runs:
        pairs = [(float(label.split()[1]), r) for label, rs in read_returns(run, 4000).items() for r in rs]
        by_run.append(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
        targets += [t for t, _ in pairs]
        returns += [r for _, r in pairs]
    expected = stats.spearmanr(targets, returns).statistic
    [experiment] = experiments(runs)
    found = experiment.conditioning()
    assert found is not None
    assert len(found.returns) == 300
    assert found.rho == pytest.approx(expected)
    assert found.by_run == pytest.approx(by_run)
    top = statistics.fmean(r for t, r in zip(targets, returns, strict=True) if t == 3600)
    bottom = statistics.fmean(r for t, r in zip(targets, returns, strict=True) if t == 800)
    assert found.spread == pytest.approx(top - bottom)
    text = report(runs, tmp_path / "page.html").text
    assert f"Spearman's ρ = {expected:.2f} of target and return over all 300 single episodes" in text
    assert f"Highest minus lowest target: {top - bottom:,.0f} in mean return" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_are_grouped_by_configuration(tmp_path: Path) -> None:
    runs = [*three_seeds(tmp_path), fake_run(tmp_path / "wide", options={"width": 128})]
    runs += [fake_run(tmp_path / "bc", algo="bc", targets=()), tmp_path / "dt-s0"]
    found = experiments(runs)
    assert [[run.name for run in e.runs] for e in found] == [["dt-s0", "dt-s1", "dt-s2"], ["wide"], ["bc"]]
    data = "minari:rlalgo/hopper/mixed-v0"
    titles = [f"dt on {data} (algo.width=64)", f"dt on {data} (algo.width=128)", f"bc on {data}"]
    assert [e.title for e in found] == titles
    page = report(runs, tmp_path / "page.html")
    assert all(f"{i}. {title}" in page.headings for i, title in enumerate(titles, 1))
    assert [row[0][0] for row in page.tables[0][1:]] == [f"{i}. {title}" for i, title in enumerate(titles, 1)]
    best = max(statistics.fmean(values) for values in read_returns(tmp_path / "wide", 4000).values())
    assert page.tables[0][2][4][0] == f"{best:,.0f}"


def test_an_option_that_older_runs_lack_does_not_split_seeds(tmp_path: Path) -> None:
    """It had today's default; one that has another value is another configuration."""
    for seed in range(3):
        values = to_mapping(read_settings(toy_config("bc", seed=seed, source={"name": "minari", "id": "a-v0"}))[0])
        if seed == 1:  # written before there were these
            del values["holdout"], values["algo"]["clip"], values["trainer"]["max_loss"]
        values["plugins"], values["env"] = [], {"name": "gym"}
        (tmp_path / str(seed)).mkdir()
        write_yaml(tmp_path / str(seed) / "config.yaml", values)
    runs = [tmp_path / str(seed) for seed in range(3)]
    (found,) = experiments(runs)
    assert [run.config["seed"] for run in found.runs] == [0, 1, 2]
    write_yaml(runs[1] / "config.yaml", {**read_yaml(runs[1] / "config.yaml"), "holdout": 0.5})
    assert len(experiments(runs)) == 2
