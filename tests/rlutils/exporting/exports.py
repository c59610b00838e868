"""Policies exported and native, side by side on the same histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

import rlutils
from rlalgo import BatchRLAlgo, Choice, DataSpec, Episodes
from rlalgo.config import parse
from rlalgo.core.spaces import to_mapping
from rlalgo.plugins import make
from rlutils.data.images import Images
from rlutils.data.preparation import Preparation, read_record
from rlutils.data.spaces import flatten_actions, stored_actions, time_first, unflatten_action

PLUGINS = ["rlalgo_cnn"]
CNN = {"name": "cnn", "channels": [4], "kernels": [3], "strides": [2]}
FUSION = {"name": "fusion", "image_encoder": CNN, "image_dim": 8, "hidden_dims": [8]}
DT = {"context_length": 4, "embed_dim": 16, "n_layers": 2, "n_heads": 2, "warmup": 1, "return_scale": 10.0}
RGB = spaces.Box(0, 255, (20, 24, 3), np.uint8)


def trained(
    name: str,
    raw: spaces.Space,
    actions: spaces.Space,
    images: Images | None = None,
    frame_stack: int = 1,
    **options: Any,
) -> BatchRLAlgo:
    """An algorithm after three updates on random episodes of these raw spaces."""
    raw.seed(0)
    actions.seed(0)
    preparation, n = Preparation(raw, images), 30
    record = {**preparation.record, **({} if stored_actions(actions) is actions else {"actions": to_mapping(actions)})}
    spec = DataSpec(preparation.space, stored_actions(actions), frame_stack, max_steps=9, preprocess=record)
    acted = np.stack([np.asarray(actions.sample()) for _ in range(n)])
    acted = acted if "actions" not in record else flatten_actions(actions, acted)
    observations = preparation(time_first(raw, [raw.sample() for _ in range(n + 3)]))
    rewards, ends = torch.randn(n, generator=torch.Generator().manual_seed(0)), torch.arange(1, n + 1) % 10 == 0
    starts = torch.arange(0, n + 1, 10)
    kind = torch.float32 if isinstance(actions, spaces.Box) else torch.int64
    episodes = Episodes(
        torch.from_numpy(np.asarray(observations, preparation.space.dtype)), torch.from_numpy(acted).to(kind), rewards,
        torch.zeros_like(ends), ends, starts, spec,
    )  # fmt: skip
    catalogue = rlutils.catalogue(PLUGINS)
    entry = catalogue.get("algo", name)
    torch.manual_seed(0)
    algo = make("algo", Choice(name, options, entry, parse(entry.Config, options, catalogue, name)), spec)
    algo.prepare(episodes, 100)
    data = algo.dataset(episodes)
    for step in range(1, 4):
        algo.update(data.gather(data.rows(16, torch.Generator().manual_seed(step))), step)
    return algo.eval()


def differences(
    algo: BatchRLAlgo,
    exported: Any,
    observations: Sequence[Any],
    rewards: np.ndarray,
    targets: np.ndarray | None = None,
    raw: spaces.Space | None = None,
) -> np.ndarray:
    """(T, n) the largest difference between the actions of the export and of the native policy, n rows for T steps.

    Args:
        algo: the native one.
        exported: of n rows.
        observations: T times n raw observations, batched.
        rewards: (T, n) after each step.
        targets: (n,) returns to ask for, if any.
        raw: the space of the raw observations; None: they are as the data has them.
    """
    n, kind, record = rewards.shape[1], type(algo).PolicyConfig, read_record(algo.spec.preprocess)
    options = [kind()] * n if targets is None else [kind(target_return=float(target)) for target in targets]
    native, rows, found, played = algo.policy(options), torch.arange(n), [], []
    preparation = None if raw is None else Preparation(record.flatten or raw, record.images)
    native.reset(rows)
    exported.reset(targets)
    for t, seen in enumerate(observations):
        stored = seen if preparation is None else np.asarray(preparation(seen), algo.spec.observation_space.dtype)
        own = native.act(torch.as_tensor(stored), rows).numpy()
        if record.actions is not None:
            own = np.stack([unflatten_action(record.actions, action) for action in own])
        theirs = exported.act(seen, rewards[t - 1] if t else None)
        assert theirs.shape == own.shape
        assert theirs.dtype == own.dtype
        native.observe(torch.from_numpy(rewards[t]), rows)
        found.append(np.abs(theirs.astype(float) - own).reshape(n, -1).max(1))
        played.append(own)
    assert (np.stack(played) != played[0][0]).any(), "a policy that always does the same shows nothing"
    return np.stack(found)
