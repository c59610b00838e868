"""A source of data by its name: from the words of a command, and from settings that were checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rlalgo import Choice, Episodes, Kind
from rlalgo import plugins as core_plugins
from rlalgo.config import parse
from rlalgo.errors import ConfigError
from rlutils.config.catalogue import catalogue
from rlutils.config.overrides import load_mapping, override


@dataclass(frozen=True)
class _Named:
    source: Annotated[Choice, Kind("source")]


def find_source(words: Sequence[str], plugins: Sequence[str] = ()) -> Choice:
    """The source that a command is about, with its options checked.

    Args:
        words: a YAML file (one to train with, or a source's options and its name), the name of a source, or the id of
            a Minari dataset; then the source's options, `key=value` (or, as for `train`, `source.key=value`).
        plugins: modules or files to load besides those that the YAML file names.

    Raises:
        ConfigError: listing every fault.
        PluginError: a plugin is broken.
    """
    first, *options = words
    where, values = "", dict[str, Any]()
    if first.endswith((".yaml", ".yml")):
        where, values = first, load_mapping(Path(first))
        plugins = [*plugins, *(values.pop("plugins", None) or ())]
    known = catalogue(plugins)
    if not where and first in known.names("source"):
        values = {"name": first}
    elif not where and Path(first).is_file():
        raise ConfigError([f"{first} is a file: say which source reads it, as in `d4rl path={first}`"])
    elif not where:
        values = {"name": "minari", "id": first}
    options = [f"source.{text.removeprefix('source.')}" for text in options]
    values = override({"source": values.get("source", values)}, options)
    return parse(_Named, values, known, where).source


def load_source(choice: Choice) -> tuple[Episodes, str]:
    """All that a source has, checked, and how messages and reports call it: `minari:hopper/medium-v0`."""
    source = core_plugins.make("source", choice)
    ident = getattr(choice.config, "id", None)
    label = getattr(source, "label", None) or ":".join(filter(None, [choice.name, ident]))
    return source.load().check(label), label
