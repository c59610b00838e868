"""Dataset: episodes served as batches. `rows` draws which items, `gather` builds the batch, no loop."""

import copy
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlalgo.core.episodes import Episodes
from rlalgo.core.spaces import stack_frames
from rlalgo.errors import DataError

B = TypeVar("B")


class TransitionBatch(NamedTuple):
    """B transitions (s, a, r, s', terminal)."""

    observations: Tensor  # (B, *S)
    actions: Tensor  # (B, A) float | (B,) int64
    rewards: Tensor  # (B,)
    next_observations: Tensor  # (B, *S)
    terminals: Tensor  # (B,) float: 1 stops bootstrapping; a truncation does not


class WindowBatch(NamedTuple):
    """B windows of K steps, right-padded: real steps first, then zeros where `mask` is False."""

    observations: Tensor  # (B, K, *S)
    actions: Tensor  # (B, K, A) float | (B, K) int64
    rewards: Tensor  # (B, K)
    returns_to_go: Tensor  # (B, K)
    timesteps: Tensor  # (B, K) int64
    mask: Tensor  # (B, K) bool


class Dataset(ABC, Generic[B]):
    """Items drawn from episodes. Also serves torch's DataLoader (`__len__`, `__getitems__`)."""

    device: torch.device = torch.device("cpu")
    chances: np.ndarray | None = None
    """(M,) float64 up to 1: the chance that an item or one before it is drawn (`Episodes.chances`); None: all alike."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, rows: Tensor) -> B:
        """The batch of these items; rows (B,) int64. Deterministic and batched."""

    def to(self, device: torch.device | str) -> Self:
        """The same items with every column on `device`: a copy, while this one stays where it is."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | Episodes | Dataset):
                setattr(moved, name, value.to(device))
        return moved

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) int64 items drawn with replacement, by their chances; n may span many batches."""
        if self.chances is None:
            return torch.randint(len(self), (n,), generator=generator)
        drawn = torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.from_numpy(self.chances.searchsorted(drawn.numpy(), side="right"))

    def __getitems__(self, rows: list[int]) -> B:
        """For `DataLoader(dataset, collate_fn=lambda batch: batch)`."""
        return self.gather(torch.as_tensor(rows, dtype=torch.int64))


class Transitions(Dataset[TransitionBatch]):
    """Every step as a transition. A truncated last step whose successor was not observed is left out."""

    def __init__(self, episodes: Episodes) -> None:
        ids = episodes.episode_ids()  # (N,)
        usable = torch.ones(episodes.steps, dtype=torch.bool)
        last = episodes.starts[1:] - 1  # (E,)
        usable[last] = episodes.has_final | episodes.terminations[last].cpu()
        if not usable.any():
            raise DataError("no transition has an observed successor: record what follows each last step")
        self.episodes = episodes
        self.steps = usable.nonzero().squeeze(1)  # (M,) usable steps
        self.obs_rows = self.steps + ids[self.steps]  # (M,) row of `observations`
        self.first_rows = episodes.first_rows()[ids[self.steps]]  # (M,) first row of the same episode
        self.terminals = episodes.terminations.float()  # (N,)
        self.chances = episodes.chances(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def gather(self, rows: Tensor) -> TransitionBatch:
        def take(column: Tensor, index: Tensor) -> Tensor:
            return column.index_select(0, index)  # faster than column[index]

        rows = rows.to(self.device)
        steps, row = take(self.steps, rows), take(self.obs_rows, rows)  # (B,)
        first, frames = take(self.first_rows, rows), Frames(self.episodes)
        return TransitionBatch(
            frames.at(row, first),
            take(self.episodes.actions, steps),
            take(self.episodes.rewards, steps),
            frames.at(row + 1, first),
            take(self.terminals, steps),
        )


class Frames:
    """Observation rows with their frames stacked on the fly, so that a k-frame stack costs no memory."""

    def __init__(self, episodes: Episodes) -> None:
        self.observations = episodes.observations
        self.stack = episodes.spec.frame_stack
        self.shape = tuple(episodes.observations.shape[1:])

    def at(self, rows: Tensor, first: Tensor) -> Tensor:
        """rows (...) and the first row of each one's episode (...) -> (..., *encoder shape).

        Before an episode's start its first frame repeats, as Gymnasium's frame stack does.
        """
        if self.stack > 1:
            back = torch.arange(self.stack - 1, -1, -1, device=rows.device)  # (k,) oldest first
            rows = torch.maximum(rows.unsqueeze(-1) - back, first.unsqueeze(-1))  # (..., k)
        # Several times as fast as indexing. A mapped column stays on the host, whatever the device.
        flat = self.observations.index_select(0, rows.reshape(-1).to(self.observations.device)).to(rows.device)
        seen = flat.view(*rows.shape, *self.shape)
        return seen if self.stack == 1 else stack_frames(seen, self.shape)
