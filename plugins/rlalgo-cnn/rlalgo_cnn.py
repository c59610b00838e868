"""Image encoders for rlalgo: `cnn` is the DQN network, `impala` the residual one of IMPALA.

Both take images as data and environments give them, (..., C, H, W) or (..., H, W), and treat each by itself: no batch
normalization and no running statistics, so weights are all there is to save. `fusion` takes vectors besides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import Choice, hookimpl
from rlalgo.config import Few, HiddenDims, Size, Sizes, StateEncoder
from rlalgo.nets import encoder, mlp


class CNN(nn.Module):
    """Convolutions with ReLU, then a linear map (Mnih et al. 2015)."""

    name: ClassVar[str] = "cnn"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        channels: Sizes = (32, 64, 64)
        """Channels of each convolution."""
        kernels: Sizes = (8, 4, 3)
        """Kernel size of each convolution."""
        strides: Sizes = (4, 2, 1)
        """Stride of each convolution."""
        hidden_dim: Size | None = None
        """Units of one more ReLU layer before the output (DQN has 512); null for none."""
        tanh: bool = False
        """Squash the embedding, as the Decision Transformer does on Atari."""

        def __post_init__(self) -> None:
            lengths = [len(option) for option in (self.channels, self.kernels, self.strides)]
            if len(set(lengths)) > 1 or not self.channels:
                raise ValueError(
                    "channels, kernels and strides need one number for each convolution, at least one; "
                    f"got {lengths[0]}, {lengths[1]} and {lengths[2]} numbers"
                )

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        self.images = Images(self.name, space)
        C, H, W = self.images.shape
        layers: list[nn.Module] = []
        for channels, kernel, stride in zip(config.channels, config.kernels, config.strides, strict=True):
            if kernel > min(H, W):
                raise self.images.too_small(
                    f"a kernel of {kernel} meets only {H}x{W}; choose smaller or fewer kernels and strides"
                )
            layers += [nn.Conv2d(C, channels, kernel, stride), nn.ReLU(inplace=True)]
            C, H, W = channels, (H - kernel) // stride + 1, (W - kernel) // stride + 1
        self.net = nn.Sequential(*layers, *readout(C * H * W, config.hidden_dim, width, config.tanh))
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.images.restore(self.net(self.images(x)), x)


class Impala(nn.Module):
    """Stages of a convolution, a max-pool and residual blocks (Espeholt et al. 2018, figure 3, the larger network)."""

    name: ClassVar[str] = "impala"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        channels: Sizes = (16, 32, 32)
        """Channels of each stage; every stage halves height and width."""
        blocks: Few = 2
        """Residual blocks in a stage."""
        hidden_dim: Size | None = None
        """Units of one more ReLU layer before the output (IMPALA has 256); null for none."""
        tanh: bool = False
        """Squash the embedding, as the Decision Transformer does on Atari."""

        def __post_init__(self) -> None:
            if not self.channels:
                raise ValueError("channels: give one number for each stage, at least one")

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        self.images = Images(self.name, space)
        C, H, W = self.images.shape
        layers: list[nn.Module] = []
        for channels in config.channels:
            if min(H, W) == 1:
                raise self.images.too_small(
                    f"{len(layers) // (2 + config.blocks)} of {len(config.channels)} stages halve it to {H}x{W}; "
                    "choose fewer channels"
                )
            layers += [nn.Conv2d(C, channels, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [Residual(channels) for _ in range(config.blocks)]
            C, H, W = channels, (H + 1) // 2, (W + 1) // 2
        layers.append(nn.ReLU(inplace=True))
        self.net = nn.Sequential(*layers, *readout(C * H * W, config.hidden_dim, width, config.tanh))
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.images.restore(self.net(self.images(x)), x)


class Fusion(nn.Module):
    """Images and vectors together: each image embedded by an encoder of its own, all vectors by one MLP."""

    name: ClassVar[str] = "fusion"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        image_encoder: StateEncoder = Choice("cnn")
        """What embeds each image."""
        image_dim: Size = 256
        """Size of an image's embedding."""
        hidden_dims: HiddenDims = (256,)
        """Units of each ReLU layer over the vectors."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        if not isinstance(space, spaces.Dict):
            raise TypeError(
                f"{self.name} needs images and vectors together, got {space}; choose another encoder for it"
            )
        self.boxes: dict[str, Any] = dict(space.spaces)
        self.images = [name for name, box in self.boxes.items() if box.dtype == np.uint8]
        self.vectors = [name for name in self.boxes if name not in self.images]
        choice, sizes = config.image_encoder, [self.boxes[name].shape for name in self.vectors]
        self.encoders = nn.ModuleList(
            encoder(choice, "state", self.boxes[name], config.image_dim) for name in self.images
        )
        size = len(self.images) * config.image_dim
        if self.vectors:
            self.mlp = mlp([sum(math.prod(shape) for shape in sizes), *config.hidden_dims])
            size += config.hidden_dims[-1]
        self.out = nn.Linear(size, width)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """(..., *shape) for each part -> (..., width)."""
        parts = [encode(x[name]) for name, encode in zip(self.images, self.encoders, strict=True)]
        if self.vectors:
            flat = [x[name].flatten(-len(self.boxes[name].shape)) for name in self.vectors]
            parts.append(self.mlp(torch.cat(flat, -1)))
        return self.out(torch.cat(parts, -1).relu())


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))): (n, C, H, W) -> (n, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place wherever no gradient needs what was there: fresh activations cost more than the arithmetic.
        return self.second(self.first(x.relu()).relu_()).add_(x)


class Images(nn.Module):
    """(..., *shape) bytes or floats -> (n, C, H, W) floats, with the channels last in memory.

    Channels last, forward and backward take 0.8 (32 images of 4x84x84) to 0.6 (1920) of the time of contiguous images
    in `cnn`, and 0.65 (32) to 0.5 (480) in `impala`: torch 2.13, one thread of a CPU.
    """

    def __init__(self, name: str, space: spaces.Space) -> None:
        super().__init__()
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
            other = "fusion" if isinstance(space, spaces.Dict) else "linear or mlp"
            raise TypeError(f"{name} needs images, (C, H, W) or (H, W), got {space}; choose {other} for it")
        self.name, self.given = name, space.shape
        self.shape = space.shape if len(space.shape) == 3 else (1, *space.shape)
        self.bound = float(max(space.high.max(), 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, *self.shape)
        if x.is_floating_point():
            return x.contiguous(memory_format=torch.channels_last)
        # Cast and reordered in one pass, then scaled in place: one new tensor on the device instead of three.
        return x.to(torch.float32, memory_format=torch.channels_last).div_(self.bound)

    def restore(self, embedded: Tensor, x: Tensor) -> Tensor:
        """(n, width) -> (..., width), with the leading dimensions of the images x."""
        return embedded.view(*x.shape[: x.dim() - len(self.given)], embedded.shape[-1])

    def too_small(self, why: str) -> ValueError:
        """The error for images that do not last through the layers."""
        _, H, W = self.shape
        return ValueError(
            f"{self.name}: images of shape {self.given} are too small; of {H}x{W} pixels (channels come first) {why}"
        )


def readout(size: int, hidden: int | None, width: int, tanh: bool) -> list[nn.Module]:
    """The layers from (n, C, H, W) with size = CHW to (n, width)."""
    layers: list[nn.Module] = [nn.Flatten()]
    if hidden is not None:
        layers += [nn.Linear(size, hidden), nn.ReLU(inplace=True)]
        size = hidden
    layers.append(nn.Linear(size, width))
    return [*layers, nn.Tanh()] if tanh else layers


@hookimpl
def rlalgo_register_encoders(register: Any) -> None:
    register(CNN)
    register(Impala)
    register(Fusion)
