"""Layers: hidden layers, trunks over features, and the normalizer of observations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlalgo.core.episodes import Episodes
from rlalgo.core.spec import stack_frames


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; none after the last."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers.append(nn.ReLU())
        layers.append(nn.Linear(a, b))
    return nn.Sequential(*layers)


def trunk(
    features: nn.Module, size: int, width: int, layers: int, dropout: float = 0.0, layer_norm: bool = False
) -> nn.Sequential:
    """Features of this size (`rlalgo.encoders.features`), then hidden layers: (B, *S) -> (B, width)."""
    parts: list[nn.Module] = [features]
    for i in range(layers):
        parts += [nn.Linear(width if i else size, width), nn.ReLU(inplace=True)]
        parts += [nn.LayerNorm(width)] if layer_norm else []
        parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts)


class Normalizer(nn.Module):
    """(x - mean) / (std + 1e-6) with the statistics of the data, kept as buffers (DT authors' gym code).

    The identity until `fit`, and for integer observations (images), which encoders scale themselves. What never varies
    in the data is centered only: divided by 1e-6, the first observation that differs would drown all others.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tuple(shape)))
        self.register_buffer("std", torch.ones(tuple(shape)))

    def fit(self, episodes: Episodes) -> None:
        """Mean and standard deviation over all steps, in float64, 64k rows at a time; the same for every frame."""
        if not episodes.observations.is_floating_point():
            return
        shape, k = episodes.observations.shape[1:], episodes.spec.frame_stack
        rows = torch.arange(episodes.steps) + episodes.episode_ids()  # (N,) without the final observations
        total, square = torch.zeros(2, *shape, dtype=torch.float64)
        for part in rows.split(65536):
            total += episodes.observations[part].cpu().double().sum(0)
        mean = total / len(rows)
        for part in rows.split(65536):
            square += (episodes.observations[part].cpu().double() - mean).square().sum(0)
        std = (square / len(rows)).sqrt()
        std = std.masked_fill(std <= 1e-6 * mean.abs().clamp(min=1), 1) + 1e-6
        for mine, found in ((self.mean, mean), (self.std, std)):
            mine.copy_(found if k == 1 else stack_frames(found.expand(k, *shape), shape))

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., *shape); integer input passes unchanged."""
        return (x - self.mean) / self.std if x.is_floating_point() else x
