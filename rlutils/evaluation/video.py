"""Frames to a video file."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np

from rlalgo.errors import RlalgoError


class VideoError(RlalgoError):
    """A video could not be written."""


def write_video(frames: Iterable[np.ndarray], path: Path, fps: int) -> None:
    """Writes frames one by one as they come, under a temporary name that is renamed at the end.

    Args:
        frames: (H, W, 3) uint8 each, all of one size.
        path: a file that ends in .mp4 (H.264, plays in every browser) or .gif; an old one is replaced.
        fps: frames per second.

    Raises:
        VideoError: the ending is unknown, there are no frames, one is of another shape, or the file cannot be
            written. Nothing is left behind then, and an old file stays as it was.
    """
    if path.suffix not in (".mp4", ".gif"):
        raise VideoError(f"{path}: the name of a video must end in .mp4 or .gif")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise VideoError(f"{path}: cannot be written: {error}") from error
    temporary = Path(name)
    try:
        _write(frames, temporary, path, fps)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(frames: Iterable[np.ndarray], temporary: Path, path: Path, fps: int) -> None:
    film = path.suffix == ".mp4"
    # A macro block of 1 keeps the size of the frames; _even sees to what H.264 needs.
    options = {"fps": fps, "macro_block_size": 1} if film else {"duration": 1000 / fps, "loop": 0}
    writer: Any = imageio.get_writer(temporary, **options)
    shape: tuple[int, ...] | None = None
    count = 0
    try:
        for count, frame in enumerate(frames, 1):
            right = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
            if not right or frame.shape != (shape or frame.shape):
                got, expected = f"{frame.dtype} {frame.shape}", f"{shape} as before" if shape else "(H, W, 3)"
                raise VideoError(f"{path}: frame {count - 1} is {got}, expected uint8 {expected}")
            shape = frame.shape
            writer.append_data(_even(frame))
    finally:
        writer.close()  # imageio's context manager leaves ffmpeg running after an exception
    if count == 0:
        raise VideoError(f"{path}: there are no frames to write")
    if film and _frames_in(temporary) != count:  # nothing else tells that ffmpeg failed (a full disk, say)
        raise VideoError(f"{path}: cannot be written: ffmpeg did not finish it; is the disk full?")


def _frames_in(path: Path) -> int:
    try:
        return int(imageio_ffmpeg.count_frames_and_secs(str(path))[0])
    except (RuntimeError, OSError):  # no video at all
        return 0


def _even(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) with H and W even, as H.264 wants them: the last row or column is repeated."""
    height, width, _ = frame.shape
    if height % 2 == width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
