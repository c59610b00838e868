"""Whatever stands in a run's folder, a command that reads it succeeds or says what is wrong in one line.

Nothing is executed, nothing foreign removed, nothing takes long, and nothing steers the terminal.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import rlutils
from rlutils.cli import app
from rlutils.config.files import write_json
from rlutils.evaluation.targets import Point, Targets
from rlutils.sweeps.plan import PlannedRun, write_plan
from rlutils.terminal import UNSEEN
from tests.fuzz.mutations import ESCAPES, mutate, times
from tests.rlutils.runs import PLUGIN, toy_config

pytestmark = pytest.mark.filterwarnings("default::UserWarning")

STRAY = [
    "checkpoints/step_x.json", "checkpoints/step_000000001/notes.txt", "checkpoints/step_-00000001/algo.yaml",
    "evaluations/step_x.json", "evaluations/step_-00000005.json", f"evaluations/step_{'9' * 30}.json",
    "evaluations/evaluate_\x1b[31m.json", "evaluations/step_000000777.json/kept.txt", "metrics.csv.bak", "evil.py",
]  # fmt: skip
"""What a person, or another program, may have put there."""
CLAIMS = [".claim", ".claim/owner.json", ".claim-x/owner.json"]
"""What looks like the claim of a process, which is not foreign."""
OURS = (*STRAY, "kept.txt")
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class")
executed: list[str] = []


def _hear(event: str, arguments: Any) -> None:
    if event in EVENTS:
        executed.append(event)


sys.addaudithook(_hear)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite of two finished runs, both evaluated once more, and asked for targets."""
    root = tmp_path_factory.mktemp("suite")
    planned = [PlannedRun(f"bc/toy/s{seed}", "bc", "toy", "", seed) for seed in (0, 1)]
    write_plan(root, Path("suite.yaml"), planned)
    for run in planned:
        config = toy_config("bc", seed=run.seed, trainer={"name": "offline", "steps": 40, "batch_size": 16})
        callbacks = [{"name": "csv", "every": 10}, {"name": "best"}, {"name": "console"}]
        rlutils.train({**config, "callbacks": callbacks}, root / run.name)
        [played] = rlutils.evaluate(root / run.name, "best", None, ["evaluation.episodes=2"], [PLUGIN]).policies
        found = Targets(40, "step_000000040", [Point(0.0, 0.5, played), Point(8.0, None, played)], (-5.0, 9.0))
        (root / run.name / "targets").mkdir()
        write_json(root / run.name / "targets" / "step_000000040.json", found.to_mapping())
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module that nobody asked for."""
    (tmp_path / "evil.py").write_text("open('executed', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def late(*_: Any) -> None:
        raise TimeoutError("took more than 20 seconds")

    before = signal.signal(signal.SIGALRM, late)
    yield tmp_path
    signal.signal(signal.SIGALRM, before)


def commands(run: Path) -> dict[str, list[str]]:
    return {
        "report of suite": ["report", str(run.parents[2]), "--out", "page.html"],
        "report": ["report", str(run), "--out", "page.html"],
        "play": ["play", str(run), "--plugin", PLUGIN],
        "evaluate": ["evaluate", str(run), "--episodes", "1", "--plugin", PLUGIN],
        "resume": ["train", "--resume", str(run), "trainer.steps=42", "--plugin", PLUGIN],
    }


def fault_of(words: list[str]) -> str | None:
    """What is wrong with how a command ends; None where nothing is."""
    executed.clear()
    begin = time.perf_counter()
    signal.alarm(20)
    try:
        result = CliRunner().invoke(app, words)
    finally:
        signal.alarm(0)
    took, text = time.perf_counter() - begin, result.output
    errors = len(re.findall(r"^error: ", text, re.MULTILINE))
    if result.exit_code not in (0, 2) or not isinstance(result.exception, SystemExit | None):
        return f"ended with {result.exit_code}: {result.exception!r}"
    if errors != (result.exit_code == 2):
        return f"ended with {result.exit_code} and {errors} errors: {text[-300:]}"
    if UNSEEN.search(text):
        return f"steers the terminal: {text[-300:]!r}"
    if executed or Path("executed").exists():
        return f"executed {executed or 'evil.py'}"
    return f"took {took:.0f} s" if took > 10 else None


def strangers(folder: Path) -> set[str]:
    """By name: what is in the way of metrics.csv is put aside."""
    return {path.name for path in folder.rglob("*") if str(path.relative_to(folder)).endswith(OURS)}


def meet(suite: Path, here: Path, count: int, every_command: bool) -> None:
    """Mutates a run so many times; prints the share of failures, which is to be none."""
    failures: list[str] = []
    done: list[str] = []
    within = suite / "bc/toy/s0"
    files = ["../../../suite.yaml"]
    files += sorted(str(path.relative_to(within)) for path in within.rglob("*") if path.is_file())
    files += [name for name in files if name.endswith(("config.yaml", "algo.yaml"))] * 2  # which say the most

    @times(count)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        run, other = here / "suite/bc/toy/s0", here / "suite/bc/toy/s1"
        shutil.rmtree(here / "suite", ignore_errors=True)
        shutil.copytree(suite, here / "suite")
        names = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True))
        said = [mutate((run / name).resolve(), other / name, data.draw) for name in names]
        for name in data.draw(st.lists(st.sampled_from([*STRAY, *CLAIMS]), max_size=1)):
            if not any(parent.is_file() for parent in (run / name).parents):
                (run / name).parent.mkdir(parents=True, exist_ok=True)
                (run / name).write_text(ESCAPES)
        foreign = strangers(run)
        chosen = commands(run)
        if not every_command:
            pick = data.draw(st.sampled_from([*["resume"] * 4, *["evaluate", "play"] * 2, "report", "report of suite"]))
            chosen = {pick: chosen[pick]}
        done.append("")
        for name, words in chosen.items():
            if fault := fault_of(words):
                failures.append(f"{name} after {said}: {fault}")
        if lost := foreign - strangers(run):
            failures.append(f"removed {lost} after {said}")

    one()
    print(f"{len(done)} mutations of a run's folder, {len(failures)} failures: {len(failures) / len(done):.1%}")
    assert not failures, "\n".join(failures)


def test_a_run_folder_is_read_with_distrust(suite: Path, here: Path) -> None:
    meet(suite, here, 60, every_command=False)


@pytest.mark.slow
def test_a_run_folder_is_read_with_distrust_500_times(suite: Path, here: Path) -> None:
    meet(suite, here, 500, every_command=True)
