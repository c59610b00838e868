"""Files that are never half-written, and YAML read by the rules of YAML 1.2."""

import json
import os
import platform
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from rlalgo.errors import ConfigError

Node = TypeVar("Node", bound=yaml.Node)

LARGEST_YAML = 2_000_000
"""Characters of a YAML text that is read; so many take half a minute."""
DEEPEST_YAML = 50
"""Levels of lists and mappings in one another."""
MOST_YAML = 1_000_000
"""Values in a YAML text, each alias counted as what it stands for."""
LONGEST_INT = 100
"""Digits of a whole number: many more, and Python refuses to write them out in a message."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes to a temporary name in the same folder, flushes to the disk and renames.

    Raises:
        OSError: nothing of the new content is left behind then, and an old file stays as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def alive(pid: int) -> bool:
    """Whether this machine runs a process of this number: what a dead one left half-written may go."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def own_folder(parent: Path, name: str, clear: Callable[[Path], None]) -> Path:
    """A new hidden folder of this process within `parent`, to write in before it is renamed.

    Args:
        parent: made if need be.
        name: of what is written; folders of the same name know each other.
        clear: removes such a folder that a process of this machine, now dead, left behind.

    Raises:
        OSError: `parent` cannot be written.
    """
    prefix = f".{name}-{platform.node()}-"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{prefix}*"):
        pid = old.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            clear(old)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def reserve(path: Path, size: int) -> None:
    """A new file of `size` bytes whose room is taken. A process dies when a map or HDF5 meets a full disk.

    Raises:
        OSError: it does not fit.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def cache_folder() -> Path:
    """Where what can be made again lies: $RLALGO_CACHE, or rlalgo in the user's cache folder. It may be deleted."""
    given = os.environ.get("RLALGO_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlalgo"


def write_json(path: Path, value: Any) -> None:
    """JSON, atomically. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """YAML, atomically."""
    write_atomic(path, dump_yaml(value))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: the file is missing, no plain file (a pipe or device might never end), larger than `LARGEST_YAML`,
            or not YAML of plain values (see `parse_yaml`); with file and line.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ConfigError([f"{path}: is a pipe, a socket or a device; give a YAML file"])
        if found.st_size > LARGEST_YAML:
            raise ConfigError([f"{path}: has {found.st_size:,} bytes, and a YAML file has at most {LARGEST_YAML:,}"])
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: cannot be read: it is a folder; give a YAML file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return parse_yaml(text, str(path))


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
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: escapes of what is no character
        raise ConfigError([f"{where}: is not YAML: {' '.join(str(error).split())}"]) from error


def first_fault(error: ValidationError) -> str:
    """Of a file that pydantic refuses: `callbacks.best: Input should be a valid dictionary`."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def dump_yaml(value: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core rules: `1e-4` is a float, `off` a string, `010` ten; `1_000` is a thousand besides."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.sizes: dict[int, int] = {}
        """Values that each complete node stands for, aliases written out."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        mark, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
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
