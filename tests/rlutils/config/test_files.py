"""YAML by the rules of 1.2, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlalgo.errors import ConfigError
from rlutils.config.files import read_yaml, whole_folder, write_atomic, write_json, write_yaml
from rlutils.config.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("6.02e23", 6.02e23),
        ("1_000", 1000),
        ("100_000", 100_000),
        ("1_000.5", 1000.5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-31", "2024-01-31"),
        ("12:30:45", "12:30:45"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("0x", "0x"),
        ("1.2.3", "1.2.3"),
        ("_1", "_1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("'1'", "1"),
        ("=", "="),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    got = parse_yaml(f"a: {text}")["a"]
    assert got == value
    assert type(got) is type(value)


def test_nan() -> None:
    assert math.isnan(parse_yaml(".nan"))


def test_keys_follow_the_same_rules() -> None:
    assert parse_yaml("{on: 1, 010: 2, y: 3}") == {"on": 1, 10: 2, "y": 3}


def test_merge_keys_and_anchors() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {<<: *base, b: 3}\nlast: {<<: *more, c: 4}"
    values = parse_yaml(text)
    assert values["more"] == {"a": 1, "b": 3}
    assert values["last"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands here twice"),
        ("x:\n  lr: 1\n  'lr': 2\n", 3, "'lr' stands here twice"),
        ("x: {a: 1, a: 2}", 1, "twice"),
        ("- {a: 1}\n- {b: 1, b: 2}", 2, "twice"),
        ("a: [1, 2\nb: 3", 2, "expected"),
        ("a: 1\n b: 2", 2, "mapping values are not allowed"),
        ("a: !!python/object:os.system x", 1, "is not of a plain value"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: 1\n---\nb: 2", 2, "another document"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert words in str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: there is no such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: it is a folder; give a file"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        read_yaml(tmp_path / "binary.yaml")
    (tmp_path / "control.yaml").write_text("a: \x01")
    with pytest.raises(ConfigError, match=r"control\.yaml: is not YAML"):
        read_yaml(tmp_path / "control.yaml")


def test_files_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "name.yaml"
    write_yaml(path, {"name": "Žluťoučký kůň 🐎"})
    code = f"""
from pathlib import Path
from rlutils.config.files import read_yaml
print(ascii(read_yaml(Path({str(path)!r}))))
"""
    env = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": os.getcwd(),
    }
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ascii({"name": "Žluťoučký kůň 🐎"})


texts = st.text(st.characters(codec="utf-8"), max_size=30)
tricky = st.sampled_from(
    [
        "1e-4",
        "off",
        "010",
        "1_000",
        "~",
        "",
        "null",
        "true",
        ".inf",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "2024-01-31",
        "0x1f",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | tricky
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | tricky | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_yaml_reads_back_what_it_wrote(value: Any) -> None:
    again = parse_yaml(dump_yaml(value))
    assert again == value
    assert repr(again) == repr(value)  # 1 is not 1.0 or True


def test_shared_values_are_written_out() -> None:
    shared = [1]
    assert "&" not in dump_yaml({"a": shared, "b": shared})
    assert parse_yaml(dump_yaml({"a": (1, 2)})) == {"a": [1, 2]}


# --- writing ---


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # not mkstemp's 0600: others may read results


def test_write_atomic_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the rename, the old file is all there is under the name; a crash there leaves it so."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def crash(source: str, target: Path) -> None:
        seen.append((Path(source).read_text(), Path(target).read_text(), Path(source).parent))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert seen == [("new", "old", tmp_path)]  # complete before the rename, and in the same file system
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a disk that fills, without root."""
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")
    code = f"""
import resource
from pathlib import Path
from rlutils.config.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomic(Path({str(path)!r}), bytes(100_000))
except OSError as error:
    print("refused", error.errno)
"""
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("refused")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_a_missing_folder_is_an_error_without_litter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "a.txt", "x")
    assert os.listdir(tmp_path) == []


def test_json_refuses_what_is_not_json_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, 0.1]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": [1, None, 0.1]}
    assert os.listdir(tmp_path) == ["a.json"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
"""10^12 values in half a kilobyte."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 6: stands for more than 1,000,000 values, aliases written out"),
        (BOMB.rpartition("a11")[0] + "? *a10\n: 1\n", "stands for more than 1,000,000 values"),
        ("&a [*a]", "an alias stands for what it is a part of"),
        ("x: &a\n  y: *a", "an alias stands for what it is a part of"),
        ("[" * 100_000, "nests deeper than 50 levels"),
        ("[" * 60 + "]" * 60, "nests deeper than 50 levels"),
        ("\n".join(" " * i + "a:" for i in range(60)), "line 50: nests deeper than 50 levels"),
        ("a: 1\nb: !!int abc", "line 2: 'abc' is no int"),
        ("!!float abc", "'abc' is no float"),
        ("!!bool perhaps", "'perhaps' is no bool"),
        ("!!null x", "'x' is no null"),
        ("!!timestamp abc", "the tag 'tag:yaml.org,2002:timestamp' is not of a plain value"),
        ("!!binary '!'", "binary' is not of a plain value"),
        ("!!set {a, b}", "set' is not of a plain value"),
        ("!!omap [a: 1]", "omap' is not of a plain value"),
        ("!!python/object/apply:os.system [id]", "is not of a plain value"),
        ("!mine 3", "the tag '!mine' is not of a plain value"),
        ("9" * 5000, "a whole number of more than 100 digits"),
        ("0x" + "f" * 20_000, "a whole number of more than 100 digits"),
        ("? [a]\n: 1", "a key is a list or a mapping"),
        ('"\\Uffffffff"', "invalid Unicode character escape code"),
        ('"\\ud800"', "invalid Unicode character escape code"),
        ("x" * 1_000_001, "has 1,000,001 characters, and YAML has at most 1,000,000 here"),
    ],
)
def test_absurd_yaml_is_refused_at_once(text: str, message: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "file.yaml")
    (fault,) = caught.value.faults
    assert fault.startswith("file.yaml")
    assert message in fault
    assert len(fault.splitlines()) == 1
    assert time.perf_counter() - begin < 5


def test_aliases_and_merges_of_plain_size_are_read() -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, x: 2}\nd: !!int '3'\ne: !!str 3"
    same = {"x": 1, "y": [1, 2]}
    assert parse_yaml(text) == {"a": same, "b": same, "c": {"x": 2, "y": [1, 2]}, "d": 3, "e": "3"}


def test_nothing_is_written_that_would_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"large\.yaml: would have 1,\d{3},\d{3} characters, and 1,000,000 are read"):
        write_yaml(tmp_path / "large.yaml", ["x" * 99] * 10_500)
    assert not list(tmp_path.iterdir())


def test_what_is_no_plain_file_or_too_large_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(100_000_000)
    for path, message in (
        (tmp_path / "pipe.yaml", "is a pipe, a socket or a device; give a file"),
        (Path("/dev/zero"), "is a pipe, a socket or a device"),
        (tmp_path / "large.yaml", "has 100,000,000 bytes, and such a file has at most"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, rename = tmp_path / "out", Path.rename

    def write(text: str) -> None:
        with whole_folder(place) as folder:
            (folder / "file").write_text(text)
            if text == "broken":
                raise ValueError("no more of it")

    def refused(self: Path, target: Path) -> Path:
        if target == place and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with pytest.raises(ValueError, match="no more"):
        write("broken")
    assert not [*tmp_path.iterdir()]
    for text in ("first", "second"):
        write(text)
        assert (place / "file").read_text() == text
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(OSError, match="Input/output"):
            write("third")
    with pytest.raises(ValueError, match="no more"):
        write("broken")
    assert (place / "file").read_text() == "second"
    assert [*tmp_path.iterdir()] == [place]


@pytest.mark.parametrize("ends", ["broken", "whole"])
def test_what_a_killed_process_was_about_to_replace_comes_back(ends: str, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".out-{platform.node()}-{dead.pid}-abc"
    for folder, text in ((left, "half"), (left.with_name(f"{left.name}-old"), "old")):
        folder.mkdir()
        (folder / "file").write_text(text)
    with contextlib.suppress(ValueError), whole_folder(tmp_path / "out") as folder:
        assert (tmp_path / "out" / "file").read_text() == "old"
        (folder / "file").write_text("whole")
        if ends == "broken":
            raise ValueError
    assert (tmp_path / "out" / "file").read_text() == ("old" if ends == "broken" else "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
