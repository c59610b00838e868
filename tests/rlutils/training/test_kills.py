"""A run that is killed, or whose disk fails, at any operation on its files: the same command again ends it as if
nothing had been."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlutils
from rlutils.cli import app
from rlutils.config.files import read_yaml, write_yaml
from rlutils.evaluation.evaluate import Examiner
from tests.rlutils.runs import toy_config

CONFIG = toy_config(
    "bc",
    trainer={"name": "offline", "steps": 12, "batch_size": 4, "checkpoint_every": 5, "check_every": 3},
    evaluation={"every": 4, "episodes": 1},
    callbacks=[{"name": "csv", "every": 2}, {"name": "best"}],
)
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime"}
LOOKS = {"os.scandir", "os.listdir"}
SLOW = pytest.mark.slow


class Files:
    """Counts operations on the files below a folder, each before it is made, and acts at one of them."""

    def __init__(self, folder: Path, at: int, act: Callable[[], None], reads: bool = False, on: bool = False) -> None:
        self.folder, self.at, self.act, self.count = f"{folder}/", at, act, 0
        self.reads, self.on = reads, on
        """Whether looking counts, too; whether to act at all further ones."""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            found = self.reads or bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            found = event in CHANGES or (self.reads and event in LOOKS)
        if found and (f"{arguments[0]}/".startswith(self.folder) or (event != "open" and arguments[-1] in range(9999))):
            self.count += 1  # by its path, or by the descriptor of its folder
            if self.count == self.at or (self.on and self.count > self.at):
                self.act()


def train(config: Path, run: Path, *words: str, before: Callable[[], Any] = int) -> int:
    """Forks, as importing takes seconds, and does `rlalgo train CONFIG --out RUN ...` there; the process's number."""
    if child := os.fork():
        return child
    status = 1
    with contextlib.suppress(BaseException), run.with_suffix(".log").open("w", buffering=1) as log:
        sys.stdout = sys.stderr = log
        os.fsync = lambda _: None  # type: ignore[assignment]  # nobody cuts the power here
        watch = before()
        try:
            app(["train", *words] if "--resume" in words else ["train", str(config), "--out", str(run), *words])
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:  # noqa: BLE001 (nothing is to come out of here)
            traceback.print_exc()
        if isinstance(watch, Files):
            run.with_suffix(".count").write_text(str(watch.count))
    os._exit(status)


def ended(child: int) -> int:
    """The exit status of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(run: Path) -> str:
    return run.with_suffix(".log").read_text()


def finish(config: Path, run: Path) -> None:
    status = ended(train(config, run, "--continue"))
    assert status == 0, said(run)


def contents(run: Path) -> dict[str, Any]:
    """Every file and folder of a run by its path, without clocks and the run's own name."""
    name = json.loads((run / "checkpoints" / "index.json").read_text())["run"].encode()
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        data = path.read_bytes().replace(name, b"x" * 16) if path.is_file() else b""
        value: Any = data
        if path.suffix == ".safetensors":  # the order of its metadata is drawn
            end = 8 + int.from_bytes(data[:8], "little")
            value = (json.loads(data[8:end]), data[end:])
        elif path.suffix == ".csv":
            value = [line.split(b",")[::2] for line in data.splitlines()]
        elif path.suffix in (".json", ".yaml"):
            value = yaml.safe_load(data)
            if isinstance(value, dict):
                value = {key: part for key, part in value.items() if key not in ("seconds", "started")}
        found[str(path.relative_to(run))] = value
    return found


def same(run: Path, whole: dict[str, Any], apart: str = "-") -> None:
    """But for files whose path begins so."""
    found = contents(run)
    assert list(found) == list(whole)
    assert {name for name, value in found.items() if value != whole[name] and not name.startswith(apart)} == set()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_yaml(folder / "config.yaml", CONFIG)
    rlutils.train(CONFIG, folder / "warm")  # imports what children need
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def whole(config: Path) -> dict[str, Any]:
    """What an uninterrupted run leaves."""
    finish(config, config.parent / "run")
    return contents(config.parent / "run")


def operations(config: Path, run: Path, reads: bool = False) -> int:
    """How many there are in an uninterrupted run."""
    assert ended(train(config, run, "--continue", before=lambda: Files(run, 0, int, reads))) == 0, said(run)
    shutil.rmtree(run)
    return int(run.with_suffix(".count").read_text())


@pytest.mark.parametrize("every", [31, pytest.param(1, marks=SLOW)])
def test_killed_at_any_operation_it_goes_on(every: int, config: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    total = operations(config, run)
    assert total > 100
    for at in range(total, 0, -every):
        assert ended(train(config, run, "--continue", before=lambda at=at: Files(run, at, kill))) == -signal.SIGKILL
        finish(config, run)
        same(run, whole)
        shutil.rmtree(run)
    print(f"killed {len(range(total, 0, -every))} of {total} times")


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=SLOW)])
def test_killed_at_random_moments_it_goes_on(kills: int, config: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    run, draw, done = tmp_path / "run", random.Random(0), 0
    while done < kills:
        for _ in range(3):
            child = train(config, run, "--continue")
            time.sleep(draw.uniform(0.05, 0.5))
            os.kill(child, signal.SIGKILL)
            done += ended(child) == -signal.SIGKILL
        finish(config, run)
        same(run, whole)
        shutil.rmtree(run)


@pytest.mark.parametrize("every", [61, pytest.param(7, marks=SLOW)])
def test_killed_anywhere_every_command_has_an_answer(
    every: int, config: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    killed, run = tmp_path / "killed", tmp_path / "run"
    for at in range(1, operations(config, killed), every):
        assert ended(train(config, killed, before=lambda at=at: Files(killed, at, kill))) == -signal.SIGKILL
        for words in ([], ["--replace"], ["--resume", str(run), "--plugin", CONFIG["plugins"][0]]):
            shutil.copytree(killed, run) if killed.exists() else None
            status = ended(train(config, run, *words))
            if status == 0:
                same(run, whole)
            else:
                assert (status, "--replace" in words) == (2, False), said(run)
                cure = "begin it again: rlalgo train" if words else "holds a run already; go on with --continue"
                cure = cure if (run / "config.yaml").exists() else "is not a run folder"
                assert cure in said(run)
            shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(killed, ignore_errors=True)


@pytest.mark.parametrize("every", [41, pytest.param(2, marks=SLOW)])
def test_killed_while_it_replaces_a_run_it_is_replaced_by_the_next(
    every: int, config: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    before, run = tmp_path / "before", tmp_path / "run"
    finish(config, before)
    (before / "mine").mkdir()  # is deleted too: that is what was asked for
    shutil.copytree(before, run)
    assert ended(train(config, run, "--replace", before=lambda: Files(run, 0, int))) == 0
    for at in range(2, int(run.with_suffix(".count").read_text()), every):
        shutil.rmtree(run)
        shutil.copytree(before, run)
        ended(train(config, run, "--replace", before=lambda at=at: Files(run, at, kill)))
        assert ended(train(config, run, "--replace")) == 0, said(run)
        same(run, whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("every", [97, pytest.param(3, marks=SLOW)])
def test_whatever_fails_is_one_line_and_it_goes_on(
    number: int, every: int, config: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    kept = "checkpoints/step_000000004/trainer"  # the best one's, in which a row that could not be written remains
    run, lasting = tmp_path / "run", number != errno.EIO  # a full disk remains full, and one that is bad may be read
    total = operations(config, run, reads=not lasting)
    for at in range(1 + number % every, total + 1, every):
        watch = lambda at=at: Files(run, at, fail(number), not lasting, lasting)  # noqa: E731
        status = ended(train(config, run, "--continue", before=watch))
        assert status in (0, 2), said(run)
        if status:
            (line,) = said(run).splitlines()
            assert line.startswith("error: ")
            assert os.strerror(number) in line
        finish(config, run)
        same(run, whole, "-" if lasting else kept)
        shutil.rmtree(run)


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=SLOW)])
def test_signals_during_an_evaluation_save(times: int, config: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    def slowly(*_: Any) -> None:
        (tmp_path / "evaluating").touch()
        time.sleep(60)

    run = tmp_path / "run"
    for number in range(times):
        child = train(config, run, "--continue", before=lambda: setattr(Examiner, "examine", slowly))
        while not (tmp_path / "evaluating").exists():
            time.sleep(0.01)
        name = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP][number % 3]
        os.kill(child, name)
        assert ended(child) == 128 + name, said(run)
        assert f"stopped by {name.name} after step 4; a checkpoint is written" in said(run)
        finish(config, run)
        same(run, whole)
        shutil.rmtree(run)
        (tmp_path / "evaluating").unlink()


def test_of_two_processes_one_trains(config: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    for number in range(4):
        run = tmp_path / f"run{number}"
        both = [train(config, run, "--continue") for _ in range(2)]
        assert sorted(map(ended, both)) in ([0, 0], [0, 2])
        finish(config, run)
        same(run, whole)


def test_the_same_line_does_nothing_more(config: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(config, run)
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    finish(config, run)
    assert "is finished already" in said(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == times
    same(run, whole)
    assert ended(train(config, run, "--continue", "algo.lr=0.5")) == 2
    assert "algo.lr: 0.001, now 0.5; give those of the run" in said(run)
    assert ended(train(config, run, "--continue", "trainer.steps=16")) == 0
    assert read_yaml(run / "run.yaml")["step"] == 16
    assert ended(train(config, run, "--resume", str(run), "--replace")) == 2
    assert "leave out --out, --replace and --continue" in said(run)
