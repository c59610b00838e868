"""What is installed, and that the kept answer is never an old one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlutils import inventory as module
from rlutils.config.catalogue import _catalogue
from rlutils.inventory import inventory
from tests.rlutils.runs import PLUGIN

ENCODER = """
from dataclasses import dataclass
from rlalgo import hookimpl
from rlalgo.encoders import MLP

class Mine(MLP):
    "A copy of mlp."
    name = "{name}"

@hookimpl
def rlalgo_register_encoders(register):
    register(Mine)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "inventory"


def names(*plugins: str) -> list[str]:
    return [f"{entry.kind} {entry.name}" for entry in inventory(plugins).entries]


def test_says_what_there_is(cache: Path) -> None:
    found = inventory([PLUGIN])
    entries = {f"{entry.kind} {entry.name}": entry for entry in found.entries}
    assert {"algo iql", "algo discrete_iql", "encoder mlp", "source minari", "source toy"} <= set(entries)
    options = {row[0]: row for row in entries["algo sac_n"].options}
    assert options["diversity"][2] == "0.0"
    assert "Size" in options["n_critics"][3] or "size" in options["n_critics"][3]
    assert entries["algo dt"].summary.startswith("Decision Transformer")
    assert found.schemas["train"]["properties"]["seed"]["minimum"] == 0
    assert set(found.schemas) == {"train", "collect", "suite"}


def test_is_found_out_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = inventory()
    assert len(list(cache.glob("*.json"))) == 1
    monkeypatch.setattr(module, "_look", lambda plugins, block: pytest.fail("found out again"))
    assert inventory() == first


def test_a_changed_plugin_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(ENCODER.format(name="first"))
    assert "encoder first" in names(str(path))
    _catalogue.cache_clear()  # another process, as it were
    path.write_text(ENCODER.format(name="another"))
    assert "encoder another" in names(str(path))
    assert "encoder first" not in names(str(path))


def test_what_is_asked_for_is_part_of_the_question() -> None:
    assert "source toy" not in names()
    assert "source toy" in names(PLUGIN)
    assert "algo cql" not in [f"{entry.kind} {entry.name}" for entry in inventory(block=["cql"]).entries]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"entries": 3}', b"\xff\xfe"])
def test_a_broken_file_is_made_anew(cache: Path, content: bytes) -> None:
    first = inventory()
    (file,) = cache.glob("*.json")
    file.write_bytes(content)
    assert inventory() == first
    assert json.loads(file.read_text())["broken"] == {}


def test_does_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "file"))
    assert "algo dt" in names()


def test_help_needs_no_torch() -> None:
    code = "import sys, rlutils, rlutils.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"typer", "rlutils"} <= set(loaded)
    assert not {"torch", "scipy", "matplotlib", "numpy", "minari", "gymnasium"} & set(loaded)
