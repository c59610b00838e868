"""RtgEpDataset: windows of K steps with return-to-go, timestep and mask (Chen et al. 2021, section 4).

A window begins at a step drawn uniformly over all steps (which is the authors' draw of a trajectory with probability
proportional to its length, then of a start) and runs to the episode's end at most; the rest is zero and masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Self

from rlalgo.core.dataset import Dataset, Frames, WindowBatch
from rlalgo.core.episodes import Episodes


class RtgEpDataset(Dataset[WindowBatch]):
    """One item per step of the data: the window that begins there.

    Args:
        episodes: the data; returns-to-go are undiscounted sums of its rewards (gamma 1).
        K: context length in steps.
    """

    def __init__(self, episodes: Episodes, K: int = 20) -> None:
        if K < 1:
            raise ValueError(f"context length K must be 1 or more, got {K}")
        self.K = K
        self.episodes = episodes
        self.frames = Frames(episodes)
        ids = episodes.episode_ids()
        self.returns_to_go = episodes.returns_to_go()  # (N,)
        self.timesteps = episodes.timesteps()  # (N,)
        self.last = episodes.starts[1:][ids] - 1  # (N,) last step of the same episode
        self.shift = ids  # (N,) how far the row of `observations` is ahead of the step
        self.offsets = torch.arange(K)  # (K,)

    def __len__(self) -> int:
        return len(self.timesteps)

    def gather(self, rows: Tensor) -> WindowBatch:
        rows = rows.to(self.device)
        steps = rows.unsqueeze(1) + self.offsets  # (B, K)
        last = self.last[rows].unsqueeze(1)
        mask = steps <= last
        steps = torch.minimum(steps, last)
        shift = self.shift[rows].unsqueeze(1)
        first = steps - self.timesteps[steps] + shift  # (B, K) first row of the episode, for stacked frames
        pad = ~mask

        def zero(x: Tensor) -> Tensor:
            return x.masked_fill_(pad.view(*pad.shape, *(1,) * (x.dim() - 2)), 0)

        data = self.episodes
        return WindowBatch(
            zero(self.frames.at(steps + shift, first)),
            zero(data.actions[steps]),
            zero(data.rewards[steps]),
            zero(self.returns_to_go[steps]),
            zero(self.timesteps[steps]),
            mask,
        )

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.episodes = self.episodes.to(device)
        self.frames = Frames(self.episodes)
        for name in ("returns_to_go", "timesteps", "last", "shift", "offsets"):
            setattr(self, name, getattr(self, name).to(device))
        return self
