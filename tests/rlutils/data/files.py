"""The same data in files of many kinds, and what is compared of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

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
