"""Action heads: features to a distribution over scaled actions.

Inside an algorithm every Box is [-1, 1] (`rlalgo.core.scaler`). Every distribution has `mode()`,
`log_prob(actions)` and, where there is something to draw, `sample(generator)`. Leading dimensions are free.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

LOG_STD = (-5.0, 2.0)
"""Range of a Gaussian policy's log standard deviation (IQL's and AWAC's code)."""


class Deterministic:
    """One action for each state: a Gaussian of fixed variance, of which only the mean matters."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean  # (..., A)

    def mode(self) -> Tensor:
        """(..., A)."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """(..., A) -> (...,) minus the squared error, mean over dimensions: log density up to scale and constant."""
        return -(self.mean - actions).square().mean(-1)


class Gaussian:
    """Independent normal distributions; draws stay between `low` and `high`."""

    def __init__(self, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor) -> None:
        self.mean, self.log_std = mean, log_std  # (..., A), (A,)
        self.low, self.high = low, high  # (A,)

    def mode(self) -> Tensor:
        """(..., A)."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(..., A), differentiable within the bounds."""
        return (self.mean + self.log_std.exp() * _normal(self.mean, generator)).clamp(self.low, self.high)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(..., A) -> (...,) log density in nats."""
        z = (actions - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square().sum(-1) + (self.log_std.sum() + 0.5 * math.log(2 * math.pi) * len(self.log_std)))

    def repeat(self, n: int) -> Gaussian:
        """The same distribution n times for each state: (B, A) -> (B, n, A)."""
        return Gaussian(self.mean.unsqueeze(1).expand(-1, n, -1), self.log_std, self.low, self.high)


class SquashedGaussian:
    """tanh of independent normal distributions (SAC, appendix C)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std  # (..., A) both, before the tanh

    def mode(self) -> Tensor:
        """(..., A) tanh of the mean."""
        return self.mean.tanh()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(..., A), differentiable."""
        return self.sample_with_log_prob(generator)[0]

    def sample_with_log_prob(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """(..., A) draws and (...,) their log densities, both differentiable."""
        noise = _normal(self.mean, generator)
        before = self.mean + self.log_std.exp() * noise
        return before.tanh(), self._log_prob(noise, before)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(..., A) -> (...,) log density in nats."""
        before = actions.clamp(-1 + 1e-6, 1 - 1e-6).atanh()  # the edge itself has no density
        return self._log_prob((before - self.mean) / self.log_std.exp(), before)

    def _log_prob(self, noise: Tensor, before: Tensor) -> Tensor:
        """(..., A) standardized and unsquashed draws -> (...,) log density of tanh(before)."""
        normal = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not cancel where tanh saturates
        slope = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return (normal - slope).sum(-1)

    def repeat(self, n: int) -> SquashedGaussian:
        """The same distribution n times for each state: (B, A) -> (B, n, A)."""
        return SquashedGaussian(*(x.unsqueeze(1).expand(-1, n, -1) for x in (self.mean, self.log_std)))


class Categorical:
    """n discrete actions by their logits."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # (..., n)

    def mode(self) -> Tensor:
        """(...,) int64."""
        return self.logits.argmax(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(...,) int64, drawn on the CPU."""
        flat = self.logits.reshape(-1, self.logits.shape[-1]).softmax(-1).cpu()
        return torch.multinomial(flat, 1, generator=generator).reshape(self.logits.shape[:-1]).to(self.logits.device)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(...,) int64 -> (...,) log probability in nats."""
        flat = F.cross_entropy(self.logits.flatten(0, -2), actions.flatten(), reduction="none")
        return -flat.view(actions.shape)


class MultiCategorical(Categorical):
    """M discrete actions at a time, independent of one another: logits (..., M, n), actions (..., M)."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """(..., M) int64 -> (...,) log probability in nats."""
        return super().log_prob(actions).sum(-1)


Distribution = Deterministic | Gaussian | SquashedGaussian | Categorical


class DeterministicHead(nn.Module):
    """Features to one continuous action; `tanh` keeps it inside [-1, 1]."""

    stochastic: ClassVar[bool] = False
    """Whether there is something to sample."""

    def __init__(self, features: int, space: spaces.Box, tanh: bool = True) -> None:
        super().__init__()
        self.out = nn.Linear(features, space.shape[0])
        self.squash = nn.Tanh() if tanh else nn.Identity()

    def forward(self, features: Tensor) -> Deterministic:  # (..., F)
        return Deterministic(self.squash(self.out(features)))


class GaussianHead(nn.Module):
    """Features to the mean of a Gaussian whose standard deviation does not depend on the state (IQL, AWAC)."""

    stochastic: ClassVar[bool] = True
    low: Tensor
    high: Tensor

    def __init__(self, features: int, space: spaces.Box, tanh: bool = True) -> None:
        super().__init__()
        self.out = nn.Linear(features, space.shape[0])
        self.squash = nn.Tanh() if tanh else nn.Identity()
        self.log_std = nn.Parameter(torch.zeros(space.shape[0]))
        edge = torch.from_numpy(space.low < space.high).float()  # (A,) a fixed dimension has but one value
        self.register_buffer("low", -edge, persistent=False)
        self.register_buffer("high", edge, persistent=False)

    def forward(self, features: Tensor) -> Gaussian:  # (..., F)
        return Gaussian(self.squash(self.out(features)), self.log_std.clamp(*LOG_STD), self.low, self.high)


class SquashedGaussianHead(nn.Module):
    """Features to tanh of a Gaussian whose mean and standard deviation depend on the state (SAC, appendix C)."""

    stochastic: ClassVar[bool] = True

    def __init__(self, features: int, space: spaces.Box) -> None:
        super().__init__()
        self.out = nn.Linear(features, 2 * space.shape[0])
        for p in self.out.parameters():  # starts wide and centered, whatever the features are
            nn.init.uniform_(p, -1e-3, 1e-3)

    def forward(self, features: Tensor) -> SquashedGaussian:  # (..., F)
        mean, log_std = self.out(features).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(-20, 2))


class DiscreteHead(nn.Module):
    """Features to the logits of n actions."""

    stochastic: ClassVar[bool] = True

    def __init__(self, features: int, space: spaces.Discrete) -> None:
        super().__init__()
        self.out = nn.Linear(features, int(space.n))

    def forward(self, features: Tensor) -> Categorical:  # (..., F)
        return Categorical(self.out(features))


class MultiDiscreteHead(nn.Module):
    """Features to the logits of M actions, of n choices each or fewer."""

    stochastic: ClassVar[bool] = True
    absent: Tensor

    def __init__(self, features: int, space: spaces.MultiDiscrete) -> None:
        super().__init__()
        absent = torch.arange(int(space.nvec.max())) >= torch.tensor(space.nvec).unsqueeze(-1)  # (M, n)
        self.register_buffer("absent", absent, persistent=False)
        self.out = nn.Linear(features, absent.numel())

    def forward(self, features: Tensor) -> MultiCategorical:  # (..., F)
        return MultiCategorical(self.out(features).unflatten(-1, self.absent.shape).masked_fill(self.absent, -math.inf))


Head = DeterministicHead | GaussianHead | DiscreteHead | MultiDiscreteHead


def action_head(features: int, space: spaces.Space, tanh: bool = True, gaussian: bool = False) -> Head:
    """The head that fits the action space."""
    if isinstance(space, spaces.Discrete):
        return DiscreteHead(features, space)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscreteHead(features, space)
    assert isinstance(space, spaces.Box)
    return (GaussianHead if gaussian else DeterministicHead)(features, space, tanh)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal; from the generator on its own device, else from torch's default one."""
    if generator is None:
        return torch.randn_like(like)
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
