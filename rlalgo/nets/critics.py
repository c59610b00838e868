"""Critics: ensembles of action values, target networks, and the expectile loss."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ensemble(nn.Module):
    """n MLPs side by side, one batched product a layer: (n, B, sizes[0]) -> (n, B, sizes[-1]).

    ReLU (and layer normalization after it, as ReBRAC has it) between layers. Weights start as nn.Linear's do.
    """

    def __init__(self, n: int, sizes: Sequence[int], layer_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GroupedLinear(n, a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(GroupedNorm(n, b) for b in sizes[1:-1]) if layer_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(m, B, in) -> (m, B, out) by the first m <= n members."""
        for i, layer in enumerate(self.layers):
            if i:
                x = torch.relu_(x)  # in place: fresh activations cost more than the arithmetic
                x = x if self.norms is None else self.norms[i - 1](x)
            x = layer(x)
        return x


class GroupedLinear(nn.Module):
    """A linear map for each of n members: (m, B, a) -> (m, B, b), m <= n."""

    def __init__(self, n: int, a: int, b: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(a)
        self.weight = nn.Parameter(torch.empty(n, a, b).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, b).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        m = len(x)
        return torch.baddbmm(_first(self.bias, m), x, _first(self.weight, m))


class GroupedNorm(nn.Module):
    """Layer normalization with a scale and a shift for each of n members: (m, B, width), m <= n."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n, 1, width))
        self.bias = nn.Parameter(torch.zeros(n, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        m = len(x)
        return torch.addcmul(_first(self.bias, m), F.layer_norm(x, x.shape[-1:]), _first(self.weight, m))


def _first(parameter: Tensor, m: int) -> Tensor:
    """The first m rows; the parameter itself where that is all, since even a whole slice has a costly backward."""
    return parameter if m == len(parameter) else parameter[:m]


class Critics(nn.Module):
    """n action values Q_i(s, a) of continuous actions.

    Args:
        features: what turns (B, *S) into (B, size), shared by all members (`rlalgo.encoders.features`).
        actions: A.
    """

    def __init__(
        self, features: nn.Module, size: int, actions: int, n: int, width: int, layers: int, layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.n, self.features = n, features
        self.members = Ensemble(n, [size + actions] + [width] * layers + [1], layer_norm)

    def forward(self, observations: Tensor, actions: Tensor, first: int | None = None) -> Tensor:
        """(B, *S) and scaled actions (B, A) -> (n, B); actions (B, M, A) -> (n, B, M). `first`: that many members."""
        seen = self.features(observations)  # (B, F)
        if actions.dim() == 3:
            seen = seen.unsqueeze(1).expand(-1, actions.shape[1], -1)  # (B, M, F)
        x = torch.cat([seen, actions], -1).flatten(0, -2)  # (B or B*M, F+A)
        return self.members(x.expand(first or self.n, -1, -1)).view(-1, *actions.shape[:-1])

    def each(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, *S) and actions of each member's own (n, B, A) -> (n, B)."""
        seen = self.features(observations).expand(self.n, -1, -1)  # (n, B, F)
        return self.members(torch.cat([seen, actions], -1)).squeeze(-1)


class DiscreteCritics(nn.Module):
    """n action values of every discrete action: (B, *S) -> (n, B, actions).

    Args:
        features: as for `Critics`.
        dueling: Q = V + A - mean(A), V and A each with hidden layers of its own (Wang et al. 2016, equation 9).
    """

    stochastic: ClassVar[bool] = False

    def __init__(
        self, features: nn.Module, size: int, actions: int, n: int, width: int, layers: int, dueling: bool = False
    ) -> None:
        super().__init__()
        self.n, self.features = n, features
        self.members = Ensemble(n, [size] + [width] * layers + [actions])
        self.value = Ensemble(n, [size] + [width] * layers + [1]) if dueling else None

    def forward(self, observations: Tensor) -> Tensor:
        x = self.features(observations).expand(self.n, -1, -1)  # (n, B, F)
        values = self.members(x)
        if self.value is None:
            return values
        return self.value(x) + values - values.mean(-1, keepdim=True)

    def actions(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Values (..., actions) -> (...,) int64 the best."""
        return values.argmax(-1)


class Target(nn.Module):
    """A copy of a module that no optimizer trains and that follows it slowly (a target network)."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(source).requires_grad_(False)
        # Listed once: walking the modules costs as much as the averaging. Buffers by name, since moving replaces them.
        self._parameters_of = (list(self.copy.parameters()), list(source.parameters()))
        pairs = zip(self.copy.modules(), source.modules(), strict=True)
        self._buffers_of = [
            (mine, theirs, name) for mine, theirs in pairs for name, _ in mine.named_buffers(recurse=False)
        ]

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.copy(*inputs)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """copy <- (1 - tau) copy + tau source; statistics kept as buffers are copied."""
        get_ema_multi_avg_fn(1 - tau)(*self._parameters_of, None)
        for mine, theirs, name in self._buffers_of:
            getattr(mine, name).copy_(getattr(theirs, name))


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2, element by element (Kostrikov et al. 2021, equation 1)."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()
