"""`rlalgo new-plugin`: a complete distribution with one small, working, tested plugin of a kind, to be changed."""

import functools
import os
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from rlalgo.errors import PluginError, near
from rlalgo.registry import SEPARATE, Catalogue
from rlalgo.version import __version__
from rlutils.config.files import write_atomic

WHAT = {
    "algo": "An algorithm",
    "encoder": "A state encoder",
    "source": "A data source",
    "env": "An environment maker",
    "trainer": "A trainer",
    "callback": "A callback",
    "behavior": "A behavior",
    "evaluator": "An evaluator",
}
"""Kind -> what its README calls it."""
ALIASES = {"algorithm": "algo", "environment": "env", "behavior": "behavior"}


@dataclass(frozen=True)
class NewPlugin:
    """What was written, and how to go on."""

    folder: Path
    files: tuple[str, ...]
    """Paths within the folder."""
    commands: tuple[str, ...]
    """What to type next: install, test, use."""


def new_plugin(kind: str, name: str, out: Path, known: Catalogue) -> NewPlugin:
    """Writes `out/rlalgo-NAME`, complete or not at all.

    Args:
        kind: of thing: a kind of the catalogue, or `algorithm`.
        name: one word of letters, digits, - and _; in YAML it is called so, with _ for -.
        out: folder to write the new folder into.
        known: what is installed, whose names are taken.

    Raises:
        PluginError: the kind is unknown, the name is not a name or is taken, or the folder exists or cannot be written.
    """
    kind = ALIASES.get(kind, kind)
    if kind not in WHAT:
        hint = near(kind, [*WHAT, *ALIASES])
        raise PluginError(f"there is no kind of plugin called '{kind}'.{hint} Kinds: {', '.join(WHAT)}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", name):
        raise PluginError(f"'{name}' is no name for a plugin: a letter, then letters, digits, single - and _")
    values = names(kind, name)
    _refuse_taken(kind, values, known)
    folder = out / values["distribution"]
    if os.path.lexists(folder):
        raise PluginError(f"{folder} exists and is left as it is; choose another name, or another place with --out")
    try:
        files = _write(folder, render(kind, values))
    except OSError as error:
        raise PluginError(f"{folder} cannot be written: {error.strerror or error}; nothing is left there") from error
    return NewPlugin(folder, files, _commands(kind, folder))


def names(kind: str, word: str) -> dict[str, str]:
    """What the templates call things: `my-thing` -> rlalgo-my-thing, rlalgo_my_thing, my_thing, MyThingEncoder."""
    name = word.replace("-", "_")
    camel = "".join(part.capitalize() for part in name.split("_"))
    return {
        "kind": kind,
        "what": WHAT[kind],
        "distribution": f"rlalgo-{word}",
        "module": f"rlalgo_{name}",
        "name": name,
        "cls": camel + kind.capitalize(),
        "version": __version__,
    }


def render(kind: str, values: dict[str, Any]) -> dict[str, str]:
    """Path within the new folder -> text."""
    module = values["module"]
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        "example.yaml": "example.yaml",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{module}.py": f"test_{kind}.py",
    }
    if kind not in ("source", "behavior"):  # these two make data themselves
        templates |= {"data.yaml": "data.yaml", "tests/toy_data.py": "toy_data.py"}
    return {path: _templates().get_template(f"{name}.j2").render(values) for path, name in templates.items()}


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _refuse_taken(kind: str, values: dict[str, str], known: Catalogue) -> None:
    """PluginError if the name in YAML or the distribution's belongs to somebody here."""
    name, distribution = values["name"], values["distribution"]
    for other in known.names(kind):
        if other.lower() == name.lower():
            owner = known.get(kind, other).owner
            raise PluginError(f"the {kind} '{other}' exists: {owner}, plugin '{owner.plugin}'. Choose another name")
    if distribution in SEPARATE.values():
        raise PluginError(f"{distribution} is a distribution of rlalgo's own; choose another name")
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return
    raise PluginError(f"{distribution} {version} is installed, and two of one name cannot be; choose another name")


def _write(folder: Path, texts: dict[str, str]) -> tuple[str, ...]:
    """All files under a temporary name, then the folder gets its own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for path, text in texts.items():
            target = temporary / path
            target.parent.mkdir(exist_ok=True)
            write_atomic(target, text)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(texts)


def _commands(kind: str, folder: Path) -> tuple[str, ...]:
    place, example, data = (shlex.quote(str(path)) for path in (folder, folder / "example.yaml", folder / "data.yaml"))
    use = f"rlalgo collect {data} && rlalgo train {example}"
    if kind == "behavior":
        use = f"rlalgo collect {example}"
    elif kind == "source":
        use = f"rlalgo train {example} source.path=FOLDER_OF_NPZ_FILES"
    return f"pip install -e {place}", f"python -m pytest {place}", use
