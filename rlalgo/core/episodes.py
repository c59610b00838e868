"""Episodes: what every source gives, every rollout returns and every dataset is built from.

Flat columns over all steps. Observations keep one extra row per episode (the one after its last step), so
that the next observation of step t is simply the next row and costs no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo.core.spaces import Packed, ends
from rlalgo.core.spec import DataSpec
from rlalgo.errors import DataError


@dataclass(frozen=True)
class Episodes:
    """E episodes with N steps in all, as flat columns.

    Step t of episode e is row `starts[e] + t` of the step columns and row `first_rows()[e] + t` of
    `observations`.
    """

    observations: Tensor
    """(N+E, *S) T+1 rows per episode."""
    actions: Tensor
    """(N, A) float32, (N,) int64 for Discrete, or (N, M) int64 for MultiDiscrete."""
    rewards: Tensor
    """(N,) float32."""
    terminations: Tensor
    """(N,) bool: a terminal state was reached, at an episode's last step unless `continues`. Only these stop
    bootstrapping."""
    truncations: Tensor
    """(N,) bool: the episode was cut (time limit)."""
    starts: Tensor
    """(E+1,) int64: first step of each episode, then N."""
    spec: DataSpec
    has_final: Tensor = field(default=None)  # type: ignore[assignment]
    """(E,) bool: False where nothing was observed after the last step (the last row then repeats)."""
    info: Mapping[str, Tensor] = field(default_factory=dict)
    """(E, ...) facts per episode: seed, target_return, noise, ..."""
    mapped: bool = False
    """Whether observations are mapped from a file: they are then never read as a whole nor moved to a device."""
    continues: bool = False
    """Whether episodes may go on after a termination, as recordings of goal tasks do."""
    weights: Tensor | None = None
    """(E,) float64 how often the steps of each episode are drawn, one in comparison with another; None: all alike."""

    def __post_init__(self) -> None:
        if self.has_final is None:
            object.__setattr__(self, "has_final", torch.ones(len(self), dtype=torch.bool))

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.starts) - 1

    def __repr__(self) -> str:
        columns = (("observations", self.observations), ("actions", self.actions))
        parts = [f"{name} {tuple(x.shape[1:])} {str(x.dtype).removeprefix('torch.')}" for name, x in columns]
        returns = self.returns()
        span = f", returns {returns.min():.6g} to {returns.max():.6g}" if len(self) else ""
        return f"Episodes({len(self):,} episodes, {self.steps:,} steps, {', '.join(parts)}{span})"

    @property
    def steps(self) -> int:
        """N, the number of steps."""
        return len(self.rewards)

    def lengths(self) -> Tensor:
        """(E,) int64 steps per episode."""
        return self.starts.diff()

    def first_rows(self) -> Tensor:
        """(E,) int64: the row of `observations` that each episode begins at."""
        return self.starts[:-1] + torch.arange(len(self))

    def episode_ids(self) -> Tensor:
        """(N,) int64: the episode that each step belongs to."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths())

    def timesteps(self) -> Tensor:
        """(N,) int64: 0, 1, ... within each episode."""
        return _runs(torch.zeros(len(self), dtype=torch.int64), self.lengths())

    def chances(self, steps: Tensor) -> np.ndarray | None:
        """`Dataset.chances` of items that are these steps (M,), by the weights of their episodes; None without any."""
        if self.weights is None:
            return None
        total = self.weights[self.episode_ids()[steps]].cumsum(0)  # (M,)
        if not total[-1] > 0:
            raise DataError("the weights of all that can be drawn are 0; give some episodes another")
        return (total / total[-1]).numpy()

    def returns(self) -> Tensor:
        """(E,) float64 undiscounted return of each episode, on the host."""
        total = torch.zeros(len(self), dtype=torch.float64)
        return total.index_add_(0, self.episode_ids(), self.rewards.cpu().double())

    def returns_to_go(self, gamma: float = 1.0) -> Tensor:
        """(N,) float32 `sum_k gamma^k r[t+k]` up to the episode's end, summed in float64, on the host."""
        rewards = self.rewards.cpu().double()
        out = torch.empty_like(rewards)
        # Backwards over time, all episodes at once: exact for any gamma, including 0.
        alive = self.starts[1:] - 1  # (E,) last step of each episode
        carry = torch.zeros(len(self), dtype=torch.float64)  # (E,)
        first = self.starts[:-1]
        while len(alive):
            carry = rewards[alive] + gamma * carry
            out[alive] = carry
            more = alive > first
            alive, carry, first = alive[more] - 1, carry[more], first[more]
        return out.float()

    def top(self, fraction: float) -> Episodes:
        """The best episodes, best first, as long as they hold at most `fraction` of all steps; file order is kept.

        At least one, and none that comes after the first that is too long, as in the Decision Transformer's code.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        if fraction == 1:
            return self
        order = self.returns().argsort(descending=True, stable=True)
        lengths = self.lengths()[order]
        fits = lengths.cumsum(0) <= fraction * self.steps + 1e-6  # 0.29 * 100 is a little below 29
        fits[:1] = True
        return self.select(order[fits].sort().values)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Episodes, Episodes]:
        """Two disjoint parts by whole episodes: the first has about `fraction` of them, at least one each."""
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
        if len(self) < 2:
            raise ValueError(f"splitting needs two episodes or more, got {len(self)}")
        order = torch.randperm(len(self), generator=generator)
        count = min(max(round(fraction * len(self)), 1), len(self) - 1)
        return self.select(order[:count].sort().values), self.select(order[count:].sort().values)

    def select(self, ids: Tensor) -> Episodes:
        """The episodes with these ids (M,), in the order given; a copy in memory, even of mapped observations."""
        lengths = self.lengths()[ids]
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        steps = _runs(self.starts[:-1][ids], lengths)  # (n,) source step of each kept step
        return replace(
            self,
            observations=self.observations[_runs(self.first_rows()[ids], lengths + 1)],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            terminations=self.terminations[steps],
            truncations=self.truncations[steps],
            starts=starts,
            has_final=self.has_final[ids],
            info={key: value[ids] for key, value in self.info.items()},
            mapped=False,
            weights=None if self.weights is None else self.weights[ids],
        )

    def delayed(self) -> Episodes:
        """All reward on the last step of each episode, 0 before it (the paper's sparse setting)."""
        rewards = torch.zeros_like(self.rewards)
        rewards[self.starts[1:] - 1] = self.returns().to(rewards)
        return replace(self, rewards=rewards)

    def clipped(self) -> Episodes:
        """The sign of each reward, as is usual for Atari; `info["unclipped_return"]` keeps what they came to."""
        info = {"unclipped_return": self.returns(), **self.info}
        return replace(self, rewards=self.rewards.sign(), info=info)

    def concat(self, other: Episodes) -> Episodes:
        """These episodes, then those of `other`, with this spec; weights and facts of one alone are dropped."""
        mine, theirs = self.spec, other.spec
        if (mine.observation_space, mine.action_space) != (theirs.observation_space, theirs.action_space):
            raise DataError(
                "cannot join episodes with different spaces: "
                f"{mine.observation_space}, {mine.action_space} and "
                f"{theirs.observation_space}, {theirs.action_space}"
            )
        join = torch.cat
        return Episodes(
            observations=join([self.observations, other.observations]),
            actions=join([self.actions, other.actions]),
            rewards=join([self.rewards, other.rewards]),
            terminations=join([self.terminations, other.terminations]),
            truncations=join([self.truncations, other.truncations]),
            starts=join([self.starts, other.starts[1:] + self.steps]),
            has_final=join([self.has_final, other.has_final]),
            info={k: join([v, other.info[k]]) for k, v in self.info.items() if k in other.info},
            spec=self.spec,
            continues=self.continues or other.continues,
        )

    def to(self, device: torch.device | str) -> Episodes:
        """The step columns on `device`; the small index columns stay on the host, and so do mapped observations."""
        return replace(
            self,
            observations=self.observations if self.mapped else self.observations.to(device),
            actions=self.actions.to(device),
            rewards=self.rewards.to(device),
            terminations=self.terminations.to(device),
            truncations=self.truncations.to(device),
        )

    def check(self, name: str) -> Episodes:
        """Itself, or a DataError that names the dataset and, where the fault has them, episode and step."""
        lengths = self.lengths()
        if len(self) == 0:
            raise DataError(f"{name}: holds no episodes; record some before training on it")
        if (lengths < 1).any():
            raise DataError(f"{name}: episode {int((lengths < 1).nonzero()[0])} is empty (no steps); drop it")
        if self.starts[0] != 0:
            raise DataError(f"{name}: the first episode starts at step {int(self.starts[0])}, expected 0")
        seen, action = self.spec.observation_space, self.spec.action_space
        n, e = int(self.starts[-1]), len(self)
        expected = {
            "observations": ((n + e, *(seen.shape or ())), seen.dtype),
            "actions": ((n, *(action.shape or ())), action.dtype),
            "rewards": ((n,), "float32"),
            "terminations": ((n,), "bool"),
            "truncations": ((n,), "bool"),
            "has_final": ((e,), "bool"),
        }
        for column, (shape, dtype) in expected.items():
            values = getattr(self, column)
            kind = str(values.dtype).removeprefix("torch.")
            if values.shape != shape or kind != str(dtype):
                raise DataError(
                    f"{name}: {column} are {tuple(values.shape)} {kind}, expected {shape} {dtype} "
                    f"for {e} episodes with {n} steps in all"
                )
        for key, values in self.info.items():
            if len(values) != e:
                raise DataError(f"{name}: info '{key}' has {len(values)} rows, expected {e}, one per episode")
        for column in ("rewards", "actions") if self.mapped else ("rewards", "observations", "actions"):
            values = getattr(self, column)
            if column == "observations" and isinstance(seen, Packed):
                values = seen.floats(values)
            self._refuse(name, column, _not_finite(values), "not finite")
        if not isinstance(action, spaces.Box):
            first, last = map(torch.from_numpy, ends(action))
            outside = ((self.actions < first) | (self.actions > last)).reshape(n, -1).any(-1)
        else:
            low, high = (torch.from_numpy(_widened(action, side)) for side in (-1, 1))
            outside = ((self.actions < low) | (self.actions > high)).any(-1)
        self._refuse(name, "actions", outside, f"outside the action space {action}")
        if self.weights is not None and not (
            self.weights.shape == (e,) and torch.isfinite(self.weights).all() and (self.weights >= 0).all()
        ):
            raise DataError(f"{name}: weights have to be {e} finite numbers of 0 or more, one per episode")
        for column in ("truncations",) if self.continues else ("terminations", "truncations"):
            cure = "split the episode there" + (", or set `continues: true`" if column == "terminations" else "")
            early = getattr(self, column).clone()
            early[self.starts[1:] - 1] = False
            self._refuse(name, column, early, f"before the last step; {cure}")
        return self

    def _refuse(self, name: str, column: str, bad: Tensor, why: str) -> None:
        """Raises for the first bad row of a column, with its episode and step."""
        if not bad.any():
            return
        row = int(bad.nonzero()[0])
        starts = self.first_rows() if column == "observations" else self.starts[:-1]
        episode = int(torch.searchsorted(starts, row, right=True)) - 1
        value = str(getattr(self, column)[row].tolist())
        value = value if len(value) <= 200 else value[:200] + "..."
        raise DataError(
            f"{name}: episode {episode}, step {row - int(starts[episode])}: {column.removesuffix('s')} "
            f"{value} is {why} ({int(bad.sum())} such rows in all)"
        )


def _runs(first: Tensor, lengths: Tensor) -> Tensor:
    """first[0], first[0] + 1, ... lengths[0] of them, then first[1], ...; both (M,) -> (sum of lengths,)."""
    begin = lengths.cumsum(0) - lengths  # (M,) where each run begins in the result
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(first - begin, lengths)


def _not_finite(values: Tensor) -> Tensor:
    """(n,) bool: rows with NaN or infinity. Usually the sum tells, without a copy, that there is none."""
    if not values.is_floating_point() or torch.isfinite(values.sum()):
        return torch.zeros(len(values), dtype=torch.bool)
    return ~torch.isfinite(values.reshape(len(values), -1)).all(-1)


def _widened(space: spaces.Space, side: int) -> np.ndarray:
    """A Box's lower (-1) or upper (+1) bound, moved outwards by what a float32 file may round away."""
    assert isinstance(space, spaces.Box)
    bound = space.low if side < 0 else space.high
    with np.errstate(over="ignore"):  # beyond float32's largest number there is nothing to refuse
        return bound + side * 1e-5 * (1 + np.abs(bound))
