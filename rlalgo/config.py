"""Mappings to frozen dataclasses and back: strict, every fault at once, each with its dotted path.

A Config is a frozen standard dataclass; every field has a docstring beneath it and its range in its type. pydantic
checks it through JSON, as a YAML file would come: lists become tuples and strings paths, nothing else is coerced.
What pydantic does not know is here: what a Choice means, near names, and docstrings of inherited fields.
"""

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from rlalgo.errors import ConfigError, PluginError, a, near
from rlalgo.registry import Catalogue, Choice, Kind, to_mapping
from rlalgo.schema import ConfigSchema, defaults_of, in_words

T = TypeVar("T")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Whole = Annotated[int, Field(ge=0, le=10**12)]
Few = Annotated[int, Field(ge=1, le=1000)]
"""Of what is made one by one: layers, environments, threads."""
Size = Annotated[int, Field(ge=1, le=2**20)]
"""Of one side of a tensor. Whether the product fits into the memory is asked before training."""
Sizes = Annotated[tuple[Size, ...], Field(max_length=1000)]
"""Units of each layer."""
HiddenDims = Annotated[Sizes, Field(min_length=1)]
"""Units of each hidden layer, of which there is at least one."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of random numbers; numpy takes no more."""
StateEncoder = Annotated[Choice, Kind("encoder", "state")]
"""A field for a state encoder: `state_encoder: StateEncoder | None = None`."""

_STRICT = ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, revalidate_instances="always"
)
_PLAIN = TypeAdapter(list[JsonValue])


def parse(cls: type[T], values: Any, catalogue: Catalogue, where: str = "") -> T:
    """`values` (a mapping) as an instance of the dataclass `cls`, with every Choice resolved.

    Raises:
        ConfigError: listing every fault found, each with its dotted path.
    """
    faults: list[str] = []
    result = parse_into(cls, values, catalogue, "", faults)
    if faults:
        raise ConfigError(faults, where)
    return result


def parse_into(cls: type, values: Any, catalogue: Catalogue | None, path: str, faults: list[str]) -> Any:
    """As `parse`, but adds faults to the list given, and returns None if there were any here.

    Without a catalogue, choices are left as they are given.
    """
    plain = _complete(cls, to_mapping(values))
    try:
        _PLAIN.validate_python([plain])  # Python, unlike YAML, could hold anything
        return _validate(cls, plain, catalogue)
    except ValidationError as error:
        faults += _faults(error, cls, plain, catalogue, path)
    return None


def check_fields(cls: type, where: str) -> None:
    """PluginError for a field of a config class that no YAML file could give."""
    try:
        hints = _hints(cls)
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from error
    for name, hint in hints.items():
        if name == "name":
            raise PluginError(f"{where}: a field cannot be called 'name', which says what is chosen; rename it")
        try:
            _strict(hint).json_schema(schema_generator=ConfigSchema)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            why = str(error).partition("\n")[0]
            raise PluginError(f"{where}.{name}: values of {hint} cannot be read from YAML ({why})") from error


def with_defaults(cls: type, defaults: Mapping[str, Any], where: str) -> type:
    """A config class like `cls` that has other defaults.

    Raises:
        PluginError: there is no such field, or the field does not take that value.
    """
    hints, where = _hints(cls), f"{where}: {cls.__qualname__}"
    for name in defaults:
        if name not in hints:
            raise PluginError(f"{where} has no field '{name}'.{near(name, hints)}")
    changed = [(name, hints[name], dataclasses.field(default=value)) for name, value in defaults.items()]
    result = dataclasses.make_dataclass(cls.__name__, changed, bases=(cls,), frozen=True)
    faults: list[str] = []
    parse_into(result, {}, None, where, faults)
    faults = [fault for fault in faults if ": missing;" not in fault]  # what is required of the user remains so
    if faults:
        raise PluginError("\n    ".join(faults))
    return result


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    _hints(cls)  # names a type that cannot be found
    return _strict(cls)


def _strict(hint: Any) -> TypeAdapter:
    """What reads a list of values of this type: pydantic lets no configuration be given for a dataclass by itself."""
    return TypeAdapter(list[hint], config=_STRICT)


def _in_words(hint: Any) -> str:
    return in_words(_strict(hint).json_schema(schema_generator=ConfigSchema)["items"])


def _complete(hint: Any, value: Any) -> Any:
    """Defaults written out, so that they are read as a file's values are (a Path from a string, ...)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, tuple) and isinstance(value, list):
        return [_complete(arguments[0], part) for part in value]
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and value is not None:  # X | None
        return _complete(arguments[0], value)
    if not _is_config(hint) or not isinstance(value, dict):
        return value
    given = {key: _complete(_hints(hint).get(key), part) for key, part in value.items()}
    return to_mapping(defaults_of(hint)) | given


def _validate(cls: type, plain: Any, catalogue: Catalogue | None) -> Any:
    resolve = functools.partial(_resolve, catalogue)
    return _adapter(cls).validate_json(json.dumps([plain]), context=resolve)[0]


def _resolve(catalogue: Catalogue | None, kind: Kind, value: Any) -> Choice:
    """A name, or a mapping with it, -> a Choice that knows its class and its checked config.

    Raises:
        ValueError: there is no such name. Faults of the options are pydantic's own, which it gathers.
    """
    options = {"name": value} if isinstance(value, str) else to_mapping(value)
    name = options.pop("name", None) if isinstance(options, dict) else None
    if not isinstance(name, str):
        known = f" Known: {', '.join(catalogue.names(kind.name, kind.role))}" if catalogue else ""
        expected = f"the name of {a(kind.name)}, or {{name: ...}} with options"
        raise ValueError(f"expected {expected}, got {_short(value)}.{known}")
    if catalogue is None:
        return Choice(name, options)
    try:
        entry = catalogue.get(kind.name, name, kind.role)
    except PluginError as error:
        raise ValueError(str(error)) from error
    return Choice(name, options, entry, _validate(entry.Config, _complete(entry.Config, options), catalogue))


def _faults(error: ValidationError, cls: type, plain: Any, catalogue: Catalogue | None, path: str) -> list[str]:
    """One line for each place at fault; pydantic gives one for each member of a union."""
    found: dict[str, tuple[list[str], list[Any]]] = {}
    unknown = "unexpected_keyword_argument"
    for fault in sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != unknown):  # these first
        place, hint, config = _locate(fault["loc"][1:], cls, plain, catalogue, path)
        kind, key, got = fault["type"], (0, *fault["loc"])[-1], [fault["input"]]
        if kind == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]:
            continue  # pydantic counts the sound items alone, and the others are told anyway
        message = re.sub(r"^(\w+ (?=should|was)|Value error, )", "", fault["msg"]).replace(" after validation", "")
        if kind == unknown and config is not None:
            known = _hints(config)
            cure, got = near(str(key), known) or f" Known: {', '.join(known) or 'none'}", []
            message = f"unknown key '{key}'.{cure}"
        elif kind == "missing" and isinstance(key, str):
            message, got = f"missing; {_in_words(hint)} is needed", []
        elif kind in ("missing", "too_long"):  # of a tuple's items
            message = f"should be {_in_words(hint)}"
        elif kind == "value_error":
            got = []
        found.setdefault(place, ([], got))[0].append(message)
    faults = []
    for place, (messages, got) in found.items():
        what = " or ".join([messages[0], *(message.removeprefix("should be ") for message in messages[1:])])
        what = what.replace("a valid array", "a list").replace("an object", "a mapping")
        for value in got:
            cure = near(value, re.findall("'(.+?)'", what))  # of the values that a Literal allows
            what += f", got {_short(value)}{'.' if cure else ''}{cure}"
        place = place or ("top level" if got else "")
        faults.append(f"{place}: {what}" if place else what)
    return faults


def _locate(
    parts: tuple[int | str, ...], cls: type, values: Any, catalogue: Catalogue | None, path: str
) -> tuple[str, Any, type | None]:
    """A fault's dotted path, the type that is asked for there, and the config class that it is a field of.

    Besides keys and indices, pydantic's location has names of a union's members, which stand in no file.
    """
    hint: Any = cls
    config: type | None = None
    for part in parts:
        config = _config_in(hint, values, catalogue)
        inside = values if isinstance(values, dict) else {}
        if isinstance(values, list) and isinstance(part, int) and part < len(values):
            path, values = f"{path}[{part}]", values[part]
        elif config is not None and part in _hints(config):
            path, hint = _join(path, part), _hints(config)[str(part)]
            values = inside.get(part)
        elif part in inside:
            path, values = _join(path, part), inside[part]
    return path, hint, config


def _config_in(hint: Any, value: Any, catalogue: Catalogue | None) -> type | None:
    """The config class within a type: itself, X of `X | None`, of `tuple[X, ...]`; of a choice, what its name means."""
    if (kind := _kind(hint)) is not None:
        name = value.get("name") if isinstance(value, dict) else value
        return catalogue.get(kind.name, name).Config if catalogue and name in catalogue.names(kind.name) else None
    if _is_config(hint):
        return hint
    inner = (_config_in(part, value, catalogue) for part in typing.get_args(hint))
    return next(filter(None, inner), None)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        where = f"{cls.__module__}.{cls.__qualname__}"
        raise PluginError(f"{where}: {error}; types of a config must be defined in the module") from error
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _is_config(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not Choice


def _kind(hint: Any) -> Kind | None:
    return next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Kind)), None)


def _short(value: Any) -> str:
    text = repr(to_mapping(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
