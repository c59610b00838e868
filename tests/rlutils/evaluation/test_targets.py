"""Which target to ask for: the rule by hand, statistics by brute force, files, warnings, the command and the report."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner, Result

import rlutils
from rlalgo.errors import CheckpointError, ConfigError, EnvironmentFault, RlalgoWarning
from rlutils.cli import app
from rlutils.config.settings import laid_over
from rlutils.evaluation.data_facts import DataFacts
from rlutils.evaluation.play import play
from rlutils.evaluation.statistics import summarize
from rlutils.evaluation.targets import Point, Targets, grid, play_targets, read_targets
from rlutils.reports.targets_view import rows, words
from tests.rlutils.reports.fake_runs import report
from tests.rlutils.runs import PLUGIN, toy_config

NUMBERS = st.floats(-1e3, 1e3, width=32).map(lambda value: round(value, 3))


def played(table: dict[float, list[float]], data: list[float] | None = None, **info: Any) -> Targets:
    """Target -> returns."""
    facts = data and DataFacts("toy", data, 1)
    points = []
    for target, returns in sorted(table.items()):
        said = {name: values[target] for name, values in info.items()}
        result = summarize({"target_return": target}, returns, [1] * len(returns), [0] * len(returns), None, said)
        points.append(Point(target, facts and facts.share(target), result))
    return Targets(7, "step_000000007", points, facts and facts.range)


@pytest.mark.parametrize(
    ("table", "recommended"),
    [
        ({0: [0, 0], 5: [9, 11], 10: [9, 11]}, 5),  # as good as the best
        ({0: [0, 0], 5: [8.9, 9.3], 10: [9, 11]}, 5),  # 9.1: within 10 - 1, the standard error of 9 and 11
        ({0: [0, 0], 5: [8.5, 9.3], 10: [9, 11]}, 10),  # 8.9: not
        ({0: [5, 5], 5: [20, 20], 10: [19, 19]}, 5),  # too much was asked for
        ({0: [5], 5: [6], 10: [7]}, 10),  # of one episode no noise is known
        ({0: [1, 0], 1: [1, 1]}, 1),
        ({0: [1, 1], 1: [1, 1]}, 0),
    ],
)
def test_the_lowest_target_that_cannot_be_told_from_the_best_is_recommended(
    table: dict[float, list[float]], recommended: float
) -> None:
    found = played(table)
    assert found.recommended.target == recommended
    [why, _] = words(found)
    assert why.startswith(f"Recommended: {recommended}, the lowest target whose mean is within one standard error")
    assert ("makes no difference" in why) == (recommended == min(table))


@given(
    st.dictionaries(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=5), min_size=1, max_size=6),
    st.lists(NUMBERS, min_size=1, max_size=9),
)
def test_statistics_are_those_of_single_episodes_of_supported_targets(
    table: dict[float, list[float]], data: list[float]
) -> None:
    found = played(table, data)
    inside = {target: returns for target, returns in table.items() if min(data) <= target <= max(data)}
    pairs = [(target, value) for target in sorted(inside) for value in inside[target]]
    targets, returns = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(set(targets)) > 1 and len(set(returns)) > 1:
        assert found.rho == pytest.approx(stats.spearmanr(targets, returns).statistic, abs=1e-9)
    else:
        assert found.rho is None
    assert found.error == (pytest.approx(np.mean([abs(a - b) for a, b in pairs]), abs=1e-6) if pairs else None)
    ends = np.mean(inside[max(inside)]) - np.mean(inside[min(inside)]) if len(inside) > 1 else None
    assert found.spread == (ends if ends is None else pytest.approx(ends, abs=1e-6))
    means = {target: np.mean(returns) for target, returns in table.items()}
    best = max(means, key=lambda target: (means[target], -target))
    noise = np.std(table[best], ddof=1) / len(table[best]) ** 0.5 if len(table[best]) > 1 else 0.0
    assert means[found.recommended.target] >= means[best] - noise - 1e-6
    assert all(means[t] < means[best] - noise + 1e-6 for t in table if t < found.recommended.target)
    for point in found.points:
        assert point.share == sum(value >= point.target for value in data) / len(data)
    assert len(words(found)) == 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(2, 40))
def test_the_grid_goes_from_the_datas_lowest_to_a_tenth_above_its_best(data: list[float], points: int) -> None:
    targets = grid(DataFacts("toy", data, 1), points)
    assert targets[0] == min(data)
    assert targets[-1] == pytest.approx(max(data) + max(map(abs, data)) / 10)
    assert targets == sorted(set(targets))
    if max(data) - min(data) > 1e-3:
        assert len(targets) == points
        assert np.diff(targets).max() < 1.05 * (targets[-1] - targets[0]) / (points - 1)


def test_the_grid_is_of_round_numbers() -> None:
    assert grid(DataFacts("hopper", [4.67, 3641.52], 1), 12)[:3] == [4.67, 368.0, 732.0]
    assert grid(DataFacts("door", [0.0, 1.0], 1), 12)[-3:] == [0.9, 1.0, 1.1]
    assert grid(DataFacts("none", [0.0, 0.0], 1), 12) == [0.0]


def test_what_is_written_is_read_and_nothing_else(tmp_path: Path) -> None:
    found = played({0.0: [0.0, 1.0], 1.0: [1.0, 1.0]}, [0.0, 0.0, 1.0])
    path, values = tmp_path / "step_000000007.json", json.loads(json.dumps(found.to_mapping(), allow_nan=False))
    assert (values["recommended"], values["version"], values["spread"]) == (1.0, 1, 0.5)
    path.write_text(json.dumps({**values, "recommended": "all"}))
    assert read_targets(path) == found  # what follows is computed again
    wrong: list[dict[str, Any]] = [
        {"version": 2},
        {"points": []},
        {"points": values["points"][::-1]},
        {"points": [values["points"][0]] * 2},
        {"points": [{**values["points"][0], "share": 1.5}]},
        {"points": [{**values["points"][0], "target": "high"}]},
        {"points": [{**values["points"][0], "played": {**values["points"][0]["played"], "returns": []}}]},
        {"data": [0.0]},
        {"data": [0.0, "1e999"]},
        {"step": -1},
    ]
    for change in wrong:
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(CheckpointError, match=rf"step_000000007\.json: {next(iter(change))}"):
            read_targets(path)


def test_small_returns_and_success_keep_their_digits() -> None:
    success = {0.0: [0.0] * 29 + [1.0], 1.0: [1.0] * 29 + [0.0]}
    table = rows(played(success, [0.0] * 97 + [1.0] * 3, success=success))
    assert table[0] == ("asked", "achieved", "95% of the mean", "success", "data at least as good")
    assert table[1][:2] == ("0", "0.033")
    assert table[1][3:] == ("0.03333", "100.0%")
    assert table[2][3:] == ("0.9667", "3.0%")
    assert "of the best, 0.9667 at 1" in words(played(success))[0]


def test_what_the_policies_have_in_common_is_kept() -> None:
    both = {"evaluation": {"policies": [{"target_return": 1, "sample": True}, {"target_return": 2, "sample": True}]}}
    assert laid_over(both, [{"target_return": 9}, {"sample": False}]) == [
        {"target_return": 9, "sample": True},
        {"sample": False},
    ]
    for values in ({}, {"evaluation": None}, {"evaluation": {"policies": "x"}}, {"evaluation": {"policies": [1]}}):
        assert laid_over(values, [{"target_return": 9}]) == [{"target_return": 9}]


# --- of a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rlutils.train(toy_config(), out=tmp_path_factory.mktemp("runs") / "dt", evaluation__every=0).folder


def call(*words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--plugin", PLUGIN])


def test_the_command_plays_shows_writes_and_the_report_has_it(run: Path, tmp_path: Path) -> None:
    result = call("targets", str(run), "--episodes", "2", "--seed", "5")
    assert result.exit_code == 0, result.output
    found = read_targets(run / "targets" / "step_000000060.json")
    data = json.loads((run / "data.json").read_text())["returns"]
    assert len(found.points) == 12
    assert found.data == (min(data), max(data))
    assert [point.played.seeds for point in found.points] == [[5, 6]] * 12
    assert [point.played.options["target_return"] for point in found.points] == [point.target for point in found.points]
    assert f"Recommended: {found.recommended.target:.15g}, " in result.output
    assert len(result.output.splitlines()) == 1 + 12 + 2 + 1
    assert (run / "targets" / "step_000000060.png").read_bytes().startswith(b"\x89PNG")
    page = report([run], tmp_path / "page.html")
    [table] = [table for table in page.tables if table[0][0][0] == "asked"]
    assert [tuple(cell for cell, _ in row) for row in table] == rows(found)
    assert "Achieved return by target return" in page.alts
    assert words(found)[0] in page.text
    (run / "targets" / "step_000000060.json").write_text("{}")
    assert "step_000000060.json is left out" in report([run], tmp_path / "page.html").text


def test_targets_and_place_may_be_given(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "figure.png"
    words = ("--targets", "8,-5,0", "--episodes", "1", "--checkpoint", "best", "--out", str(out))
    assert call("targets", str(run), *words).exit_code == 0
    found = read_targets(out.with_suffix(".json"))
    assert [point.target for point in found.points] == [-5, 0, 8]
    assert out.exists()
    again = rlutils.evaluate(run, "best", [{"target_return": 8}], ["evaluation.episodes=1"], [PLUGIN])
    assert again.policies[0].returns == pytest.approx(found.points[-1].played.returns, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--targets", "0,high"], "--targets 0,high: expected numbers"),
        (["--targets", "0,inf"], "evaluation.policies[1].target_return"),
        (["--out", "x.pdf"], "--out x.pdf: the name of a figure must end in .png"),
        (["--points", "1"], "points"),
    ],
)
def test_what_cannot_be_asked_is_refused(run: Path, words: list[str], said: str) -> None:
    result = call("targets", str(run), *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_runs_without_target_environment_or_data(run: Path, tmp_path: Path) -> None:
    bc = rlutils.train(toy_config("bc"), out=tmp_path / "bc", trainer__steps=5).folder
    with pytest.raises(ConfigError, match="the policy of bc takes no target return; `rlalgo evaluate` plays it"):
        play_targets(bc, plugins=[PLUGIN])
    config = toy_config(evaluation={"episodes": 0}, env={"name": "gym"}, trainer={"name": "offline", "steps": 5})
    envless = rlutils.train(config, out=tmp_path / "envless").folder
    with pytest.raises(EnvironmentFault, match="Point"):
        play_targets(envless, plugins=[PLUGIN])
    checkpoint = next((run / "checkpoints").glob("step_000000060")).rename(tmp_path / "alone")
    try:
        with pytest.raises(ConfigError, match=r"does not tell its data's returns \(data.json\); give --targets 0,100"):
            play_targets(checkpoint, plugins=[PLUGIN])
    finally:
        checkpoint.rename(run / "checkpoints" / "step_000000060")


# --- warnings ---


def test_a_target_beyond_the_data_is_warned_of(run: Path) -> None:
    data = DataFacts("toy", json.loads((run / "data.json").read_text())["returns"], 1)
    lowest, best = data.range
    size = max(-lowest, best)
    beside, beyond = best + 0.099 * size, best + 0.101 * size
    said = rf"^target_return -900, {beyond:.4g}: beyond the data's returns, .* to .*: rlalgo targets .*dt$"
    policies = [{"target_return": target} for target in (beyond, beside, lowest, -900.0)]
    with pytest.warns(RlalgoWarning, match=said) as caught:
        rlutils.evaluate(run, "last", policies, ["evaluation.episodes=1"], [PLUGIN])
    assert len(caught) == 1
    with pytest.warns(RlalgoWarning, match=r"^target_return 900: beyond"):
        play(run, {"target_return": 900.0}, plugins=[PLUGIN])
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # pytest makes errors of ours
        result = call("play", str(run), "--target-return", "900")
    assert result.exit_code == 0
    assert "warning: target_return 900: beyond the data's returns" in " ".join(result.output.split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in (beside, lowest, None):
            play(run, {"target_return": target}, plugins=[PLUGIN])


def test_training_warns_once(tmp_path: Path) -> None:
    evaluation = {"every": 20, "episodes": 1, "policies": [{"target_return": 0}, {"target_return": 500}]}
    with pytest.warns(RlalgoWarning) as caught:
        rlutils.train(toy_config(evaluation=evaluation), out=tmp_path / "run")
    assert ["target_return 500: beyond" in str(one.message) for one in caught] == [True]


def test_sampling_is_not_dropped(tmp_path: Path) -> None:
    policies = [{"target_return": 0, "sample": True}, {"target_return": 8, "sample": True}]
    config = toy_config(source={"name": "toy", "discrete": True}, evaluation={"episodes": 2, "policies": policies})
    run = rlutils.train(config, out=tmp_path / "run", trainer__steps=5).folder
    assert call("evaluate", str(run), "--target-return", "5").exit_code == 0
    [file] = (run / "evaluations").glob("evaluate_*.json")
    assert json.loads(file.read_text())["policies"][0]["options"] == {"target_return": 5.0, "sample": True}
    found = play_targets(run, targets=[2, 5], episodes=4, plugins=[PLUGIN])
    assert [point.played.options["sample"] for point in found.points] == [True, True]
    drawn, greedy = (
        play(run, {"target_return": 5.0, **more}, episodes=9, plugins=[PLUGIN]) for more in ({}, {"sample": False})
    )
    assert [trace.ret for trace in drawn] != [trace.ret for trace in greedy]
