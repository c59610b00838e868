"""The same data in files of many kinds, and what is compared of it."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import torch
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from rlalgo import Episodes
from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlalgo.errors import DataError
from rlutils.data.d4rl_source import D4rlSource
from rlutils.data.npz_source import NpzSource
from rlutils.data.robomimic_source import RobomimicSource
from rlutils.data.trajectories_source import TrajectoriesSource

Columns = dict[str, Any]

NAMES = {"npz": NpzSource, "d4rl": D4rlSource, "trajectories": TrajectoriesSource, "robomimic": RobomimicSource}
D4RL = {"terminations": "terminals", "truncations": "timeouts"}


def load(name: str, path: Path, **options: Any) -> Episodes:
    source: Any = NAMES[name]
    if name == "robomimic":
        options = {"keys": ("first", "second"), **options}
    return source(source.Config(path=path, **options)).load()


def flat(episodes: Episodes) -> Columns:
    """Columns of N rows each, as people keep them."""
    final = episodes.starts[1:] + torch.arange(len(episodes))  # (E,)
    rows = torch.ones(len(episodes.observations), dtype=torch.bool)
    rows[final] = False
    steps = rows.nonzero()[:, 0]
    return {
        "observations": episodes.observations[steps].numpy(),
        "next_observations": episodes.observations[steps + 1].numpy(),
        "actions": episodes.actions.numpy(),
        "rewards": episodes.rewards.numpy(),
        "terminations": episodes.terminations.numpy(),
        "truncations": episodes.truncations.numpy(),
    }


def trajectories(columns: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """As the authors of the Decision Transformer cut a D4RL file."""
    ends = np.flatnonzero(columns["terminations"] | columns["truncations"]) + 1
    parts = {D4RL.get(name, name): np.split(column, ends[:-1]) for name, column in columns.items()}
    parts.pop("timeouts")
    return [{name: part[i] for name, part in parts.items()} for i in range(len(ends))]


def write(name: str, path: Path, columns: Mapping[str, Any]) -> None:
    if name == "npz":
        np.savez_compressed(path, **columns)
    elif name == "d4rl":
        with h5py.File(path, "w") as file:
            for column, values in columns.items():
                file.create_dataset(D4RL.get(column, column), data=values, compression="gzip")
    elif name == "trajectories":
        path.write_bytes(pickle.dumps(trajectories(columns)))
    else:
        with h5py.File(path, "w") as file:
            for i, part in enumerate(trajectories(columns)):
                demo = file.create_group(f"data/demo_{i}")
                for key, own in (("observations", "obs"), ("next_observations", "next_obs")):
                    if key in part:
                        demo[f"{own}/first"], demo[f"{own}/second"] = part[key][:, :2], part[key][:, 2:]
                for key, own in (("actions", "actions"), ("rewards", "rewards"), ("terminals", "dones")):
                    if key in part:
                        demo[own] = part[key]


def write_film(path: Path, frames: np.ndarray, fps: int) -> None:
    """Frames (T, H, W, 3) without loss; LeRobot's own are AV1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size, how = (frames.shape[2], frames.shape[1]), ["-crf", "0", "-g", "2"]
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=fps, codec="libx264rgb", pix_fmt_out="rgb24", macro_block_size=1, output_params=how
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def write_lerobot(folder: Path, columns: Columns, lengths: Any, films: Columns | None = None, fps: int = 10) -> None:
    """A dataset in LeRobot's format v3: two files of steps, and of every camera one film for all but the first episode.

    Args:
        folder: is made.
        columns: (N, ...) of steps by their features' names; bytes (N, H, W, 3) are images in the table.
        lengths: (E,) steps of each episode.
        films: (N, H, W, 3) bytes by the cameras' names.
        fps: frames a second.
    """
    lengths = np.asarray(lengths)
    ends, ids = np.cumsum(lengths), np.repeat(np.arange(len(lengths)), lengths)
    starts, index = ends - lengths, np.arange(ends[-1])
    frame = index - starts[ids]
    columns = {
        **columns, "timestamp": (frame / fps).astype(np.float32), "frame_index": frame, "episode_index": ids,
        "index": index, "task_index": ids % 2,
    }  # fmt: skip
    features: dict[str, Any] = {}
    table: dict[str, Any] = {}
    for name, values in columns.items():
        kind, shape = str(values.dtype), list(values.shape[1:]) or [1]
        if values.dtype == np.uint8 and values.ndim == 4:
            kind, rows = "image", []
            for image in values:
                Image.fromarray(image).save(content := io.BytesIO(), "PNG")
                rows.append({"bytes": content.getvalue(), "path": None})
            table[name] = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        elif shape == [1]:
            table[name] = pa.array(values.reshape(-1))
        else:
            table[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        features[name] = {"dtype": kind, "shape": shape, "names": None}
    second = (np.arange(len(lengths)) > len(lengths) // 2).astype(int)
    episodes: Columns = {
        "episode_index": np.arange(len(lengths)), "tasks": [["push"]] * len(lengths), "length": lengths,
        "data/chunk_index": second, "data/file_index": second,
        "dataset_from_index": starts, "dataset_to_index": ends,
    }  # fmt: skip
    for key, frames in (films or {}).items():
        features[key] = {"dtype": "video", "shape": list(frames.shape[1:]), "names": ["height", "width", "channels"]}
        later = (np.arange(len(lengths)) > 0).astype(int)
        episodes |= {f"videos/{key}/chunk_index": 0 * later, f"videos/{key}/file_index": later}
        episodes[f"videos/{key}/from_timestamp"] = later * (starts - lengths[0]) / fps
        for i, part in enumerate(np.split(frames, [lengths[0]])):
            write_film(folder / f"videos/{key}/chunk-000/file-{i:03d}.mp4", part, fps)
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": len(lengths), "total_frames": int(ends[-1]),
        "total_tasks": 2, "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"}, "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }  # fmt: skip
    for i in range(2):
        rows = np.flatnonzero(second[ids] == i)
        if len(rows):
            path = folder / f"data/chunk-{i:03d}/file-{i:03d}.parquet"
            path.parent.mkdir(parents=True)
            parquet.write_table(pa.table(table).take(pa.array(rows)), path)
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    parquet.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    tasks = pa.table({"task_index": [0, 1], "task": ["push", "pull"]})
    parquet.write_table(tasks, folder / "meta/tasks.parquet")
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    (folder / "meta" / "stats.json").write_text("{}")


def lerobot_features(columns: Mapping[str, Any]) -> Columns:
    """Columns of steps by LeRobot's names."""
    names = {
        "observation.state": "observations", "action": "actions", "next.reward": "rewards",
        "next.done": "terminations", "next.truncated": "truncations",
    }  # fmt: skip
    return {own: columns[name] for own, name in names.items()}


def assert_same(data: Episodes, original: Episodes) -> None:
    for name in ("observations", "actions", "rewards", "terminations", "truncations", "starts", "has_final"):
        found, expected = getattr(data, name), getattr(original, name)
        assert found.dtype == expected.dtype, name
        assert torch.equal(found, expected), name
    assert data.spec.observation_space == original.spec.observation_space
    assert data.spec.action_space == original.spec.action_space
    assert data.spec.max_steps == original.spec.max_steps


def losses(data: Episodes) -> list[float]:
    torch.manual_seed(0)
    config = DecisionTransformer.Config(context_length=4, embed_dim=16, n_layers=1, dropout=0.0, return_scale=10)
    algo = DecisionTransformer(data.spec, config)
    algo.prepare(data, 5)
    windows, generator = algo.dataset(data), torch.Generator().manual_seed(0)
    batches = [windows.gather(windows.rows(8, generator)) for _ in range(5)]
    return [float(algo.update(batch, step)["actor/loss"]) for step, batch in enumerate(batches)]


def damage(path: Path, draw: st.DataObject) -> None:
    """Cuts a file short, or changes some of its bytes."""
    content = bytearray(path.read_bytes())
    if draw.draw(st.booleans()):
        content = content[: draw.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(draw.draw(st.integers(1, 4))):
            content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    path.write_bytes(content)


def assert_one_line(read: Callable[[], Episodes]) -> None:
    """What is read can be learnt from, or is refused in one line."""
    said = ""
    try:
        read().check("what was read of it")
    except DataError as error:
        said = str(error)
    assert "\n" not in said
