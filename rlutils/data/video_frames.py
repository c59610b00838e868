"""Frames of films by their times, through the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np


class VideoFrames:
    """Frames of an .mp4 file, decoded one after another as they are asked for; use it as a context manager.

    Args:
        path: of the file.
        shape: (H, W, 3) of a frame.

    Raises:
        ValueError: it is no such film, or its frames have another size.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._shape = path, shape
        self._process: subprocess.Popen[bytes] | None = None
        self._at = -1  # number of the frame that was decoded last
        packets = subprocess.run(
            self._command("-c", "copy", "-f", "framecrc"), capture_output=True, text=True, check=False
        )
        found = re.search(r"^#dimensions 0: (\d+)x(\d+)", packets.stdout, re.MULTILINE)
        unit = re.search(r"^#tb 0: (\d+)/(\d+)", packets.stdout, re.MULTILINE)
        shown = re.findall(r"^0, *-?\d+, *(-?\d+),", packets.stdout, re.MULTILINE)
        if packets.returncode or not found or not unit or not shown:
            raise ValueError("no film that ffmpeg reads")
        if (size := (int(found[2]), int(found[1]))) != shape[:2]:
            raise ValueError(f"frames of {size[0]}x{size[1]}, expected {shape[0]}x{shape[1]}")
        self.times = np.sort(np.array(shown, np.float64)) * int(unit[1]) / int(unit[2])
        """(F,) seconds at which each frame is shown."""

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def at(self, time: float, tolerance: float) -> np.ndarray:
        """The frame that is nearest to a time; quickest where times rise.

        Args:
            time: in seconds.
            tolerance: seconds that it may be away.

        Returns:
            (H, W, 3) uint8.

        Raises:
            ValueError: there is no frame then, or the file ends before it should.
        """
        after = int(np.searchsorted(self.times, time))
        around = range(max(after - 1, 0), min(after + 1, len(self.times)))
        nearest = min(around, key=lambda index: abs(self.times[index] - time))
        if not abs(self.times[nearest] - time) <= tolerance:  # NaN is nowhere
            raise ValueError(f"no frame at {time:.4f} s; the nearest is at {self.times[nearest]:.4f} s")
        return self._frame(nearest)

    def _frame(self, index: int) -> np.ndarray:
        if self._process is None or index < self._at:
            self._start()
        while self._at < index:
            assert self._process is not None
            assert self._process.stdout is not None
            content = self._process.stdout.read(int(np.prod(self._shape)))
            if len(content) < np.prod(self._shape):
                raise ValueError(f"ends after {self._at + 1} frames, expected {len(self.times)}")
            self._at, self._last = self._at + 1, np.frombuffer(content, np.uint8).reshape(self._shape)
        return self._last

    def _start(self) -> None:
        self._stop()
        how = ("-fps_mode", "passthrough", "-sws_flags", "bilinear", "-pix_fmt", "rgb24", "-f", "rawvideo")
        self._process = subprocess.Popen(self._command(*how), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._at = -1

    def _stop(self) -> None:
        if self._process is not None:
            with self._process:  # closes the pipe, and waits
                self._process.kill()
            self._process = None

    def _command(self, *how: str) -> Sequence[str]:
        """Nothing but this file is opened, whatever it says."""
        alone = ("-nostdin", "-protocol_whitelist", "file,pipe", "-f", "mov")
        reading = ("-v", "error", "-noautorotate", "-copyts", "-i", f"file:{self._path}", "-map", "0:v:0")
        return [imageio_ffmpeg.get_ffmpeg_exe(), *alone, *reading, *how, "pipe:1"]
