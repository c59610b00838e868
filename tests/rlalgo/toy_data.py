"""Small random episodes of every kind of data, with no two rows alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes
from rlalgo.core.spaces import Packed

OBSERVATIONS: dict[str, spaces.Box] = {
    "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "discrete": spaces.Box(-5.0, 5.0, (2,), np.float32),
    "frames": spaces.Box(0, 255, (4, 5), np.uint8),
    "channels": spaces.Box(0, 255, (2, 4, 5), np.uint8),
    "multi": spaces.Box(-5.0, 5.0, (2,), np.float32),
    "packed": Packed(
        spaces.Dict([("at", spaces.Box(-5.0, 5.0, (3,), np.float32)), ("eye", spaces.Box(0, 255, (2, 4, 5), np.uint8))])
    ),
}
BOX_ACTIONS = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))
MULTI_ACTIONS = spaces.MultiDiscrete([3, 2], start=[-1, 4])


def make_episodes(
    kind: str = "box",
    lengths: Sequence[int] = (3, 1, 4),
    seed: int = 0,
    terminated: Sequence[bool] | None = None,
    has_final: Sequence[bool] | None = None,
    **spec: Any,
) -> Episodes:
    """Episodes of these lengths; `terminated` says how each ends (at random by default).

    Kinds: box (vectors, continuous actions), discrete (vectors), multi (vectors, two discrete actions at a time), and
    frames (H, W) and channels (C, H, W) of uint8 and packed (channels and vectors), all with discrete actions.
    """
    rng = np.random.default_rng(seed)
    n, e = int(sum(lengths)), len(lengths)
    space = OBSERVATIONS[kind]
    if isinstance(space, Packed):
        at = rng.uniform(-4, 4, (n + e, 3)).astype(np.float32)
        observations = space.pack({"at": at, "eye": rng.integers(0, 256, (n + e, 2, 4, 5), np.uint8)})
    elif space.dtype == np.uint8:
        observations = rng.integers(0, 256, (n + e, *space.shape), np.uint8)
    else:
        observations = rng.uniform(-4, 4, (n + e, *space.shape)).astype(np.float32)
    actions: Any = rng.integers(0, 3, n)
    if kind == "box":
        actions = rng.uniform(BOX_ACTIONS.low, BOX_ACTIONS.high, (n, 2)).astype(np.float32)
    if kind == "multi":
        actions = MULTI_ACTIONS.start + rng.integers(MULTI_ACTIONS.nvec, size=(n, 2))
    starts = np.cumsum([0, *lengths])
    ends = np.zeros(n, bool)
    ends[starts[1:] - 1] = rng.random(e) < 0.5 if terminated is None else list(terminated)
    cuts = np.zeros(n, bool)
    cuts[starts[1:] - 1] = ~ends[starts[1:] - 1]
    return Episodes(
        observations=torch.from_numpy(observations),
        actions=torch.from_numpy(actions),
        rewards=torch.from_numpy(rng.normal(size=n).astype(np.float32)),
        terminations=torch.from_numpy(ends),
        truncations=torch.from_numpy(cuts),
        starts=torch.from_numpy(starts),
        has_final=None if has_final is None else torch.tensor(has_final),  # type: ignore[arg-type]
        info={"seed": torch.arange(e), "point": torch.from_numpy(rng.normal(size=(e, 2)))},
        spec=DataSpec(space, {"box": BOX_ACTIONS, "multi": MULTI_ACTIONS}.get(kind, spaces.Discrete(3)), **spec),
    )


def as_lists(episodes: Episodes) -> list[dict[str, Any]]:
    """The same content as one dictionary of plain lists per episode, unpacked by counting rows one by one."""
    out = []
    step = row = 0
    for e in range(len(episodes)):
        length = int(episodes.starts[e + 1]) - int(episodes.starts[e])
        part: dict[str, Any] = {
            name: getattr(episodes, name)[step : step + length].tolist()
            for name in ("actions", "rewards", "terminations", "truncations")
        }
        part["observations"] = episodes.observations[row : row + length + 1].tolist()
        part["has_final"] = bool(episodes.has_final[e])
        part["info"] = {key: value[e].tolist() for key, value in episodes.info.items()}
        out.append(part)
        step, row = step + length, row + length + 1
    return out
