"""The machine: device, versions, seconds, signals."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rlalgo.errors import ConfigError

if TYPE_CHECKING:
    import torch


GRACE = 60.0
"""Seconds that a run has to write a checkpoint and end."""
PARENT = "RLALGO_PARENT"
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
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


def amount(value: float | None) -> str:
    """1,234 or 12.3 or 0.0123: about four digits; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == 0 or 1000 <= abs(value) < 1e7 else f"{value:.4g}"


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


def end_with_parent() -> None:
    """Where PARENT names who started this process: when they are gone, it is asked to stop, and killed if it does not.

    A parent that is killed can tell nobody; its children are handed on to another one.
    """
    parent = os.environ.pop(PARENT, None)  # it is none of this process's own children

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def birth(pid: int) -> str | None:
    """When a process of this machine began ('' where the system does not tell); None where there is none that lives."""
    if sys.platform == "win32":
        return ""  # what asks elsewhere would end it there
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else facts[18]  # a zombie is dead, and only its parent has not looked
    except OSError:  # there is no /proc, or not of other users, or the process has just ended
        with contextlib.suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
        return ""


def process_space() -> str:
    """What tells this machine, since it was started, from others: within it a process has its number for itself.

    On Windows it is another one at each call, so that processes are judged by their signs of life.
    """
    if sys.platform == "win32":
        return secrets.token_hex(8)
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


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


def cores() -> int:
    """How many of this machine's cores may be used here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Bytes of memory in all, of which a container has no more than it may use; endless where nobody says."""
    if not hasattr(os, "sysconf"):  # Windows
        return sys.maxsize
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        there = min(there, int(_CONTAINER.read_text()))
    return there


def memory(device: torch.device) -> int:
    """Bytes of memory that a device has in all."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return torch.mps.recommended_max_memory() if device.type == "mps" else host_memory()


def size(count: float) -> str:
    """Bytes for people: `3.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"


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
