"""Critics: ensembles of action values, target networks, and the expectile loss."""

import copy
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rlalgo.nets.layers import inputs
from rlalgo.registry import Choice


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
        space, choice, hidden_dims: as for `trunk`; the encoder is shared by all members.
        action_dim: A.
        n: how many.
        layer_norm: after every ReLU.
    """

    def __init__(
        self,
        space: spaces.Space,
        choice: Choice | None,
        hidden_dims: Sequence[int],
        action_dim: int,
        n: int = 2,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n = n
        self.inputs, size = inputs(space, choice, hidden_dims[0])
        self.members = Ensemble(n, [size + action_dim, *hidden_dims, 1], layer_norm)

    def forward(self, observations: Tensor, actions: Tensor, first: int | None = None) -> Tensor:
        """(B, *S) and scaled actions (B, A) -> (n, B); actions (B, M, A) -> (n, B, M). `first`: that many members."""
        x = self.inputs(observations)  # (B, F)
        if actions.dim() == 3:
            x = x.unsqueeze(1).expand(-1, actions.shape[1], -1)  # (B, M, F)
        x = torch.cat([x, actions], -1).flatten(0, -2)  # (B or B*M, F+A)
        return self.members(x.expand(first or self.n, -1, -1)).view(-1, *actions.shape[:-1])

    def each(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, *S) and actions of each member's own (n, B, A) -> (n, B)."""
        x = self.inputs(observations).expand(self.n, -1, -1)  # (n, B, F)
        return self.members(torch.cat([x, actions], -1)).squeeze(-1)


class DiscreteCritics(nn.Module):
    """n action values Q_i(s, a) of discrete actions.

    Args:
        space, choice, hidden_dims: as for `trunk`; the encoder is shared by all members.
        n_actions: how many actions there are.
        n: how many members.
        dueling: Q = V + A - mean(A), V and A each with hidden layers of its own (Wang et al. 2016, equation 9).
    """

    def __init__(
        self,
        space: spaces.Space,
        choice: Choice | None,
        hidden_dims: Sequence[int],
        n_actions: int,
        n: int = 2,
        dueling: bool = False,
    ) -> None:
        super().__init__()
        self.n = n
        self.inputs, size = inputs(space, choice, hidden_dims[0])
        self.members = Ensemble(n, [size, *hidden_dims, n_actions])
        self.value = Ensemble(n, [size, *hidden_dims, 1]) if dueling else None

    def forward(self, observations: Tensor, actions: Tensor | None = None) -> Tensor:
        """(B, *S) and actions (B,) int64 -> (n, B); without actions the value of each of them, (n, B, n_actions)."""
        x = self.inputs(observations).expand(self.n, -1, -1)  # (n, B, F)
        values = self.members(x)
        if self.value is not None:
            values = self.value(x) + values - values.mean(-1, keepdim=True)
        if actions is None:
            return values
        return values.gather(2, actions.expand(self.n, -1).unsqueeze(-1)).squeeze(2)


def critics_for(
    action_space: spaces.Space,
    space: spaces.Space,
    choice: Choice | None,
    hidden_dims: Sequence[int],
    n: int = 2,
    dueling: bool = False,
) -> Critics | DiscreteCritics:
    """The critics that fit the action space.

    Raises:
        TypeError: there are none for it.
        ValueError: `dueling` where actions are continuous.
    """
    if isinstance(action_space, spaces.Discrete):
        return DiscreteCritics(space, choice, hidden_dims, int(action_space.n), n, dueling)
    if not isinstance(action_space, spaces.Box):
        raise TypeError(f"critics value actions of a Box or Discrete space, got {action_space}")
    if dueling:
        raise ValueError(f"dueling is for discrete actions, got {action_space}; set it to false")
    return Critics(space, choice, hidden_dims, action_space.shape[0], n)


class Target(nn.Module):
    """A copy of a module that no optimizer trains and that follows it slowly (a target network)."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(source).requires_grad_(False)
        # Listed once: walking the modules costs as much as the averaging. Buffers by name, since moving replaces them.
        self._parameters_of = (list(self.copy.parameters()), list(source.parameters()))
        pairs = zip(self.copy.modules(), source.modules(), strict=True)
        self._buffers_of = [(a, b, name) for a, b in pairs for name, _ in a.named_buffers(recurse=False)]

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.copy(*inputs)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """copy <- (1 - tau) copy + tau source; statistics kept as buffers are copied."""
        get_ema_multi_avg_fn(1 - tau)(*self._parameters_of, None)
        for a, b, name in self._buffers_of:
            getattr(a, name).copy_(getattr(b, name))


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2, element by element (Kostrikov et al. 2021, equation 1)."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()
