"""Modules that files name. Anybody's file may name what is installed; a person's own also what lies beside it."""

import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def installed(module: str) -> bool:
    """Whether a module `a.b` belongs to an installed distribution, an editable one included.

    A file of that name which Python would find before it (in the working folder, through PYTHONPATH) makes this false.
    Nothing is imported.
    """
    top = module.partition(".")[0]
    if not top.isidentifier():
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that was made by hand has no spec
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    folders = list(_folders())
    return bool(places) and all(any(_within(place, folder) for folder in folders) for place in places)


def own_modules(values: Mapping[str, Any], *folders: Path) -> list[str]:
    """The plugin file that `env.id: my_env:My-v0` stands for: my_env.py in the first of the folders that has it.

    For what a person wrote or typed only. None where the module is installed, given as a plugin, or not named at all.
    """
    env, given = values.get("env"), values.get("plugins") or ()
    ident = env.get("id") if isinstance(env, Mapping) else None
    module, colon, _ = ident.partition(":") if isinstance(ident, str) else ("", "", "")
    if not colon or not module.isidentifier() or installed(module):
        return []
    if isinstance(given, list | tuple) and any(Path(str(plugin)).name == f"{module}.py" for plugin in given):
        return []
    files = [folder / f"{module}.py" for folder in folders]
    return [str(file.resolve()) for file in files if file.is_file()][:1]


def _folders() -> Iterator[Path]:
    """Where distributions are installed, and where editable ones lie."""
    packages = {*site.getsitepackages(), *(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))}
    if site.ENABLE_USER_SITE:
        packages.add(site.getusersitepackages())
    for folder in map(Path, sorted(packages)):
        yield folder
        for listed in sorted(folder.glob("*.pth")):
            for line in listed.read_text("utf-8", errors="replace").splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    yield folder / line.strip()
    for finder in sys.meta_path:  # setuptools' editable installations: package -> its folder
        home = sys.modules.get(getattr(finder, "__module__", ""))
        if getattr(home, "__name__", "").startswith("__editable__"):
            yield from map(Path, getattr(home, "MAPPING", {}).values())


def _within(place: str, folder: Path) -> bool:
    return Path(place).absolute().is_relative_to(folder) or Path(place).resolve().is_relative_to(folder.resolve())
