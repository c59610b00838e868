"""Videos are read back with ffmpeg's own reader."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from rlutils.evaluation.video import VideoError, write_video


def frames(n: int = 12, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """A red bar that moves to the right by four columns a frame, on gray."""
    for i in range(n):
        frame = np.full((height, width, 3), 90, np.uint8)
        frame[:, 4 * i : 4 * i + 8] = (230, 30, 30)
        yield frame


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
@pytest.mark.parametrize("size", [(48, 64), (51, 67)])
def test_frames_come_back(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"film{ending}"
    write_video(frames(12, *size), path, fps=20)
    back = imageio.mimread(path)
    assert len(back) == 12
    even = tuple(side + side % 2 for side in size)
    for i, (frame, truth) in enumerate(zip(back, frames(12, *size), strict=True)):
        assert frame.shape[:2] == even
        difference = np.abs(frame[: size[0], : size[1], :3].astype(int) - truth)
        assert difference.mean() < 6, f"frame {i}"
        assert frame[20, 4 * i + 4, 0] > 180  # the bar is where it was drawn
    with imageio.get_reader(path) as reader:
        told = reader.get_meta_data()
    assert told["fps"] == 20 if ending == ".mp4" else told["duration"] == 50
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_goes_wrong_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text("old")
    small, gray = next(frames(1, 20, 20)), np.zeros((48, 64), np.uint8)
    wrong = [
        (iter([]), "there are no frames"),
        (iter([gray]), r"frame 0 is uint8 \(48, 64\), expected uint8 \(H, W, 3\)"),
        (iter([*frames(2), small]), r"frame 2 is uint8 \(20, 20, 3\), expected uint8 \(48, 64, 3\) as before"),
        (iter([np.zeros((48, 64, 3))]), "frame 0 is float64"),
    ]
    for given, message in wrong:
        with pytest.raises(VideoError, match=message):
            write_video(given, path, 20)
    with pytest.raises(ZeroDivisionError):  # what plays the frames may fail as well
        write_video((frame for i, frame in enumerate(frames(4)) if 1 / (2 - i)), path, 20)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"film.avi: the name of a video must end in .mp4 or .gif"):
        write_video(frames(), tmp_path / "film.avi", 20)
    with pytest.raises(VideoError, match=r"film.mp4: cannot be written: .*No such file"):
        write_video(frames(), tmp_path / "nowhere" / "film.mp4", 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE")
def test_a_full_disk(tmp_path: Path) -> None:
    """ffmpeg may not write more than a kilobyte."""
    import resource

    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(60))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(VideoError, match=r"film.mp4: cannot be written"):
            write_video(noise, tmp_path / "film.mp4", 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
