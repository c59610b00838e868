"""What the machine tells: clocks, and the signals that ask to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from rlutils.machine import amount, clock, listening


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (4.25, "4.25 s"), (59.4, "59.4 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_heard_and_do_nothing_else(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    heard: list[str] = []
    with listening(heard.append):
        for _ in range(2):
            os.kill(os.getpid(), number)
    assert heard == [number.name] * 2
    assert signal.getsignal(number) is before


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening(lambda name: pytest.fail(name)):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_hears_a_signal_may_raise_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    def refuse(name: str) -> None:
        raise KeyboardInterrupt(name)

    with pytest.raises(KeyboardInterrupt, match="SIGINT"), listening(refuse):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_leaves_signals_to_the_main_one() -> None:
    seen = []

    def work() -> None:
        with listening(lambda name: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_the_face_of_the_package_imports_what_is_asked_for_and_no_more() -> None:
    code = (
        "import sys, rlutils, rlutils.machine, rlutils.evaluation.statistics\n"
        "slow = {'torch', 'scipy', 'matplotlib', 'minari', 'mujoco'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "assert rlutils.train is rlutils.app.train and rlutils.Run and rlutils.load and rlutils.Controller\n"
        "assert set(rlutils.__all__) == {n for n in rlutils.__all__ if hasattr(rlutils, n)}\n"
        "assert not hasattr(rlutils, 'nothing')\n"
        "assert 'offline' in rlutils.catalogue().names('trainer')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_small_returns_keep_their_digits() -> None:
    """Success rates and sparse returns lie between 0 and 1: with one decimal, 0.84 and 0.76 look the same."""
    shown = [amount(value) for value in (0.0, 0.84, 0.8125, -20.272305, 499.96, 1234.56, -3e7)]
    assert shown == ["0", "0.84", "0.8125", "-20.27", "500", "1,235", "-3e+07"]
