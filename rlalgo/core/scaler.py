"""ActionScaler: the border between an environment's actions and those that networks speak."""

import torch
from gymnasium import spaces
from torch import Tensor, nn


class ActionScaler(nn.Module):
    """Raw actions to scaled ones and back: a bounded Box becomes [-1, 1]; other spaces stay as they are."""

    low: Tensor
    high: Tensor
    center: Tensor
    radius: Tensor

    def __init__(self, space: spaces.Space) -> None:
        super().__init__()
        self.is_box = isinstance(space, spaces.Box)
        if not isinstance(space, spaces.Box):
            return
        low, high = torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float()
        bounded = bool(space.is_bounded())
        radius = ((high - low) / 2).masked_fill(high == low, 1)  # a fixed dimension has no scale
        for name, value in (
            ("low", low),
            ("high", high),
            ("center", (low + high) / 2 if bounded else torch.zeros_like(low)),
            ("radius", radius if bounded else torch.ones_like(low)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, actions: Tensor) -> Tensor:
        """Raw (..., A) -> scaled (..., A); discrete actions (...,) unchanged."""
        return (actions - self.center) / self.radius if self.is_box else actions

    def inverse(self, actions: Tensor) -> Tensor:
        """Scaled (..., A) -> raw (..., A), inside the space; discrete actions (...,) unchanged."""
        return (actions * self.radius + self.center).clamp(self.low, self.high) if self.is_box else actions
