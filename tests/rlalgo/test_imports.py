"""The walls between the rooms, read from the source: who imports whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"numpy", "torch", "gymnasium", "pydantic", "pluggy", "rlalgo"}
MODULES = sorted((ROOT / "rlalgo").rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports anywhere in it, as (dotted name, line); relative ones absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def test_rlalgo_imports_only_what_the_design_allows() -> None:
    assert len(MODULES) > 10
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        for name, line in imports(path)
        if (top := name.partition(".")[0]) not in ALLOWED and top not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_an_algorithm_knows_no_other() -> None:
    """One algorithm is one file, or one folder; what two of them share stands outside `batchrl`."""
    wrong = []
    for path in [*MODULES, *sorted((ROOT / "rlutils").rglob("*.py"))]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        mine = ".".join(parts[:3]) if parts[:2] == ("rlalgo", "batchrl") else None
        for name, line in imports(path):
            pieces = name.split(".")
            if pieces[:2] == ["rlalgo", "batchrl"] and len(pieces) > 2 and ".".join(pieces[:3]) != mine:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_the_core_knows_no_algorithm_and_no_plugin() -> None:
    """core <- nets, config, registry <- plugins <- encoders <- algorithms."""
    wrong = [
        f"{path.name}:{line} imports {name}"
        for path in sorted((ROOT / "rlalgo" / "core").glob("*.py"))
        for name, line in imports(path)
        if name.startswith("rlalgo.") and not name.startswith(("rlalgo.core", "rlalgo.errors"))
    ]
    assert wrong == []


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "rlalgo" / "core" / "x.py"
    path.parent.mkdir(parents=True)
    lines = ["import a.b", "def f():", "  from c import d", "from . import e", "from ..g import h"]
    path.write_text("\n".join(lines))
    assert list(imports(path)) == [
        ("a.b", 1),
        ("rlalgo.core", 4),
        ("rlalgo.core.e", 4),
        ("rlalgo.g", 5),
        ("rlalgo.g.h", 5),
        ("c", 3),
        ("c.d", 3),
    ]


def test_importing_rlalgo_touches_nothing_of_rlutils_and_no_plugin() -> None:
    code = "import sys, rlalgo; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = out.stdout.split()
    assert "rlalgo.core.rollout" in loaded
    wrong = ("rlutils", "rlalgo.batchrl", "minari", "mujoco", "yaml")
    assert [name for name in loaded if name.startswith(wrong)] == []


def test_public_names() -> None:
    import rlalgo

    for name in (
        "BatchRLAlgo",
        "Trainer",
        "Dataset",
        "Policy",
        "Episodes",
        "DataSpec",
        "rollout",
        "hookimpl",
    ):
        assert name in rlalgo.__all__
    assert all(hasattr(rlalgo, name) for name in rlalgo.__all__)
