"""Names and who owns them: a `Choice` is a name with options, the `Catalogue` knows what names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic.errors import PydanticUserError
from pydantic_core import core_schema

from rlalgo.errors import PluginClash, PluginError, a, near

SEPARATE = {
    ("encoder", "cnn"): "rlalgo-cnn",
    ("encoder", "impala"): "rlalgo-cnn",
    ("encoder", "fusion"): "rlalgo-cnn",
    ("env", "atari"): "rlalgo-atari",
    ("source", "dqn_replay"): "rlalgo-atari",
    ("callback", "tracker"): "rlalgo-trackers",
    ("source", "key_to_door"): "rlalgo-paper",
    ("source", "shortest_path"): "rlalgo-paper",
}
"""What this project offers in distributions of their own: kind and name -> distribution."""


@dataclass(frozen=True)
class Kind:
    """Marks a config field as a Choice of this kind: `Annotated[Choice, Kind("encoder", "state")]`."""

    name: str
    role: str | None = None
    """For encoders: what it must be able to embed."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Read by what the reader of the configuration gives as context: `(kind, value) -> Choice`."""
        return core_schema.with_info_plain_validator_function(lambda value, info: info.context(self, value))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """Open: which names there are, only `rlalgo.schema.schema` knows."""
        return {"x-kind": [self.name, self.role]}


@dataclass(frozen=True)
class Choice:
    """A named thing and its options, as YAML gives them; once checked, also what they mean."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    entry: Entry | None = field(default=None, repr=False, compare=False)
    config: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise PydanticUserError('a Choice needs its kind: Annotated[Choice, Kind("encoder")]', code=None)


@dataclass(frozen=True)
class Owner:
    """Who registered a name."""

    plugin: str
    distribution: str | None = None
    version: str | None = None
    location: str | None = None

    def __str__(self) -> str:
        if self.distribution:
            return f"{self.distribution} {self.version}"
        return self.location or self.plugin


@dataclass(frozen=True)
class Entry:
    """One registered class, under one of its names."""

    kind: str
    name: str
    cls: Any
    owner: Owner
    variant: type | None = None
    """The class's Config with the defaults that belong to this name, where they differ from its own."""

    @property
    def Config(self) -> Any:
        """What options of this name are read into."""
        return self.variant or self.cls.Config

    def refuses(self, role: str | None) -> str | None:
        """Why an encoder cannot play the role, or None if it can."""
        if role is None or role in self.cls.ROLES:
            return None
        roles = ", ".join(sorted(self.cls.ROLES))
        return f"{self.kind} '{self.name}' cannot be {a(role)} {self.kind}; its roles: {roles}."


class Catalogue:
    """Every registered class by kind and name, with its owner, and the plugins that are broken."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Entry]] = {}
        self.owners: list[Owner] = []
        self.modules: list[Any] = []
        """Loaded plugins in order; their run-time hooks take part in every run."""
        self.broken: dict[str, str] = {}
        """Entry-point plugins that could not be loaded: name -> why."""

    def add(self, entry: Entry) -> None:
        """Raises PluginClash, naming both owners, if the name is taken."""
        named = self.entries.setdefault(entry.kind, {})
        if entry.name in named:
            mine, theirs = entry.owner, named[entry.name].owner
            raise PluginClash(
                f"two plugins register the {entry.kind} '{entry.name}': '{theirs.plugin}' ({theirs}) and "
                f"'{mine.plugin}' ({mine}). Rename one, or block one with --no-plugin {mine.plugin}"
            )
        named[entry.name] = entry

    def names(self, kind: str, role: str | None = None) -> list[str]:
        """Sorted names of a kind; for encoders only those that can play the role."""
        named = self.entries.get(kind, {})
        return sorted(name for name, entry in named.items() if not entry.refuses(role))

    def get(self, kind: str, name: str, role: str | None = None) -> Entry:
        """The entry, or a PluginError with near names, what is known and which broken plugin may be meant."""
        entry = self.entries.get(kind, {}).get(name)
        known = self.names(kind, role)
        what = entry.refuses(role) if entry else f"no {kind} called '{name}'.{near(name, known)}"
        if entry is not None and what is None:
            return entry
        if entry is None and (kind, name) in SEPARATE:
            ours = SEPARATE[kind, name]
            what = f"no {kind} called '{name}' here; pip install {ours} (./plugins/{ours} in a checkout) brings it."
        by_owner: dict[str, list[str]] = {}
        for other in known:
            by_owner.setdefault(str(self.entries[kind][other].owner), []).append(other)
        listed = "; ".join(f"{', '.join(names)} ({owner})" for owner, names in by_owner.items())
        broken = "".join(f"\n    plugin '{plugin}' is broken: {why}" for plugin, why in self.broken.items())
        raise PluginError(f"{what} Known: {listed or 'none'}{broken}")


def to_mapping(value: Any) -> Any:
    """A config (or any part of one) as plain values for YAML: every default written out."""
    if isinstance(value, Choice):
        options = to_mapping(value.options if value.config is None else value.config)
        return {"name": value.name, **options}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value
