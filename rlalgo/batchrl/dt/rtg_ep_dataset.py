"""RtgEpDataset: windows of K steps with return-to-go, timestep and mask (Chen et al. 2021, section 4).

A window begins at a step drawn uniformly over all steps (which is the authors' draw of a trajectory with
probability proportional to its length, then of a start), or by the weights of the episodes, and runs to the
episode's end at most; the rest is zero and masked.
"""

import torch
from torch import Tensor

from rlalgo import Dataset, Episodes, WindowBatch
from rlalgo.core.dataset import Frames


class RtgEpDataset(Dataset[WindowBatch]):
    """One item per step of the data: the window that begins there. Shares the columns of the episodes.

    Args:
        episodes: the data; returns-to-go are undiscounted sums of its rewards (gamma 1).
        K: context length in steps.
    """

    def __init__(self, episodes: Episodes, K: int = 20) -> None:
        if K < 1:
            raise ValueError(f"context length K must be 1 or more, got {K}")
        self.K = K
        self.episodes = episodes
        self.returns_to_go = episodes.returns_to_go()  # (N,)
        ids = episodes.episode_ids()  # (N,) also how far the row of an observation is ahead of its step
        left = episodes.starts[1:][ids] - torch.arange(episodes.steps)  # (N,) steps to the end, this one included
        self.facts = torch.stack([episodes.timesteps(), left, ids], 1)  # (N, 3)
        self.offsets = torch.arange(K)  # (K,)
        self.chances = episodes.chances(torch.arange(episodes.steps))

    def __len__(self) -> int:
        return len(self.facts)

    def gather(self, rows: Tensor) -> WindowBatch:
        rows = rows.to(self.device).unsqueeze(1)  # (B, 1)
        time, left, ahead = self.facts[rows].unbind(-1)  # (B, 1) each
        mask = self.offsets < left  # (B, K)
        steps = rows + torch.minimum(self.offsets, left - 1)  # (B, K) the last step is repeated, then blanked
        pad, data = ~mask, self.episodes
        # Touching the padding alone takes an eighth of the time for images; elsewhere, finding it waits for the device.
        places = pad.flatten().nonzero().squeeze(1) if pad.is_cpu else None

        def blanked(x: Tensor) -> Tensor:
            if places is not None:
                x.flatten(0, 1).index_fill_(0, places, 0)
                return x
            return x.masked_fill_(pad.view(*pad.shape, *(1,) * (x.dim() - 2)), 0)

        def at_steps(column: Tensor) -> Tensor:  # several times as fast as column[steps]
            return blanked(column.index_select(0, steps.flatten()).view(*steps.shape, *column.shape[1:]))

        return WindowBatch(
            blanked(Frames(data).at(steps + ahead, rows - time + ahead)),
            at_steps(data.actions),
            at_steps(data.rewards),
            at_steps(self.returns_to_go),
            blanked(time + self.offsets),
            mask,
        )
