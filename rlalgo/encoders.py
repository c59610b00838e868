"""Encoders: what turns a state, an action, a return-to-go or a timestep into a vector of a model's width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Count
from rlalgo.hookspecs import hookimpl
from rlalgo.nets.layers import mlp
from rlalgo.plugins import make
from rlalgo.registry import Choice


class Linear(nn.Module):
    """One linear map; for a Discrete space a table with a row per value. The paper's choice for all roles."""

    name: ClassVar[str] = "linear"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state", "action", "return", "timestep"})

    @dataclass(frozen=True)
    class Config:
        tanh: bool = False
        """Squash the embedding, as the paper's Atari setting does for returns and actions."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        self.squash = nn.Tanh() if config.tanh else nn.Identity()
        self.flat: nn.Module = nn.Identity()
        if isinstance(space, spaces.Discrete):
            self.map: nn.Module = nn.Embedding(int(space.n), width)
            # As GPT-2 and Hugging Face's DT do; torch's default of 1 drowns the other embeddings of a step.
            nn.init.normal_(self.map.weight, std=0.02)
        else:
            self.flat, size = _flatten(space)
            self.map = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.squash(self.map(self.flat(x)))


class MLP(nn.Module):
    """Hidden layers with ReLU between."""

    name: ClassVar[str] = "mlp"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state", "action", "return"})

    @dataclass(frozen=True)
    class Config:
        hidden: tuple[Count, ...] = (256,)
        """Sizes of the hidden layers."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        if isinstance(space, spaces.Discrete):
            self.flat: nn.Module = _OneHot(int(space.n))
            size = int(space.n)
        else:
            self.flat, size = _flatten(space)
        self.net = mlp([size, *config.hidden, width])

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.net(self.flat(x))


def encoder(choice: Choice, role: str, space: spaces.Space, width: int) -> nn.Module:
    """The chosen encoder for a role; refuses one that cannot play it."""
    return make("encoder", choice, space, width, role=role)


def features(choice: Choice | None, space: spaces.Box, width: int) -> tuple[nn.Module, int]:
    """What hidden layers take in, (B, *S) -> (B, size), and its size.

    Without an encoder this is the observation itself, flattened; else the encoder's output of `width` after a ReLU.
    """
    if choice is None:
        return _flatten(space)
    return nn.Sequential(encoder(choice, "state", space, width), nn.ReLU()), width


class _Flat(nn.Module):
    """(..., *shape) -> (..., size) float; integer input (pixels) is scaled to [0, 1] by the space's bound."""

    def __init__(self, dims: int, bound: float) -> None:
        super().__init__()
        self.dims, self.bound = dims, bound

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(*x.shape[: x.dim() - self.dims], -1)
        return flat if flat.is_floating_point() else flat.float() / self.bound


class _OneHot(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, self.n).float()


def _flatten(space: spaces.Space) -> tuple[nn.Module, int]:
    assert isinstance(space, spaces.Box)
    if len(space.shape) == 1 and _is_float(space):
        return nn.Identity(), space.shape[0]
    bound = float(max(abs(space.high).max(), 1)) if not _is_float(space) else 1.0
    return _Flat(len(space.shape), bound), int(torch.Size(space.shape).numel())


def _is_float(space: spaces.Box) -> bool:
    return space.dtype is not None and space.dtype.kind == "f"


@hookimpl
def rlalgo_register_encoders(register: Any) -> None:
    register(Linear)
    register(MLP)
