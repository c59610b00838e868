"""Games that were played side by side, as episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from rlalgo import DataSpec, Episodes
from rlutils.data.columns import Columns, Told


def seeds_and_draws(rng: np.random.Generator, n: int, numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) seeds that an environment may be reset with, and (n, numbers) what it would draw then, in [0, 1).

    They are beyond those of evaluations, which are below 2**32 or little more.
    """
    seeds = rng.integers(2**33, 2**62, n)
    return seeds, np.stack([np_random(int(seed))[0].random(numbers) for seed in seeds])


def recorded(
    label: str,
    spec: DataSpec,
    observe: Callable[[int], np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    ended: np.ndarray,
    info: Mapping[str, Any],
) -> Episodes:
    """Episodes of n games that were played for T steps; what follows the first end of each is left out.

    Args:
        label: how messages call the data.
        spec: what it is made of.
        observe: t -> (n, *S) what was seen after t steps; asked once for each, in order.
        actions: (T, n) int64.
        rewards: (T, n).
        ended: (T, n) bool: terminations. A game without any was cut after T steps.
        info: (n, ...) facts of each game.
    """
    lengths = np.where(ended.any(0), ended.argmax(0) + 1, len(ended))  # (n,)
    columns = Columns(label, lengths, spec.observation_space, spec.action_space, spec)
    seen = observe(0)
    for t in range(len(ended)):
        rows, after, last = np.flatnonzero(lengths > t), observe(t + 1), lengths == t + 1
        cut = last & ~ended[t]
        steps = {"actions": actions[t], "rewards": rewards[t], "terminations": ended[t], "truncations": cut}
        values = {name: column[rows] for name, column in {"observations": seen, **steps}.items()}
        columns.fill(columns.starts[rows] + t, **values)
        columns.finish(np.flatnonzero(last), after[last])
        seen = after
    return columns.checked(Told(), info)
