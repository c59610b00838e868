"""Claims: of many processes one works in a folder, and a dead one's claim is taken over."""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlutils.config import claim as claims
from rlutils.config.claim import ClaimError, ClaimWarning, claimed, refuse_claimed
from rlutils.machine import birth


def in_child(act: Callable[[], Any]) -> int:
    """Does this in a forked process; its number."""
    if not (child := os.fork()):
        status = 1
        with contextlib.suppress(BaseException):
            act()
            status = 0
        os._exit(status)
    return child


def owner(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a claim in force says, changed."""
    (file,) = (folder / ".claim").iterdir()
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(values))
    file.rename(file.with_name(f"{values['token']}.json"))
    return values


@contextlib.contextmanager
def another(folder: Path, **changes: Any) -> Iterator[None]:
    """A claim of somebody else's, who never ends it."""
    with claimed(folder):
        shutil.copytree(folder / ".claim", folder / "copy")
    (folder / "copy").rename(folder / ".claim")
    owner(folder, token="0" * 16, **changes)
    yield


def test_a_claim_is_refused_by_name_while_its_owner_lives(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with claimed(folder) as claim:
        claim.hold()
        message = rf"run: process {os.getpid()} on .+, since 20.+, is at work here; wait for it, stop it, or"
        for claim_again in (lambda: claimed(folder).__enter__(), lambda: refuse_claimed(folder)):
            with pytest.raises(ClaimError, match=message):
                claim_again()
        assert [path.name for path in folder.iterdir()] == [".claim"]
    assert list(folder.iterdir()) == []
    refuse_claimed(folder)
    with claimed(folder):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_followed_at_once(reaped: bool, tmp_path: Path) -> None:
    def die() -> None:
        with claimed(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    child = in_child(die)
    os.waitid(os.P_PID, child, os.WEXITED | (0 if reaped else os.WNOWAIT))
    with claimed(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    if not reaped:
        os.waitpid(child, 0)


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    with another(tmp_path, birth="1"), claimed(tmp_path):
        pass
    assert birth(os.getpid())
    assert birth(2**22 + 1) is None  # Linux gives no such numbers


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims, "STALE", 0.6)


def test_one_of_another_machine_is_followed_when_it_stands_still(tmp_path: Path, quick: None) -> None:
    began = time.monotonic()
    heard = pytest.warns(ClaimWarning, match=r"process \d+ on elsewhere, .* it has 1 seconds to give a sign")
    with another(tmp_path, space="elsewhere 1", host="elsewhere"), heard, claimed(tmp_path) as claim:
        claim.hold()
        assert time.monotonic() - began > 0.6
    assert list(tmp_path.iterdir()) == []


def test_one_of_another_machine_that_beats_is_refused(tmp_path: Path, quick: None) -> None:
    with claimed(tmp_path) as claim:
        values = owner(tmp_path, space="elsewhere 1")
        object.__setattr__(claim.owner, "space", values["space"])  # as if this process were there
        with pytest.warns(ClaimWarning), pytest.raises(ClaimError, match="is at work here"):
            claimed(tmp_path).__enter__()
        claim.hold()


def test_where_processes_cannot_be_asked_signs_of_life_decide(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    refuse_claimed(tmp_path)
    with claimed(tmp_path), pytest.warns(ClaimWarning), pytest.raises(ClaimError, match="is at work here"):
        claimed(tmp_path).__enter__()
    with another(tmp_path), pytest.warns(ClaimWarning), claimed(tmp_path) as claim:
        claim.hold()


def test_who_lost_a_claim_is_told_and_leaves_the_next_ones_alone(tmp_path: Path) -> None:
    with claimed(tmp_path) as lost:
        (tmp_path / ".claim").rename(tmp_path / "aside")
        with claimed(tmp_path) as claim:
            with pytest.raises(ClaimError, match=r"no longer \(process \d+ on .* took it over\); nothing more"):
                lost.hold()
            claim.hold()
        shutil.copytree(tmp_path / "aside", tmp_path / ".claim")
        owner(tmp_path, token="0" * 16)
    assert owner(tmp_path)["token"] == "0" * 16
    with claimed(tmp_path / "gone") as claim:
        shutil.rmtree(tmp_path / "gone")
        with pytest.raises(ClaimError, match="it was removed"):
            claim.hold()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"token": "../../x"}'])
def test_what_is_no_claim_is_refused_and_stays(content: str, tmp_path: Path) -> None:
    (tmp_path / ".claim").mkdir()
    (tmp_path / ".claim" / "owner.json").write_text(content)
    with pytest.raises(ClaimError, match=r"\.claim: is no claim that a process here left; move it elsewhere"):
        claimed(tmp_path).__enter__()
    assert [path.name for path in tmp_path.rglob("*")] == [".claim", "owner.json"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClaimError, match=r"file/run cannot be written: Not a directory; choose another --out"):
        claimed(tmp_path / "file" / "run").__enter__()


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_of_many_that_race_and_die_one_is_at_work_at_a_time(
    rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def work() -> None:
        draw, until = random.Random(), time.monotonic() + 0.5
        while time.monotonic() < until:
            with contextlib.suppress(ClaimError), claimed(tmp_path / "run") as claim:
                os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))  # fails where another is inside
                claim.hold()
                (tmp_path / "done").open("a").write("x")
                (tmp_path / "inside").unlink()
                if draw.random() < 0.1:
                    os.kill(os.getpid(), signal.SIGKILL)  # and leaves the next dead one

    for _ in range(rounds):
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in [in_child(work) for _ in range(6)]]
        assert set(statuses) <= {0, -signal.SIGKILL}
    assert (tmp_path / "done").stat().st_size > 6 * rounds
    with claimed(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_threads_of_one_process_are_told_apart(tmp_path: Path) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        while True:
            with contextlib.suppress(ClaimError), claimed(tmp_path):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                with lock:
                    inside[0] -= 1
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
