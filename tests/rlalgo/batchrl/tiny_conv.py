"""An encoder of images, as a plugin's author would write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import parse
from rlalgo.registry import Catalogue, Entry, Owner


class TinyConv(nn.Module):
    """(..., C, H, W) bytes -> (..., width); remembers the types and shapes that it saw."""

    name = "tiny_conv"
    ROLES = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        channels: int = 4
        """Of the one layer."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        assert space.shape is not None
        C, H, W = space.shape
        self.seen: list[tuple[torch.dtype, torch.Size]] = []
        self.net = nn.Sequential(
            nn.Conv2d(C, config.channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(config.channels * H * W, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((x.dtype, x.shape[-3:]))
        return self.net(x.flatten(0, -4).float() / 255).unflatten(0, x.shape[:-3])


def with_conv(of: Any, **options: Any) -> Any:
    """The Config of this class (or entry of a catalogue), read as from YAML with the encoder chosen by name."""
    catalogue = Catalogue()
    catalogue.add(Entry("encoder", TinyConv.name, TinyConv, Owner("test")))
    return parse(of.Config, {"state_encoder": {"name": "tiny_conv", "channels": 3}, **options}, catalogue)
