"""Success, and the numbers that `evaluation.info` names: from the environment's last step to the report."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlutils
from rlalgo.errors import EnvironmentFault, RlalgoWarning
from rlutils.checkpoints.index import look
from rlutils.evaluation.statistics import EvalResult, read_result, summarize
from rlutils.reports.experiments import experiments
from rlutils.reports.records import load_run_record
from rlutils.reports.result_view import print_results, print_suite
from rlutils.reports.suite_page import markdown
from rlutils.reports.suite_results import results_of
from tests.rlutils.reports.fake_runs import report
from tests.rlutils.runs import PLUGIN, toy_config
from tests.rlutils.toy_plugin import HORIZON, PointEnv

EVALUATION = {"every": 20, "episodes": 4, "info": ["distance", "far", "nowhere"]}


class Goal(PointEnv):
    """Says at each step whether it is near the origin, and how far from it; `far` now and then."""

    def step(self, action: Any) -> Any:
        *answer, _ = super().step(action)
        distance = float(abs(self.x).sum())
        far = {"far": 1.5} if distance > 0.3 else {}
        return *answer, {"is_success": distance < 0.4, "distance": distance if self.t == HORIZON else math.nan, **far}


@pytest.fixture
def goals(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = rlutils.catalogue([PLUGIN]).get("env", "toy").cls
    monkeypatch.setattr(toy, "make", lambda self, spec, n, render_mode=None: [Goal() for _ in range(n)])


def test_from_the_last_step_to_every_report(goals: None, tmp_path: Path, capsys: Any) -> None:
    callbacks = ["csv", "console", "tensorboard", {"name": "best", "metric": "distance", "mode": "min"}]
    with pytest.warns(RlalgoWarning) as said:
        run = rlutils.train(toy_config("bc", evaluation=EVALUATION, callbacks=callbacks), out=tmp_path / "bc")
    assert [str(one.message).split(";")[0] for one in said] == [  # of three evaluations, the first one's
        "evaluation.info: no episode's last info has a number 'nowhere'"
    ]
    results = {}
    for step in (20, 40, 60):
        results[step] = read_result(run.folder / "evaluations" / f"step_{step:09d}.json")
        [played] = results[step].policies
        assert set(played.info) - {"far"} == {"success", "distance"}
        assert played.info["success"] == [float(distance < 0.4) for distance in played.info["distance"]]
        assert played.means["success"] == sum(played.info["success"]) / 4
        assert played.means["distance"] == pytest.approx(sum(played.info["distance"]) / 4)
        if "far" in played.info:
            assert [not math.isnan(far) for far in played.info["far"]] == [d > 0.3 for d in played.info["distance"]]
            assert played.means["far"] == 1.5
    best = min(results, key=lambda step: results[step].policies[0].means["distance"])
    assert look(run.folder / "checkpoints").best == f"step_{best:09d}"
    last = results[60].policies[0].means
    wanted = f"success {last['success']:.4g}, distance {last['distance']:.4g}"
    assert wanted in capsys.readouterr().err
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [p.value for p in events.Scalars("evaluation/success/policy")] == [
        result.policies[0].means["success"] for result in results.values()
    ]
    with pytest.warns(RlalgoWarning):
        again = rlutils.evaluate(run.folder, plugins=[PLUGIN])
    assert again.policies[0].info["distance"] == results[60].policies[0].info["distance"]
    assert load_run_record(run.folder).metrics["success"][1].tolist() == [
        result.policies[0].means["success"] for result in results.values()
    ]
    text = io.StringIO()
    print_results(experiments([run.folder]), Console(file=text, width=150))
    assert " ".join(text.getvalue().split()).count("length success distance") >= 2  # last, played again
    page = report([run.folder], tmp_path / "page.html")
    shown = next(table for table in page.tables if table[0][0][0] == "policy")
    assert {"success", "distance"} < {name for name, _ in shown[0]}
    assert f"{last['distance']:.4g}" in [cell[0] for cell in shown[2]]
    assert "success over update steps" in page.alts
    results_table = results_of(experiments([run.folder]))
    text = io.StringIO()
    print_suite(results_table, Console(file=text, width=150))
    for table in (text.getvalue(), markdown(results_table)):
        assert f"1 seed, {wanted}" in " ".join(table.split())


def test_side_by_side(goals: None, tmp_path: Path) -> None:
    evaluation = {"every": 0, "episodes": 4}
    runs = [rlutils.train(toy_config(algo, evaluation=evaluation), out=tmp_path / algo).folder for algo in ("bc", "dt")]
    results = [read_result(run / "evaluations" / "step_000000060.json") for run in runs]
    tops = [max(result.policies, key=lambda policy: policy.mean).means["success"] for result in results]
    table = report(runs, tmp_path / "page.html").tables[0]
    assert [row[-1][0] for row in table] == ["success", *(f"{top:.4g}" for top in tops)]


def test_who_never_says_it_has_no_such_column(tmp_path: Path) -> None:
    run = rlutils.train(toy_config("bc"), out=tmp_path / "run", trainer__steps=20)
    assert read_result(run.folder / "evaluations" / "step_000000020.json").policies[0].info == {}
    text = io.StringIO()
    print_results(experiments([run.folder]), Console(file=text, width=150))
    assert "success" not in text.getvalue() + markdown(results_of(experiments([run.folder])))


@pytest.mark.parametrize("value", ["yes", [True], np.zeros(2), {"reached": True}, 1j])
def test_an_odd_success_costs_no_training(
    value: Any, goals: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Goal, "step", lambda self, action: (*PointEnv.step(self, action)[:4], {"success": value}))
    where = "evaluation after step 20: environment Goal, episode of seed 1000000, step 11: the info's success is "
    with pytest.raises(EnvironmentFault, match=f"{where}.*; expected a number") as caught:
        rlutils.train(toy_config("bc"), out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert look(tmp_path / "run" / "checkpoints").last == "step_000000020"


def test_json_has_null_for_what_an_episode_does_not_say() -> None:
    info = {"success": [0.0, 1.0], "x": [math.nan, 3.0], "y": [math.nan, math.nan]}
    policy = summarize({}, [1.0, 2.0], [1, 1], [0, 1], None, info)
    mapping = json.loads(json.dumps(EvalResult(1, [policy]).to_mapping(), allow_nan=False))
    assert mapping["policies"][0]["info"] == {"success": [0.0, 1.0], "x": [None, 3.0]}
    assert mapping["policies"][0]["means"] == {"success": 0.5, "x": 3.0}
