"""Run-time hooks as pluggy calls them, and that every hook is called (house rule 13)."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import rlutils
from rlalgo import BatchRLAlgo, hookimpl, hookspecs, plugins
from rlalgo.plugins import run_time_manager
from rlalgo.registry import Catalogue
from tests.rlutils.runs import toy_config

# What each argument of a hook is, as hookspecs documents it.
ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    "register": callable,
    "run": lambda run: run.folder.is_dir() and run.step >= 0,
    "algo": lambda algo: isinstance(algo, BatchRLAlgo) and algo.prepared,
    "step": lambda step: step in (1, 2, 3),
    "metrics": lambda metrics: bool(metrics) and all(isinstance(value, Tensor) for value in metrics.values()),
    "result": lambda result: len(result.policies) == 1,
    "path": lambda path: (path / "model.safetensors").is_file(),
    "error": lambda error: error is None,
}


def hooks() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("rlalgo_")]


def never_called(folder: Path) -> set[str]:
    """The hooks that a catalogue and a small training run do not call, by a plugin that implements every hook.

    What the others are called with is checked here.
    """
    lines = ["from rlalgo import hookimpl", "heard = []"]
    for name in hooks():
        arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        lines += ["@hookimpl", f"def {name}({arguments}):", f"    heard.append(({name!r}, locals()))"]
    path = folder / "ear.py"
    path.write_text("\n".join(lines))
    config = toy_config("bc", callbacks=[])
    config["plugins"] = [*config["plugins"], str(path)]
    config["evaluation"] |= {"every": 3, "episodes": 1}
    rlutils.train(config, out=folder / "run", trainer__steps=3)
    ear = next(m for m in rlutils.catalogue(config["plugins"]).modules if getattr(m, "__file__", None) == str(path))
    for name, given in ear.heard:
        for argument, value in given.items():
            assert ARGUMENTS[argument](value), f"{name}: {argument} is {value!r}"
    return set(hooks()) - {name for name, _ in ear.heard}


def test_every_hook_has_a_test(tmp_path: Path) -> None:
    assert never_called(tmp_path) == set()


def test_a_hook_that_nothing_calls_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @hookspecs.hookspec
    def rlalgo_on_nothing(run: Any) -> None: ...

    monkeypatch.setattr(hookspecs, "rlalgo_on_nothing", rlalgo_on_nothing, raising=False)
    monkeypatch.setattr(plugins, "_HOOKS", hooks())
    assert never_called(tmp_path) == {"rlalgo_on_nothing"}


def test_every_hook_is_documented() -> None:
    assert set(hookspecs.CATALOGUE_HOOKS.values()) == {name for name in hooks() if "_register_" in name}
    assert all(getattr(hookspecs, name).__doc__ for name in hooks())


def module(name: str, log: list[str]) -> types.ModuleType:
    """A plugin module with one run-time hook, which takes only what it needs."""
    made = types.ModuleType(name)

    @hookimpl
    def rlalgo_on_step(step: int) -> None:
        log.append(f"{name} {step}")

    made.rlalgo_on_step = rlalgo_on_step  # type: ignore[attr-defined]
    return made


class Named:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    @hookimpl
    def rlalgo_on_step(self, step: int) -> None:
        self.log.append(f"{self.name} {step}")


def test_callbacks_are_called_in_order_and_then_the_plugins() -> None:
    log: list[str] = []
    known = Catalogue()
    known.modules = [module("first", log), module("second", log)]
    manager = run_time_manager(known, [Named("a", log), Named("b", log), Named("c", log)])
    manager.hook.rlalgo_on_step(run=None, step=1, metrics={})
    assert log == ["a 1", "b 1", "c 1", "first 1", "second 1"]


def test_two_runs_do_not_hear_each_other() -> None:
    log: list[str] = []
    one = run_time_manager(Catalogue(), [Named("one", log)])
    two = run_time_manager(Catalogue(), [Named("two", log)])
    one.hook.rlalgo_on_step(run=None, step=1, metrics={})
    two.hook.rlalgo_on_step(run=None, step=2, metrics={})
    assert log == ["one 1", "two 2"]


def test_two_callbacks_of_one_class_are_two() -> None:
    log: list[str] = []
    manager = run_time_manager(Catalogue(), [Named("x", log), Named("x", log)])
    manager.hook.rlalgo_on_step(run=None, step=1, metrics={})
    assert log == ["x 1", "x 1"]
