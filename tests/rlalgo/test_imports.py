"""The walls between the rooms, read from the source: who imports whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"numpy", "torch", "gymnasium", "pydantic", "pydantic_core", "pluggy", "rlalgo"}
MODULES = sorted((ROOT / "rlalgo").rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "rlutils").rglob("*.py"))]

OPTIONAL = {"rlalgo", "rlutils", "rlalgo_hf", "ale_py", "pyarrow", "onnxruntime"}
"""What need not be declared: ourselves, and what is only imported where a feature asks for it, which says so."""

FLOORS = [
    {"machine", "randomness", "terminal"},
    {"budget"},
    {"config"},
    {"data"},
    {"envs"},
    {"checkpoints"},
    {"evaluation", "exporting"},
    {"collecting", "training"},
    {"builtin", "app"},
    {"sweeps"},
    {"reports"},
    {"scaffold", "inventory", "outcome"},
    {"data_commands", "commands"},
    {"export_command"},
    {"cli"},
    {"__main__"},
]
"""The rooms of rlutils from the ground up: each imports from its own floor's room and from floors below."""


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports anywhere in it, through importlib too, as (dotted name, line); all absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((name, node.lineno) for name in names)


def dotted(path: Path) -> str:
    """`rlalgo/core/algo.py` -> `rlalgo.core.algo`; a package's `__init__.py` has the package's name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Module -> the modules of both packages that it imports."""
    known = {dotted(path) for path in FILES}
    arrows: dict[str, set[str]] = {module: set() for module in known}
    for path in FILES:
        found = {(name, line) for name, line in imports(path) if name in known}
        # `from package import module` is about the module, not about what the package's face hands on
        faces = {(name.rpartition(".")[0], line) for name, line in found}
        arrows[dotted(path)] = {name for name, _ in found - faces} - {dotted(path)}
    return arrows


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """One circle for each way back to a module that is being walked through; empty where there is none."""
    found, done = [], set[str]()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(arrows.get(module, ())):
                walk(other, [*path, module])
            done.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return found


def test_no_module_imports_one_that_imports_it() -> None:
    assert circles(graph()) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def test_the_rooms_of_rlutils_stand_upon_one_another() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    rooms = {path.relative_to(ROOT / "rlutils").parts[0].removesuffix(".py") for path in FILES[len(MODULES) :]}
    assert rooms - {"__init__"} == set(floor_of), "a room without a floor, or a floor without a room"
    wrong = []
    for path in FILES[len(MODULES) :]:
        room = path.relative_to(ROOT / "rlutils").parts[0].removesuffix(".py")
        for name, line in imports(path):
            if room != "__init__" and name.startswith("rlutils."):
                other = name.split(".")[1]
                if other != room and floor_of.get(other, -1) >= floor_of[room]:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_rlalgo_imports_only_what_the_design_allows() -> None:
    assert len(MODULES) > 10
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        for name, line in imports(path)
        if (top := name.partition(".")[0]) not in ALLOWED and top not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_what_is_imported_is_declared() -> None:
    """Not by way of somebody else's dependencies, which may go."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {normal(re.split(r"[\[<>=!~ ]", text)[0]) for text in project["dependencies"]}
    providers = metadata.packages_distributions()
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        for name, line in imports(path)
        if (top := name.partition(".")[0]) not in {*sys.stdlib_module_names, *OPTIONAL}
        and not {normal(provider) for provider in providers.get(top, [])} & declared
    ]
    assert wrong == []


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_an_algorithm_knows_no_other() -> None:
    """One algorithm is one file, or one folder; what two of them share stands outside `batchrl`."""
    wrong = []
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = ".".join(parts[:3]) if parts[:2] == ("rlalgo", "batchrl") else None
        for name, line in imports(path):
            pieces = name.split(".")
            if pieces[:2] == ["rlalgo", "batchrl"] and len(pieces) > 2 and ".".join(pieces[:3]) != own:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_the_core_knows_no_algorithm_and_no_plugin() -> None:
    """core <- config, registry <- plugins <- nets <- encoders <- algorithms."""
    wrong = [
        f"{path.name}:{line} imports {name}"
        for path in sorted((ROOT / "rlalgo" / "core").glob("*.py"))
        for name, line in imports(path)
        if name.startswith("rlalgo.") and not name.startswith(("rlalgo.core", "rlalgo.errors"))
    ]
    assert wrong == []


def test_every_file_has_one_job() -> None:
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "rlalgo" / "core" / "x.py"
    path.parent.mkdir(parents=True)
    lines = ["import a.b", "def f():", "  from c import d", "from . import e", "from ..g import h"]
    lines += ["importlib.import_module('i.j')"]
    path.write_text("\n".join(lines))
    assert sorted(imports(path), key=lambda pair: pair[1]) == [
        ("a.b", 1),
        ("c", 3),
        ("c.d", 3),
        ("rlalgo.core", 4),
        ("rlalgo.core.e", 4),
        ("rlalgo.g", 5),
        ("rlalgo.g.h", 5),
        ("i.j", 6),
    ]


def loaded_by(code: str) -> list[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return out.stdout.split()


def test_importing_rlalgo_touches_nothing_of_rlutils_and_no_plugin() -> None:
    loaded = loaded_by("from rlalgo import rollout")
    assert "rlalgo.core.rollout" in loaded
    wrong = ("rlutils", "rlalgo.batchrl", "minari", "mujoco", "yaml")
    assert [name for name in loaded if name.startswith(wrong)] == []


def test_public_names() -> None:
    import rlalgo

    for name in ("BatchRLAlgo", "Trainer", "Dataset", "Policy", "Episodes", "DataSpec", "rollout", "hookimpl"):
        assert name in rlalgo.__all__
    assert all(hasattr(rlalgo, name) for name in rlalgo.__all__)
    assert set(rlalgo.__all__) <= set(dir(rlalgo))
