"""Images as encoders want them: channels first, and gray and smaller if asked for.

What is done is recorded in the data's spec, so that source and environment do the same.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image, UnidentifiedImageError

from rlalgo.config import Size
from rlutils.data.spaces import is_image


@dataclass(frozen=True)
class Images:
    """What is done to every image."""

    channels_last: bool = False
    """They come as (H, W, C); encoders see (C, H, W)."""
    gray: bool = False
    """Luminance instead of colors (ITU-R 601): (H, W)."""
    size: tuple[Size, Size] | None = None
    """New height and width; every new pixel is the mean of those it covers."""

    @classmethod
    def needed(cls, space: spaces.Space, gray: bool, size: tuple[int, int] | None) -> Images | None:
        """What has to be done to images of this space, or None; TypeError if it cannot be done."""
        if not is_image(space):
            if gray or size:
                raise TypeError(f"gray and resize are for images, uint8 in two or three dimensions; it is {space}")
            return None
        shape = space.shape or ()
        last = len(shape) == 3 and shape[2] < min(shape[:2])
        channels = 1 if len(shape) == 2 else shape[2] if last else shape[0]
        if gray and channels not in (1, 3):
            raise TypeError(f"gray needs one channel or three (red, green, blue); {space} has {channels}")
        plane = shape[:2] if last else shape[-2:]
        found = cls(last, gray and len(shape) == 3, None if size == plane else size)
        return None if found == cls() else found

    def record(self) -> dict[str, Any]:
        """Plain values for `DataSpec.preprocess`."""
        return {"channels_last": self.channels_last, "gray": self.gray, "size": self.size and list(self.size)}

    def space(self, box: spaces.Box) -> spaces.Box:
        """The space of images (of the space `box`) when this has been done to them."""
        return spaces.Box(0, 255, self(np.zeros((1, *box.shape), np.uint8)).shape[1:], np.uint8)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(T, *recorded shape) -> (T, *shape) uint8."""
        if images.ndim == 4 and not self.channels_last:
            images = images.transpose(0, 2, 3, 1)  # (T, H, W, C) while they are worked on
        if self.gray or self.size:
            images = np.stack([self._one(image) for image in images])
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2) if images.ndim == 4 else images)

    def _one(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) or (H, W) -> the same, or gray, in the new size."""
        if self.gray:
            image = image[..., 0] if image.shape[2] == 1 else np.asarray(Image.fromarray(image).convert("L"))
        if self.size is None:
            return image
        height, width = self.size
        planes = image[..., None] if image.ndim == 2 else image
        small = [
            Image.fromarray(np.ascontiguousarray(plane))
            .resize((width, len(plane)), Image.Resampling.BOX)  # first, as ever: Pillow 13 chooses by the shapes
            .resize((width, height), Image.Resampling.BOX)
            for plane in planes.transpose(2, 0, 1)
        ]
        return np.asarray(small[0]) if image.ndim == 2 else np.stack([np.asarray(plane) for plane in small], -1)


def is_jpeg(space: spaces.Space, rank: int) -> bool:
    """Whether frames are stored as Minari does by default, a row of bytes for each: fewer dimensions than the space."""
    return is_image(space) and rank <= len(space.shape or ())


def decode_image(content: bytes, shape: tuple[int, ...], formats: tuple[str, ...] = ("JPEG",)) -> np.ndarray:
    """A stored frame as the image (H, W) or (H, W, C) that it is; ValueError or OSError if it is not."""
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"no {' or '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"an image of mode {image.mode}, expected 8 bits for each color")
    if image.size != (shape[1], shape[0]):
        raise ValueError(f"an image of {image.height}x{image.width}, its space says {shape[0]}x{shape[1]}")
    return np.asarray(image)
