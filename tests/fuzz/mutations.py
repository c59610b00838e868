"""What may befall a file: values of another kind, bytes of another make, another thing in its place."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

ESCAPES = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e[bold red]x[/]"
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 0.5, -0.5, 1e-300, 1e300, float("inf"), float("nan"), 2**31, 2**63, -(2**63),
    10**12, 10**30, 10**99, "", "x", "3", "-1", "null", ESCAPES, "é" * 50, "x" * 5_000, "../../../etc/passwd", "\x00",
    "evil", "evil:Env-v0", "./evil.py", {"name": "gym", "id": "evil:Env-v0"}, {"name": "nobody"}, {"name": ["x"]},
    [], {}, [[]], [{}], [None], {"": None}, {"x": 1}, {"name": None}, [1, 2, 3], ["step_000000020"] * 3,
    list(range(500)),
]  # fmt: skip
"""To put in the place of others, modules that lie in the working folder among them."""

JUNK = [
    b"\x00", b"\xff\xfe", b"[" * 9_000, b"- " * 100, b"nan", b"\n\n,,,\n", b"9" * 6_000, ESCAPES.encode(),
    b"!!python/object/apply:os.system ['touch executed']\n",
]  # fmt: skip


def times(count: int) -> settings:
    """So many draws of hypothesis; what fails is gathered, not narrowed down."""
    return settings(max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested values."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(values: Any, draw: Callable[..., Any]) -> Any:
    """Nested values with one to three of them dropped, renamed, doubled, of another kind, size or sign."""
    values = copy.deepcopy(values)
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        found = list(places(values))
        if not found:
            return draw(st.sampled_from(VALUES))
        *path, last = draw(st.sampled_from(found))
        parent = values
        for key in path:
            parent = parent[key]
        how = draw(st.sampled_from(["value", "value", "near", "near", "drop", "rename", "sign", "deep", "wide"]))
        if how == "drop":
            del parent[last]
        elif how == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["x", "", ESCAPES, "k" * 5_000, "Name"]))] = parent.pop(last)
        elif how == "sign" and isinstance(parent[last], int | float):
            parent[last] = -parent[last] - 1
        elif how == "near" and isinstance(parent[last], bool | int | float):
            parent[last] = type(parent[last])(draw(st.sampled_from([parent[last] * 2, parent[last] + 1, 0, 1])))
        elif how == "deep":
            for _ in range(draw(st.sampled_from([3, 60, 400]))):
                parent[last] = [parent[last]]
        elif how == "wide" and isinstance(parent, dict):
            parent.update({f"more{i}": parent[last] for i in range(50)})
        else:
            parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return values


def _bytes(data: bytes, draw: Callable[..., Any]) -> bytes:
    """Bytes that are flipped, cut, doubled or put in."""
    how = draw(st.sampled_from(["flip", "flip", "cut", "insert", "double", "empty", "junk"]))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if how == "flip" and data:
        near = min(at, draw(st.sampled_from([len(data) - 1, 200])))  # headers matter more than weights
        return data[:near] + bytes([data[near] ^ draw(st.integers(1, 255))]) + data[near + 1 :]
    if how == "insert":
        return data[:at] + draw(st.sampled_from(JUNK)) + data[at:]
    return {"cut": data[:at], "double": data + data, "junk": bytes(range(256)) * 8}.get(how, b"")


def _header(data: bytes, draw: Callable[..., Any]) -> bytes:
    """A safetensors file whose header says something else."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(changed(json.loads(data[8 : 8 + length]), draw)).encode(errors="replace")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def structured(file: Path, draw: Callable[..., Any]) -> bytes:
    """The content of a YAML, JSON or safetensors file, changed in what it says."""
    data = file.read_bytes()
    if file.suffix == ".safetensors":
        return _header(data, draw)
    if file.suffix == ".json":
        return json.dumps(changed(json.loads(data), draw)).encode(errors="replace")
    values = changed(yaml.safe_load(data), draw)
    try:
        return yaml.safe_dump(values, allow_unicode=draw(st.booleans())).encode(errors="replace")
    except RecursionError:
        return b"[" * 1000


def replace(file: Path, other: Path, draw: Callable[..., Any]) -> str:
    """Puts another thing in the place of a file: of another run, a folder, a pipe, links, far too much; says which."""
    how = draw(
        st.sampled_from(["gone", "other", "folder", "full folder", "pipe", "itself", "nowhere", "device", "large"])
    )
    file.unlink()
    if how == "other" and other.is_file():
        shutil.copyfile(other, file)
    elif how in ("folder", "full folder"):
        file.mkdir()
        if how == "full folder":
            (file / "kept.txt").write_text("mine")
    elif how == "pipe":
        os.mkfifo(file)
    elif how in ("itself", "nowhere", "device"):
        file.symlink_to({"itself": file, "nowhere": file.parent / "no" / "such", "device": Path("/dev/zero")}[how])
    elif how == "large":
        with file.open("wb") as opened:
            opened.truncate(300_000_000)
    return how


def mutate(file: Path, other: Path, draw: Callable[..., Any]) -> str:
    """Changes a file in one of all these ways; says how.

    Args:
        file: what to change.
        other: the file of this name in another run.
        draw: of hypothesis.
    """
    kinds = ["bytes", "place"]
    if file.suffix in (".yaml", ".json", ".safetensors"):
        kinds += ["structure"] * 4
    kind = draw(st.sampled_from(kinds))
    if kind == "place":
        return f"{file.name}: {replace(file, other, draw)}"
    file.write_bytes(structured(file, draw) if kind == "structure" else _bytes(file.read_bytes(), draw))
    return f"{file.name}: {kind}"
