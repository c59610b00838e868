"""What a suite's folder is to hold, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlalgo.errors import ConfigError
from rlutils.config.files import read_yaml

PLAN = "suite.yaml"
"""The file in a suite's folder that says which runs were planned."""


_HOW_NOT_WHAT = ("threads", "plugins")
"""Settings that may change before a run goes on: they say how it runs and where code is found."""


@dataclass(frozen=True)
class PlannedRun:
    name: str
    algo: str
    dataset: str
    options: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """suite.yaml: what a suite's folder is to hold."""

    suite: str
    runs: list[PlannedRun]


def last_error(log: Path, start: int = 0) -> str:
    """What a run's log ends with from this byte on, in one line: its error, else what it said last, else nothing."""
    text = log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    at = next((i for i in reversed(range(len(lines))) if lines[i].startswith(("error: ", "Traceback"))), None)
    if at is not None and lines[at].startswith("Traceback"):  # its frames are indented, the error is not
        at = next((i for i in range(at + 1, len(lines)) if not lines[i].startswith(" ")), None)
    return one_line("\n".join(lines[-1:] if at is None else lines[at:]).removeprefix("error: "))


def one_line(text: str) -> str:
    """The lines of a message one after another."""
    return "; ".join(line.strip().rstrip(".") for line in text.splitlines() if line.strip())


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern names this path of labels, or a beginning of it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")


def chosen(name: str, only: Sequence[str]) -> bool:
    """Whether one of the patterns names this run; all runs are chosen where there is none."""
    return not only or any(matches(pattern, name) for pattern in only)


def read_plan(folder: Path) -> Plan:
    """What was planned for a suite's folder.

    Raises:
        ConfigError: suite.yaml is missing or broken.
    """
    try:
        return TypeAdapter(Plan).validate_python(read_yaml(folder / PLAN))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        cure = "run `rlalgo sweep` again, which writes it"
        raise ConfigError([f"{folder / PLAN}: {at}: {first['msg']}; {cure}"]) from error


def differences(one: Any, two: Any, path: str = "") -> list[str]:
    """Where two configurations differ, `algo.lr: 0.001, now 0.01`, apart from what does not matter to a result."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = [key for key in {**one, **two} if path or key not in _HOW_NOT_WHAT]
        found = (differences(one.get(key), two.get(key), f"{path}.{key}" if path else key) for key in keys)
        return [text for texts in found for text in texts]
    return [] if json.dumps(one) == json.dumps(two) else [f"{path}: {json.dumps(one)}, now {json.dumps(two)}"]
