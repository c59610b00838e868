"""Pages about fabricated runs; every number is computed again here from the JSON that was written."""

from __future__ import annotations

import io
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from rlutils.machine import amount
from rlutils.reports.experiments import experiments
from rlutils.reports.records import load_run_record
from rlutils.reports.result_view import print_results
from tests.rlutils.reports.fake_runs import (
    SECTIONS,
    STEPS,
    TARGETS,
    fake_run,
    middle_mean,
    name_checkpoints,
    played_nothing,
    policy,
    read_returns,
    report,
    three_seeds,
    write_evaluation,
)

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
    ends = ", ".join(f"{label}: {amount(mean)}" for label, mean in last.items())
    assert f"Evaluation return over update steps. At the end: {ends}" in page.alts
    assert "bad (failed)" in page.text
    assert "loss is nan" in page.text
    single = {f"dt-s{i}": page.results(i + 1) for i in range(3)}
    for i, run in enumerate(runs):  # the single runs stand below, as recorded
        shown = float(single[f"dt-s{i}"]["last, step 4,000"]["target 800"][1][1])
        assert shown == pytest.approx(statistics.fmean(read_returns(run, 4000)["target 800"]))


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
    name_checkpoints(run, 2100, 1500)
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
    print_results(experiments([run]), Console(file=io.StringIO()))


def test_a_run_that_has_only_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("x: 1\n")
    page = report([tmp_path / "run"], tmp_path / "page.html")
    assert page.headings == SECTIONS
    assert page.images == []


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
    print_results(experiments(runs), Console(file=text, width=100))
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
    assert "held_out/value is not finite at step 1,000" in page.text
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
    print_results(experiments([run]), Console(file=text, width=100))
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
        ("data.json", '{"name": "x", "returns": [], "steps": 1}', "returns: List should have at least 1 item"),
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
    print_results(experiments([run]), Console(file=io.StringIO()))


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
@pytest.mark.parametrize("value", [True, 3, -0.5, "x", [1], [[]], {"a": 1}, [{"name": []}], None], ids=repr)
def test_settings_of_any_form_are_reported(value: object, tmp_path: Path) -> None:
    """A person may have changed config.yaml; what was measured is shown all the same."""
    run = fake_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    keys = {*config, "callbacks", "evaluation", "algo", "source", "seed", "env", "trainer"}
    (run / "config.yaml").write_text(yaml.safe_dump(dict.fromkeys(keys, value)))
    assert report([run], tmp_path / "page.html").results()
