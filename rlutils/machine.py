"""The machine: device, versions, seconds, signals."""

from __future__ import annotations

import contextlib
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from rlalgo.errors import ConfigError

if TYPE_CHECKING:
    import torch


_STOPPING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self.start


def clock(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `4.25 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def amount(value: float) -> str:
    """A return as text, small ones with four digits: `3,123.4`, `-20.27`, `0.8125`."""
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


@contextlib.contextmanager
def listening(on_signal: Callable[[str], None]) -> Iterator[None]:
    """While this lasts, SIGINT, SIGTERM and SIGHUP do nothing but call `on_signal` with their names.

    SIGHUP stays ignored where it is (`nohup`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; whoever made the thread decides there
        return
    handlers = {
        number: signal.signal(number, lambda number, _: on_signal(signal.Signals(number).name))
        for number in _STOPPING
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def pick_device(name: str) -> torch.device:
    """`auto`, or what is named; ConfigError if it is not there."""
    import torch  # a second to import, which clocks and signals need not wait for

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name)  # of other names torch lists twenty, most of no use here
        why = f" ({str(error).splitlines()[0]})" if known else ""
        choices = "choose auto, cpu, cuda, cuda:N or mps"
        raise ConfigError([f"device: '{name}' cannot be used here{why}; {choices}"]) from error
    return device


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[None]:
    """While this lasts, torch computes with this many threads; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """What a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("rlalgo", "torch", "numpy", "gymnasium", "mujoco", "minari"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
