"""ActionScaler: the border between an environment's actions and those that networks speak."""

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.core.episodes import Episodes
from rlalgo.core.spaces import ends

WIDE = 100
"""Bounds this many times as far apart as the data's least and largest action say nothing of the actions' size."""


class ActionScaler(nn.Module):
    """Raw actions to scaled ones and back: a Box becomes [-1, 1], discrete actions are counted from 0.

    A dimension is scaled by its bounds. Where they say nothing (there is none on one side or both, or the data uses
    less than a hundredth of the way between them) it is scaled by the range of the data instead, which `fit` finds
    and which is saved with the weights.
    """

    low: Tensor
    high: Tensor
    center: Tensor
    radius: Tensor

    def __init__(self, space: spaces.Space) -> None:
        super().__init__()
        self.is_box = isinstance(space, spaces.Box)
        if not isinstance(space, spaces.Box):
            start, last = ends(space)
            self.shifted = bool(start.any())
            self.register_buffer("low", torch.from_numpy(start), persistent=False)
            self.register_buffer("high", torch.from_numpy(last), persistent=False)
            return
        low, high = torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float()
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        center, radius = _middle(low, high)
        bounded = radius.isfinite()
        self.register_buffer("center", torch.where(bounded, center, 0))
        self.register_buffer("radius", torch.where(bounded, radius, 1))

    def fit(self, episodes: Episodes) -> None:
        """Finds what the bounds do not say in the actions of the data, of which there has to be one or more."""
        if not self.is_box:
            return
        actions = episodes.actions
        center, radius = _middle(actions.amin(0).to(self.low), actions.amax(0).to(self.low))  # (A,) each
        own_center, own_radius = _middle(self.low, self.high)
        wide = (own_radius > WIDE * radius) | ~own_radius.isfinite()
        self.center.copy_(torch.where(wide, center, own_center))
        self.radius.copy_(torch.where(wide, radius, own_radius))

    def forward(self, actions: Tensor) -> Tensor:
        """Raw (..., A) -> scaled (..., A); discrete ones (...,) or (..., M) -> 0 to n - 1."""
        if self.is_box:
            return (actions - self.center) / self.radius
        return actions.clamp(self.low, self.high) - self.low if self.shifted else actions  # padding is 0 in raw actions

    def inverse(self, actions: Tensor) -> Tensor:
        """Scaled (..., A) -> raw (..., A), inside the space; discrete ones, 0 to n - 1 -> raw."""
        if self.is_box:
            return (actions * self.radius + self.center).clamp(self.low, self.high)
        return actions + self.low if self.shifted else actions


def _middle(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Center and radius of [low, high], (A,) each; what is fixed has no scale, hence radius 1."""
    return low / 2 + high / 2, (high / 2 - low / 2).masked_fill(low == high, 1)
