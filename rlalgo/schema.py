"""What a config class says of itself: JSON schema for editors, types in words and docstrings for people."""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import textwrap
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from rlalgo.registry import Catalogue, to_mapping


def schema(cls: type, catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of a config class, with one alternative for every registered name."""
    definitions: dict[str, Any] = {}

    def of_class(cls: type, prefix: str) -> Any:
        template = f"#/definitions/{prefix}{{model}}"
        found = TypeAdapter(cls).json_schema(schema_generator=ConfigSchema, ref_template=template)
        found = json.loads(json.dumps(found), object_hook=with_names)
        definitions.update({prefix + name: part for name, part in found.pop("$defs", {}).items()})
        return found

    def with_names(part: dict[str, Any]) -> dict[str, Any]:
        """What `Kind` leaves open: the bare name where nothing else is required, or the name with its options."""
        if "x-kind" not in part:
            return part
        kind, role = part.pop("x-kind")
        bare, full = [], []
        for name in catalogue.names(kind, role):
            entry, key = catalogue.get(kind, name), f"{kind}.{name}"
            if key not in definitions:
                definitions[key] = {}  # taken before the recursion, so that a kind may contain itself
                found = of_class(entry.Config, f"{key}.")
                summary = (inspect.getdoc(entry.cls) or "").partition("\n")[0]
                properties, required = {"name": {"const": name}, **found["properties"]}, found.get("required", ())
                definitions[key] = {
                    **found, "description": summary, "properties": properties, "required": ["name", *required]
                }  # fmt: skip
            full.append({"$ref": f"#/definitions/{key}"})
            if len(defaults_of(entry.Config)) == len(dataclasses.fields(entry.Config)):  # none is required
                bare.append(name)
        either = [{"type": "string", "enum": bare}, *full] if bare else full
        return {**part, "oneOf": either} if either else {"not": {}}  # there is nothing to choose from

    return {"$schema": "http://json-schema.org/draft-07/schema#", **of_class(cls, ""), "definitions": definitions}


def describe(cls: type) -> list[tuple[str, str, str, str]]:
    """(name, type, default, documentation) of every field, for listings."""
    found = TypeAdapter(cls).json_schema(schema_generator=ConfigSchema)
    rows = []
    for name, part in found["properties"].items():
        default = part.get("default")
        if isinstance(default, dict) and set(default) == {"name"}:
            default = default["name"]
        text = default if isinstance(default, str) else json.dumps(default)
        text = "required" if name in found.get("required", ()) else text
        rows.append((name, in_words(part), text, part.get("description", "")))
    return rows


def in_words(part: dict[str, Any]) -> str:
    """A part of a JSON schema for people: `integer >= 1 or null`."""
    match part:
        case {"x-kind": [name, role]}:
            return f"{role} {name}" if role else name
        case {"anyOf": parts}:
            return " or ".join(map(in_words, parts))
        case {"enum": values}:
            return " or ".join(map(str, values))
        case {"const": value}:
            return str(value)
        case {"prefixItems": parts}:
            return f"[{', '.join(map(in_words, parts))}]"
        case {"items": inner}:
            return f"list of {in_words(inner)}" + (f", {part['maxItems']:,} at most" if "maxItems" in part else "")
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = " and ".join(f"{sign} {part[key]:,}" for key, sign in signs.items() if part.get(key, 1e12) < 1e12)
    name = part.get("format") or part.get("type") or ("object" if "$ref" in part else "anything")
    return f"{'mapping' if name == 'object' else name} {limits}".strip()


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring beneath each field of a dataclass, inherited ones too (which pydantic does not look for)."""
    docs: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):  # made at run time: there is no source to read
            continue
        for item, after in itertools.pairwise(getattr(definition, "body", ())):
            match item, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = inspect.cleandoc(text)
    return docs


def defaults_of(cls: type) -> dict[str, Any]:
    """The default of every field of a dataclass that has one."""
    fields, missing = dataclasses.fields(cls), dataclasses.MISSING
    plain = {field.name: field.default for field in fields if field.init and field.default is not missing}
    made = {field.name: field.default_factory() for field in fields if field.default_factory is not missing}
    return plain | made


class ConfigSchema(GenerateJsonSchema):
    """pydantic's, with docstrings and every default, without unknown keys and titles."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        found = {**super().dataclass_schema(schema), "additionalProperties": False}
        found.pop("title", None)
        docs, defaults = field_docs(schema["cls"]), to_mapping(defaults_of(schema["cls"]))
        for name, part in found["properties"].items():
            part |= {"description": docs[name]} if name in docs else {}
            part |= {"default": defaults[name]} if name in defaults else {}
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        return to_mapping(dft)
