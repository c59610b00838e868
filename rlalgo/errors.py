"""Errors a person can act on: each says where, what was got and what to do.

The command line prints these without a traceback; anything else is a defect of ours.
"""

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError


class RlalgoError(Exception):
    """Base of every error that is meant to be read by the user."""


class ConfigError(RlalgoError):
    """A setting is wrong. `faults` lists every fault found, each beginning with its dotted path."""

    def __init__(self, faults: Iterable[str], where: str = "") -> None:
        self.faults = list(faults)
        head = f"{where}: " if where else ""
        count = len(self.faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults[:50])
        lines += f"\n  and {count - 50:,} more" if count > 50 else ""
        super().__init__(f"{head}{count} fault{'s' if count != 1 else ''} in the configuration\n{lines}")


class DataError(RlalgoError):
    """A dataset holds something that training must not see."""


class PluginError(RlalgoError):
    """A plugin cannot be loaded, breaks a rule, or owns a name that another one owns too."""


class PluginClash(PluginError):
    """Two plugins own one name."""


class CheckpointError(RlalgoError):
    """A checkpoint is missing, incomplete, foreign or could not be written."""


class EnvironmentFault(RlalgoError):
    """An environment cannot be made, does not fit the data, or breaks while it is played."""


class EvaluatorFault(RlalgoError):
    """An evaluator raised, or gave what is no number."""


class CallbackFault(RlalgoError):
    """A callback, or a plugin's run-time hook, raised."""


class TrainingError(RlalgoError):
    """Training cannot go on (NaN or exploding loss, ...)."""


class RlalgoWarning(UserWarning):
    """Something went on that the user should know of; the command line prints it as one line."""


def near(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest of the `known` names, or an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def told(error: BaseException) -> str:
    """An error of somebody else's code on one line, with the place that raised it: `KeyError: 'x' (my_env.py:12)`."""
    text = clipped(str(error), 300)
    if isinstance(error, RlalgoError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


@contextlib.contextmanager
def blaming(kind: type[RlalgoError], what: str) -> Iterator[None]:
    """Whatever is raised within becomes an error of this kind about `what`, unless it says so itself."""
    try:
        yield
    except RlalgoError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise kind(f"{what}: {told(error)}") from error


def shown(value: object) -> str:
    """A value that was got instead of another, on one short line."""
    return clipped(repr(value), 60)


def clipped(text: str, most: int) -> str:
    """Printable characters alone, on one line of that many at most."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_fault(error: ValidationError) -> str:
    """Of what pydantic refuses: `callbacks.best: Input should be a valid dictionary`."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
