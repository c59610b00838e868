"""Files that are never half-written, and what is read of YAML and JSON files."""

import contextlib
import functools
import json
import math
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlalgo.errors import CheckpointError, ConfigError, DataError, first_fault
from rlutils.config.yaml_text import LARGEST_YAML, LONGEST_INT, dump_yaml, parse_yaml
from rlutils.machine import birth

LARGEST_JSON = 64_000_000
"""Bytes of a JSON file that is read: the returns and lengths of two million episodes."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes all of a file, as `replacing` says."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder to write to; then it is flushed to the disk and renamed.

    Raises:
        OSError: nothing of the new content is left behind then, and an old file stays as it was.
    """
    handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        yield temporary
        os.fsync(handle)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        persist(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def persist(path: Path) -> None:
    """Has a file's content, or the names in a folder, outlive a power cut, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def own_folder(parent: Path, name: str, clear: Callable[[Path], None]) -> Path:
    """A new hidden folder of this process within `parent`, to write in before it is renamed.

    Args:
        parent: made if need be.
        name: of what is written; folders of the same name know each other.
        clear: removes such a folder that a process of this machine, now dead, left behind.

    Raises:
        OSError: `parent` cannot be written.
    """
    prefix = f".{name}-{platform.node()}-"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{prefix}*"):
        pid = old.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and birth(int(pid)) is None:
            clear(old)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to write in, which takes its place at the end, whatever lies there.

    Killed between the two, the old one comes back with the next folder of this name.

    Raises:
        OSError: nothing of the new folder is left then, and an old one stays as it was.
    """
    path = path.absolute()
    new = own_folder(path.parent, path.name, functools.partial(_settle, path=path))
    old = new.with_name(f"{new.name}{_OLD}")
    try:
        yield new
        new.chmod(0o755)
        for file in (new, *new.rglob("*")):
            persist(file)
        if os.path.lexists(path):
            path.rename(old)
        try:
            new.rename(path)
        finally:
            if os.path.lexists(old):
                _settle(old, path)
        persist(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


_OLD = "-old"
"""Ends the name of the folder that is about to be replaced."""


def _settle(left: Path, path: Path) -> None:
    """Removes what was being written; what was about to be replaced comes back if nothing has taken its place."""
    if left.name.endswith(_OLD) and not os.path.lexists(path):
        left.rename(path)
    elif left.is_symlink():
        left.unlink()
    else:
        shutil.rmtree(left, ignore_errors=True)


def reserve(path: Path, size: int) -> None:
    """A new file of `size` bytes whose room is taken. A process dies when a map or HDF5 meets a full disk.

    Raises:
        OSError: it does not fit.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def cache_folder() -> Path:
    """Where what can be made again lies: $RLALGO_CACHE, or rlalgo in the user's cache folder. It may be deleted."""
    given = os.environ.get("RLALGO_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlalgo"


def write_json(path: Path, value: Any) -> None:
    """JSON, atomically. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """YAML, atomically.

    Raises:
        ConfigError: it would be larger than what is read.
        OSError: see `write_atomic`.
    """
    if len(text := dump_yaml(value)) > LARGEST_YAML:
        why = "a space whose bounds differ from number to number takes some 20 for each"
        raise ConfigError([f"{path}: would have {len(text):,} characters, and {LARGEST_YAML:,} are read: {why}"])
    write_atomic(path, text)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: the file is missing, no plain file (a pipe or device might never end), larger than `LARGEST_YAML`,
            or not YAML of plain values (see `parse_yaml`); with file and line.
    """
    return parse_yaml(read_text(path, LARGEST_YAML), str(path))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ConfigError: the file is missing, no plain file, larger than `LARGEST_JSON`, or not JSON; NaN is none.
    """
    try:
        text = read_text(path, LARGEST_JSON)
        return json.loads(text, parse_constant=_number, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: is not JSON: {error}"]) from error


def read_as(kind: Any, path: Path, cure: str = "") -> Any:
    """The content of a JSON or YAML file that the package has written, as a value of this type.

    Args:
        kind: whatever pydantic can validate.
        path: its name tells the format.
        cure: what to do about a file that is none, for the error to end with.

    Raises:
        CheckpointError: the file or a key in it is at fault; both are named.
    """
    try:
        values = read_json(path) if path.suffix == ".json" else read_yaml(path)
        return _adapter(kind).validate_python(values)
    except (ConfigError, DataError, ValidationError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else str(error).splitlines()[-1].strip()
        text = why if isinstance(error, ConfigError) else f"{path}: {why}"
        raise CheckpointError(f"{text}; {cure}" if cure else text) from error


def disk_failed(error: BaseException | None) -> bool:
    """Whether a file could not be read, behind this error, so that nothing is known of its content."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def read_text(path: Path, most: int) -> str:
    """The content of a plain file of at most that many bytes, in UTF-8.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ConfigError([f"{path}: is a pipe, a socket or a device; give a file"])
        if found.st_size > most:
            raise ConfigError([f"{path}: has {found.st_size:,} bytes, and such a file has at most {most:,}"])
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: cannot be read: it is a folder; give a file"]) from None
    except (OSError, ValueError) as error:  # no UTF-8, or a name that no file can have
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error


def _number(text: str) -> int | float:
    """Of JSON. Python would take NaN, infinity, and more digits than it writes out in messages."""
    value = int(text) if text.lstrip("-").isdigit() and len(text) <= LONGEST_INT else float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
