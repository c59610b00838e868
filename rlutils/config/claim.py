"""A claim: one process at a time works in a folder, whichever machines share it.

`.claim` is a folder with one file, named by a token that tells the claim from every other one. It is made under another
name and renamed, which one process alone can do and which brings it whole; it ends when that very file is removed.
Whether a process of this machine lives is known. Those of others renew their claim's time, and lose the claim when it
has stood still while we watched: no two clocks are compared.
"""

import contextlib
import errno
import os
import platform
import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from rlalgo.errors import RlalgoError, RlalgoWarning
from rlutils.config.files import write_json
from rlutils.machine import birth, process_space

NAME = ".claim"
BEAT = 15.0
"""Seconds between two signs of life."""
STALE = 120.0
"""Seconds without one, after which a claim of another machine is taken over."""


class ClaimError(RlalgoError):
    """Another process is at work in the folder, or it cannot be claimed."""


class NoClaim(ClaimError):
    """What lies where a claim would is none."""


class ClaimWarning(RlalgoWarning):
    """It takes a while to tell whether the owner of a claim lives."""


@dataclass(frozen=True)
class Owner:
    token: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """Tells the claim from every other one."""
    host: str
    pid: int
    since: str
    space: str
    """Within which `pid` means something."""
    birth: str
    """When the process began: numbers are used again."""

    def lives(self) -> bool:
        """To be asked on its machine."""
        return birth(self.pid) in ("", self.birth)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@dataclass(frozen=True)
class Claim:
    folder: Path
    owner: Owner

    @property
    def file(self) -> Path:
        return _file(self.folder, self.owner)

    def hold(self) -> None:
        """ClaimError where it is lost: the folder is gone, or was taken over while this process stood still."""
        if not self.file.exists():
            found = _owner(self.folder)
            what = f"{found} took it over" if found else "it was removed"
            raise ClaimError(f"{self.folder}: is this process's no longer ({what}); nothing more is written")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """While this lasts, no other process may claim the folder, which is made if need be.

    Raises:
        ClaimError: a process that lives has claimed it, or it cannot be written.
    """
    try:
        claim = _take(folder)
    except OSError as error:
        raise ClaimError(f"{folder} cannot be written: {error.strerror}; choose another --out") from error
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, done), daemon=True)
    beating.start()
    try:
        yield claim
    finally:
        done.set()
        beating.join()
        with contextlib.suppress(OSError):
            _clear(folder)
            _end(folder, claim.owner)


def refuse_claimed(folder: Path) -> None:
    """ClaimError where a process of this machine is at work in the folder."""
    with contextlib.suppress(NoClaim):  # whoever claims the folder is told
        if (owner := _owner(folder)) and owner.space == process_space() and owner.lives():
            raise _taken(folder, owner)


def is_claimed(folder: Path) -> bool:
    """Whether a claim is in force, or was when its process was killed."""
    with contextlib.suppress(NoClaim):
        return _owner(folder) is not None
    return False


def _take(folder: Path) -> Claim:
    pid, now = os.getpid(), datetime.now().astimezone().isoformat(timespec="seconds")
    owner = Owner(secrets.token_hex(8), platform.node(), pid, now, process_space(), birth(pid) or "")
    claim, mine = folder / NAME, folder / f"{NAME}-{owner.token}"
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            mine.mkdir(exist_ok=True)
            try:
                write_json(mine / f"{owner.token}.json", asdict(owner))
                mine.rename(claim)
                return Claim(folder, owner)
            except FileNotFoundError:  # cleared away by an owner who has just ended
                continue
            except OSError:
                if not claim.exists():
                    raise
            if (other := _owner(folder)) is None:
                _remove(claim)
            elif other.space == owner.space and other.lives():
                raise _taken(folder, other)
            elif other.space == owner.space or _stands_still(folder, other):
                _end(folder, other)
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _end(folder: Path, owner: Owner) -> None:
    """Ends this owner's claim and no other one, whose file has another name."""
    with contextlib.suppress(FileNotFoundError):
        _file(folder, owner).unlink()
    _remove(folder / NAME)


def _remove(claim: Path) -> None:
    """The folder of a claim that has ended, unless the next one is in force there by now, or another has removed it."""
    try:
        claim.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise


def _clear(folder: Path) -> None:
    """Removes what killed processes left of claims never made. Each is renamed first: one that its owner is about to
    bring into force is whole or not there."""
    for path in folder.glob(f"{NAME}-{'[0-9a-f]' * 16}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path.rename(path.with_name(f"{NAME}-{secrets.token_hex(8)}")))


def _stands_still(folder: Path, owner: Owner) -> bool:
    """Whether the claim's time stood still for STALE seconds; ClaimError where it did not, False for a new owner."""
    message = f"{folder}: {owner}, seems to be at work here; it has {STALE:.0f} seconds to give a sign of life"
    warnings.warn(message, ClaimWarning, stacklevel=2)
    file = _file(folder, owner)
    sign, until = _sign(file), time.monotonic() + STALE
    while time.monotonic() < until:
        time.sleep(min(1.0, BEAT))
        if not file.exists():
            return False
        if _sign(file) != sign:
            raise _taken(folder, owner)
    return True


def _beat(claim: Claim, done: threading.Event) -> None:
    while not done.wait(BEAT):
        try:
            claim.hold()
            os.utime(claim.file)
        except ClaimError:
            return
        except OSError:
            pass  # of a network for a moment; the next one may pass


def _sign(file: Path) -> int | None:
    """A claim's time, of an opened file, as network file systems remember the times of others."""
    with contextlib.suppress(OSError), file.open() as opened:
        return os.fstat(opened.fileno()).st_mtime_ns
    return None


def _file(folder: Path, owner: Owner) -> Path:
    return folder / NAME / f"{owner.token}.json"


def _owner(folder: Path) -> Owner | None:
    """Whose claim is in force; None where there is none.

    Raises:
        NoClaim: what lies there is none.
    """
    for path in (folder / NAME).glob("*"):
        try:
            owner = TypeAdapter(Owner).validate_json(path.read_bytes())
            if path == _file(folder, owner):
                return owner
        except FileNotFoundError:
            continue  # it has just ended
        except (OSError, ValidationError):
            pass
        raise NoClaim(f"{folder / NAME}: is no claim that a process here left; move it elsewhere")
    return None


def _taken(folder: Path, owner: Owner) -> ClaimError:
    return ClaimError(f"{folder}: {owner}, is at work here; wait for it, stop it, or choose another --out")
