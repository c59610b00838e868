"""What breaks while a run evaluates or tells its callbacks: named on one line, and nothing that was learnt is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlutils
from rlalgo import StopTraining, hookimpl
from rlalgo.errors import CallbackFault, EnvironmentFault, EvaluatorFault
from rlutils.config.files import read_yaml, write_yaml
from tests.rlutils.runs import PLUGIN, command, equal, state, toy_config, weights
from tests.rlutils.toy_plugin import PointEnv

CALLBACKS = [{"name": "csv", "every": 10}, {"name": "best"}]


def toy(kind: str, name: str) -> Any:
    """A class of the toy plugin, as runs get it."""
    return rlutils.catalogue([PLUGIN]).get(kind, name).cls


def play_in(patch: pytest.MonkeyPatch, **methods: Any) -> None:
    """The environments of runs have these methods; the data's maker is left alone."""

    def make(self: Any, spec: Any, n: int) -> list[Any]:
        return [type("PointEnv", (PointEnv,), methods)() for _ in range(n)]

    patch.setattr(toy("env", "toy"), "make", make)


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def answer(place: int, value: Any) -> Callable[[tuple], Any]:
    """Changes one of an answer's five values."""
    return lambda whole: (*whole[:place], value, *whole[place + 1 :])


NAN_OBSERVATION = np.array([0, np.nan], np.float32)
ODD_ANSWERS: dict[str, tuple[Callable[[tuple], Any], str]] = {
    "raises": (lambda _: raising(ValueError("no\nway"))(), r"ValueError: no way \(test_faults\.py:\d+\)"),
    "raises without words": (lambda _: raising(KeyError())(), r"KeyError \("),
    "raises a long text": (lambda _: raising(OSError("x" * 999))(), r"OSError: x{100,}\.\.\. \("),
    "raises an assertion": (lambda _: raising(AssertionError("\x1b[31mred"))(), r"AssertionError: \[31mred"),
    "none": (lambda _: None, "gave None; expected"),
    "text": (lambda _: "done", "gave 'done'; expected"),
    "four values": (lambda whole: whole[:4], "gave 4 values; expected"),
    "six values": (lambda whole: (*whole, 1), "gave 6 values; expected"),
    "list": (lambda whole: list(whole), "gave .*; expected"),
    "reward nan": (answer(1, float("nan")), "the reward is nan; expected a finite number"),
    "reward inf": (answer(1, -np.inf), "the reward is -inf; expected a finite number"),
    "reward too large": (answer(1, 1e300), r"the reward is 1e\+300; expected a finite number"),
    "reward none": (answer(1, None), "the reward is None; expected a finite number"),
    "reward text": (answer(1, "3"), "the reward is '3'; expected a finite number"),
    "reward vector": (answer(1, np.zeros(3)), r"the reward is of shape \(3,\), float64; expected"),
    "observation none": (answer(0, None), r"the observation is None; expected numbers of shape \(2,\)"),
    "observation text": (answer(0, "here"), r"the observation is 'here'; expected numbers of shape \(2,\)"),
    "observation shape": (answer(0, np.zeros((1, 2))), r"the observation is of shape \(1, 2\), float64; expected"),
    "observation ragged": (answer(0, [[1], [1, 2]]), r"the observation is \[\[1\], \[1, 2\]\]; expected"),
    "observation nan": (answer(0, NAN_OBSERVATION), r"the observation is .*nan.*; expected finite numbers"),
    "terminated none": (answer(2, None), "terminated is None; expected True or False"),
    "truncated text": (answer(3, "no"), "truncated is 'no'; expected True or False"),
    "truncated vector": (answer(3, np.zeros(2, bool)), r"truncated is of shape \(2,\), bool; expected True or False"),
    "info none": (answer(4, None), "the info is None; expected a dict"),
    "info text": (answer(4, "success"), "the info is 'success'; expected a dict"),
    "info list": (answer(4, [{}]), r"the info is \[\{\}\]; expected a dict"),
}


def one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize("what", ODD_ANSWERS)
def test_a_faulty_environment_costs_no_training(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = ODD_ANSWERS[what]

    def step(self: Any, action: Any) -> Any:
        whole = PointEnv.step(self, action)
        return change(whole) if self.t == 5 else whole

    play_in(monkeypatch, step=step)
    expected = rf"evaluation after step 20: environment PointEnv, episode of seed 1000000, step 4: {message}"
    with pytest.raises(EnvironmentFault, match=expected) as caught:
        rlutils.train(toy_config("bc"), out=tmp_path / "run")
    one_line(caught.value)
    assert "go on with --resume" in str(caught.value)
    assert state(tmp_path / "run")["step"] == 20
    assert read_yaml(tmp_path / "run" / "run.yaml")["state"] == "failed"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda *_, **__: np.zeros(2, np.float32), r"reset: gave of shape \(2,\), float32; expected"),
        (lambda *_, **__: (None, {}), "reset: the observation is None"),
        (lambda *_, **__: (np.zeros(2, np.float32), None), "reset: the info is None; expected a dict"),
        (raising(RuntimeError("no start")), "reset: RuntimeError: no start"),
    ],
)
def test_so_does_one_that_cannot_begin(how: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_in(monkeypatch, reset=how)
    with pytest.raises(EnvironmentFault, match=message) as caught:
        rlutils.train(toy_config("bc"), out=tmp_path / "run")
    one_line(caught.value)
    assert state(tmp_path / "run")["step"] == 20


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (raising(ZeroDivisionError("by zero")), "env 'toy': ZeroDivisionError: by zero"),
        (lambda *_, **__: None, "env 'toy': TypeError"),
        (lambda *_, **__: [], "env 'toy': made 0 environments; expected"),
    ],
)
def test_so_does_a_maker_that_fails_when_more_are_needed(
    made: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = toy("env", "toy")
    make = cls.make
    monkeypatch.setattr(cls, "make", lambda self, spec, n: make(self, spec, n) if n == 1 else made())
    with pytest.raises(EnvironmentFault, match=message) as caught:
        rlutils.train(toy_config("dt"), out=tmp_path / "run")
    one_line(caught.value)
    assert state(tmp_path / "run")["step"] == 20


FAULTY_EVALUATORS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (raising(IndexError("out")), r"IndexError: out \("),
    "raises lines": (raising(RuntimeError("a\nb")), "RuntimeError: a b"),
    "none": (lambda *_: None, "gave None; expected a mapping"),
    "number": (lambda *_: 3.0, "gave 3.0; expected a mapping"),
    "list": (lambda *_: [1], r"gave \[1\]; expected a mapping"),
    "text": (lambda *_: {"mse": "low"}, "mse is 'low'; expected a number"),
    "nothing": (lambda *_: {"mse": None}, "mse is None; expected a number"),
    "complex": (lambda *_: {"mse": 1j}, "mse is 1j; expected a number"),
    "vector": (lambda *_: {"mse": torch.zeros(2)}, r"mse is tensor\(\[0., 0.\]\); expected a number"),
    "name": (lambda *_: {3: 1.0}, "gave the name 3; expected a text"),
    "huge": (lambda *_: {"mse": 10**400}, "OverflowError"),
}


@pytest.mark.parametrize("what", FAULTY_EVALUATORS)
def test_a_faulty_evaluator_costs_no_training(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, message = FAULTY_EVALUATORS[what]
    monkeypatch.setattr(toy("evaluator", "toy_error"), "evaluate", evaluate)
    config = toy_config("bc", evaluation={"every": 20, "episodes": 0, "evaluators": ["toy_error"]})
    with pytest.raises(EvaluatorFault, match=f"evaluation after step 20: evaluator 'toy_error': {message}") as caught:
        rlutils.train(config, out=tmp_path / "run")
    one_line(caught.value)
    assert state(tmp_path / "run")["step"] == 20


def test_a_run_whose_evaluation_broke_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: Any) -> None:
    rlutils.train(toy_config(), out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        play_in(patch, step=raising(OSError("gone")))
        with pytest.raises(EnvironmentFault, match="after step 20"):
            rlutils.train(toy_config(), out=tmp_path / "parts")
        with pytest.raises(EnvironmentFault, match="after step 20"):  # and it is not passed over
            rlutils.resume(tmp_path / "parts", plugins=[PLUGIN])
    rlutils.resume(tmp_path / "parts", plugins=[PLUGIN])
    same_runs(tmp_path / "whole", tmp_path / "parts")


def same_runs(whole: Path, parts: Path) -> None:
    """Weights, states, rows and evaluations of both."""
    assert equal(weights(whole), weights(parts))
    assert equal(weights(whole, "best"), weights(parts, "best"))
    assert equal(state(whole), state(parts))
    names = [sorted(path.name for path in (run / "evaluations").iterdir()) for run in (whole, parts)]
    assert names[0] == names[1]
    rows = [[line.split(",")[::2] for line in (run / "metrics.csv").read_text().splitlines()] for run in (whole, parts)]
    assert rows[0] == rows[1]


# --- callbacks ---

HOOKS = {"rlalgo_on_start": 0, "rlalgo_on_step": 1, "rlalgo_on_checkpoint": 20, "rlalgo_on_evaluation": 20}
"""Hook -> the step at which it is first called."""


def with_hook(monkeypatch: pytest.MonkeyPatch, hook: str, error: Exception) -> dict[str, Any]:
    """A configuration whose first callback is the meddler, which raises this in that hook alone."""
    cls = toy("callback", "meddler")
    for name in [name for name in vars(cls) if name.startswith("rlalgo_on_")]:
        monkeypatch.delattr(cls, name)
    monkeypatch.setattr(cls, hook, hookimpl(lambda self, run: raising(error)()), raising=False)
    return toy_config("bc", callbacks=[{"name": "meddler"}, *CALLBACKS])


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("two\nlines"), OSError(28, "No space left")])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_faulty_callback_is_named_and_costs_no_training(
    hook: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = HOOKS[hook]
    config = with_hook(monkeypatch, hook, error)
    expected = f"step {step}: callback 'meddler' failed in {hook}: {type(error).__name__}: "
    with pytest.raises(CallbackFault, match=expected) as caught:
        rlutils.train(config, out=tmp_path / "run")
    one_line(caught.value)
    assert caught.value.__cause__ is error
    assert state(tmp_path / "run")["step"] == step
    monkeypatch.undo()
    rlutils.train(toy_config("bc"), out=tmp_path / "whole")
    rlutils.resume(tmp_path / "run", ["callbacks=[{name: csv, every: 10}, {name: best}]"], plugins=[PLUGIN])
    same_runs(tmp_path / "whole", tmp_path / "run")  # the other callbacks missed nothing


@pytest.mark.parametrize("method", ["state_dict", "load_state_dict"])
def test_so_is_one_that_cannot_say_or_take_its_state(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = toy("callback", "meddler")
    monkeypatch.setattr(cls, "state_dict", lambda self: {"n": 1}, raising=False)
    monkeypatch.setattr(cls, "load_state_dict", lambda self, state: None, raising=False)
    monkeypatch.setattr(cls, method, raising(AttributeError("n")))
    config = toy_config("bc", callbacks=[{"name": "meddler", "at": 13, "how": "stop"}])
    if method == "load_state_dict":
        rlutils.train(config, out=tmp_path / "run")
    with pytest.raises(CallbackFault, match=rf"step 13: callback 'meddler' failed in {method}: AttributeError: n"):
        rlutils.resume(tmp_path / "run", plugins=[PLUGIN]) if (tmp_path / "run").exists() else rlutils.train(
            config, out=tmp_path / "run"
        )
    assert state(tmp_path / "run")["step"] == 13


@pytest.mark.parametrize("hook", HOOKS)
def test_a_stop_is_heard_in_every_hook_and_evaluates_and_saves(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rlutils.train(with_hook(monkeypatch, hook, StopTraining("enough")), out=tmp_path / "run")
    assert (run.step, run.stopped) == (HOOKS[hook], "enough")
    assert state(tmp_path / "run")["step"] == run.step
    assert [path.stem for path in (tmp_path / "run" / "evaluations").iterdir()] == [f"step_{run.step:09d}"]
    record = read_yaml(tmp_path / "run" / "run.yaml")
    assert (record["state"], record["stopped"], record["best_step"]) == ("finished", "enough", run.step)


def test_plugins_are_named_as_callbacks_are(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "from rlalgo import hookimpl\n@hookimpl\ndef rlalgo_on_step(step):\n    1 / (step - 3)\n"
    )
    config = toy_config("bc", plugins=[PLUGIN, str(tmp_path / "spy.py")])
    with pytest.raises(CallbackFault, match=r"step 3: plugin '.*spy\.py' failed in rlalgo_on_step: .*\(spy\.py:4\)"):
        rlutils.train(config, out=tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 3


# --- signals ---

SLOW_TEST = pytest.mark.slow
SLOW = """
import time
from rlalgo import hookimpl
@hookimpl
def rlalgo_on_checkpoint(run):
    env = run.examiner.envs(1)[0]
    def step(action):
        (run.folder / "evaluating").touch()
        time.sleep(60)
    env.step = step
"""


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=SLOW_TEST), "SIGHUP"])
def test_a_signal_during_an_evaluation_ends_it_and_nothing_is_lost(name: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    config = toy_config("bc", plugins=[PLUGIN, str(tmp_path / "slow.py")])
    write_yaml(tmp_path / "config.yaml", config)
    run = tmp_path / "run"
    process = command("train", str(tmp_path / "config.yaml"), "--out", str(run))
    while not (run / "evaluating").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.Signals[name])
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.Signals[name], error
    assert f"stopped by {name} after step 20; a checkpoint is written" in error
    assert "Traceback" not in error
    assert state(run)["step"] == 20
    assert read_yaml(run / "run.yaml")["state"] == "interrupted"
    assert list((run / "evaluations").iterdir()) == []
    (tmp_path / "slow.py").write_text("from rlalgo import hookimpl\n@hookimpl\ndef rlalgo_on_end():\n    pass\n")
    rlutils.resume(run, plugins=[PLUGIN, str(tmp_path / "slow.py")])
    rlutils.train(toy_config("bc"), out=tmp_path / "whole")
    same_runs(tmp_path / "whole", run)


@pytest.mark.parametrize("after", [0.1, 0.4, 0.8, 1.3])
def test_an_early_interrupt_prints_no_traceback(after: float, tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", toy_config("bc", trainer={"name": "offline", "steps": 1_000_000}))
    begun = "from rlutils.__main__ import main; print('begun', flush=True); main()"  # Python's own start is not ours
    process = subprocess.Popen(
        [sys.executable, "-c", begun, "train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), error
    assert "Traceback" not in error


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "from rlalgo import hookimpl\n@hookimpl\ndef rlalgo_on_step(step):\n    1 / (step - 3)\n"
    )
    write_yaml(tmp_path / "config.yaml", toy_config("bc", plugins=[PLUGIN, str(tmp_path / "spy.py")]))
    process = command("train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert next(line for line in error.splitlines() if "spy.py" in line).startswith("error: step 3: plugin '")
    assert "Traceback" not in error
