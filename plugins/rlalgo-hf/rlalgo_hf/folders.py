"""Folders that are never half-written."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rlutils.config.files import own_folder


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to write into, which takes its place at the end, whatever lies there.

    Raises:
        OSError: nothing of the new folder is left then, and an old one stays as it was.
    """
    path = path.absolute()
    temporary = own_folder(path.parent, path.name, shutil.rmtree)
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if os.path.lexists(path):
            old = own_folder(path.parent, path.name, shutil.rmtree)
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
