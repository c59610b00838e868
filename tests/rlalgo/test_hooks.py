"""Run-time hooks as pluggy calls them, and that every hook has a test (house rule 13).

A test says which hooks it proves to be called with `@pytest.mark.covers_hook("rlalgo_on_step", ...)`; any
test under tests/ or plugins/ counts.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rlalgo import hookimpl, hookspecs
from rlalgo.plugins import run_time_manager
from rlalgo.registry import Catalogue

TESTS = Path(__file__).parents[1]
HOOKS = {name for name in vars(hookspecs) if name.startswith("rlalgo_")}


def covered(files: Iterable[Path]) -> dict[str, list[str]]:
    """Hook -> the files whose tests are marked as covering it, read from the source."""
    found: dict[str, list[str]] = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "covers_hook":
                for argument in node.args:
                    found.setdefault(ast.literal_eval(argument), []).append(path.name)
    return found


def test_every_hook_has_a_test() -> None:
    marked = covered(sorted([*TESTS.rglob("test_*.py"), *TESTS.parent.glob("plugins/*/tests/test_*.py")]))
    assert set(marked) - HOOKS == set(), "marked, but there is no such hook"
    assert HOOKS - set(marked) == set(), "no test is marked as covering these hooks"


def test_the_marks_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.covers_hook('a')\n"
        "@pytest.mark.covers_hook('b', 'c')\n"
        "class TestX:\n"
        "    @pytest.mark.covers_hook('d')\n"
        "    def test_y(self): ...\n"
        "PARAM = pytest.param(1, marks=pytest.mark.covers_hook('e'))\n"
    )
    assert set(covered([path])) == {"a", "b", "c", "d", "e"}


def test_every_hook_is_documented() -> None:
    assert set(hookspecs.CATALOGUE_HOOKS.values()) == {name for name in HOOKS if "_register_" in name}
    assert all(getattr(hookspecs, name).__doc__ for name in HOOKS)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "rlalgo_on_start": {"run": "run", "algo": "algo"},
    "rlalgo_on_step": {"run": "run", "step": 3, "metrics": {"loss": 1.0}},
    "rlalgo_on_evaluation": {"run": "run", "step": 3, "result": "result"},
    "rlalgo_on_checkpoint": {"run": "run", "step": 3, "path": Path("x")},
    "rlalgo_on_end": {"run": "run", "error": None},
}


class Everything:
    """A callback with every run-time hook, each taking every argument."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    @hookimpl
    def rlalgo_on_start(self, run: Any, algo: Any) -> None:
        self.seen.append(("rlalgo_on_start", {"run": run, "algo": algo}))

    @hookimpl
    def rlalgo_on_step(self, run: Any, step: Any, metrics: Any) -> None:
        self.seen.append(("rlalgo_on_step", {"run": run, "step": step, "metrics": metrics}))

    @hookimpl
    def rlalgo_on_evaluation(self, run: Any, step: Any, result: Any) -> None:
        self.seen.append(("rlalgo_on_evaluation", {"run": run, "step": step, "result": result}))

    @hookimpl
    def rlalgo_on_checkpoint(self, run: Any, step: Any, path: Any) -> None:
        self.seen.append(("rlalgo_on_checkpoint", {"run": run, "step": step, "path": path}))

    @hookimpl
    def rlalgo_on_end(self, run: Any, error: Any) -> None:
        self.seen.append(("rlalgo_on_end", {"run": run, "error": error}))


@pytest.mark.covers_hook(
    "rlalgo_on_start",
    "rlalgo_on_step",
    "rlalgo_on_evaluation",
    "rlalgo_on_checkpoint",
    "rlalgo_on_end",
)
@pytest.mark.parametrize("hook", sorted(ARGUMENTS))
def test_run_time_hooks_reach_callbacks_with_all_arguments(hook: str) -> None:
    assert set(ARGUMENTS) == HOOKS - set(hookspecs.CATALOGUE_HOOKS.values())
    callback = Everything()
    manager = run_time_manager(Catalogue(), [callback])
    getattr(manager.hook, hook)(**ARGUMENTS[hook])
    assert callback.seen == [(hook, ARGUMENTS[hook])]


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
