"""How a command ends: what went wrong in one line, and the exit status."""

import contextlib
import functools
import signal
import warnings
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from rlalgo.errors import RlalgoError, RlalgoWarning


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Prints expected errors and chooses the exit status: 2 for an error, 128 and its number after a signal."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning(warnings.showwarning)
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
    if isinstance(error, ImportError) and "more than once per process" in str(error):
        return True  # numpy, imported anew after torch swallowed the interrupt of its first import
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def complain(text: str) -> None:
    """A line for the person at the terminal."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def _show_warning(before: Any) -> Any:
    """Our own warnings as one plain line; others as ever."""

    def show(message: Any, category: Any, *rest: Any, **options: Any) -> None:
        if issubclass(category, RlalgoWarning):
            complain(f"warning: {message}")
        else:
            before(message, category, *rest, **options)

    return show
