"""Overrides: `a.b=value` and YAML files laid over a configuration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlalgo.errors import ConfigError, clipped, shown
from rlutils.config.files import read_yaml
from rlutils.config.modules import own_modules
from rlutils.config.yaml_text import parse_yaml


def load_mapping(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping, with the paths of plugin files made absolute.

    A module beside it that `env.id: my_env:My-v0` names is one of its plugins.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: expected a mapping at the top level, got {type(values).__name__}"])
    given = [str((path.parent / p).resolve()) if p.endswith(".py") else p for p in plugins_of(values, str(path))]
    if given := [*given, *own_modules({**values, "plugins": given}, path.parent)]:
        values["plugins"] = given
    return values


def plugins_of(values: Mapping[str, Any], where: str) -> list[str]:
    """The modules and files that a configuration names.

    Raises:
        ConfigError: they are no list of names.
    """
    named = values.get("plugins") or []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) and name.isprintable() for name in named):
        raise ConfigError([f"plugins: expected a list of module names and files, got {shown(named)}"], where)
    return list(named)


def override(
    values: dict[str, Any], overrides: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`a.b=value` (value in YAML) for each override, into a copy; list items by number (`evaluation.policies.0.x=1`).

    An override may also be a YAML file (`texts_of` says how its settings are laid over those before it). Where a path
    goes through something that is not there, its default is changed: `trainer.steps=10` is about the usual trainer.

    Raises:
        ConfigError: an override without `=`, or a path through something that has no keys.
    """
    result = _copy(values)
    for text in overrides:
        if text.endswith((".yaml", ".yml")) and "=" not in text:
            for path, value in _settings(load_mapping(Path(text))):
                _put(result, path, value, f"{text}: {path}", defaults)
            continue
        path, equals, value = text.partition("=")
        where = f"override '{clipped(text, 200)}'"
        if not equals or not path.strip():
            raise ConfigError([f"{where}: expected key=value, such as algo.lr=3e-4, or a YAML file"])
        _put(result, path.strip(), parse_yaml(value, where), where, defaults)
    return result


def _put(values: dict[str, Any], path: str, value: Any, where: str, defaults: Mapping[str, Any] | None) -> None:
    """Sets what lies at a dotted path."""
    *parents, last = path.split(".")
    place: Any = values
    default: Any = defaults
    for i, key in enumerate(parents):
        default = default.get(key) if isinstance(default, Mapping) else None
        if isinstance(place, list):
            place[_index(key, place, where)] = inner = _as_mapping(place[_index(key, place, where)])
        else:
            place[key] = inner = _as_mapping(_copy(default) if place.get(key) is None else place[key])
        if not isinstance(inner, dict | list):
            raise ConfigError([f"{where}: {'.'.join(parents[: i + 1])} is {shown(inner)}, which has no keys"])
        place = inner
    place[_index(last, place, where) if isinstance(place, list) else last] = value


def texts_of(values: Mapping[str, Any]) -> Iterator[str]:
    """Settings as overrides, `a.b=value`: a mapping is merged, one with a `name` replaces what is there."""
    yield from (f"{path}={json.dumps(value)}" for path, value in _settings(values))


def _settings(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and "name" not in value:
            yield from _settings(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _as_mapping(value: Any) -> Any:
    """A bare name is short for {name: ...}, and nothing for an empty mapping."""
    if isinstance(value, str):
        return {"name": value}
    return {} if value is None else value


def _index(key: str, values: list, where: str) -> int:
    if not key.isdigit() or int(key) >= len(values):
        raise ConfigError([f"{where}: '{key}' is not one of the {len(values)} items 0..{len(values) - 1}"])
    return int(key)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value
