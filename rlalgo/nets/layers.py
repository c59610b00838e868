"""Layers: what comes before a head, and the normalizer of observations."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.core.episodes import Episodes
from rlalgo.core.spaces import Packed, described, ends, stack_frames
from rlalgo.plugins import make
from rlalgo.registry import Choice


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them; none after the last."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers.append(nn.ReLU())
        layers.append(nn.Linear(a, b))
    return nn.Sequential(*layers)


def encoder(choice: Choice, role: str, space: spaces.Space, width: int) -> nn.Module:
    """The chosen encoder for a role, (..., *shape) -> (..., width); refuses one that cannot play it.

    Packed observations are unpacked for it: it takes a dict of tensors, and its space is a Dict.
    """
    if isinstance(space, Packed):
        return nn.Sequential(Unpack(space), make("encoder", choice, space.encoder_space(), width, role=role))
    return make("encoder", choice, space, width, role=role)


def inputs(space: spaces.Space, choice: Choice | None, width: int) -> tuple[nn.Module, int]:
    """What hidden layers take in, (B, *S) -> (B, size), and its size.

    Without an encoder this is the observation itself, flattened, or the choices of a Discrete or MultiDiscrete space,
    one-hot; else the encoder's output of `width` after a ReLU.

    Raises:
        TypeError: images and vectors together need an encoder that takes both.
    """
    if choice is not None:
        return nn.Sequential(encoder(choice, "state", space, width), nn.ReLU()), width
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        hot = OneHot(space)
        return hot, hot.size
    if isinstance(space, Packed) or not isinstance(space, spaces.Box):
        raise TypeError(
            f"observations are images and vectors together, {described(space)}: choose an encoder that takes both, "
            "state_encoder: {name: fusion} (pip install rlalgo-cnn)"
        )
    return Flatten(space), int(torch.Size(space.shape).numel())


def trunk(
    space: spaces.Space,
    choice: Choice | None,
    hidden_dims: Sequence[int],
    dropout: float = 0.0,
    layer_norm: bool = False,
) -> nn.Sequential:
    """Everything before a head: (B, *S) -> (B, hidden_dims[-1]).

    Args:
        space: of the stacked observations (`DataSpec.encoder_space`).
        choice: a state encoder, or None to feed observations in as they are.
        hidden_dims: units of each hidden layer, with ReLU after it; an encoder's width is the first of them.
        dropout: after every hidden layer.
        layer_norm: after every ReLU.
    """
    first, size = inputs(space, choice, hidden_dims[0])
    layers = [first]
    for a, b in itertools.pairwise([size, *hidden_dims]):
        layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        layers += [nn.LayerNorm(b)] if layer_norm else []
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


class Flatten(nn.Module):
    """(..., *shape) -> (..., size) float; integer input (pixels) is scaled to [0, 1] by the space's bound."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        is_float = space.dtype is not None and space.dtype.kind == "f"
        self.dims = len(space.shape)
        self.bound = 1.0 if is_float else float(max(abs(space.high).max(), 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(*x.shape[: x.dim() - self.dims], -1)
        return flat if flat.is_floating_point() else flat.float() / self.bound


class OneHot(nn.Module):
    """(...,) or (..., M) int64 from 0 -> (..., size) float: n numbers for each, n being the most choices of any."""

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        first, last = ends(space)
        self.n, self.dims = int((last - first).max()) + 1, first.ndim
        self.size = self.n * first.size

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(x, self.n).flatten(x.dim() - self.dims).float()


class Unpack(nn.Module):
    """Packed observations as a dict of their parts; what is one already (`Normalizer`) stays so."""

    def __init__(self, space: Packed) -> None:
        super().__init__()
        self.space = space

    def forward(self, rows: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        return rows if isinstance(rows, dict) else self.space.unpack(rows)


class Normalizer(nn.Module):
    """(x - mean) / (std + 1e-6) with the statistics of the data, kept as buffers (DT authors' gym code).

    The identity until `fit`, and for integer observations (images), which encoders scale themselves; of packed ones it
    normalizes the vectors, also where they come as a dict of parts (exported graphs see no numbers in bytes). What
    never varies in the data is centered only: divided by 1e-6, the first one that differs would drown all others.

    Args:
        space: of the stacked observations (`DataSpec.encoder_space`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.packed = space if isinstance(space, Packed) else None
        shape = (space.size,) if isinstance(space, Packed) else space.shape
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def fit(self, episodes: Episodes) -> None:
        """Mean and standard deviation over all steps, in float64, 64k rows at a time; the same for every frame."""
        observations = episodes.observations if self.packed is None else self.packed.floats(episodes.observations)
        if not observations.is_floating_point():
            return
        shape, k = observations.shape[1:], episodes.spec.frame_stack
        rows = torch.arange(episodes.steps) + episodes.episode_ids()  # (N,) without the final observations
        total, square = torch.zeros(2, *shape, dtype=torch.float64)
        for part in rows.split(65536):
            total += observations[part].cpu().double().sum(0)
        mean = total / len(rows)
        for part in rows.split(65536):
            square += (observations[part].cpu().double() - mean).square().sum(0)
        std = (square / len(rows)).sqrt()
        std = std.masked_fill(std <= 1e-6 * mean.abs().clamp(min=1), 1) + 1e-6
        for buffer, value in ((self.mean, mean), (self.std, std)):
            buffer.copy_(value if k == 1 or self.packed else stack_frames(value.expand(k, *shape), shape))

    def forward(self, x: Any) -> Any:
        """(..., *shape) -> (..., *shape); integer input passes unchanged."""
        if self.packed is not None and isinstance(x, dict):
            places = self.packed.floats_at
            normal = {name: (x[name] - self.mean[at]) / self.std[at] for name, at in places.items()}
            return {name: normal.get(name, part) for name, part in x.items()}
        if self.packed is not None:
            x = x.clone()
            self.packed.floats(x).sub_(self.mean).div_(self.std)
            return x
        return (x - self.mean) / self.std if x.is_floating_point() else x
