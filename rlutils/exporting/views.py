"""What `rlutils.data.preparation` does to raw observations, in torch, to the bit: graphs take the environment's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import DataSpec
from rlalgo.core.spaces import Packed, ends
from rlutils.data.images import Images
from rlutils.data.preparation import Preparation, read_record
from rlutils.data.spaces import is_image, leaves


@dataclass(frozen=True)
class View:
    """A part of the raw observation, and the module that makes of it what is stored."""

    name: str
    """As in `Preparation`; empty where the observation is one array."""
    path: tuple[str | int, ...]
    """Keys of Dicts and places in Tuples that lead to it."""
    space: spaces.Space
    kind: str
    """The type that the graph takes: images are bytes, choices int64, other numbers float32."""
    shape: tuple[int | None, ...]
    """Of the raw part; None where it is resized from any size."""
    module: nn.Module


def views(spec: DataSpec) -> tuple[list[View], bool]:
    """The parts of a raw observation, and whether they become one vector, side by side."""
    record, stored = read_record(spec.preprocess), spec.observation_space
    raw = stored.parts if record.flatten is None and isinstance(stored, Packed) else record.flatten
    if raw is None:
        images, shape = record.images, tuple(stored.shape or ())
        module: nn.Module = nn.Identity() if images is None else Prepared(images)
        return [
            View("", (), stored, str(stored.dtype), shape if images is None else _raw(shape, images), module)
        ], False
    known = Preparation(raw, record.images)
    found = []
    for (name, part, _), path in zip(leaves(known.raw), _paths(known.raw), strict=True):
        images = known.images.get(name)
        module = (nn.Identity() if images is None else Prepared(images)) if is_image(part) else Vector(part)
        kind = "uint8" if is_image(part) else "float32" if isinstance(part, spaces.Box) else "int64"
        found.append(View(name, path, part, kind, tuple(part.shape or ()), module))
    return found, known.flattens


def _paths(space: spaces.Space, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """In the order of `leaves`."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path
        return
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
        yield from _paths(part, (*path, key))


def _raw(stored: tuple[int, ...], images: Images) -> tuple[int | None, ...]:
    """The shape that became `stored`, as far as the record tells; what became gray had three colors."""
    plane = stored[-2:] if images.size is None else (None, None)
    channels = (3,) if images.gray else stored[:-2]
    return (*plane, *channels) if images.channels_last else (*channels, *plane)


class Vector(nn.Module):
    """(m, *shape) -> (m, S) float32, discrete values one-hot, as `flatten_batch`."""

    def __init__(self, space: spaces.Space) -> None:
        super().__init__()
        self.discrete = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            first, last = (end.reshape(-1) for end in ends(space))
            sizes = last - first + 1  # (M,)
            self.column = torch.from_numpy(np.arange(len(sizes)).repeat(sizes))  # (S,)
            self.value = torch.from_numpy(
                np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
            )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], -1)
        return (flat[:, self.column] == self.value).float() if self.discrete else flat.float()


class Prepared(nn.Module):
    """(m, *recorded shape) -> (m, *shape) bytes, as `Images`: Pillow's own whole numbers, held in float64."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.images = images

    def forward(self, x: Tensor) -> Tensor:
        images, exact = self.images, x
        if x.dim() == 4 and images.channels_last:
            exact = exact.permute(0, 3, 1, 2)  # (m, C, H, W)
        if images.gray or images.size:
            exact = exact.double()
        if images.gray:
            weights = torch.tensor([19595.0, 38470.0, 7471.0], dtype=torch.float64).view(3, 1, 1)
            exact = ((exact * weights).sum(1) + 2**15).div(2**16).floor()  # (m, H, W)
        if images.size:
            for out in reversed(images.size):  # along the width first; rounded to bytes after each
                share = _shares(exact.shape[-1], out)
                exact = ((exact @ share.T + 2**21).div(2**22).floor().clamp(0, 255)).transpose(-1, -2)
        return exact.to(torch.uint8)


def _shares(size: Any, out: int) -> Tensor:
    """(out, size) the share of every old pixel in every new one, in 2**22ths: Pillow's box filter."""
    old = torch.arange(size, dtype=torch.float64)
    n = old[-1] + 1  # as a tensor: an exported graph takes any size
    scale = n / out
    wide = scale.clamp(min=1)
    center = ((torch.arange(out, dtype=torch.float64) + 0.5) * scale).unsqueeze(1)
    first = (center - 0.5 * wide + 0.5).floor().clamp(min=0)
    end = torch.minimum((center + 0.5 * wide + 0.5).floor(), n)
    place = (old - center + 0.5) * (1 / wide)
    inside = ((place > -0.5) & (place <= 0.5) & (old >= first) & (old < end)).double()
    return (0.5 + inside / inside.sum(1, keepdim=True) * 2**22).floor()
