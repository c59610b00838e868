"""Sweeps: what becomes of runs that finish, fail, are killed or are stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError, RlalgoError
from rlutils import train
from rlutils.cli import app
from rlutils.config.claim import claimed
from rlutils.config.files import read_yaml, write_json, write_yaml
from rlutils.machine import birth
from rlutils.reports.suite_results import suite_results
from rlutils.sweeps import sweep as sweeping
from rlutils.sweeps.job import last_error
from rlutils.sweeps.plan import read_plan
from tests.rlutils.runs import PLUGIN, command, equal, state, toy_config, weights
from tests.rlutils.sweeps.suites import quiet, write_suite

FAKE = """
import json, os, pathlib, signal, sys, time
book, config, *words = sys.argv[1:]
folder, how = pathlib.Path(words[-2]), words[-1]
given = dict(word.split("=", 1) for word in words if "=" in word)
book = pathlib.Path(book)
name = f"{pathlib.Path(config).stem} {given['seed']}"
with (book / "calls").open("a") as file:
    file.write(json.dumps({"name": name, "how": how, "threads": int(given["threads"]),
                           "omp": os.environ["OMP_NUM_THREADS"], "words": [config, *words]}) + "\\n")
fails = json.loads((book / "fails").read_text()) if (book / "fails").exists() else {}
done = sum(json.loads(line)["name"] == name for line in (book / "calls").open())
print("Traceback ...", flush=True)
folder.mkdir(parents=True, exist_ok=True)
sleeps = json.loads((book / "sleeps").read_text()) if (book / "sleeps").exists() else {}
if sleeps.get(name) == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / ".claim").mkdir(exist_ok=True)
    while True:
        (folder / ".claim" / "owner.json").write_text("{}")  # a heartbeat is no progress
        time.sleep(0.1)
for _ in range(20 if name in sleeps else 0):
    (folder / "metrics.csv").write_text("")
    time.sleep(0.1)
if done <= fails.get(name, 0):
    sys.exit(f"ValueError: {name} is broken")
settings = json.loads((book / "settings").read_text())[str(folder)]
(folder / "config.yaml").write_text(json.dumps(settings))
(folder / "run.yaml").write_text(json.dumps({"state": "finished", "step": 60, "seconds": 1.5}))
"""
"""Trains nothing but leaves a finished run, and fails as often as it is told."""


SLEEPER = """
import time
from dataclasses import dataclass
from rlalgo import hookimpl

class Sleeper:
    name = "sleeper"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config):
        pass

    @hookimpl
    def rlalgo_on_step(self, run, step, metrics):
        if step == 30 and not run.resumed:
            time.sleep(1000)

@hookimpl
def rlalgo_register_callbacks(register):
    register(Sleeper)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Sweeps with the command above; gives what it was asked for so far, in order."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(sweeping, "TRAIN", (sys.executable, "-S", str(tmp_path / "fake.py"), str(tmp_path)))
    real, settings = sweeping.look, dict[str, Any]()

    def look(cell: Any, out: Path) -> sweeping.Job:
        settings[str(out / cell.name)] = to_mapping(cell.settings)
        write_json(tmp_path / "settings", settings)  # at once: a run may be reading it
        return real(cell, out)

    monkeypatch.setattr(sweeping, "look", look)
    calls = tmp_path / "calls"
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_all_faults_are_told_at_once_with_their_cells(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={"bc": {"algo.weight_dcay": 3}, "dt/large/one": {"trainer.steps": -1}})
    with pytest.raises(ConfigError) as caught:
        quiet(path)
    said = "\n".join(caught.value.faults)
    assert "bc/small, bc/large/one: algo.weight_dcay: unknown key 'weight_dcay'. Did you mean 'weight_decay'?" in said
    assert "dt/large/one: trainer.steps: should be greater than or equal to 1, got -1" in said
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "out").exists()


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
    run = str(tmp_path / "out/bc/small/s3")
    assert fake()[0]["words"][:3] == [f"{tmp_path}/bc.yaml", "source.episodes=10", "seed=3"]
    assert fake()[0]["words"][-3:] == ["--out", run, "--continue"]
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
    assert [(call["name"], call["how"]) for call in fake()[4:]] == [("dt 0", "--replace")]


def test_a_run_that_failed_to_be_replaced_is_not_resumed_as_it_was(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write_suite(tmp_path, seeds=[0], datasets={"one": {}}, algos={"bc": "bc.yaml"})
    quiet(path)
    last = tmp_path / "out" / "bc" / "one" / "s0" / "checkpoints" / "step_000000060"
    last.mkdir(parents=True)
    for name in ("model.safetensors", "algo.yaml"):
        (last / name).touch()
    write_suite(tmp_path, seeds=[0], datasets={"one": {"trainer.steps": 7}}, algos={"bc": "bc.yaml"})
    (tmp_path / "fails").write_text(json.dumps({"bc 0": 2}))
    quiet(path, replace=True)
    assert [call["how"] for call in fake()] == ["--continue", "--replace", "--replace"]


def test_one_sweep_at_a_time(tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]) -> None:
    path = write_suite(tmp_path)
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out"), pytest.raises(RlalgoError, match=rf"process {os.getpid()} on .* is at work here"):
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
    with pytest.raises(ConfigError, match="exists, is not empty and is not a run"):
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
    wait_for(run / "checkpoints" / "index.json")
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, said + errors
    assert errors == "stopped by SIGINT: 0 of 1 runs finished, nothing is lost; the same command goes on\n"
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


def workers(parent: int) -> list[int]:
    """The runs that a sweep has at work."""
    listed = subprocess.run(["ps", "-ax", "-o", "ppid=,pid=,args="], capture_output=True, text=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [int(child) for own, child, args in rows if int(own) == parent and "rlutils train" in args]


@pytest.mark.slow
def test_a_killed_run_is_resumed_by_the_same_sweep(tmp_path: Path) -> None:
    path, run = one_run(tmp_path, 300)

    def kill() -> None:
        wait_for(run / "checkpoints" / "index.json")
        (worker,) = workers(os.getpid())
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    jobs, said = quiet(path)
    killer.join()
    assert "failed and will be tried again: killed by SIGKILL" in said
    assert "bc/one/s5 goes on: stopped at step" in said
    whole = train(to_mapping(jobs[0].cell.settings), tmp_path / "whole").folder
    assert equal(weights(run), weights(whole))


def test_a_killed_sweep_leaves_no_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path, run = one_run(tmp_path, 100_000)
    process = command("sweep", str(path), cwd=tmp_path)
    wait_for(run / "checkpoints" / "index.json")
    (worker,) = workers(process.pid)
    process.kill()
    process.communicate(timeout=60)
    again = command("sweep", str(path), cwd=tmp_path)  # at once: the folder is free, and the run's end is waited for
    until = time.monotonic() + 60
    while birth(worker) is not None:
        assert time.monotonic() < until, "the run goes on without its sweep"
        time.sleep(0.05)
    assert "stopped by SIGTERM after step" in (tmp_path / "out" / "logs" / "bc" / "one" / "s5.log").read_text()
    while not workers(again.pid):
        assert again.poll() is None
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    said, errors = again.communicate(timeout=60)
    assert again.returncode == 143
    assert re.search(r"bc/one/s5 goes on: stopped at step [\d,]+$", said, re.MULTILINE), said + errors
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []


def test_a_run_that_hears_no_signal_is_killed_when_its_sweep_is_gone() -> None:
    run = """
import os, signal, time
from rlutils import machine
machine.GRACE = 0.2
signal.signal(signal.SIGTERM, signal.SIG_IGN)
machine.end_with_parent()
print(os.getpid(), machine.PARENT in os.environ, flush=True)
time.sleep(100)
"""
    sweep = "import os, subprocess, sys; os.environ['RLALGO_PARENT'] = str(os.getpid()); subprocess.run(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", sweep, sys.executable, "-c", run], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker, inherited = parent.stdout.readline().split()
        parent.kill()
    assert inherited == "False"
    until = time.monotonic() + 10
    while birth(int(worker)) is not None:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_line_for_each_run_begins_it_and_then_does_nothing(tmp_path: Path) -> None:
    path = write_suite(
        tmp_path, seeds=[5], datasets={"a": {"source": {"name": "toy", "episodes": 9}}}, plugins=[PLUGIN]
    )
    result = CliRunner().invoke(app, ["sweep", str(path), "--commands"])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[-3:] for line in lines] == [
        ["--out", str(tmp_path / "out" / algo / "a" / "s5"), "--continue"] for algo in ("bc", "dt")
    ]
    assert [file.name for file in (tmp_path / "out").rglob("*")] == ["suite.yaml"]
    script = lines[0].replace("rlalgo", f"{sys.executable} -m rlutils", 1)
    run, seen = tmp_path / "out" / "bc" / "a" / "s5", []
    for _ in range(2):
        subprocess.run(["sh", "-c", script], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        seen.append({file: file.stat().st_mtime_ns for file in run.rglob("*")})
    assert seen[0] == seen[1]
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run"]).stdout
    assert listed == "bc/a/s5: finished\ndt/a/s5: waiting\n"


def test_a_run_that_hangs_is_ended_told_and_tried_again(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hears no signal at that; one that is slow but moves is left alone."""
    monkeypatch.setattr(sweeping, "GRACE", 0.3)
    (tmp_path / "sleeps").write_text(json.dumps({"bc 3": "deaf", "dt 3": "slow"}))
    path = write_suite(tmp_path, seeds=[3], datasets={"one": {}}, stall_minutes=0.02, processes=2)
    start = time.monotonic()
    jobs, said = quiet(path)
    assert [(job.state, job.note, job.tries) for job in jobs] == [
        ("failed", "hung: no progress for 1.2 s", 2), ("finished", "", 1),
    ]  # fmt: skip
    assert "bc/one/s3 failed and will be tried again: hung: no progress for 1.2 s" in said
    assert time.monotonic() - start > 2 * (1.2 + 0.3)


@pytest.mark.slow
def test_a_plugin_that_sleeps_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "GRACE", 2.0)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    path = write_suite(
        tmp_path, algos={"bc": "bc.yaml"}, seeds=[3], datasets={"one": {}}, stall_minutes=0.5, plugins=["./sleeper.py"],
        set={"*": {"callbacks": ["sleeper", "csv"]}},
    )  # fmt: skip
    jobs, said = quiet(path)
    assert "bc/one/s3 failed and will be tried again: hung: no progress for 30 s" in said
    assert "bc/one/s3 goes on: stopped at step 25" in said
    assert [(job.state, job.tries) for job in jobs] == [("finished", 2)]


def test_a_run_that_another_process_is_at_work_on_is_waited_for(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write_suite(tmp_path, seeds=[3], datasets={"one": {}})
    sweeping.commands(path)  # which makes the suite's folder
    with contextlib.ExitStack() as held:
        held.enter_context(claimed(tmp_path / "out" / "bc" / "one" / "s3"))
        threading.Timer(1.5, held.close).start()
        start = time.monotonic()
        jobs, _ = quiet(path)
    assert [call["name"] for call in fake()] == ["dt 3", "bc 3"]
    assert {job.state for job in jobs} == {"finished"}
    assert time.monotonic() - start > 1.4


def test_an_option_that_is_new_since_is_no_change_where_the_default_is_asked_for(
    tmp_path: Path, fake: Callable[[], list[dict[str, Any]]]
) -> None:
    """A finished run of an older version lacks options, at every depth; they had their defaults."""
    path = write_suite(tmp_path, seeds=[3], datasets={"one": {}})
    quiet(path)
    for algo in ("bc", "dt"):
        file = tmp_path / "out" / algo / "one" / "s3" / "config.yaml"
        values = read_yaml(file)
        del values["holdout"], values["algo"]["clip"], values["trainer"]["max_loss"], values["evaluation"]["seed"]
        write_yaml(file, values)
    quiet(path)
    assert len(fake()) == 2
    write_suite(tmp_path, seeds=[3], datasets={"one": {}}, set={"bc": {"trainer.max_loss": 7.0}})
    with pytest.raises(ConfigError, match=r"bc/one/s3 was trained with other settings: trainer\.max_loss: .*, now 7.0"):
        quiet(path)
    values = read_yaml(tmp_path / "out" / "dt" / "one" / "s3" / "config.yaml")
    write_yaml(tmp_path / "out" / "dt" / "one" / "s3" / "config.yaml", {**values, "holdout": 0.5})
    with pytest.raises(ConfigError, match=r"dt/one/s3 was trained with other settings: holdout: 0\.5, now null"):
        quiet(path, only=["dt"])
