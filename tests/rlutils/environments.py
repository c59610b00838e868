"""Fresh virtual environments for tests of what is installed; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.rlutils.runs import ROOT

PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def python(*words: str, executable: str = sys.executable, **variables: str) -> str:
    """`python WORDS` without any installed plugin but those that `variables` allow; what it printed."""
    env = {**os.environ, "RLALGO_PLUGINS": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
    env = {key: value for key, value in env.items() if value != "unset"}
    done = subprocess.run([executable, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fresh(place: Path, folders: Sequence[Path]) -> str:
    """The Python of a new environment in which the distributions in these folders are installed from wheels.

    It sees this one's packages besides.
    """
    wheels, environment = place / "wheels", place / "fresh"
    copies = [str(shutil.copytree(folder, place / "copies" / folder.name)) for folder in folders]  # building litters
    python(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), *copies)
    files = [str(path) for path in wheels.glob("*.whl")]
    assert len(files) == len(folders)
    python("-m", "venv", "--without-pip", str(environment))
    executable = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
    found = python("-c", "import site; print(site.getsitepackages()[0])", executable=executable)
    lines = [f"import site; site.addsitedir({packages!r})\n" for packages in site.getsitepackages()]
    (Path(found.strip()) / "outer.pth").write_text("".join(lines))
    python(*PIP, "install", "--no-deps", "--no-index", *files, executable=executable)
    return executable
