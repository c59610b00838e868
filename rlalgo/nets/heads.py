"""Action heads."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn


class BoxHead(nn.Module):
    """Features to one continuous action; `tanh` keeps it inside a bounded Box. Mean squared error.

    Inside an algorithm actions are scaled so that a bounded Box is [-1, 1]; others are left as they are.
    """

    stochastic: ClassVar[bool] = False
    """Whether there is something to sample."""
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


class GaussianHead(BoxHead):
    """Features to the mean of a Gaussian whose standard deviation does not depend on the state (IQL, AWAC)."""

    stochastic = True

    def __init__(self, width: int, space: spaces.Box, tanh: bool = True) -> None:
        super().__init__(width, space, tanh)
        self.log_std = nn.Parameter(torch.zeros(space.shape[0]))

    def std(self) -> Tensor:
        """(A,) in scaled units, within e^-5 and e^2."""
        return self.log_std.clamp(-5, 2).exp()

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(..., A) means -> (..., A) scaled draws, inside a bounded Box."""
        return (mean + self.std() * _normal(mean, generator)).clamp(self.scale(self.low), self.scale(self.high))

    def actions(self, prediction: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Means (..., A) -> raw actions; drawn if a generator is given."""
        return super().actions(prediction if generator is None else self.sample(prediction, generator))

    def loss(self, prediction: Tensor, actions: Tensor) -> Tensor:
        """Means (..., A) and raw actions (..., A) -> (...,) -log density, in nats."""
        log_std = self.log_std.clamp(-5, 2)
        z = (self.scale(actions) - prediction) * (-log_std).exp()
        return 0.5 * z.square().sum(-1) + (log_std.sum() + 0.5 * math.log(2 * math.pi) * len(log_std))


class SquashedGaussianHead(BoxHead):
    """Features to tanh of a Gaussian whose mean and standard deviation depend on the state (SAC, appendix C)."""

    stochastic = True

    def __init__(self, width: int, space: spaces.Box) -> None:
        super().__init__(width, space)
        self.out = nn.Linear(width, 2 * space.shape[0])
        for p in self.out.parameters():  # starts wide and centered, whatever the features are
            nn.init.uniform_(p, -1e-3, 1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """(..., width) -> (..., 2A) mean and log standard deviation before the tanh."""
        return self.out(features)

    def sample(self, prediction: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(..., 2A) -> (..., A) scaled draws and (...,) their log densities, both differentiable."""
        mean, log_std = self._split(prediction)
        noise = _normal(mean, generator)
        before = mean + log_std.exp() * noise
        return before.tanh(), _squashed_log_prob(noise, log_std, before)

    def actions(self, prediction: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(..., 2A) -> (..., A) raw actions: tanh of the mean, or drawn if a generator is given."""
        mean, _ = self._split(prediction)
        return super().actions(mean.tanh() if generator is None else self.sample(prediction, generator)[0])

    def loss(self, prediction: Tensor, actions: Tensor) -> Tensor:
        """(..., 2A) and raw actions (..., A) -> (...,) -log density in scaled units, in nats."""
        mean, log_std = self._split(prediction)
        before = self.scale(actions).clamp(-1 + 1e-6, 1 - 1e-6).atanh()  # the edge itself has no density
        return -_squashed_log_prob((before - mean) / log_std.exp(), log_std, before)

    def _split(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = prediction.chunk(2, -1)
        return mean, log_std.clamp(-20, 2)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal; from the generator on its own device, else from torch's default one."""
    if generator is None:
        return torch.randn_like(like)
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)


def _squashed_log_prob(noise: Tensor, log_std: Tensor, before: Tensor) -> Tensor:
    """(..., A) standardized and unsquashed draws -> (...,) log density of tanh(before)."""
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not cancel where tanh saturates
    slope = 2 * (math.log(2) - before - F.softplus(-2 * before))
    return (normal - slope).sum(-1)


class DiscreteHead(nn.Module):
    """Features to the logits of n actions. Cross-entropy; greedy, or sampled when a generator is given."""

    stochastic: ClassVar[bool] = True

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


def action_head(width: int, space: spaces.Space, tanh: bool = True, gaussian: bool = False) -> BoxHead | DiscreteHead:
    """The head that fits the action space."""
    if isinstance(space, spaces.Discrete):
        return DiscreteHead(width, space)
    assert isinstance(space, spaces.Box)
    return GaussianHead(width, space, tanh) if gaussian else BoxHead(width, space, tanh)


def bounded_box(space: spaces.Space, name: str) -> spaces.Box:
    """The action space of an algorithm that needs every action within bounds; ValueError otherwise."""
    assert isinstance(space, spaces.Box)
    if not space.is_bounded():
        raise ValueError(f"{name} needs a bounded action space, got {space}; try iql, awac or bc")
    return space
