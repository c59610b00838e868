"""What a power cut leaves: a disk that keeps a change for certain only once its file or its folder has been flushed."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import rlutils
from tests.rlutils.runs import toy_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds a descriptor's path in /proc")


class Disk:
    """Watches a folder, and keeps of every file and folder whether a power cut could take it or what is in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.loose, self.lost = str(folder), dict[str, str](), list[str]()
        replace, fsync = os.replace, os.fsync

        def flushed(handle: int) -> None:
            fsync(handle)
            path = os.readlink(f"/proc/self/fd/{handle}")
            self.loose = {name: way for name, way in self.loose.items() if path not in (name, way)}

        def renamed(old: Any, new: Any, **at: Any) -> None:
            old, new = str(old), str(new)
            self.at_rename(old, new)
            replace(old, new, **at)
            moved = {
                (new + name.removeprefix(old) if name.startswith(old) else name): way
                for name, way in self.loose.items()
            }
            self.loose = {**moved, new: os.path.dirname(new)}

        sys.addaudithook(self)
        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", renamed)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            path = os.path.realpath(arguments[0])
            if path.startswith(self.folder + "/"):
                self.loose[path] = path

    def at_rename(self, old: str, new: str) -> None:
        """The index is about to name a checkpoint: whatever it relies on must be on the disk."""
        if os.path.basename(new) == "index.json":
            relied = [name for name in self.loose if "/checkpoints/" in name or name.endswith("metrics.csv")]
            self.lost += relied
            assert old not in self.loose


def test_what_the_index_names_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    trainer = {"name": "offline", "steps": 12, "batch_size": 4, "checkpoint_every": 4}
    rlutils.train(toy_config("bc", trainer=trainer, callbacks=[{"name": "csv", "every": 2}]), out=tmp_path / "run")
    assert disk.lost == []
    assert (tmp_path / "run" / "checkpoints" / "index.json").exists()
