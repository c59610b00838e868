"""What stands in a run's files when it goes on: what is not needed stops nothing, older runs stay usable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rlutils
from rlalgo.config import to_mapping
from rlalgo.errors import CheckpointError, ConfigError
from rlutils.checkpoints.loading import run_settings
from rlutils.checkpoints.store import find
from rlutils.cli import app
from rlutils.config.files import read_yaml, write_yaml
from rlutils.training.callbacks.csv import MetricsWarning, read_rows
from rlutils.training.facts import run_facts
from tests.rlutils.runs import PLUGIN, equal, state, toy_config, weights

MORE = ["trainer.steps=70"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return rlutils.train(toy_config("bc"), tmp_path_factory.mktemp("trained") / "run").folder


@pytest.fixture(scope="module")
def longer(trained: Path) -> Path:
    """The run that went on."""
    shutil.copytree(trained, trained.parent / "longer")
    return rlutils.resume(trained.parent / "longer", MORE, plugins=[PLUGIN]).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be meddled with."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.yaml", "- a list\n"),
        ("run.yaml", "step: -5\nstate: [1]\n"),
        ("run.yaml", "a: [\n"),
        ("plugins.yaml", "kind: algo\n"),
        ("spec.yaml", "nothing"),
        ("evaluations/step_000000060.json", "[1, 2]"),
        ("evaluations/step_000000060.json", '{"step": 20, "policies": []}'),
        ("evaluations/step_x.json", "{"),
        ("evaluations/step_-00000005.json", "{}"),
    ],
)
def test_a_run_goes_on_whatever_stands_where_nothing_is_needed(
    name: str, content: str, run: Path, longer: Path
) -> None:
    (run / name).write_text(content)
    rlutils.resume(run, MORE, plugins=[PLUGIN])
    assert equal(weights(run), weights(longer))
    assert equal(state(run), state(longer))
    assert run_facts(run).state == "finished"
    assert json.loads((run / "evaluations" / "step_000000060.json").read_text())["step"] == 60


@pytest.mark.parametrize(
    "content", [b"", b"time,loss\n1,2\n", b"step,step\n1,2\n", b"\xff\xfe", b"x" * 200_000 + b"\n"]
)
def test_metrics_that_are_none_are_put_aside(content: bytes, run: Path) -> None:
    (run / "metrics.csv").write_bytes(content)
    with pytest.warns(MetricsWarning, match=r"metrics\.csv: .*; it is called metrics\.broken\.csv now"):
        rlutils.resume(run, MORE, plugins=[PLUGIN])
    assert (run / "metrics.broken.csv").read_bytes() == content
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["70"]


def test_rows_that_are_none_are_left_out(run: Path) -> None:
    path = run / "metrics.csv"
    path.write_text("step,loss\n10,1\n-5,1\n²,1\n20\n30,1,2\n99999999999999999999,1\n40,\n50,0.")
    assert read_rows(path) == [{"step": "10", "loss": "1"}, {"step": "40", "loss": ""}]


def places(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all options, inner ones first."""
    pairs = values.items() if isinstance(values, dict) else ()
    return [place for key, value in pairs for place in [*places(value, (*path, key)), (*path, key)]]


def without(values: Any, place: tuple[str, ...]) -> Any:
    first, *rest = place
    left = {key: value for key, value in values.items() if key != first or rest}
    return {**left, first: without(values[first], tuple(rest))} if rest else left


def test_a_run_of_an_older_version_is_completed_with_todays_defaults(run: Path, longer: Path) -> None:
    known = to_mapping(run_settings(run, [PLUGIN])[0])
    values, dropped = read_yaml(run / "config.yaml"), 0
    for place in places(values):
        less = without(values, place)
        write_yaml(run / "config.yaml", less)
        try:
            same = to_mapping(run_settings(run, [PLUGIN])[0]) == known
        except ConfigError:  # it has no default
            same = False
        if same:
            values, dropped = less, dropped + 1
    write_yaml(run / "config.yaml", values)
    assert dropped > 20
    assert set(values["algo"]) <= {"name", "hidden_dims", "dropout"}
    file = find(run) / "algo.yaml"
    described = read_yaml(file)
    spec = {key: described["spec"][key] for key in ("observation_space", "action_space", "max_steps", "env_id")}
    write_yaml(file, {"step": described["step"], "run": described["run"], "algo": values["algo"], "spec": spec})
    assert rlutils.evaluate(run, overrides=["evaluation.episodes=1"], plugins=[PLUGIN]).step == 60
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    rlutils.resume(run, MORE, plugins=[PLUGIN])
    assert equal(weights(run), weights(longer))


def test_a_run_of_a_newer_version_says_so(run: Path) -> None:
    config = read_yaml(run / "config.yaml")
    write_yaml(run / "config.yaml", {**config, "algo": {**config["algo"], "flash": 3}})
    with pytest.raises(ConfigError, match="unknown key 'flash'"):
        run_settings(run, [PLUGIN])
    rows = read_yaml(run / "plugins.yaml")
    write_yaml(run / "plugins.yaml", [{**row, "version": "99.1"} for row in rows])
    with pytest.raises(CheckpointError, match=r"rlalgo 99\.1 wrote this, and here is .*'flash'.*upgrade"):
        rlutils.resume(run, plugins=[PLUGIN])
    write_yaml(run / "plugins.yaml", [*rows, {**rows[0], "distribution": "rlalgo", "version": "99.1", "name": "new"}])
    with pytest.raises(CheckpointError, match=r"'new' .* was in rlalgo 99\.1, and here is .*install that version"):
        run_settings(run, [PLUGIN])
    file = find(run) / "algo.yaml"
    described = read_yaml(file)
    write_yaml(file, {**described, "rlalgo": "99.1", "algo": {**described["algo"], "flash": 3}, "more": 1})
    with pytest.raises(CheckpointError, match=r"algo\.yaml: rlalgo 99\.1 wrote this"):
        rlutils.load(run, plugins=[PLUGIN])
