"""Sweeps: the grid, its settings, and what becomes of runs that finish, fail, are killed or are stopped."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rlalgo.config import schema, to_mapping
from rlalgo.errors import ConfigError, RlalgoError
from rlutils import train
from rlutils.cli import app
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.files import read_yaml, write_yaml
from rlutils.config.overrides import texts_of
from rlutils.reports.suite_results import suite_results
from rlutils.sweeps import sweep as sweeping
from rlutils.sweeps.plan import last_error, matches, read_plan
from rlutils.sweeps.suite import Suite, read_suite
from rlutils.sweeps.sweep import sweep
from rlutils.sweeps.view import View, progress
from tests.rlutils.runs import OURS, PLUGIN, command, equal, state, toy_config, weights

SUITES = Path(__file__).parents[3] / "configs" / "suites"

FAKE = """
import fcntl, json, os, pathlib, sys
request = json.loads(sys.stdin.readline())
folder = pathlib.Path(request["folder"])
book = pathlib.Path(sys.argv[1])
name = f"{request['settings']['algo']['name']} {request['settings']['seed']}"
with (book / "calls").open("a") as file:
    file.write(json.dumps({"name": name, "resume": request["resume"], "threads": request["settings"]["threads"],
                           "omp": os.environ["OMP_NUM_THREADS"], "command": request["command"]}) + "\\n")
fails = json.loads((book / "fails").read_text()) if (book / "fails").exists() else {}
done = sum(json.loads(line)["name"] == name for line in (book / "calls").open())
print("Traceback ...")
if done <= fails.get(name, 0):
    sys.exit(f"ValueError: {name} is broken")
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").write_text(json.dumps(request["settings"]))
(folder / "run.yaml").write_text(json.dumps({"state": "finished", "step": 60, "seconds": 1.5}))
"""
"""A worker that trains nothing but leaves a finished run, and fails as often as it is told."""


def write_suite(folder: Path, **changes: Any) -> Path:
    for algo in ("bc", "dt"):
        write_yaml(folder / f"{algo}.yaml", toy_config(algo))
    values = {
        "algos": {"bc": "bc.yaml", "dt": "dt.yaml"},
        "datasets": {"small": {"source.episodes": 10}, "large/one": {"source": {"episodes": 30}}},
        "seeds": [3, 1],
        "out": str(folder / "out"),
        "processes": 1,
    }
    write_yaml(folder / "suite.yaml", {k: v for k, v in {**values, **changes}.items() if v is not None})
    return folder / "suite.yaml"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Sweeps with the worker above; gives what it was asked for so far, in order."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(sweeping, "WORKER", (sys.executable, "-S", str(tmp_path / "fake.py"), str(tmp_path)))
    calls = tmp_path / "calls"
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def quiet(path: Path, **options: Any) -> tuple[list[sweeping.Job], str]:
    console = Console(file=io.StringIO(), width=200)
    jobs = sweep(path, console=console, **options)
    return jobs, console.file.getvalue()  # type: ignore[attr-defined]


# --- the grid ---


def test_the_grid_is_the_product_in_the_order_of_seeds(tmp_path: Path) -> None:
    path = write_suite(tmp_path, options={"bc": {"algo.dropout": [0.1, 0.2], "algo.lr": [1e-3, 1e-4]}})
    _, cells = read_suite(path)
    tried = [f"algo.dropout={d},algo.lr={lr}" for d, lr in itertools.product([0.1, 0.2], [0.001, 0.0001])]
    names = []
    for seed, algo, dataset in itertools.product([3, 1], ["bc", "dt"], ["small", "large/one"]):
        names += [f"{algo}/{dataset}/{t}/s{seed}" for t in (tried if algo == "bc" else [])]
        names += [f"{algo}/{dataset}/s{seed}"] if algo == "dt" else []
    assert [cell.name for cell in cells] == names
    cell = next(cell for cell in cells if cell.name == "bc/large/one/algo.dropout=0.2,algo.lr=0.0001/s1")
    expected = toy_config("bc", seed=1, source={"name": "toy", "episodes": 30})
    expected["algo"] |= {"dropout": 0.2, "lr": 1e-4}
    assert to_mapping(cell.settings) == to_mapping(read_settings(expected)[0])


def test_settings_apply_where_their_pattern_matches_and_the_last_wins(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={
        "*": {"evaluation.episodes": 7, "trainer": {"steps": 50}},
        "dt": {"trainer.steps": 40, "algo": {"state_encoder": {"name": "linear"}}},
        "*/large/one": {"trainer.batch_size": 5},
        "dt/small": {"trainer.steps": 30},
    })  # fmt: skip
    found = {}
    for cell in read_suite(path)[1]:
        trainer = cell.settings.trainer.config
        found[cell.group] = (cell.settings.evaluation.episodes, trainer.steps, trainer.batch_size)
        assert len(cell.settings.evaluation.policies) == (2 if cell.algo == "dt" else 1)  # merged, not replaced
    assert found == {
        "bc/small": (7, 50, 16), "bc/large/one": (7, 50, 5), "dt/small": (7, 30, 16), "dt/large/one": (7, 40, 5),
    }  # fmt: skip


def test_the_command_of_a_run_makes_the_same_settings(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={"*": {"callbacks": [{"name": "csv", "every": 5}], "algo.lr": 1e-5}})
    for cell in read_suite(path)[1]:
        config, *overrides = cell.words
        assert to_mapping(read_settings(config, overrides)[0]) == to_mapping(cell.settings)
        assert cell.command(Path("out")).endswith(f"seed={cell.seed} --out out/{cell.name}")


def test_a_mapping_is_merged_and_a_named_one_replaces() -> None:
    values = {"a.b": 1, "c": {"d": [1], "e": {"name": "x", "f": 2}}, "g": None}
    assert list(texts_of(values)) == ["a.b=1", "c.d=[1]", 'c.e={"name": "x", "f": 2}', "g=null"]


@pytest.mark.parametrize(
    ("pattern", "name", "is_so"),
    [("*", "bc/x/s0", True), ("bc", "bc/x/s0", True), ("bc", "bc10/x", False), ("*/x", "bc/x/s0", True),
     ("*/s0", "bc/x/s0", True), ("*/s0", "bc/x/s01", False), ("bc/[xy]", "bc/y", True), ("x", "bc/x", False)],
)  # fmt: skip
def test_patterns_match_names_and_their_beginnings(pattern: str, name: str, is_so: bool) -> None:
    assert matches(pattern, name) == is_so


def test_all_faults_are_told_at_once_with_their_cells(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={"bc": {"algo.widht": 3}, "dt/large/one": {"trainer.steps": -1}})
    with pytest.raises(ConfigError) as caught:
        quiet(path)
    said = "\n".join(caught.value.faults)
    assert "bc/small, bc/large/one: algo.widht: unknown key 'widht'. Did you mean 'width'?" in said
    assert "dt/large/one: trainer.steps: should be greater than or equal to 1, got -1" in said
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": [0]}, ["unknown key 'seed'. Did you mean 'seeds'?"]),
        ({"set": {"bv": {}}, "options": {"dt/huge": {}}}, ["'bv' matches nothing. Did you mean 'bc'?", "dt/huge"]),
        ({"seeds": [1, 1]}, ["has one twice"]),
        ({"seeds": []}, ["seeds:"]),
        ({"set": {"*": {"seed": 1}}}, ["set.*.seed"]),
        ({"algos": {"../bc": "bc.yaml", "dt": "no.yaml"}}, ["'../bc' cannot name a folder", "no.yaml: there is no"]),
        ({"datasets": {"a": {}, "a/s1": {}}}, ["bc/a/s1/s1: lies in the folder of bc/a/s1"]),
        ({"options": {"*": {"algo.lr": []}}}, ["algo.lr"]),
        ({"processes": 0}, ["processes"]),
        (
            {"processes": 0, "seeds": [1, 1], "algos": {"../bc": "bc.yaml", "dt": "no.yaml"}},
            ["processes", "has one twice", "'../bc' cannot name a folder", "no.yaml: there is no"],
        ),
    ],
)
def test_a_suite_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_suite(write_suite(tmp_path, **changes))
    assert all(text in str(caught.value) for text in said)


def test_the_schema_takes_a_suite_and_refuses_unknown_keys(tmp_path: Path) -> None:
    values, rules = read_yaml(write_suite(tmp_path)), schema(Suite, catalogue())
    jsonschema.validate(values, rules)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "seed": 1}, rules)


# --- what is done, and what is not ---


def test_what_is_done_is_not_done_again(tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]) -> None:
    path = write_suite(tmp_path)
    jobs, said = quiet(path, only=["bc"])
    assert [call["name"] for call in fake()] == ["bc 3", "bc 3", "bc 1", "bc 1"]
    assert {job.state for job in jobs} == {"finished"}
    assert "[4/4] bc/large/one/s1 finished" in said
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("run.yaml")}
    jobs, _ = quiet(path)
    assert [call["name"] for call in fake()][4:] == ["dt 3", "dt 3", "dt 1", "dt 1"]
    assert len(jobs) == 8
    assert all(file.stat().st_mtime_ns == before for file, before in times.items())
    assert fake()[0]["command"].startswith(f"rlalgo train {tmp_path}/bc.yaml source.episodes=10 seed=3 --out ")
    assert [run.name for run in read_plan(tmp_path / "out").runs] == [job.name for job in jobs]


def test_a_failing_run_is_tried_again_once_after_the_others(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    (tmp_path / "fails").write_text(json.dumps({"bc 3": 9, "dt 3": 1}))
    path = write_suite(tmp_path, datasets={"one": {}})
    jobs, said = quiet(path)
    assert [call["name"] for call in fake()] == ["bc 3", "dt 3", "bc 1", "dt 1", "bc 3", "dt 3"]
    assert [(job.name, job.state) for job in jobs if job.state != "finished"] == [("bc/one/s3", "failed")]
    assert "bc/one/s3 failed and will be tried again: ValueError: bc 3 is broken" in said
    result = CliRunner().invoke(app, ["sweep", str(path)])
    assert result.exit_code == 1
    words = " ".join((result.stdout + result.stderr).split())
    assert "bc/one/s3 failed twice: ValueError: bc 3 is broken" in words
    assert "3 of 4 runs finished" in words
    assert len(fake()) == 8
    (tmp_path / "fails").unlink()
    assert CliRunner().invoke(app, ["sweep", str(path)]).exit_code == 0


def test_cores_are_divided_among_the_processes(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    path = write_suite(tmp_path, processes=None, set={"*": {"threads": None}, "dt": {"threads": 5}}, seeds=[0])
    quiet(path, processes=3)
    asked = sorted({(call["name"], call["threads"], call["omp"]) for call in fake()})
    assert asked == [("bc 0", 2, "2"), ("dt 0", 5, "5")]
    quiet(path, processes=8)  # other threads are no other settings
    assert len(fake()) == 4


def test_changed_settings_are_refused_and_replaced_only_on_demand(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write_suite(tmp_path, seeds=[0])
    quiet(path)
    write_suite(tmp_path, seeds=[0], set={"dt/small": {"algo.lr": 0.5}}, plugins=[PLUGIN])
    with pytest.raises(ConfigError, match=r"dt/small/s0 was trained with other settings: algo\.lr: 0\.003, now 0\.5"):
        quiet(path)
    quiet(path, only=["bc"])
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--only", "*/small"]).stdout
    assert "bc/small/s0: finished\n" in listed
    assert "dt/small/s0: changed, algo.lr: 0.003, now 0.5\n" in listed
    assert "large" not in listed
    assert len(fake()) == 4
    quiet(path, replace=True)
    assert [(call["name"], call["resume"]) for call in fake()[4:]] == [("dt 0", False)]


def test_a_run_that_failed_to_be_replaced_is_not_resumed_as_it_was(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write_suite(tmp_path, seeds=[0], datasets={"one": {}}, algos={"bc": "bc.yaml"})
    quiet(path)
    last = tmp_path / "out" / "bc" / "one" / "s0" / "checkpoints" / "last"
    last.mkdir(parents=True)
    for name in ("model.safetensors", "algo.yaml"):
        (last / name).touch()
    write_suite(tmp_path, seeds=[0], datasets={"one": {"trainer.steps": 7}}, algos={"bc": "bc.yaml"})
    (tmp_path / "fails").write_text(json.dumps({"bc 0": 2}))
    quiet(path, replace=True)
    assert [call["resume"] for call in fake()] == [False, False, False]


def test_one_sweep_at_a_time(tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]) -> None:
    path = write_suite(tmp_path)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 7 on that machine")
        lock.flush()
        with pytest.raises(RlalgoError, match=r"a sweep is at work here already \(process 7 on that machine\)"):
            quiet(path)
    assert fake() == []
    quiet(path, only=["bc/small"])
    assert len(fake()) == 2


def test_a_pattern_without_a_run_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    path = write_suite(tmp_path)
    with pytest.raises(ConfigError, match="--only 'bx' matches no run; they have names such as bc/small/s3"):
        quiet(path, only=["bx"])
    (tmp_path / "out" / "bc" / "small" / "s3").mkdir(parents=True)
    (tmp_path / "out" / "bc" / "small" / "s3" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds thesis\.tex and is not a run"):
        quiet(path)


def test_only_a_suites_own_folder_is_filled(tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]) -> None:
    path, mine = write_suite(tmp_path), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all of it")
    for folder in (mine, tmp_path):  # the other holds a suite.yaml, which is the suite itself
        with pytest.raises(ConfigError, match="exists, is not empty and is not a suite's folder; choose another --out"):
            quiet(path, out=folder)
    assert fake() == []
    assert [file.name for file in mine.iterdir()] == ["thesis.tex"]
    quiet(path, only=["bc/small"])
    quiet(path)  # its own
    assert len(fake()) == 8


# --- data, before anything runs ---


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a Minari dataset with Box actions, of which there is no more than the metadata."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    box = json.dumps({"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]})
    values = {"total_episodes": 1, "total_steps": 5, "observation_space": box, "action_space": box}
    folder = tmp_path / "data" / "toy" / "box-v0" / "data"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps(values))
    return "toy/box-v0"


def data_suite(folder: Path, **datasets: dict[str, Any]) -> Path:
    path = write_suite(folder, algos={"bc": "bc.yaml", "dqn": "dqn.yaml"}, datasets=datasets, seeds=[0, 1])
    for algo in ("bc", "dqn"):
        values = toy_config("bc", source={"name": "minari", "id": "x"})
        write_yaml(folder / f"{algo}.yaml", {**values, "algo": algo})
    return path


def test_missing_data_and_actions_that_do_not_suit_are_told_before_anything_runs(
    tmp_path: Path, boxes: str, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    gone = {"source": {"id": "toy/bix-v0", "download": False}}
    path = data_suite(tmp_path, box={"source.id": boxes}, gone=gone)
    result = CliRunner().invoke(app, ["sweep", str(path), "--dry-run"])
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "2 faults" in said
    assert "dqn/box: algo: dqn needs a Discrete action space; minari:toy/box-v0 has Box(" in said
    assert "bc/gone, dqn/gone: minari:toy/bix-v0 is not on this machine: downloading is off. Did you mean" in said
    with pytest.raises(ConfigError, match="dqn needs a Discrete"):
        quiet(path)
    assert fake() == []
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--only", "bc/box"]).stdout
    assert listed == "bc/box/s0: waiting\nbc/box/s1: waiting\n"
    quiet(path, only=["bc/box"])
    (tmp_path / "data" / "toy" / "box-v0" / "data" / "metadata.json").unlink()
    quiet(path, only=["bc/box"])  # what is finished needs no data
    assert len(fake()) == 2


def test_data_that_may_be_downloaded_is_asked_for_once_before_anything_runs(
    tmp_path: Path, boxes: str, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    path = data_suite(tmp_path, far={"source.id": "no-such-id"})  # which no server is asked for
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--only", "bc/*/s0"])
    assert listed.stdout == "bc/far/s0: waiting, its dataset is not on this machine and is to be downloaded first\n"
    with pytest.raises(ConfigError, match="bc/far, dqn/far: minari:no-such-id is not on this machine: an id looks"):
        quiet(path)
    assert fake() == []


# --- what is said of failures ---


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("step 10\nerror: 1 fault here\n  a: it is 3.\n  b: no\n", "1 fault here; a: it is 3; b: no"),
        (
            "error: old\nTraceback (most recent call last):\n  File x\n    y()\nValueError: y is bad:\n  very\n",
            "ValueError: y is bad:; very",
        ),
        ("Traceback (most recent call last):\n  File x\n", "File x"),
        ("step 10\n\nSegmentation fault\n", "Segmentation fault"),
        ("\n", ""),
    ],
)
def test_the_error_of_a_log_is_all_of_it_in_one_line(tmp_path: Path, log: str, said: str) -> None:
    (tmp_path / "log").write_text("error: of another try\n" + log)
    assert last_error(tmp_path / "log", len("error: of another try\n")) == said
    assert last_error(tmp_path / "none") == ""


# --- real runs ---


def wait_for(path: Path, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


def one_run(tmp_path: Path, steps: int) -> tuple[Path, Path]:
    """A suite of one run of so many updates, with a checkpoint every 25; and that run's folder."""
    trainer = {"trainer.steps": steps, "evaluation.every": 0}
    path = write_suite(tmp_path, algos={"bc": "bc.yaml"}, datasets={"one": trainer}, seeds=[5])
    return path, tmp_path / "out" / "bc" / "one" / "s5"


def test_ctrl_c_stops_with_a_checkpoint_and_the_next_sweep_ends_as_if_never_stopped(tmp_path: Path) -> None:
    path, run = one_run(tmp_path, 300)
    words = [str(path), "--only", "*/s5", "--processes", "1", "--out", "out", "--replace", "--plugin", PLUGIN]
    process = command("sweep", *words, cwd=tmp_path)
    wait_for(run / "checkpoints" / "last")
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, said + errors
    again = (
        f"0 of 1 runs finished, nothing is lost; the same command goes on: {shlex.join(['rlalgo', 'sweep', *words])}"
    )
    assert again in " ".join(errors.split())
    record = read_yaml(run / "run.yaml")
    assert record["state"] == "interrupted"
    assert 25 <= record["step"] < 300
    jobs, said = quiet(path)
    assert f"bc/one/s5 goes on: stopped at step {record['step']:,}" in said
    assert [job.state for job in jobs] == ["finished"]
    assert jobs[0].reached == record["step"]
    assert 0 < jobs[0].since <= (run / "run.yaml").stat().st_mtime
    whole = train(to_mapping(jobs[0].cell.settings), tmp_path / "whole").folder
    assert equal(weights(run), weights(whole))
    assert equal(state(run), state(whole))


def test_an_error_that_would_come_again_is_not_tried_again_and_told_whole(tmp_path: Path) -> None:
    path = write_suite(tmp_path, algos={"bc": "bc.yaml"}, datasets={"bad": {"source.bad_step": 4}}, seeds=[0])
    jobs, said = quiet(path)
    assert [(job.state, job.tries) for job in jobs] == [("failed", 1)]
    assert jobs[0].note == last_error(jobs[0].log)
    assert "again" not in said
    remarks = suite_results(tmp_path / "out").notes()
    assert remarks == [f"bc/bad/s0 is not counted: it did not get as far as training, and said last: {jobs[0].note}"]


@pytest.mark.slow
def test_a_killed_run_is_resumed_by_the_same_sweep(tmp_path: Path) -> None:
    path, run = one_run(tmp_path, 300)
    killed = []

    def kill() -> None:
        wait_for(run / "checkpoints" / "last")
        listed = subprocess.run(["ps", "-ax", "-o", "ppid=,pid=,args="], capture_output=True, text=True).stdout
        for parent, child, args in (line.split(None, 2) for line in listed.splitlines()):
            if int(parent) == os.getpid() and "rlutils.sweeps.worker" in args:
                killed.append(int(child))
                os.kill(int(child), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    jobs, said = quiet(path)
    killer.join()
    assert len(killed) == 1
    assert "failed and will be tried again: killed by SIGKILL" in said
    assert "bc/one/s5 goes on: stopped at step" in said
    whole = train(to_mapping(jobs[0].cell.settings), tmp_path / "whole").folder
    assert equal(weights(run), weights(whole))


def test_a_run_stops_when_its_sweep_is_gone(tmp_path: Path) -> None:
    path, run = one_run(tmp_path, 100_000)
    settings = to_mapping(read_suite(path)[1][0].settings)
    worker = subprocess.Popen(sweeping.WORKER, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdin is not None
    request = {"settings": settings, "folder": str(run), "command": "", "resume": False}
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.flush()
    wait_for(run / "checkpoints" / "last")
    worker.stdin.close()
    assert worker.wait(60) == 130
    assert read_yaml(run / "run.yaml")["state"] == "interrupted"


# --- what is shown ---


def test_the_table_counts_and_tells_how_far_runs_are(tmp_path: Path) -> None:
    jobs, _, _ = sweeping.plan(write_suite(tmp_path))
    jobs[0].state, jobs[1].state, jobs[2].state = "finished", "running", "failed"
    jobs[1].folder.mkdir(parents=True)
    write_yaml(jobs[1].folder / "run.yaml", {"state": "running", "step": 0, "seconds": 0.5})
    (jobs[1].folder / "metrics.csv").write_text("step,seconds,loss\n10,1.0,3\n30,2.0,2\n40,2.")
    assert progress(jobs[1]) == (30, 2.0)
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(View(jobs, console).picture())
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0] == "small large/one"
    assert lines[1] == "bc 1/2 0/2 1 running"
    assert lines[2] == "dt 0/2 1 failed 0/2"
    assert "bc/large/one/s3 30 60 15 0:02" in lines
    assert "1 of 8 runs finished, 1 running, 1 failed, 5 waiting" in lines[-1]


def test_progress_of_a_try_before_is_not_shown(tmp_path: Path) -> None:
    job = sweeping.plan(write_suite(tmp_path))[0][0]
    job.state, job.since = "running", time.time()
    job.folder.mkdir(parents=True)
    record, rows = job.folder / "run.yaml", job.folder / "metrics.csv"
    write_yaml(record, {"state": "finished", "step": 2000, "seconds": 9.5})
    rows.write_text("step,seconds,loss\n1900,9.0,3\n2000,9.5,2.0\n")
    for file in (record, rows):
        os.utime(file, (job.since - 5, job.since - 5))
    assert progress(job) == (0, 0.0)
    job.reached = 25  # it goes on from there
    assert progress(job) == (25, 0.0)
    write_yaml(record, {"state": "running", "step": 30, "seconds": 1.5})
    os.utime(record, (job.since + 5, job.since + 5))
    assert progress(job) == (30, 1.5)
    rows.write_text("step,seconds,loss\n30,1.5,3\n40,2.0,2.0\n")
    os.utime(rows, (job.since + 5, job.since + 5))
    assert progress(job) == (40, 2.0)


def test_runs_that_are_to_start_anew_are_counted(tmp_path: Path) -> None:
    jobs = sweeping.plan(write_suite(tmp_path))[0]
    jobs[0].state = jobs[1].state = "changed"
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(View(jobs, console).picture())
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0 of 8 runs finished, 2 changed, 6 waiting" in said


# --- what is shipped ---


def test_the_shipped_schema_is_up_to_date() -> None:
    made = json.loads(json.dumps(schema(Suite, catalogue(OURS))))
    assert json.loads((SUITES / "schema.json").read_text()) == made, "run `make schema`"


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_suites_are_valid_and_fit_their_schema(path: Path) -> None:
    _, cells = read_suite(path, OURS)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    jsonschema.validate(read_yaml(path), schema(Suite, catalogue(OURS)))
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
