"""What is installed, in plain values: every name with its owner and its options, and the schemas of the YAML files.

Finding out imports every plugin, and torch with them, which takes seconds. So the answer is kept in the cache folder
for as long as nothing that it depends on changes: a version, a file of these packages or of a plugin, what is asked.
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from rlalgo.errors import ConfigError, near
from rlalgo.hookspecs import CATALOGUE_HOOKS
from rlalgo.version import __version__
from rlutils.config.files import cache_folder, write_json
from rlutils.machine import cores, host_memory, size, versions

SCHEMAS = ("train", "collect", "suite")
"""Kinds of YAML files."""


@dataclass(frozen=True)
class Listed:
    """One registered name."""

    kind: str
    name: str
    owner: str
    plugin: str
    summary: str
    options: list[tuple[str, str, str, str]]
    """Name, type in words, default and documentation of each."""


@dataclass(frozen=True)
class Inventory:
    entries: list[Listed]
    """By kind, then by name."""
    broken: dict[str, str]
    """Plugins that could not be loaded -> why."""
    schemas: dict[str, Any]
    """`train`, `collect` and `suite` -> the JSON schema of such YAML files."""


def inventory(plugins: Sequence[str] = (), block: Sequence[str] = ()) -> Inventory:
    """What there is with these modules and files besides what is installed, and without the plugins to block.

    Raises:
        PluginError: a plugin given by name is broken, or two own one name.
    """
    path = cache_folder() / "inventory" / f"{_fingerprint(plugins, block)}.json"
    with contextlib.suppress(OSError, ValueError):
        return TypeAdapter(Inventory).validate_json(path.read_bytes())
    found = _look(plugins, block)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(found))
        for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-20]:
            old.unlink()
    return found


def print_inventory(found: Inventory, name: str | None, short: bool, console: Console) -> None:
    """All entries, or those of one kind or name; `short` leaves out the options.

    Raises:
        ConfigError: nothing has that name.
    """
    chosen = [entry for entry in found.entries if name in (None, entry.kind, entry.name)]
    for entry in chosen:
        owner = (f"{entry.owner}, plugin {entry.plugin}", "dim")
        console.print(Text.assemble((f"{entry.kind} {entry.name}", "bold"), "  ", owner))
        if entry.summary:
            console.print(f"  {entry.summary}")
        for option, kind, default, doc in () if short else entry.options:
            value = default if default == "required" else f"= {default}"
            console.print(Text.assemble("    ", (option, "cyan"), "  ", (kind, "dim"), "  ", value), soft_wrap=True)
            console.print(Padding(Text(doc), (0, 0, 0, 8)))
    for plugin, why in found.broken.items():
        console.print(Text.assemble((f"plugin {plugin} is broken and left out:", "red"), f" {why}"))
    if not chosen:
        hint = near(str(name), [*CATALOGUE_HOOKS, *(entry.name for entry in found.entries)])
        raise ConfigError([f"nothing is called '{name}'.{hint} Kinds: {', '.join(CATALOGUE_HOOKS)}"])


def _look(plugins: Sequence[str], block: Sequence[str]) -> Inventory:
    """The seconds' work; all that needs torch is imported here."""
    from rlalgo.schema import describe, schema
    from rlutils.collecting.settings import CollectSettings
    from rlutils.config.catalogue import catalogue
    from rlutils.config.settings import Settings
    from rlutils.sweeps.suite import Suite

    known = catalogue(plugins, block)
    entries = []
    for kind in CATALOGUE_HOOKS:
        for name in known.names(kind):
            entry = known.get(kind, name)
            lines = (entry.cls.__doc__ or sys.modules[entry.cls.__module__].__doc__ or "").strip().splitlines()
            summary = lines[0] if lines and not lines[0].startswith(f"{entry.cls.__name__}(") else ""
            options = describe(entry.Config)
            entries.append(Listed(kind, name, str(entry.owner), entry.owner.plugin, summary, options))
    classes: tuple[type, ...] = (Settings, CollectSettings, Suite)
    schemas = {what: schema(cls, known) for what, cls in zip(SCHEMAS, classes, strict=True)}
    return Inventory(entries, dict(known.broken), schemas)


def about(plugins: Sequence[str] = (), block: Sequence[str] = ()) -> dict[str, str]:
    """What a report of a fault has to say of this installation: versions, plugins, devices and folders, by name."""
    import torch  # a second, as with the plugins

    from rlutils.config.catalogue import catalogue
    from rlutils.data.minari_disk import ROOT_VARIABLE, local_ids, root

    known = catalogue(plugins, block)
    found = {**versions(), "installed in": str(Path(__file__).parent)}
    found |= {f"plugin {o.plugin}": str(o) for o in known.owners if o.distribution != "rlalgo"}
    found |= {f"plugin {name}": f"broken: {why}" for name, why in known.broken.items()}
    found["cpu"] = f"{cores()} cores, {torch.get_num_threads()} threads, {size(host_memory())} of memory"
    found["cuda"] = f"{torch.version.cuda or 'not in this torch'}, {torch.cuda.device_count()} devices"
    for number in range(torch.cuda.device_count()):
        there = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{there.name}, {size(there.total_memory)}"
    found["mps"] = "yes" if torch.backends.mps.is_available() else "no"
    found[ROOT_VARIABLE] = f"{root()}, {len(local_ids())} datasets"
    found["RLALGO_CACHE"] = str(cache_folder())
    return found | {"RLALGO_PLUGINS": os.environ.get("RLALGO_PLUGINS", "all that are installed")}


def _fingerprint(plugins: Sequence[str], block: Sequence[str]) -> str:
    """Of all that the inventory depends on, without importing any of it."""
    points = [
        (point.name, point.value, point.dist and (point.dist.name, point.dist.version))
        for point in metadata.entry_points(group="rlalgo")
    ]
    facts: list[Any] = [
        sys.version,
        __version__,
        os.environ.get("RLALGO_PLUGINS"),
        sorted(points),
        list(plugins),
        list(block),
    ]
    modules = ["rlalgo", "rlutils", *(value for _, value, _ in points), *plugins]
    facts += [stamp for module in modules for stamp in _stamps(module)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _stamps(module: str) -> Iterator[tuple[str, int, int]]:
    """Path, time and size of every file of a plugin: of a single file, or of the whole package that a module is in."""
    files = [Path(module).resolve()] if module.endswith(".py") else []
    if not files:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(module.partition(":")[0].partition(".")[0])
            folders = spec and spec.submodule_search_locations
            files += [file for folder in folders or () for file in sorted(Path(folder).rglob("*.py"))]
            files += [Path(spec.origin)] if spec and spec.origin and not folders else []
    for file in files:
        with contextlib.suppress(OSError):
            yield str(file), (status := file.stat()).st_mtime_ns, status.st_size
