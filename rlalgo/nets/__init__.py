"""Parts that several algorithms share: networks, ensembles of critics, action heads, a policy, schedules."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.episodes import Episodes, stack_frames
from rlalgo.core.policy import FrameStack, Policy


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
    in the data is centred only: divided by 1e-6, the first observation that differs would drown all others.
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
        for p in self.out.parameters():  # starts wide and centred, whatever the features are
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
    """(..., A) standardised and unsquashed draws -> (...,) log density of tanh(before)."""
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


class Chooser:
    """Turns predictions into raw actions on the CPU; row i samples if `sample[i]`, with its own generator."""

    def __init__(self, head: Any, sample: Sequence[bool]) -> None:
        if any(sample) and not head.stochastic:
            raise ValueError("sample: true needs a Discrete action space or a Gaussian policy; this one has neither")
        self.head = head
        self.sample = torch.tensor(sample)  # (n,)
        self.any = any(sample)
        self.generator = torch.Generator()
        if self.any:  # seeded from the default generator, which an evaluation forks
            self.generator.manual_seed(int(torch.randint(2**62, ())))

    def __call__(self, prediction: Tensor, rows: Tensor) -> Tensor:
        """Predictions (m, ...) of rows (m,) -> actions (m, A) | (m,)."""
        actions = self.head.actions(prediction).cpu()
        if self.any and (drawn := self.sample[rows]).any():
            actions[drawn] = self.head.actions(prediction[drawn.to(prediction.device)], self.generator).cpu()
        return actions


class Actor(nn.Module):
    """A trunk and the head on it: (B, *S) -> the prediction that the head's `actions`, `sample` and `loss` take."""

    def __init__(self, trunk: nn.Module, head: Any) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, observations: Tensor) -> Tensor:
        return self.head(self.trunk(observations))


class ActorPolicy(Policy):
    """Plays what a network predicts from the present observation alone, for n rows.

    Args:
        algo: whose network it is.
        predict: stacked raw observations (m, *S) -> what `head.actions` takes.
        head: turns predictions into raw actions.
        options: `sample`, where an option has it, draws the action.
    """

    def __init__(
        self, algo: BatchRLAlgo, predict: Callable[[Tensor], Tensor], head: Any, options: Sequence[Any]
    ) -> None:
        self.algo, self.predict, self.options = algo, predict, options
        self.stack = FrameStack(algo.spec, len(options), algo.device)
        self.chooser = Chooser(head, [getattr(option, "sample", False) for option in options])

    def begin(self, rows: Tensor) -> None:
        self.stack.begin(rows)

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        with self.algo.evaluating():
            return self.chooser(self.predict(self.stack.push(observations, rows)), rows)


class Ensemble(nn.Module):
    """n MLPs side by side, one batched product a layer: (n, B, sizes[0]) -> (n, B, sizes[-1]).

    ReLU (and layer normalisation after it, as ReBRAC has it) between layers. Weights start as nn.Linear's do.
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
    """Layer normalisation with a scale and a shift for each of n members: (m, B, width), m <= n."""

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
    """A copy of a module that no optimiser trains and that follows it slowly (a target network)."""

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


class Counter(nn.Module):
    """Counts updates on the host, so that looking costs no device sync; saved with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def step(self) -> int:
        """1 at the first call."""
        self.count += 1
        return self.count

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        self.count = int(state)


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(u < 0)| u^2, element by element (Kostrikov et al. 2021, equation 1)."""
    return torch.where(u < 0, 1 - expectile, expectile) * u.square()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True places of `mask`; both (B, K). 0 where nothing is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of which only one decays: the weights of linear maps and convolutions (DT's Atari code).

    Biases, norms, tables and free parameters are in the other, whose weight decay is 0.
    """
    products = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {id(part.weight) for part in module.modules() if isinstance(part, products)}
    decaying = [p for p in module.parameters() if id(p) in weights]
    others = [p for p in module.parameters() if id(p) not in weights]
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, final: float | Sequence[float]) -> LambdaLR:
    """Linear warmup over `warmup` updates, then a cosine down to `final` x lr at `total` (1: constant).

    `final` is one for all of the optimiser's parameter groups, or one for each.
    """

    def factor(final: float, step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    ends = final if isinstance(final, Sequence) else [final] * len(optimizer.param_groups)
    return LambdaLR(optimizer, [functools.partial(factor, end) for end in ends])
