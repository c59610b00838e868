"""Commands that other distributions bring, seen from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from rlalgo.errors import DataError

def greet(name: str, loud: bool = False) -> None:
    "Say hello."
    if name == "nobody":
        raise DataError("nobody: expected a name")
    print(f"hello {name}!" if loud else f"hello {name}")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as pip leaves it: a module, and the entry points of a distribution."""
    (tmp_path / "greeting.py").write_text(MODULE)
    (tmp_path / "broken_greeting.py").write_text("raise RuntimeError('half installed')")
    info = tmp_path / "greeting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    points = "greet = greeting:greet\nbroken = broken_greeting:greet\ntrain = greeting:greet\n"
    (info / "entry_points.txt").write_text(f"[rlalgo.commands]\n{points}")
    return tmp_path


def rlalgo(site: Path, *words: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "rlutils", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_a_distribution_brings_a_command(site):
    assert rlalgo(site, "greet", "you", "--loud").stdout == "hello you!\n"


def test_its_errors_are_told_as_ours_are(site):
    done = rlalgo(site, "greet", "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: nobody: expected a name\n")


def test_help_lists_it_and_leaves_out_a_broken_one(site):
    done = rlalgo(site, "--help")
    assert done.returncode == 0
    for text in ("greet", "Say hello."):
        assert text in done.stdout
    for text in ("half installed", "'broken'"):
        assert text in done.stderr
    assert done.stdout.count("train ") == 1  # the name of a command of ours stays ours


def test_a_command_that_a_distribution_of_ours_brings_names_it(site):
    done = rlalgo(site, "import-hf", "somewhere")
    assert done.returncode == 2
    assert "pip install rlalgo-hf" in " ".join(done.stderr.replace("│", "").split())


def test_a_broken_one_is_told_of_once(site):
    done = rlalgo(site, "broken", "you")
    assert done.returncode == 2
    assert done.stderr.count("half installed") == 1
