"""Reports from fabricated run folders; every number is computed again here from the JSON that was written."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from rlalgo.errors import ConfigError, RlalgoError
from rlutils.config import files
from rlutils.reports import plots
from rlutils.reports.experiments import decimals, experiments
from rlutils.reports.records import load_run_record
from rlutils.reports.runs_page import print_results, write_report
from rlutils.reports.writing import clock, highlight, moment, number

SECTIONS = ["Run", "Results", "Achieved returns", "Training", "To reproduce"]
TARGETS = (800.0, 1600.0, 2400.0, 3200.0, 3600.0)
STEPS = tuple(range(500, 4001, 500))


def fake_run(
    folder: Path,
    *,
    algo: str = "dt",
    seed: int = 0,
    targets: tuple[float, ...] = TARGETS,
    steps: tuple[int, ...] = STEPS,
    episodes: int = 20,
    state: str = "finished",
    error: str | None = None,
    best: int | None = 3500,
    scored: bool = True,
    options: dict[str, Any] | None = None,
) -> Path:
    """A run folder in the format that `rlalgo train` writes."""
    rng = np.random.default_rng([seed, len(targets), len(algo)])
    for name in ("evaluations", "checkpoints"):
        (folder / name).mkdir(parents=True)
    config = {
        "seed": seed,
        "source": {"name": "minari", "id": "rlalgo/hopper/mixed-v0"},
        "algo": {"name": algo, "context": 10, "width": 64, "dropout": 0.0, "lr": 1e-3, "warmup": 200,
                 "return_scale": 1000.0, "state_encoder": {"name": "linear"}, **(options or {})},
        "plugins": [],
        "device": "auto",
        "threads": None,
        "trainer": {"name": "offline", "steps": 4000, "batch_size": 64, "patience": None},
        "evaluation": {"every": 500, "episodes": episodes, "seed": 1000000,
                       "policies": [{"target_return": t} for t in targets] or [{}], "evaluators": []},
        "env": {"name": "gym", "id": None},
        "callbacks": [{"name": "csv", "every": 100}, {"name": "best", "metric": None}],
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "spec.yaml").write_text("env_id: Hopper-v5\n")
    record = {
        "command": f"rlalgo train configs/{algo}_hopper.yaml seed={seed}",
        "started": f"2025-11-21T09:3{seed}:05+00:00",
        "state": state,
        "step": steps[-1] if steps else 0,
        "seconds": 124.25 + seed,
        "stopped": None,
        "error": error,
        "best_step": best,
        "versions": {"rlalgo": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "gymnasium": "1.4.0"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    plugin = {"kind": "algo", "name": algo, "plugin": f"rlalgo.batchrl.{algo}", "distribution": "rlalgo",
              "version": "0.1.0", "location": None}  # fmt: skip
    (folder / "plugins.yaml").write_text(yaml.safe_dump([plugin]))
    data = np.random.default_rng(7).gamma(1.3, 760, 470).clip(5, 3642)
    (folder / "data.json").write_text(json.dumps({
        "name": "minari:rlalgo/hopper/mixed-v0", "episodes": 470, "steps": 150029, "returns": data.tolist(),
        "lengths": [300] * 470, "ref_scores": [-20.27, 3234.3] if scored else None, "env_id": "Hopper-v5",
    }))  # fmt: skip
    lines = ["step,seconds,loss,action_error,lr"]
    for step in range(100, (steps[-1] if steps else 0) + 1, 100):
        loss = 0.06 + 0.3 * np.exp(-step / 500) + 0.01 * rng.standard_normal()
        lr = 1e-3 * min(1, step / 200) * (0.55 + 0.45 * np.cos(np.pi * step / 4000))
        lines.append(f"{step},{step / 50:.3f},{loss:.9g},{loss * 1.7:.9g},{lr:.9g}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    for step in steps:
        skill = 1 - np.exp(-step / 1500)
        played = []
        for target in targets or (None,):
            aim = 900 if target is None else min(target, 2700) ** 0.9 * 2.1
            noise = 350 * rng.standard_normal(episodes)
            returns = (skill * (aim * (0.8 + 0.05 * seed) + noise)).clip(12, 3500)
            played.append(policy({} if target is None else {"target_return": target}, returns, scored))
        write_evaluation(folder, step, played)
    if steps:
        for name, step in (("last", steps[-1]), ("best", best)):
            if step is not None:
                (folder / "checkpoints" / f"step_{step:09d}").mkdir(exist_ok=True)
                (folder / "checkpoints" / name).symlink_to(f"step_{step:09d}")
    return folder


def policy(options: dict[str, Any], returns: np.ndarray, scored: bool = True) -> dict[str, Any]:
    """A policy's result; its statistics are plain ones, so that a test can tell where a number came from."""
    middle = np.sort(returns)[len(returns) // 4 : len(returns) - len(returns) // 4]
    mean, sd = float(returns.mean()), float(returns.std(ddof=1))
    half = 1.96 * sd / len(returns) ** 0.5
    return {
        "label": ", ".join(f"{k}={v:g}" for k, v in options.items()) or "policy",
        "options": options,
        "returns": returns.tolist(),
        "lengths": [int(r / 3.2) + 10 for r in returns],
        "seeds": list(range(1_000_000, 1_000_000 + len(returns))),
        "mean": mean,
        "sd": sd,
        "iqm": float(middle.mean()),
        "interval": [mean - half, mean + half],
        "normalized": 100 * (mean + 20.27) / 3254.57 if scored else None,
    }


def write_evaluation(folder: Path, step: int, policies: list[dict[str, Any]], name: str = "") -> None:
    (folder / "evaluations" / f"{name or f'step_{step:09d}'}.json").write_text(json.dumps({
        "step": step, "checkpoint": f"step_{step:09d}", "source": "evaluate" if name else "train",
        "env_id": "Hopper-v5", "seed": 5 if name else 1_000_000, "seconds": 3.2,
        "score": max((p["mean"] for p in policies), default=None), "policies": policies, "metrics": {},
    }))  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: text, tables, references, images."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[tuple[str, str]]]] = []  # rows of (text, title) cells
        self.references: list[str] = []
        self.alts: list[str] = []
        self.style = ""
        self.open: list[str] = []
        self.feed(path.read_text())
        self.text = re.sub(r"\s+", " ", " ".join(self.words))
        self.images = [base64.b64decode(r.split(",")[1]).decode() for r in self.references if r.startswith("data:")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.references += [values[key] for key in ("src", "href", "srcset", "action", "data") if key in values]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.alts.append(values["alt"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", values.get("title", "")))
        elif tag in ("h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # well nested

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data
        if "td" in self.open or ("tr" in self.open and "th" in self.open):
            text, title = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, title)

    def results(self, number: int = 0) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Of one result table: checkpoint -> policy -> its cells after the name."""
        found: dict[str, dict[str, list[tuple[str, str]]]] = {}
        table = [table for table in self.tables if table[0][0][0] == "policy"][number]
        for row in table[1:]:
            if len(row) == 1:
                part = found.setdefault(row[0][0], {})
            else:
                part[row[0][0]] = row[1:]
        return found


def report(runs: list[Path], out: Path) -> Page:
    return Page(write_report(runs, out))


def read_returns(run: Path, step: int) -> dict[str, list[float]]:
    """Label -> returns, straight from the file."""
    values = json.loads((run / "evaluations" / f"step_{step:09d}.json").read_text())
    return {p["label"].replace("target_return=", "target "): p["returns"] for p in values["policies"]}


def middle_mean(values: list[float]) -> float:
    quarter = len(values) // 4
    return statistics.fmean(sorted(values)[quarter : len(values) - quarter])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of text and numbers: figures are made but not laid out and written, which takes the time."""
    monkeypatch.setattr(plots, "to_svg", lambda figure: "<svg/>")


def three_seeds(root: Path) -> list[Path]:
    return [fake_run(root / f"dt-s{seed}", seed=seed, best=3500 - 500 * seed) for seed in range(3)]


# --- numbers ---


@pytest.mark.usefixtures("undrawn")
def test_table_of_one_run_shows_the_recorded_numbers_of_last_and_best(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    page = report([run], tmp_path / "page.html")
    results = page.results()
    assert list(results) == ["last, step 4,000", "best, step 3,500"]
    for title, step in (("last, step 4,000", 4000), ("best, step 3,500", 3500)):
        returns = read_returns(run, step)
        assert list(results[title]) == [f"target {t:g}" for t in TARGETS]
        for label, cells in results[title].items():
            values = returns[label]
            mean, sd = statistics.fmean(values), statistics.stdev(values)
            half = 1.96 * sd / len(values) ** 0.5
            exact = [float(cell[1]) for cell in (cells[1], cells[2], cells[3], cells[5])]
            assert exact == pytest.approx([mean, sd, middle_mean(values), 100 * (mean + 20.27) / 3254.57])
            assert [float(x) for x in cells[4][1].split(" to ")] == pytest.approx([mean - half, mean + half])
            assert cells[0][0] == "20"
            assert cells[1][0] == f"{mean:,.0f}"
            assert float(cells[6][1]) == pytest.approx(statistics.fmean(int(r / 3.2) + 10 for r in values))


@pytest.mark.usefixtures("undrawn")
def test_seeds_are_aggregated_and_a_failed_one_is_not_counted(tmp_path: Path) -> None:
    runs = three_seeds(tmp_path)
    failed = fake_run(tmp_path / "bad", seed=3, steps=STEPS[:2], state="failed", error="loss is nan", best=1000)
    page = report([*runs, failed], tmp_path / "page.html")
    results = page.results()
    assert list(results) == ["last, step 4,000", "best, steps 2,500 to 3,500"]
    rng = np.random.default_rng(123)
    for title, steps in ((next(iter(results)), [4000] * 3), (list(results)[1], [3500, 3000, 2500])):
        for label, cells in results[title].items():
            each = [read_returns(run, step)[label] for run, step in zip(runs, steps, strict=True)]
            means = [statistics.fmean(values) for values in each]
            pooled = sorted(value for values in each for value in values)
            assert [cells[0][0], cells[1][0]] == ["3", "60"]
            exact = [float(cells[i][1]) for i in (2, 3, 4)]
            assert exact == pytest.approx([statistics.fmean(means), statistics.stdev(means), middle_mean(pooled)])
            draws = np.sort(rng.choice(pooled, (4000, 60)), 1)[:, 15:45].mean(1)  # an own bootstrap of the IQM
            low, high = (float(x) for x in cells[5][1].split(" to "))
            tolerance = 0.25 * draws.std()
            assert [low, high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=tolerance)
    last = {label: float(cells[2][1]) for label, cells in results["last, step 4,000"].items()}
    top = max(last, key=lambda label: last[label])
    assert f"Best policy's mean return {last[top]:,.0f} {top}, last checkpoint, ±" in page.text
    ends = ", ".join(f"{label}: {mean:,.1f}" for label, mean in last.items())
    assert f"Evaluation return over update steps. At the end: {ends}" in page.alts
    assert "bad (failed)" in page.text
    assert "loss is nan" in page.text
    single = {f"dt-s{i}": page.results(i + 1) for i in range(3)}
    for i, run in enumerate(runs):  # the single runs stand below, as recorded
        shown = float(single[f"dt-s{i}"]["last, step 4,000"]["target 800"][1][1])
        assert shown == pytest.approx(statistics.fmean(read_returns(run, 4000)["target 800"]))


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
def test_equal_returns_leave_spearman_undefined(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", steps=(500,), best=500)
    same = [policy({"target_return": t}, np.full(4, 7.0)) for t in (1.0, 2.0)]
    write_evaluation(run, 500, same)
    page = report([run], tmp_path / "page.html")
    assert "Spearman's ρ is undefined: all returns are equal" in page.text
    assert page.results()["last, step 500 (also the best)"]["target 1"][4][0] == "7.00 to 7.00"


@pytest.mark.usefixtures("undrawn")
def test_score_stands_only_where_it_was_measured_and_is_explained(tmp_path: Path) -> None:
    scored = report([fake_run(tmp_path / "a")], tmp_path / "a.html")
    assert "comparable only with other scores on the same dataset, not with D4RL's" in scored.text
    assert "random −20.3 and expert 3,234.3" in scored.text
    plain = report([fake_run(tmp_path / "b", scored=False)], tmp_path / "b.html")
    assert "D4RL" not in plain.text
    assert "Normalized score" not in plain.text
    assert "score" not in [cell for cell, _ in plain.tables[1][0]]


@pytest.mark.usefixtures("undrawn")
def test_best_is_called_optimistic_or_named_by_its_metric(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert "chosen on these very episodes, so its numbers are optimistic" in report([run], tmp_path / "a.html").text
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["callbacks"][-1] = {"name": "best", "metric": "held_out/loss", "mode": "min"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = report([run], tmp_path / "b.html").text
    assert "is the one with the lowest held_out/loss." in text
    assert "optimistic" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_evaluate_played_again_has_rows_of_its_own(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    again = policy({"target_return": 3600.0}, np.linspace(1000, 3000, 50))
    write_evaluation(run, 3500, [again], "evaluate_20251121-101010-000001")
    page = report([run], tmp_path / "page.html")
    rows = page.results()["best, played again with seed 5, step 3,500"]
    assert rows["target 3600"][0][0] == "50"
    assert rows["target 3600"][1][0] == "2,000"
    write_evaluation(run, 300, [again], "evaluate_20251121-101010-000002")  # of a checkpoint that is gone
    assert "step 300, played again with seed 5" in report([run], tmp_path / "page.html").results()
    both = report([run, fake_run(tmp_path / "other", seed=1)], tmp_path / "both.html")
    cells = [cell for cell, _ in both.results()["best, played again with seed 5, step 3,500"]["target 3600"]]
    assert cells[:4] == ["1", "50", "2,000", "–"]  # one seed has no sd over seeds


def test_printed_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    runs = three_seeds(tmp_path)
    text = io.StringIO()
    print_results(runs, Console(file=text, width=100))
    means = [statistics.fmean(read_returns(run, 4000)["target 2400"]) for run in runs]
    [line] = [line for line in text.getvalue().splitlines() if line.startswith("target 2400")][:1]
    assert f" {statistics.fmean(means):,.0f} " in line
    assert f" {statistics.stdev(means):,.0f} " in line
    assert "last, step 4,000" in text.getvalue()
    assert "over 300 single episodes" in text.getvalue()


# --- grouping ---


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


@pytest.mark.usefixtures("undrawn")
def test_same_name_of_different_data_is_told(tmp_path: Path) -> None:
    runs = three_seeds(tmp_path)
    data = json.loads((runs[1] / "data.json").read_text())
    data["returns"][0] += 1
    (runs[1] / "data.json").write_text(json.dumps(data))
    assert "trained on different data under one name" in report(runs, tmp_path / "page.html").text


@pytest.mark.parametrize(("state", "shown"), [("interrupted", "interrupted"), ("running", "running, or killed")])
@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_alone_is_reported_as_such(tmp_path: Path, state: str, shown: str) -> None:
    run = fake_run(tmp_path / "run", state=state, steps=STEPS[:4], best=1500)
    (run / "checkpoints" / "step_000002100").mkdir()
    (run / "checkpoints" / "last").unlink()
    (run / "checkpoints" / "last").symlink_to("step_000002100")
    page = report([run], tmp_path / "page.html")
    assert shown in [cell for cell, _ in page.tables[0][1]]
    assert "No run is finished" in page.text
    assert "the last checkpoint is of step 2,100, its evaluation of 2,000" in page.text


# --- what is missing, broken or hostile ---


def test_a_complete_page_has_every_section_and_figure_and_misses_nothing(tmp_path: Path) -> None:
    page = report([fake_run(tmp_path / "run")], tmp_path / "page.html")
    assert page.headings == SECTIONS
    assert len(page.images) == 6  # target, returns, learning curve, three metrics
    assert "left out" not in page.text
    assert "rlalgo train configs/dt_hopper.yaml seed=0" in page.text
    assert "torch 2.13.0" in page.text
    assert "rlalgo.batchrl.dt" in page.text
    assert "return_scale : 1000.0" in page.text


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("run.yaml", "run.yaml is left out: there is no such file"),
        ("data.json", "the data's returns cannot be shown"),
        ("plugins.yaml", "Plugins were not recorded"),
        ("metrics.csv", "No training metrics were recorded"),
        ("evaluations", "There is no evaluation of any run"),
        ("checkpoints", "There is no checkpoint"),
        ("spec.yaml", ""),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, lost: str, said: str) -> None:
    run = fake_run(tmp_path / "run")
    (run / lost).rename(tmp_path / "lost")
    page = report([run], tmp_path / "page.html")
    assert page.headings == SECTIONS
    assert said in page.text
    print_results([run], Console(file=io.StringIO()))


def test_a_run_that_has_only_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("x: 1\n")
    page = report([tmp_path / "run"], tmp_path / "page.html")
    assert page.headings == SECTIONS
    assert page.images == []


def played_nothing(folder: Path, factor: float = 1.0) -> Path:
    run = fake_run(folder, seed=int(factor), steps=STEPS[:2], best=500)
    for path in (run / "evaluations").iterdir():
        values = json.loads(path.read_text())
        metrics = {"held_out/loss": factor * values["step"] / 1000, "held_out/value": 1234.5}
        path.write_text(json.dumps(values | {"policies": [], "score": None, "metrics": metrics}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluation"]["evaluators"] = [{"name": "held_out"}]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.mark.usefixtures("undrawn")
def test_evaluators_numbers_have_a_table_of_their_own(tmp_path: Path) -> None:
    runs = [played_nothing(tmp_path / f"run{factor}", factor) for factor in (1, 3)]
    write_evaluation(runs[0], 1000, [], "evaluate_20251121-101010-000001")  # evaluators alone, asked again
    page = report(runs, tmp_path / "page.html")
    [table] = [t for t in page.tables if t[0][-1][0] == "held_out/value"]
    assert [[text for text, _ in row] for row in table] == [
        ["run", "checkpoint", "held_out/loss", "held_out/value"],
        ["run1", "last, step 1,000", "1.000", "1,234.5"],
        ["run1", "best, step 500", "0.500", "1,234.5"],
        ["run3", "last, step 1,000", "3.000", "1,234.5"],
        ["run3", "best, step 500", "1.500", "1,234.5"],
    ]
    assert "policy" not in [t[0][0][0] for t in page.tables]
    assert "played again" not in page.text
    text = io.StringIO()
    print_results(runs, Console(file=text, width=100))
    rows = {line.split()[0]: line.split()[1:] for line in text.getvalue().splitlines() if line.strip()}
    assert rows["held_out/loss"] == ["1.000", "0.500", "3.000", "1.500"]
    assert rows["held_out/value"] == ["1,234.5"] * 4
    assert "IQM" not in text.getvalue()
    assert "nothing was played" in text.getvalue()


@pytest.mark.usefixtures("undrawn")
def test_an_evaluation_counts_though_one_of_its_numbers_is_not_finite(tmp_path: Path) -> None:
    """null stands for NaN in JSON."""
    run = played_nothing(tmp_path / "run", 1)
    path = run / "evaluations" / "step_000001000.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"metrics": {"held_out/loss": 2.0, "held_out/value": None}}))
    page = report([run], tmp_path / "page.html")
    assert "held_out/value is not finite at some evaluations" in page.text
    [table] = [t for t in page.tables if t[0][-1][0] == "held_out/value"]
    assert [text for text, _ in table[1]] == ["run", "last, step 1,000", "2.000", "–"]


@pytest.mark.usefixtures("undrawn")
def test_held_out_episodes_are_not_said_to_be_trained_on(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert "all 470 episodes of" in report([run], tmp_path / "page.html").text
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps(data | {"held_out": list(range(52))}))
    text = report([run], tmp_path / "page.html").text
    assert "the 470 episodes of" in text
    assert "(150,029 steps) that were trained on, 52 more being held out; the green" in text


@pytest.mark.usefixtures("undrawn")
def test_targets_are_missed_only_where_there_are_any(tmp_path: Path) -> None:
    said = "No two different target returns were played"
    one = report([fake_run(tmp_path / "dt", targets=(800.0,))], tmp_path / "page.html")
    none = report([fake_run(tmp_path / "bc", algo="bc", targets=())], tmp_path / "page.html")
    assert said in one.text
    assert said not in none.text


@pytest.mark.usefixtures("undrawn")
def test_one_episode_has_no_spread(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", steps=(500,), best=500)
    write_evaluation(run, 500, [policy({}, np.array([7.0, 7.0])) | {"returns": [7.0], "sd": 0.0}])
    page = report([run], tmp_path / "page.html")
    cells = [cell for cell, _ in page.results()["last, step 500 (also the best)"]["policy"]]
    assert cells[:5] == ["1", "7.00", "–", "7.00", "–"]
    assert "policy, last checkpoint, 1 episode" in page.text
    text = io.StringIO()
    print_results([run], Console(file=text, width=100))
    [row] = [line.split() for line in text.getvalue().splitlines() if line.startswith("policy")]
    assert row[1:6] == cells[:5]


def test_a_run_that_played_nothing_shows_what_was_measured(tmp_path: Path) -> None:
    run = played_nothing(tmp_path / "run")
    record = load_run_record(run)
    assert [list(values) for values in record.metrics["held_out/loss"]] == [[500, 1000], [0.5, 1.0]]
    page = report([run], tmp_path / "page.html")
    assert "held_out/loss over update steps" in page.alts
    assert "Nothing was played" in page.text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data.json", '{"name": "x", "returns": [1, 2', "data.json is left out"),
        ("data.json", '{"name": "x", "returns": [], "steps": 1}', "no or infinite returns"),
        ("run.yaml", "state: [", "run.yaml is left out"),
        ("run.yaml", "step: many", "run.yaml is left out: step"),
        ("plugins.yaml", "just text", "plugins.yaml is left out"),
        ("metrics.csv", "\x00\x01", "metrics.csv is left out"),
        ("metrics.csv", "step,seconds,loss\n100,1,0.5\n200,2,nan\n", "loss is not finite at step 200"),
        ("metrics.csv", "step,seconds,loss\n100,1,abc\n", "column loss is left out"),
        ("evaluations/step_000004000.json", "{}", "step_000004000.json is left out: step"),
        ("evaluations/step_000004000.json", '{"step": 4000, "policies": [{"returns": "x"}]}', "policies.0"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_broken_file_is_named_and_left_out(tmp_path: Path, name: str, content: str, said: str) -> None:
    run = fake_run(tmp_path / "run")
    (run / name).write_text(content)
    page = report([run], tmp_path / "page.html")
    assert page.headings == SECTIONS
    assert said in page.text


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
        write_report([tmp_path / "nowhere"], tmp_path / "page.html")
    with pytest.raises(RlalgoError, match=r"it holds 1 of them, such as .*one"):
        write_report([tmp_path / "runs"], tmp_path / "page.html")
    with pytest.raises(RlalgoError, match="name at least one run"):
        write_report([], tmp_path / "page.html")
    (tmp_path / "runs" / "one" / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        write_report([tmp_path / "runs" / "one"], tmp_path / "page.html")
    (tmp_path / "runs" / "one" / "config.yaml").write_text("- a\n")
    with pytest.raises(RlalgoError, match="expected a mapping"):
        write_report([tmp_path / "runs" / "one"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    page = report([*three_seeds(tmp_path), fake_run(tmp_path / "bc", algo="bc", targets=())], tmp_path / "page.html")
    assert page.references
    assert all(r.startswith(("data:image/svg+xml;base64,", "#")) for r in page.references)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "url(" not in page.style
    assert "@import" not in page.style
    for image in page.images:
        assert image.startswith("<svg")
        assert all(link.startswith(("#", "data:image/png")) for link in re.findall(r'href="([^"]*)"', image))
        assert "<script" not in image
    assert all(page.alts)


def test_everything_that_comes_from_a_run_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>&\"<b>$x^2$"
    run = fake_run(tmp_path / "<i>run & co", state="failed", error=evil, options={evil: evil})
    record = yaml.safe_load((run / "run.yaml").read_text())
    record |= {"command": evil, "stopped": evil, "started": evil, "versions": {evil: evil}}
    (run / "run.yaml").write_text(yaml.safe_dump(record))
    (run / "plugins.yaml").write_text(yaml.safe_dump([dict.fromkeys(("kind", "name", "plugin", "location"), evil)]))
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps(data | {"name": evil}))
    (run / "metrics.csv").write_text("step,seconds," + evil.replace('"', "") + "\n100,1,2\n")
    write_evaluation(run, 4000, [policy({"target_return": t}, np.arange(5.0)) | {"label": evil} for t in (1.0, 2.0)])
    page = report([run, fake_run(tmp_path / "other", algo="bc", targets=())], tmp_path / "page.html")
    assert not {"script", "b2", "i2"} & set(page.tags)
    assert page.tags.count("i") == 0
    assert page.text.count("<script>alert('1')</script>") >= 8
    assert all("<script" not in image for image in page.images)
    assert any("$x^2$" in image for image in page.images)  # a dollar in a name begins no formula
    print_results([run], Console(file=io.StringIO()))


def test_long_values_do_not_break_the_page(tmp_path: Path) -> None:
    long = "very_" * 60
    run = fake_run(tmp_path / "run", options={"note": long}, error=long, state="failed")
    named = [policy({"target_return": t}, np.arange(5.0)) | {"label": f"{long}{t}"} for t in (1.0, 2.0)]
    write_evaluation(run, 4000, named)
    (run / "metrics.csv").write_text(f"step,seconds,{long}\n100,1,2\n200,2,1\n")
    page = report([run], tmp_path / "page.html")
    assert long in page.text
    for image in page.images:
        assert float(re.search(r'width="([\d.]+)pt"', image)[1]) < 400  # type: ignore[index]


@pytest.mark.usefixtures("undrawn")
def test_an_old_page_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = fake_run(tmp_path / "run"), tmp_path / "pages" / "page.html"
    write_report([run], out)
    before = out.read_text()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RlalgoError, match="No space left on device; choose another --out"):
        write_report([run], out)
    assert out.read_text() == before
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(RlalgoError, match="cannot be written"):
        write_report([run], out / "below" / "a_file.html")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-# '\"<>&[]{}1.e5\n~"), max_size=80))
def test_highlighting_changes_no_character(text: str) -> None:
    parser = HTMLParser()
    seen: list[str] = []
    parser.handle_data = seen.append  # type: ignore[method-assign]
    parser.feed(str(highlight(text)))
    parser.close()
    assert "".join(seen) == "\n".join(text.splitlines())


def test_highlighting_knows_keys_numbers_words_and_text() -> None:
    marked = str(highlight("lr: 1e-4\n- {a: b}\nc: null  \nd: text # c\n# all"))
    assert '<span class="k">lr</span>: <span class="n">1e-4</span>' in marked
    assert '<span class="k">d</span>: <span class="s">text # c</span>' in marked
    assert '<span class="c"># all</span>' in marked


def test_numbers_are_written_for_people() -> None:
    assert [number(x, 1) for x in (1234.56, -0.5, -0.01, None, float("nan"))] == ["1,234.6", "−0.5", "0.0", "–", "–"]
    assert [decimals([x]) for x in (-3000, 250, 2.5, 0.1)] == [0, 1, 2, 3]
    assert [clock(x) for x in (4.25, 200, 7500)] == ["4.25 s", "3 min 20 s", "2 h 5 min"]
    assert moment("2025-11-21T09:03:00+01:00") == "21 November 2025, 09:03"
    assert moment("long ago") == "long ago"


# --- figures ---


def test_target_plot_has_the_diagonal_the_datas_best_and_every_episode() -> None:
    targets, returns = np.repeat([1.0, 2.0, 4.0], 5), np.arange(15.0)
    groups = [plots.Group(str(t), returns[targets == t], 2.0, 1.0, 3.0) for t in (1.0, 2.0, 4.0)]
    axes = plots.target_plot(targets, returns, groups, data_max=3.5).axes[0]
    lines = [line.get_xydata() for line in axes.lines]
    assert any(len(xy) == 2 and (xy[:, 0] == xy[:, 1]).all() and xy[0, 0] < xy[1, 0] for xy in lines)
    assert any((xy[:, 0] == 3.5).all() for xy in lines)
    offsets = np.asarray(axes.collections[0].get_offsets())
    assert offsets[:, 1].tolist() == returns.tolist()
    assert np.abs(offsets[:, 0] - targets).max() < 0.5  # jitter never reaches the next target
    assert len(set(offsets[:5, 0])) == 5
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("target return", "achieved return")


def test_data_and_achieved_returns_share_one_axis() -> None:
    group = plots.Group("a", np.array([100.0, 200.0]), 150.0, 100.0, 200.0)
    above, below = plots.returns_plot([group], np.array([0.0, 50.0, 60.0])).axes
    assert above.get_xlim() == below.get_xlim()
    assert above.get_xlim()[0] <= 0
    assert above.get_xlim()[1] >= 200
    assert sum(patch.get_height() for patch in above.patches) == 3


def test_learning_curves_name_their_ends_without_overlap() -> None:
    steps = np.array([0, 10])
    lines = [(steps, np.array([0.0, end])) for end in (99.0, 100.0, 101.0, 5.0)]
    curves = [plots.Curve(f"c{i}", *line, line[1] - 1, line[1] + 1, [line]) for i, line in enumerate(lines)]
    axes = plots.learning_curves(curves, ordered=True, data_max=120.0).axes[0]
    places = {text.get_text(): text.xy[1] for text in axes.texts if hasattr(text, "xy")}
    assert places["c3"] == pytest.approx(5)
    low, high = axes.get_ylim()
    assert low <= 0
    gap = 0.05 * (high - low)
    assert places["c0"] + gap <= places["c1"]
    assert places["c1"] + gap <= places["c2"]
    assert any((np.asarray(line.get_ydata()) == 120).all() for line in axes.lines)


def test_a_metric_that_explodes_is_shown_on_a_logarithmic_axis() -> None:
    steps = np.arange(3)
    figure = plots.metric_plot("a", [(steps, np.array([1.0, 10.0, 1e6]))])
    assert figure.axes[0].get_yscale() == "log"
    assert "$" not in plots.to_svg(figure)  # no formula that nobody typesets
    assert plots.metric_plot("a", [(steps, np.array([-1.0, 10.0, 1e6]))]).axes[0].get_yscale() == "linear"
    assert plots.metric_plot("a", [(steps, np.array([1.0, 2.0, 3.0]))]).axes[0].get_xlabel() == "update steps"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_spread_boxes_keep_their_order_and_do_not_overlap(boxes: list[tuple[float, float]]) -> None:
    boxes.sort()
    values, heights = [value for value, _ in boxes], [height for _, height in boxes]
    low, high = -150.0, 150.0
    places = plots.spread(values, heights, low, high)
    edges = [(place - height / 2, place + height / 2) for place, height in zip(places, heights, strict=True)]
    assert all(one[1] <= two[0] + 1e-6 for one, two in itertools.pairwise(edges))
    assert edges[0][0] >= low - 1e-6
    assert edges[-1][1] <= high + 1e-6
    if len(boxes) == 1:
        assert places == pytest.approx(values)


def test_thinning_keeps_the_mean_and_bounds_the_size() -> None:
    steps, values = plots.thin(np.arange(10_000.0), np.sin(np.arange(10_000.0)), 400)
    assert len(steps) == len(values) == 400
    assert values.mean() == pytest.approx(np.sin(np.arange(10_000.0)).mean(), abs=1e-12)
    assert (np.diff(steps) > 0).all()


def test_ordered_colors_darken_steadily() -> None:
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in plots.colors(6, ordered=True)])
    light = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) < 0).all()
    assert len(set(plots.colors(7, ordered=False))) == 7


def test_figures_are_the_same_each_time_and_leave_no_global_state() -> None:
    code = (
        "import sys, matplotlib, numpy as np; from rlutils.reports import plots;"
        "look = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'};"
        "before = look();"
        "draw = lambda: plots.to_svg(plots.metric_plot('loss', [(np.arange(3), np.arange(3.0))]));"
        "assert draw() == draw(); assert look() == before;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
