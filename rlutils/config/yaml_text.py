"""YAML by the rules of YAML 1.2, and of that what stands for plain values: a text to values and back."""

import re
from typing import Any, TypeVar

import yaml
from yaml.composer import Composer

from rlalgo.errors import ConfigError

Node = TypeVar("Node", bound=yaml.Node)

LARGEST_YAML = 1_000_000
"""Characters of a YAML text that is read; so many take some two seconds."""
DEEPEST_YAML = 50
"""Levels of lists and mappings in one another."""
MOST_YAML = 1_000_000
"""Values in a YAML text, each alias counted as what it stands for."""
LONGEST_INT = 100
"""Digits of a whole number: many more, and Python refuses to write them out in a message."""


def parse_yaml(text: str, where: str = "value") -> Any:
    """The plain values that a text in YAML stands for: mappings, lists, strings, numbers, booleans and null.

    Raises:
        ConfigError: it is no YAML, has a key twice or one that is no plain value, a tag of another kind, a number that
            is none, nests too deeply, or its aliases stand for too much.
    """
    if len(text) > LARGEST_YAML:
        raise ConfigError([f"{where}: has {len(text):,} characters, and YAML has at most {LARGEST_YAML:,} here"])
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError([f"{where}, line {line}: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, ValueError) as error:  # the latter: halves of a character
        raise ConfigError([f"{where}: is not YAML: {' '.join(str(error).split())}"]) from error


def dump_yaml(value: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Loader(Composer, yaml.CSafeLoader):
    """YAML 1.2's core rules: `1e-4` is a float, `off` a string, `010` ten; `1_000` is a thousand besides.

    libyaml makes the events, several times faster than PyYAML; nodes are composed here, where they are counted.
    """

    def __init__(self, stream: str) -> None:
        yaml.CSafeLoader.__init__(self, stream)
        Composer.__init__(self)
        self.depth = 0
        self.sizes: dict[int, int] = {}
        """Values that each complete node stands for, aliases written out."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event, is_alias = self.peek_event(), self.check_event(yaml.AliasEvent)
        mark = event and event.start_mark
        self.depth += 1
        if self.depth > DEEPEST_YAML:
            raise _refusal(f"nests deeper than {DEEPEST_YAML} levels", mark)
        node = super().compose_node(parent, index)
        assert node is not None
        self.depth -= 1
        if not is_alias:
            self.sizes[id(node)] = 1 + sum(self.sizes[id(part)] for part in _parts(node))
        elif id(node) not in self.sizes:
            raise _refusal("an alias stands for what it is a part of", mark)
        if self.sizes[id(node)] > MOST_YAML:
            raise _refusal(f"stands for more than {MOST_YAML:,} values, aliases written out", mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        kind, pattern = node.tag.removeprefix("tag:yaml.org,2002:"), _PATTERNS.get(node.tag)
        if pattern is None and kind != "str":
            raise _refusal(f"the tag '{node.tag}' is not of a plain value", node.start_mark)
        if pattern is not None and not pattern.match(node.value):
            raise _refusal(f"'{node.value}' is no {kind}", node.start_mark)
        if kind == "int" and len(node.value) > LONGEST_INT:
            raise _refusal(f"a whole number of more than {LONGEST_INT} digits", node.start_mark)
        node.value.encode()  # halves of a character pass YAML, but can be written nowhere
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        return _plain(super().compose_sequence_node(anchor), "seq")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = _plain(super().compose_mapping_node(anchor), "map")
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal("a key is a list or a mapping", key.start_mark)
            if (key.tag, key.value) in seen:
                raise _refusal(f"the key '{key.value}' stands here twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """What a list or mapping holds."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _plain(node: Node, kind: str) -> Node:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise _refusal(f"the tag '{node.tag}' is not of a plain value", node.start_mark)
    return node


def _refusal(message: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, message, mark)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


_INT = re.compile(r"^[-+]?[0-9][0-9_]*$|^0o[0-7]+$|^0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_RULES = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789.")),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)
_PATTERNS = {tag: pattern for tag, pattern, _ in _RULES}
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RULES:
        _class.add_implicit_resolver(_tag, _pattern, _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text, 10)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
