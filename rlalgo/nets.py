"""Small parts that several algorithms share: mlp, normaliser, action heads, learning-rate schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rlalgo.core.episodes import Episodes


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these sizes with ReLU (and dropout) between them; none after the last."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers += [nn.ReLU(), nn.Dropout(dropout)] if dropout else [nn.ReLU()]
        layers.append(nn.Linear(a, b))
    return nn.Sequential(*layers)


class Normalizer(nn.Module):
    """(x - mean) / (std + 1e-6) with the statistics of the data, kept as buffers (DT authors' gym code).

    The identity until `fit`, and for integer observations (images), which encoders scale themselves.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tuple(shape)))
        self.register_buffer("std", torch.ones(tuple(shape)))

    def fit(self, episodes: Episodes) -> None:
        """Mean and standard deviation over all steps, in float64, 64k rows at a time."""
        if not episodes.observations.is_floating_point():
            return
        rows = torch.arange(episodes.steps) + episodes.episode_ids()  # (N,) without the final observations
        total = torch.zeros_like(self.mean, dtype=torch.float64, device="cpu")
        square = torch.zeros_like(total)
        for part in rows.split(65536):
            total += episodes.observations[part].cpu().double().sum(0)
        mean = total / len(rows)
        for part in rows.split(65536):
            square += (episodes.observations[part].cpu().double() - mean).square().sum(0)
        self.mean.copy_(mean)
        self.std.copy_((square / len(rows)).sqrt() + 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., *shape); integer input passes unchanged."""
        return (x - self.mean) / self.std if x.is_floating_point() else x


class BoxHead(nn.Module):
    """Features to one continuous action; `tanh` keeps it inside a bounded Box. Mean squared error.

    Inside an algorithm actions are scaled so that a bounded Box is [-1, 1]; others are left as they are.
    """

    center: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, width: int, space: spaces.Box, tanh: bool = True) -> None:
        super().__init__()
        bounded = bool(space.is_bounded())
        low, high = torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float()
        self.out = nn.Linear(width, space.shape[0])
        self.squash = nn.Tanh() if tanh and bounded else nn.Identity()
        radius = ((high - low) / 2).masked_fill(high == low, 1)  # a fixed dimension has no scale
        for name, value in (
            ("low", low),
            ("high", high),
            ("center", (low + high) / 2 if bounded else torch.zeros_like(low)),
            ("radius", radius if bounded else torch.ones_like(low)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(..., width) -> (..., A), scaled."""
        return self.squash(self.out(features))

    def scale(self, actions: Tensor) -> Tensor:
        """Raw actions (..., A) -> scaled."""
        return (actions - self.center) / self.radius

    def actions(self, prediction: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prediction (..., A) -> raw actions inside the space."""
        return (prediction * self.radius + self.center).clamp(self.low, self.high)

    def loss(self, prediction: Tensor, actions: Tensor) -> Tensor:
        """(..., A) and raw actions (..., A) -> (...,) squared error, mean over the action's dimensions."""
        return (prediction - self.scale(actions)).square().mean(-1)


class DiscreteHead(nn.Module):
    """Features to the logits of n actions. Cross-entropy; greedy, or sampled when a generator is given."""

    def __init__(self, width: int, space: spaces.Discrete) -> None:
        super().__init__()
        self.out = nn.Linear(width, int(space.n))

    def forward(self, features: Tensor) -> Tensor:
        """(..., width) -> (..., n)."""
        return self.out(features)

    def scale(self, actions: Tensor) -> Tensor:
        """Discrete actions have no scale."""
        return actions

    def actions(self, prediction: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (..., n) -> actions (...,) int64."""
        if generator is None:
            return prediction.argmax(-1)
        flat = prediction.reshape(-1, prediction.shape[-1]).softmax(-1).cpu()
        return torch.multinomial(flat, 1, generator=generator).reshape(prediction.shape[:-1])

    def loss(self, prediction: Tensor, actions: Tensor) -> Tensor:
        """(..., n) and (...,) int64 -> (...,) cross-entropy in nats."""
        flat = F.cross_entropy(prediction.flatten(0, -2), actions.flatten(), reduction="none")
        return flat.view(actions.shape)


def action_head(width: int, space: spaces.Space, tanh: bool = True) -> BoxHead | DiscreteHead:
    """The head that fits the action space."""
    if isinstance(space, spaces.Discrete):
        return DiscreteHead(width, space)
    assert isinstance(space, spaces.Box)
    return BoxHead(width, space, tanh)


class Chooser:
    """Turns predictions into raw actions on the CPU; row i samples if `sample[i]`, with its own generator."""

    def __init__(self, head: BoxHead | DiscreteHead, sample: Sequence[bool]) -> None:
        if any(sample) and isinstance(head, BoxHead):
            raise ValueError("sample: true needs a Discrete action space; this one is a Box")
        self.head = head
        self.sample = torch.tensor(sample)  # (n,)
        self.generator = torch.Generator()
        if any(sample):  # seeded from the default generator, which an evaluation forks
            self.generator.manual_seed(int(torch.randint(2**62, ())))

    def __call__(self, prediction: Tensor, rows: Tensor) -> Tensor:
        """Predictions (m, ...) of rows (m,) -> actions (m, A) | (m,)."""
        actions = self.head.actions(prediction).cpu()
        drawn = self.sample[rows]
        if drawn.any():
            actions[drawn] = self.head.actions(prediction[drawn.to(prediction.device)], self.generator)
        return actions


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True places of `mask`; both (B, K). 0 where nothing is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, final: float) -> LambdaLR:
    """Linear warmup over `warmup` updates, then a cosine down to `final` x lr at `total` (1: constant)."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
