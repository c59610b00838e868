"""What is known here, and settings checked against it."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlalgo import plugins as core_plugins
from rlalgo.config import to_mapping
from rlalgo.registry import Catalogue
from rlutils.config import BUILTINS
from rlutils.config.modules import own_modules
from rlutils.config.overrides import load_mapping, override, plugins_of
from rlutils.config.settings import DEFAULTS, Settings, to_settings


@functools.lru_cache(maxsize=8)
def _catalogue(plugins: tuple[str, ...], block: tuple[str, ...]) -> Catalogue:
    return core_plugins.catalogue(plugins, block, BUILTINS)


def catalogue(plugins: Sequence[str] = (), block: Sequence[str] = ()) -> Catalogue:
    """Everything known here: the built-ins of both packages, what is installed, and these modules and files."""
    return _catalogue(tuple(plugins), tuple(block))


def read_settings(
    config: str | Path | Mapping[str, Any] | Settings,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    block: Sequence[str] = (),
    *,
    recorded: bool = False,
) -> tuple[Settings, Catalogue]:
    """A YAML file or a mapping, overridden and checked, and the catalogue it was checked against.

    Args:
        config: what to read.
        overrides: see `override`.
        plugins: modules or files to load besides those it names.
        block: names of plugins to leave out.
        recorded: it comes from a run folder, not from who gives the command: the module of its environment's id is
            not looked for among files.

    Raises:
        ConfigError: every fault at once.
        PluginError: a plugin it names is broken.
    """
    where = ""
    if isinstance(config, str | Path):
        where = str(config)
        config = load_mapping(Path(config))
    elif isinstance(config, Settings):
        config = to_mapping(config)
    assert isinstance(config, Mapping)
    values = override(dict(config), overrides, DEFAULTS)
    named = plugins_of(values, where)
    if not recorded:
        plugins = [*plugins, *own_modules(values, Path(where).parent, Path())]
    values["plugins"] = [*named, *(p for p in plugins if p not in named)]
    known = catalogue(values["plugins"], block)
    return to_settings(values, known, where), known
