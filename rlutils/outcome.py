"""How a command ends: what went wrong in one line, and the exit status."""

import contextlib
import functools
import os
import re
import signal
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer

from rlalgo.errors import RlalgoError, RlalgoWarning
from rlutils.terminal import Terminal


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Prints expected errors and chooses the exit status: 2 for an error, 128 and its number after a signal."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*arguments, **options)
        except RlalgoError as error:
            complain(f"error: {error}")
            for note in getattr(error, "__notes__", []):
                complain(note)
            raise typer.Exit(2) from None
        except BaseException as stop:
            if not _interrupted(stop):
                raise
            text = str(stop) if isinstance(stop, KeyboardInterrupt) else ""
            with contextlib.suppress(OSError):  # after SIGHUP there may be nobody to tell
                complain(text or "stopped")
            name = next((name for name in ("SIGTERM", "SIGHUP") if name in text), "SIGINT")
            raise typer.Exit(128 + signal.Signals[name]) from None

    return wrapper


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it; what it meets within an import may come out as an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def on_interrupt(number: int, frame: FrameType | None) -> None:
    """Handles SIGINT: a KeyboardInterrupt, but in the midst of an import the end of the process.

    What is half imported answers an exception with any error of its own, or goes on as if nothing had been.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"stopped\n")
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt


def complain(text: str) -> None:
    """A line for the person at the terminal."""
    Terminal(stderr=True).print(text, soft_wrap=True)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Our own warnings as one plain line; others as ever, but for Gymnasium's colors."""
    if issubclass(category, RlalgoWarning):
        complain(f"warning: {message}")
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        complain(re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip())
