"""What sources and environments alike do to raw observations; `DataSpec.preprocess` records it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import TypeAdapter, ValidationError

from rlalgo.core.spaces import Packed, to_mapping
from rlalgo.core.spec import AnySpace
from rlalgo.errors import DataError, first_fault
from rlutils.data.images import Images
from rlutils.data.spaces import flatten_batch, flatten_space, is_image, leaves, needs_flatten, stored_space


@dataclass(frozen=True)
class Record:
    """What `DataSpec.preprocess` says; what is not there was not done."""

    flatten: AnySpace | None = None
    """The original observation space, if observations are flattened or packed."""
    images: Images | None = None
    """What is done to images."""
    actions: AnySpace | None = None
    """The original action space, if actions are flattened."""
    env_module: str | None = None
    """The package that registers the environment, if that is not gymnasium itself."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments that the environment was made with."""
    env_wrappers: list[dict[str, Any]] = field(default_factory=list)
    """Wrappers that the environment was recorded with, innermost first."""


_RECORD = TypeAdapter(Record)


def read_record(preprocess: Mapping[str, Any]) -> Record:
    """`DataSpec.preprocess`, of which any file may say anything; what others keep there is left to them.

    Raises:
        DataError: something is not what it has to be.
    """
    try:
        return _RECORD.validate_python(dict(preprocess))
    except ValidationError as error:
        raise DataError(f"preprocess of the data: {first_fault(error)}") from error


class Preparation:
    """Raw observations to stored ones: flattened to vectors, or packed where there are images among them.

    Args:
        raw: the space of what is given.
        images: whether they become gray, and of which size; None leaves an image as it is (but those of a Dict or
            Tuple, of which channels come first in any case).

    Raises:
        TypeError: observations of this space cannot be stored, or this cannot be done to its images.
    """

    def __init__(self, raw: spaces.Space, images: Images | None = None) -> None:
        self.raw = raw
        self.record: dict[str, Any] = {"flatten": to_mapping(raw)} if needs_flatten(raw) else {}
        """For `DataSpec.preprocess`."""
        self.images: dict[str, Images | None] = {}
        """Name of an image -> what is done to it."""
        gray, size = (images.gray, images.size) if images else (False, None)
        parts = [(name, part) for name, part, _ in leaves(raw)]
        packs = needs_flatten(raw) and any(is_image(part) for _, part in parts)
        self.flattens = needs_flatten(raw) and not packs
        """Whether observations become vectors."""
        if packs:
            self.images = {name: Images.needed(part, gray, size) for name, part in parts if is_image(part)}
            boxes = {name: self._box(name, part) for name, part in parts}
            if len(boxes) < len(parts):
                raise TypeError(f"two parts of {raw} have one name when their keys are joined by /; rename one")
            self.space: spaces.Box = Packed(spaces.Dict(list(boxes.items())))
            if gray or size:
                self.record["images"] = Images(gray=gray, size=size).record()
        else:
            self.space = stored_space(raw)
            if images is not None and (found := Images.needed(raw, gray, size)):
                self.images, self.space, self.record["images"] = {"": found}, found.space(self.space), found.record()
        self.casts = not self.images and not self.flattens
        """Whether nothing is done but to cast numbers."""

    def __call__(self, batch: Any) -> np.ndarray:
        """T raw observations, time first and nested as their space is -> (T, *S).

        Raises:
            OutsideSpace: a discrete value is out of range.
        """
        if isinstance(self.space, Packed):
            parts = leaves(self.raw, batch)
            return self.space.pack({name: self._stored(name, part, values) for name, part, values in parts})
        return self._stored("", self.raw, batch)

    def _stored(self, name: str, part: spaces.Space, values: Any) -> np.ndarray:
        """(T, *raw shape) -> (T, *shape)."""
        if self.casts or is_image(part):
            images, values = self.images.get(name), np.asarray(values)
            return values if images is None else images(values)
        return flatten_batch(part, values)

    def _box(self, name: str, part: spaces.Space) -> spaces.Box:
        """The space of a part that is packed."""
        if not is_image(part):
            return flatten_space(part)
        images = self.images[name]
        assert isinstance(part, spaces.Box)
        return part if images is None else images.space(part)
