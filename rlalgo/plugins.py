"""The catalogue of everything that has a name: built-ins, entry points, modules and files, through pluggy.

Discovery, in order: the built-ins; every entry point in the group `rlalgo` (limited by the environment
variable RLALGO_PLUGINS=a,b, blocked one by one with `block`); then modules and files given by name. A fault
in a built-in or in a plugin given by name is an error; in an entry point it is a warning, told again when a
name is asked for that nobody provides.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import pluggy
from torch import nn

from rlalgo import hookspecs
from rlalgo.config import check_fields, parse, with_defaults
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.trainer import Trainer
from rlalgo.errors import PluginClash, PluginError, RlalgoWarning, near
from rlalgo.registry import Catalogue, Choice, Entry, Owner
from rlalgo.version import __version__

BUILTINS = (
    "rlalgo.encoders",
    "rlalgo.batchrl.bc",
    "rlalgo.batchrl.td3_bc",
    "rlalgo.batchrl.iql",
    "rlalgo.batchrl.cql",
    "rlalgo.batchrl.awac",
    "rlalgo.batchrl.rebrac",
    "rlalgo.batchrl.edac",
    "rlalgo.batchrl.dqn",
    "rlalgo.batchrl.dt.decision_transformer",
)
GROUP = "rlalgo"

# What each kind must offer besides `name` and `Config`: (base class or None, methods).
_RULES: dict[str, tuple[type | None, tuple[str, ...]]] = {
    "algo": (BatchRLAlgo, ()),
    "encoder": (nn.Module, ("forward",)),
    "source": (None, ("load",)),
    "env": (None, ("make",)),
    "trainer": (Trainer, ()),
    "callback": (None, ()),
    "behavior": (None, ("policies",)),
    "evaluator": (None, ("evaluate",)),
}
_ROLES = {"state", "action", "return", "timestep"}
_REGISTERING: set[str] = set()
"""Files that registered environments with Gymnasium when they were imported: they need no hooks."""
_HOOKS = [name for name in vars(hookspecs) if name.startswith("rlalgo_")]


class PluginWarning(RlalgoWarning):
    """An installed plugin is broken and was left out."""


def catalogue(plugins: Sequence[str] = (), block: Sequence[str] = (), builtins: Sequence[str] = ()) -> Catalogue:
    """What the built-ins, the entry points and the given modules (`a.b`) or files (`x.py`) register.

    Args:
        plugins: modules or files to load besides what is installed.
        block: names of plugins to leave out.
        builtins: further modules of this package whose faults are errors.

    Raises:
        PluginError: a built-in or given plugin is broken, two plugins own one name, or a limit names a plugin
            that is not installed.
    """
    result = Catalogue()
    seen = set()
    for owner, load, required in _discover(plugins, builtins):
        seen.add(owner.plugin)
        if owner.plugin in block:
            continue
        try:
            _add(result, owner, load())
        except PluginClash:
            raise
        except Exception as error:  # whatever a plugin raises at import is the plugin's fault
            known = isinstance(error, PluginError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            if required:
                raise error if known else PluginError(f"plugin '{owner.plugin}' cannot be imported: {why}") from error
            result.broken[owner.plugin] = why
            message = f"plugin '{owner.plugin}' ({owner}) is left out: {why}"
            warnings.warn(message, PluginWarning, stacklevel=2)
    for name in block:
        if name not in seen:
            listed = ", ".join(sorted(seen))
            raise PluginError(f"no plugin called '{name}' to block.{near(name, seen)} Known: {listed}")
    return result


@cache
def default_catalogue() -> Catalogue:
    """The built-ins of this package and what is installed; for objects made by hand rather than from YAML."""
    return catalogue()


def make(kind: str, choice: Choice, *arguments: Any, role: str | None = None) -> Any:
    """The thing that `choice` names, built as `cls(*arguments, config)`, if it can play the role."""
    entry, config = choice.entry, choice.config
    if entry is None:  # made by hand rather than read from a configuration
        entry = default_catalogue().get(kind, choice.name, role)
        config = parse(entry.Config, choice.options, default_catalogue(), f"{kind} '{choice.name}'")
    if why := entry.refuses(role):
        raise PluginError(why)
    made = entry.cls(*arguments, config)
    if entry.name != entry.cls.name:
        made.name = entry.name  # its messages call it what the configuration does
    return made


def run_time_manager(known: Catalogue, callbacks: Sequence[Any]) -> pluggy.PluginManager:
    """A fresh manager with the run-time hooks of these callbacks and of all plugins, for one run alone.

    Hooks are called on the callbacks in the order given, then on the plugins in the order of discovery.
    """
    manager = _manager()
    for plugin in reversed([*callbacks, *known.modules]):  # pluggy calls the last registered first
        manager.register(plugin)
    return manager


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("rlalgo")
    manager.add_hookspecs(hookspecs)
    return manager


def _discover(plugins: Sequence[str], builtins: Sequence[str]) -> Iterator[tuple[Owner, Callable[[], Any], bool]]:
    """Every plugin in order: its owner, what imports it, and whether its faults are errors."""
    for module in (*BUILTINS, *builtins):
        name = module.removesuffix(".decision_transformer").removesuffix(".builtin").rsplit(".", 1)[-1]
        yield Owner(name, "rlalgo", __version__, module), partial(importlib.import_module, module), True
    for point in _entry_points():
        distribution, version = (point.dist.name, point.dist.version) if point.dist else (None, None)
        yield Owner(point.name, distribution, version, point.value), point.load, False
    for given in plugins:
        if given.endswith(".py"):
            path = Path(given).resolve()
            yield Owner(given, location=str(path)), partial(_import_file, path), True
        else:
            names = metadata.packages_distributions().get(given.split(".")[0])
            distribution, version = (names[0], metadata.version(names[0])) if names else (None, None)
            yield Owner(given, distribution, version, given), partial(importlib.import_module, given), True


def _entry_points() -> list[metadata.EntryPoint]:
    """What is installed, or of that what RLALGO_PLUGINS names."""
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    if (limit := os.environ.get("RLALGO_PLUGINS")) is None:
        return points
    names = [point.name for point in points]
    allowed = [name.strip() for name in limit.split(",") if name.strip()]
    for name in allowed:
        if name not in names:
            raise PluginError(
                f"RLALGO_PLUGINS names '{name}', which is not installed.{near(name, names)} "
                f"Installed: {', '.join(names) or 'none'}"
            )
    return [point for point in points if point.name in allowed]


def _import_file(path: Path) -> ModuleType:
    """Imports a file once per process, so that a class is the same class in every catalogue.

    What it registers with Gymnasium may name it by its own name (`entry_point="my_env:MyEnv"`).
    """
    if not path.is_file():
        raise PluginError(f"plugin file {path} does not exist (in YAML, paths begin at the YAML file's folder)")
    digest = hashlib.sha1(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    name = f"_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = dict(gymnasium.registry)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if any(before.get(ident) is not made for ident, made in gymnasium.registry.items()):
        _REGISTERING.add(name)
        if getattr(sys.modules.get(path.stem), "__name__", name).startswith("_plugin_"):
            sys.modules[path.stem] = module
    return module


def _add(result: Catalogue, owner: Owner, plugin: Any) -> None:
    """Registers one plugin and everything it names, or nothing at all if it is at fault."""
    if any(plugin is other for other in result.modules):  # installed, and given by name as well
        return
    for other in result.owners:
        if other.plugin == owner.plugin:
            raise PluginClash(f"two plugins are called '{owner.plugin}': {other} and {owner}. Rename one")
    for entry in _entries(owner, plugin):
        result.add(entry)
    result.owners.append(owner)
    result.modules.append(plugin)


def _entries(owner: Owner, plugin: Any) -> list[Entry]:
    """What the catalogue hooks of this plugin register."""
    where = f"plugin '{owner.plugin}'"
    manager = _checked(where, plugin)
    found: dict[tuple[str, str], Entry] = {}

    def add(kind: str, cls: type, /, name: str | None = None, **defaults: Any) -> type:
        place = f"{where}: {kind} {getattr(cls, '__name__', cls)}"
        _check_class(place, kind, cls)
        entry = Entry(kind, name or cls.name, cls, owner)  # type: ignore[attr-defined]
        _check_name(place, entry.name)
        if defaults:
            entry = replace(entry, variant=with_defaults(entry.Config, defaults, place))
        if (kind, entry.name) in found:
            raise PluginError(f"{where}: registers the {kind} '{entry.name}' twice")
        found[kind, entry.name] = entry
        return cls

    for kind, hook in hookspecs.CATALOGUE_HOOKS.items():
        try:
            getattr(manager.hook, hook)(register=partial(add, kind))
        except PluginError:
            raise
        except Exception as error:  # whatever a hook raises is the plugin's fault
            raise PluginError(f"{where}: {hook} raised {type(error).__name__}: {error}") from error
    return list(found.values())


def _checked(where: str, plugin: Any) -> pluggy.PluginManager:
    """A manager with the hooks of this plugin (or callback) alone.

    Something that looks like a hook but is not one would silently do nothing, so it is refused.
    """
    for name, value in inspect.getmembers(plugin, inspect.isroutine):
        if not name.startswith("rlalgo_"):
            continue
        if name not in _HOOKS:
            raise PluginError(f"{where}: there is no hook '{name}'.{near(name, _HOOKS)}")
        if not hasattr(value, "rlalgo_impl"):
            raise PluginError(f"{where}: '{name}' is not marked; put @hookimpl (from rlalgo) above it")
    manager = _manager()
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:  # arguments that the hook does not have, ...
        raise PluginError(f"{where}: {error}") from error
    if not manager.get_hookcallers(plugin) and getattr(plugin, "__name__", None) not in _REGISTERING:
        raise PluginError(f"{where}: has no hooks; define one of {', '.join(_HOOKS)}")
    return manager


def _check_class(where: str, kind: str, cls: Any) -> None:
    """PluginError for the first rule of its kind that a class breaks."""
    base, methods = _RULES[kind]
    if not isinstance(cls, type):
        raise PluginError(f"{where}: register a class, not {cls!r}")
    _check_name(where, getattr(cls, "name", None))
    if base is not None and not issubclass(cls, base):
        raise PluginError(f"{where}: must be a subclass of {base.__name__}")
    for attribute in ("Config", "PolicyConfig") if kind == "algo" else ("Config",):
        config = getattr(cls, attribute, None)
        frozen = getattr(getattr(config, "__dataclass_params__", None), "frozen", False)
        if not isinstance(config, type) or not frozen or hasattr(config, "__pydantic_config__"):
            raise PluginError(f"{where}: needs `{attribute}`, a @dataclass(frozen=True) of the standard library")
        check_fields(config, f"{where}: {attribute}")
    missing = [m for m in methods if not callable(getattr(cls, m, None))]
    missing += sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise PluginError(f"{where}: has no method {' and no '.join(missing)}")
    if kind == "callback":
        _checked(where, cls)
    roles = getattr(cls, "ROLES", None)
    if kind == "encoder" and (not roles or not set(roles) <= _ROLES):
        raise PluginError(f"{where}: ROLES must be some of {', '.join(sorted(_ROLES))}, got {roles!r}")


def _check_name(where: str, name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
        raise PluginError(f'{where}: needs `name: ClassVar[str] = "..."`, one word, got {name!r}')
