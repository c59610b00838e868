"""Mappings to frozen dataclasses and back: strict, every fault at once, each with its dotted path.

A Config is a frozen standard dataclass; every field has a docstring beneath it and its range in its type.
Values are checked by pydantic in strict mode; what pydantic does not know (named choices, near names for
unknown keys, docstrings as documentation) is here. A Choice or a Config may stand in a field by itself, in
X | None or in tuple[X, ...].
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo

from rlalgo.errors import ConfigError, PluginError, a, near
from rlalgo.registry import Catalogue, Choice, Kind

T = TypeVar("T")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


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


def parse_into(cls: type, values: Any, catalogue: Catalogue, path: str, faults: list[str]) -> Any:
    """As `parse`, but adds faults to the list given, and returns None if there were any here."""
    if dataclasses.is_dataclass(values) and isinstance(values, cls):
        values = {f.name: getattr(values, f.name) for f in _fields(cls)}
    if not isinstance(values, Mapping):
        faults.append(f"{path or 'top level'}: expected a mapping, got {_short(values)}")
        return None
    before = len(faults)
    hints = _hints(cls)
    for key in values:
        if key not in hints:
            cure = near(key, hints) or f" Known: {', '.join(hints) or 'none'}"
            faults.append(f"{_join(path, key)}: unknown key '{key}'.{cure}")
    arguments: dict[str, Any] = {}
    for field in _fields(cls):
        hint, place = hints[field.name], _join(path, field.name)
        if field.name not in values and _required(field):
            faults.append(f"{place}: missing; {_kind_of_value(hint)} is needed")
            continue
        value = values[field.name] if field.name in values else _default(field)
        arguments[field.name] = _value(hint, value, catalogue, place, faults)
    if len(faults) > before:
        return None
    try:
        return cls(**arguments)
    except ValueError as error:  # a __post_init__ that compares fields
        faults.append(f"{path}: {error}" if path else str(error))
        return None


def resolve(kind: Kind, value: Any, catalogue: Catalogue, path: str, faults: list[str]) -> Choice | None:
    """A mapping with `name`, a bare name or a Choice -> a Choice that knows its class and checked config."""
    if isinstance(value, Choice):
        name, options = value.name, value.options
    elif isinstance(value, str):
        name, options = value, {}
    elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
        name, options = value["name"], {k: v for k, v in value.items() if k != "name"}
    else:
        known = ", ".join(catalogue.names(kind.name, kind.role))
        expected = f"the name of {a(kind.name)}, or {{name: ...}} with options"
        faults.append(f"{path}: expected {expected}, got {_short(value)}. Known: {known}")
        return None
    try:
        entry = catalogue.get(kind.name, name, kind.role)
    except PluginError as error:
        faults.append(f"{path}: {error}")
        return None
    config = parse_into(entry.cls.Config, options, catalogue, path, faults)
    return None if config is None else Choice(name, options, entry, config)


def to_mapping(value: Any) -> Any:
    """A config (or any part of one) as plain values for YAML: every default written out."""
    if isinstance(value, Choice):
        options = to_mapping(value.options if value.config is None else value.config)
        return {"name": value.name, **options}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def schema(cls: type, catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of a config class, with one alternative for every registered name."""
    defs: dict[str, Any] = {}
    out = _object_schema(cls, catalogue, defs)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **out, "definitions": defs}


def check_fields(cls: type, where: str) -> None:
    """PluginError for a field of a config class that no YAML file could give."""
    try:
        hints = _hints(cls)
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from error
    for name, hint in hints.items():
        if name == "name":
            raise PluginError(f"{where}: a field cannot be called 'name', which says what is chosen; rename it")
        how, part = _part(hint)
        while how in ("optional", "tuple"):
            how, part = _part(part)
        try:
            if how == "config":
                check_fields(part, f"{where}.{name}")
            elif how == "plain" and _holds_config(part):
                shapes = "X, X | None or tuple[X, ...], X being a config or Annotated[Choice, Kind(...)]"
                raise PluginError(f"{where}.{name}: {part} is not read from YAML; use {shapes}")
            elif how == "plain":
                TypeAdapter(part, config=_STRICT).json_schema()
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise PluginError(f"{where}.{name}: values of {part} cannot be read from YAML") from error


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring beneath each field of a dataclass."""
    docs: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # made at run time: there is no source to read
            continue
        body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
        for item, after in itertools.pairwise(body):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[item.target.id] = inspect.cleandoc(after.value.value)
    return docs


def describe(cls: type) -> list[tuple[str, str, str, str]]:
    """(name, type, default, documentation) of every field, for listings."""
    hints, docs = _hints(cls), field_docs(cls)
    rows = []
    for field in _fields(cls):
        default = "required" if _required(field) else _show(_default(field))
        rows.append((field.name, _kind_of_value(hints[field.name]), default, docs.get(field.name, "")))
    return rows


def _value(hint: Any, value: Any, catalogue: Catalogue, path: str, faults: list[str]) -> Any:
    how, part = _part(hint)
    if how == "choice":
        return resolve(part, value, catalogue, path, faults)
    if how == "config":
        return parse_into(part, value, catalogue, path, faults)
    if how == "optional":
        return None if value is None else _value(part, value, catalogue, path, faults)
    if how == "tuple" and isinstance(value, list | tuple):
        return tuple(_value(part, v, catalogue, f"{path}[{i}]", faults) for i, v in enumerate(value))
    if how == "tuple":
        faults.append(f"{path}: expected a list, got {_short(value)}")
        return None
    # Through JSON, as a YAML file would come: lists become tuples and strings paths, nothing else is coerced.
    try:
        plain = to_mapping(value)
        return TypeAdapter(hint, config=_STRICT).validate_json(json.dumps(plain))
    except ValidationError as error:
        faults += _faults(error, plain, hint, path)
    except (TypeError, ValueError):
        faults.append(f"{path}: expected {_kind_of_value(hint)}, got {_short(value)}")
    return None


def _faults(error: ValidationError, value: Any, hint: Any, path: str) -> list[str]:
    """One line for each place at fault; pydantic gives one for each member of a union, under its own name."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for fault in error.errors(include_url=False):
        place, got = path, value
        for part in fault["loc"]:
            if isinstance(got, list) and isinstance(part, int) and part < len(got):
                place, got = f"{place}[{part}]", got[part]
            elif isinstance(got, Mapping) and part in got:
                place, got = f"{place}.{part}", got[part]
        message = fault["msg"].removeprefix("Input ")
        message = message.replace("a valid array", "a list").replace("an object", "a mapping")
        if fault["type"] in ("missing", "too_long"):  # of a tuple's items
            message = f"should be {_kind_of_value(hint)}"
        found.setdefault(place, (got, []))[1].append(message)
    faults = []
    for place, (got, messages) in found.items():
        what = " or ".join([messages[0], *(message.removeprefix("should be ") for message in messages[1:])])
        hint_at = near(got, _literals(hint))
        faults.append(f"{place}: {what}, got {_short(got)}{'.' if hint_at else ''}{hint_at}")
    return faults


def _object_schema(cls: type, catalogue: Catalogue, defs: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    hints, docs = _hints(cls), field_docs(cls)
    properties: dict[str, Any] = {} if name is None else {"name": {"const": name}}
    required = [] if name is None else ["name"]
    for field in _fields(cls):
        entry = _value_schema(hints[field.name], catalogue, defs)
        if field.name in docs:
            entry = {**entry, "description": docs[field.name]}
        if _required(field):
            required.append(field.name)
        elif (default := to_mapping(_default(field))) is not None:
            entry = {**entry, "default": default}
        properties[field.name] = entry
    out = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**out, "required": required} if required else out


def _value_schema(hint: Any, catalogue: Catalogue, defs: dict[str, Any]) -> dict[str, Any]:
    how, part = _part(hint)
    if how == "choice":
        return _choice_schema(part, catalogue, defs)
    if how == "config":
        return _object_schema(part, catalogue, defs)
    if how == "optional":
        return {"anyOf": [_value_schema(part, catalogue, defs), {"type": "null"}]}
    if how == "tuple":
        return {"type": "array", "items": _value_schema(part, catalogue, defs)}
    return TypeAdapter(hint, config=_STRICT).json_schema()


def _choice_schema(kind: Kind, catalogue: Catalogue, defs: dict[str, Any]) -> dict[str, Any]:
    """The bare name where nothing else is required, or the name with its options."""
    bare, full = [], []
    for name in catalogue.names(kind.name, kind.role):
        key = f"{kind.name}.{name}"
        cls = catalogue.get(kind.name, name).cls
        if key not in defs:
            defs[key] = {}  # taken before the recursion, so that a kind may contain itself
            summary = (inspect.getdoc(cls) or "").partition("\n")[0]
            defs[key] = {"description": summary, **_object_schema(cls.Config, catalogue, defs, name)}
        full.append({"$ref": f"#/definitions/{key}"})
        if not any(_required(field) for field in _fields(cls.Config)):
            bare.append(name)
    either = [{"type": "string", "enum": bare}, *full] if bare else full
    return {"oneOf": either} if either else {"not": {}}  # there is nothing to choose from


def _fields(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.init]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        where = f"{cls.__module__}.{cls.__qualname__}"
        raise PluginError(f"{where}: {error}; types of a config must be defined in the module") from error
    return {field.name: hints[field.name] for field in _fields(cls)}


def _part(hint: Any) -> tuple[str, Any]:
    """How a value of this type is read: ("choice", Kind), ("config", class), (how, X) or ("plain", hint)."""
    kind = _choice_kind(hint)
    if kind is not None:
        return "choice", kind
    if _is_config(hint):
        return "config", hint
    for how, inner in (("optional", _optional(hint)), ("tuple", _tuple_item(hint))):
        if inner is not None and _part(inner)[0] != "plain":
            return how, inner
    return "plain", hint


def _holds_config(hint: Any) -> bool:
    return hint is Choice or _is_config(hint) or any(map(_holds_config, typing.get_args(hint)))


def _literals(hint: Any) -> list[str]:
    """The strings that a type allows by name."""
    if typing.get_origin(hint) is typing.Literal:
        return [value for value in typing.get_args(hint) if isinstance(value, str)]
    return [name for inner in typing.get_args(hint) for name in _literals(inner)]


def _choice_kind(hint: Any) -> Kind | None:
    if typing.get_origin(hint) is Annotated and typing.get_args(hint)[0] is Choice:
        return next((m for m in typing.get_args(hint)[1:] if isinstance(m, Kind)), None)
    return None


def _is_config(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not Choice


def _optional(hint: Any) -> Any:
    """X of `X | None`, else None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(rest) == 1 and len(rest) < len(typing.get_args(hint)):
            return rest[0]
    return None


def _tuple_item(hint: Any) -> Any:
    """X of `tuple[X, ...]`, else None."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return None


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _kind_of_value(hint: Any) -> str:
    """A type in words, for people: `int >= 1 or null`."""
    kind = _choice_kind(hint)
    if kind is not None:
        return f"{kind.role} {kind.name}" if kind.role else kind.name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([_kind_of_value(arguments[0]), _limits(arguments[1:])]).strip()
    if origin is typing.Literal:
        return " or ".join(str(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind_of_value(inner) for inner in arguments)
    if _tuple_item(hint) is not None:
        return f"list of {_kind_of_value(arguments[0])}"
    if origin in (Mapping, dict):
        return "mapping"
    if arguments:
        return f"{origin.__name__}[{', '.join(_kind_of_value(inner) for inner in arguments)}]"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _limits(notes: tuple) -> str:
    """`>= 1` and the like, as far as the notes of an Annotated type have them."""
    rules = [rule for note in notes if isinstance(note, FieldInfo) for rule in note.metadata]
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [f"{sign} {getattr(r, key)}" for r in rules for key, sign in signs.items() if hasattr(r, key)]
    return " and ".join(found)


def _show(value: Any) -> str:
    value = to_mapping(value)
    if isinstance(value, dict) and set(value) == {"name"}:
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    text = repr(to_mapping(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
