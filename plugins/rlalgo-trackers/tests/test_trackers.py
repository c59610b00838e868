"""The callback `tracker` with every tracker that is installed here, each offline and read back with its own package."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rlutils
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric as validate_metric
from readers import READERS, Row, offline
from rlalgo.errors import CallbackFault, ConfigError
from rlutils.config.files import write_yaml
from rlutils.evaluation.play import play
from tests.rlutils.runs import PLUGIN, ROOT, command, equal, toy_config, weights

import rlalgo_trackers

HERE = Path(rlalgo_trackers.__file__).parent
INSTALLED = [to for to in READERS if getattr(importlib.util.find_spec(to), "origin", None)]
WRITES = {"wandb": 2.5, "mlflow": 0.0, "trackio": 1.5, "swanlab": 4.0, "aim": 4.0}
"""Seconds after which a tracker has written down what it was given."""
KILLER = str(Path(__file__).parent / "killer.py")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's is read or written, and nobody waits for a server."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name, value in {
            "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TRACKIO_DIR": str(home / "trackio"),
            "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "WANDB_SILENT": "true",
            "WANDB_DISABLE_GIT": "true", "PYTHONPATH": str(HERE),
        }.items():  # fmt: skip
            patch.setenv(name, value)
        for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "SWANLAB_API_KEY"):
            patch.delenv(name, raising=False)
        yield


def config(folder: Path, to: str, *more: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options = changes.pop("options", None)
    options = offline(to, folder) if options is None else options
    tracker = {"name": "tracker", "to": to, "every": 2, "project": "tests", "options": options, **changes}
    found = toy_config("bc", callbacks=[{"name": "csv", "every": 2}, {"name": "best"}, tracker, *more])
    return {**found, "plugins": [PLUGIN, "rlalgo_trackers"]}


def expected(run: Path) -> list[Row]:
    """What the run's own files say."""
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    rows = [(int(row["step"]), f"train/{key}", float(value)) for row in table for key, value in row.items()
            if key not in ("step", "seconds") and value]  # fmt: skip
    for path in (run / "evaluations").glob("step_*.json"):
        result = json.loads(path.read_text())
        for policy in result["policies"]:
            low, high = policy["interval"]
            numbers = {
                "return": policy["mean"],
                "return_low": low,
                "return_high": high,
                "normalized": policy["normalized"],
            }
            rows += [(result["step"], f"evaluation/{name}/policy", n) for name, n in numbers.items() if n is not None]
    return sorted(rows)


@pytest.mark.parametrize("to", [to if to == "wandb" else pytest.param(to, marks=SLOW) for to in INSTALLED])
def test_a_killed_and_resumed_run_is_one_tracked_run_with_every_row_once(to: str, tmp_path: Path) -> None:
    file, run = tmp_path / "config.yaml", tmp_path / "pointed"
    begun = config(tmp_path, to, {"name": "killer", "wait": WRITES[to]}, tags=["red"], group="friends")
    write_yaml(file, {**begun, "plugins": [*begun["plugins"], KILLER]})
    process = command("train", str(file), "--out", str(run), cwd=tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -9, errors
    before = READERS[to](tmp_path)
    assert {row[0] for _, _, rows in before.values() for row in rows} >= {40, 46}, "the last checkpoint is of step 40"

    callbacks = json.dumps(begun["callbacks"][:-1])
    rlutils.resume(run, [f"callbacks={callbacks}"], plugins=[*begun["plugins"], KILLER])
    ((same, (name, settings, rows)),) = READERS[to](tmp_path).items()
    assert [same] == [*before]
    assert name.startswith("pointed")
    assert float(settings["algo.dropout"]) == 0.1
    assert settings["callbacks.2.to"] == to
    assert to == "aim" or settings["_group"] == "friends"
    assert to in ("aim", "trackio") or settings["_tags"] == ["red"]
    summary = {key: value for step, key, value in rows if key.startswith("summary/") and step == 60}
    assert summary.keys() == {"summary/return", "summary/best_step", "summary/seconds"}
    logged, whole = sorted(row for row in rows if row[1] not in summary), expected(run)
    assert [row[:2] for row in logged] == [row[:2] for row in whole]
    assert [row[2] for row in logged] == pytest.approx([row[2] for row in whole], rel=1e-6)


def train(folder: Path, to: str = "mlflow", **changes: Any) -> Any:
    return rlutils.train(config(folder, to, **changes), out=folder / "run")


def test_a_tracker_that_cannot_be_reached_costs_warnings_and_nothing_else(tmp_path: Path) -> None:
    with pytest.warns(rlalgo_trackers.TrackerWarning) as warned:
        run = train(tmp_path, options={"tracking_uri": "http://me:secret@127.0.0.1:9"})
    first, last = (str(warning.message) for warning in warned)
    assert first.startswith("callback 'tracker': mlflow: ")
    assert "training goes on" in first
    assert "rows were not sent" in last
    assert "secret" not in first + last
    assert run.step == 60
    alone = rlutils.train({**toy_config("bc"), "callbacks": []}, out=tmp_path / "alone")
    assert equal(weights(run.folder), weights(alone.folder))


def test_rows_that_waited_too_long_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlalgo_trackers, "MOST", 3)
    (tmp_path / "mlruns").write_text("no folder")
    with pytest.warns(rlalgo_trackers.TrackerWarning, match="not sent") as warned:
        run = train(tmp_path)
    rows = len({step for step, *_ in expected(run.folder)})
    assert f" {rows} rows were not sent" in str(warned[-1].message)


def test_what_a_tracker_missed_while_it_was_away_is_sent_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlalgo_trackers, "PAUSE", 0.0)
    monkeypatch.setattr(rlalgo_trackers, "SHARE", 0)
    (tmp_path / "mlruns").write_text("no folder")
    add = rlalgo_trackers.Tracker._add

    def mended(self: Any, step: int, numbers: Any) -> None:
        if step == 30 and (tmp_path / "mlruns").is_file():
            (tmp_path / "mlruns").unlink()
        add(self, step, numbers)

    monkeypatch.setattr(rlalgo_trackers.Tracker, "_add", mended)
    with pytest.warns(rlalgo_trackers.TrackerWarning, match="asked again") as warned:
        run = train(tmp_path)
    assert len(warned) == 1
    ((_, _, rows),) = READERS["mlflow"](tmp_path).values()
    assert [row[:2] for row in sorted(rows) if "summary" not in row[1]] == [row[:2] for row in expected(run.folder)]


def test_a_run_that_breaks_and_one_with_more_steps_go_on_where_they_were(tmp_path: Path) -> None:
    begun = config(tmp_path, "mlflow", {"name": "meddler", "at": 40, "how": "raise"})
    with pytest.raises(CallbackFault, match="meddler broke"):
        rlutils.train(begun, out=tmp_path / "run")
    known = {"plugins": begun["plugins"]}
    rlutils.resume(tmp_path / "run", [f"callbacks={json.dumps(begun['callbacks'][:-1])}"], **known)
    rlutils.resume(tmp_path / "run", ["trainer.steps=70"], **known)
    ((_, _, rows),) = READERS["mlflow"](tmp_path).values()
    steps = [step for step, key, _ in rows if key == "train/actor/loss"]
    assert steps == [*range(2, 71, 2)]
    assert [step for step, key, _ in sorted(rows) if key == "evaluation/return/policy"] == [20, 40, 60, 70]
    assert [step for step, key, _ in sorted(rows) if key == "summary/return"] == [60, 70]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"to": "wandbb"}, "callbacks[2].to: "),
        ({"project": "it's"}, "callbacks[2].project: "),
        ({"project": ""}, "callbacks[2].project: "),
        ({"tags": [""]}, "callbacks[2].tags[0]: "),
        ({"run_name": "x" * 65}, "callbacks[2].run_name: "),
        ({"every": 0}, "callbacks[2].every: "),
        ({"projekt": "x"}, "callbacks[2].projekt: unknown key 'projekt'. Did you mean 'project'?"),
        ({"options": {"tracking_ur": "x"}}, "unknown key 'tracking_ur'. Did you mean 'tracking_uri'?"),
        ({"options": {"run_id": "x"}}, "callbacks.tracker.options: unknown key 'run_id'"),
        ({"to": "wandb", "options": {"project": "x"}}, "callbacks.tracker.options: unknown key 'project'"),
    ],
)
def test_a_setting_at_fault_is_told_before_anything_is_written(
    changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        train(tmp_path, **{"options": {}, "to": "mlflow", **changes})
    assert fault in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlalgo_trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"callbacks\[2\].*mlflow is not installed; pip install mlflow-skinny"):
        train(tmp_path)


@pytest.mark.parametrize(
    "change", [{"to": None}, {"id": 3}, {"sent": None}, {"rows": {"x": {}}}, {"rows": {3: {"loss": "low"}}}]
)
def test_a_state_that_is_none_is_refused(change: dict[str, Any]) -> None:
    tracker = rlalgo_trackers.Tracker(rlalgo_trackers.Tracker.Config(to="mlflow"))
    state = tracker.state_dict()
    tracker.load_state_dict({**state, "to": "wandb", "id": "theirs"})
    assert tracker.id is None, "another tracker knows nothing of it"
    with pytest.raises(ValueError, match="validation error"):
        tracker.load_state_dict({**state, **change})


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_every_tracker_takes(text: str) -> None:
    name = rlalgo_trackers._named(text)
    validate_metric(name, 1.0, 0, 0)  # mlflow's, the strictest
    assert re.fullmatch(r"[\w ./-]{1,250}", name, re.ASCII)


def test_nothing_of_a_tracker_is_imported_until_a_run_begins() -> None:
    code = "import sys, rlalgo_trackers; print(*{'accelerate', 'wandb', 'mlflow'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.split() == []


def test_it_is_found_by_its_entry_point() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["rlalgo"] == {"trackers": "rlalgo_trackers"}
    extras = {name.partition(">")[0] for names in project["optional-dependencies"].values() for name in names}
    assert extras == {kind.package for kind in rlalgo_trackers.KINDS.values()}
    assert rlutils.catalogue(["rlalgo_trackers"]).get("callback", "tracker").cls is rlalgo_trackers.Tracker


def test_a_run_is_played_without_the_package_of_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path)
    monkeypatch.setattr(rlalgo_trackers, "find_spec", lambda name: None)
    play(tmp_path / "run", {}, episodes=1, plugins=[PLUGIN, "rlalgo_trackers"])
    rlutils.evaluate(tmp_path / "run", overrides=["evaluation.episodes=1"], plugins=[PLUGIN, "rlalgo_trackers"])


@SLOW
def test_nobody_is_asked_for_a_login(tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", config(tmp_path, "wandb", options={}))
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        words = ["-m", "rlutils", "train", "config.yaml", "--out", "run"]
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"})
    said = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while part := os.read(terminal, 4096):
            said += part
    assert os.waitpid(process, 0)[1] == 0, said
    assert b"No API key configured" in said


@SLOW
def test_runs_of_a_sweep_are_tracked_runs_of_one_group(tmp_path: Path) -> None:
    base = config(tmp_path, "mlflow")
    write_yaml(tmp_path / "base.yaml", base)
    suite = {"algos": {"bc": "base.yaml"}, "datasets": {"toy": {}}, "seeds": [0, 1], "processes": 2, "out": "mine"}
    write_yaml(tmp_path / "suite.yaml", suite)
    assert command("sweep", "suite.yaml", cwd=tmp_path).wait(timeout=120) == 0
    tracked = READERS["mlflow"](tmp_path).values()
    assert sorted((name, settings["_group"]) for name, settings, _ in tracked) == [
        ("bc-toy-s0", "mine"),
        ("bc-toy-s1", "mine"),
    ]
