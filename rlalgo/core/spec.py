"""DataSpec: what the data is made of, enough to rebuild a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import numpy as np
from gymnasium import spaces
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from rlalgo.core.spaces import MOST, Packed, as_float32, from_mapping, stacked, to_mapping
from rlalgo.errors import DataError, first_fault

Returns = TypeVar("Returns", float, np.ndarray)


def _read_space(values: Any) -> spaces.Space:
    try:
        return from_mapping(values)
    except DataError as error:
        raise ValueError(str(error)) from error  # for pydantic to say which one it is


AnySpace = Annotated[spaces.Space, PlainValidator(_read_space)]


@dataclass(frozen=True)
class DataSpec:
    """What the data is made of: saved with every checkpoint, enough to rebuild a policy.

    Floats are float32 and discrete actions int64 throughout; spaces of another precision are taken as such.
    """

    observation_space: AnySpace
    """Space of one stored observation: a Box (a single frame where frames are stacked). One of images and vectors
    together is `rlalgo.core.spaces.Packed`, which is a Box of bytes."""
    action_space: AnySpace
    """Box with one dimension, Discrete, or MultiDiscrete with one dimension; with any start."""
    frame_stack: int = 1
    """Observations an encoder sees at once; applied when gathering and playing, never stored."""
    max_steps: Annotated[int, Field(le=10**12)] = 1000
    """Longest possible episode, in steps."""
    env_id: str | None = None
    """Gymnasium id of the environment that the data comes from."""
    ref_scores: tuple[float, float] | None = None
    """Returns of a random and of an expert policy, finite and not the same: 0 and 100 of the normalized score."""
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    """What source and environment both do to raw observations, and the environment's own arguments."""

    def __post_init__(self) -> None:
        if not isinstance(self.observation_space, spaces.Box):
            raise DataError(
                f"observation space {self.observation_space} is not a Box; "
                "flatten it first (rlutils sources and environments do, with gymnasium's flatten)"
            )
        for name in ("observation_space", "action_space"):
            object.__setattr__(self, name, _usual_precision(getattr(self, name)))
        action = self.action_space
        numbers = isinstance(action, spaces.MultiDiscrete) or action.dtype == np.float32
        if not isinstance(action, spaces.Discrete) and not (numbers and len(action.shape or ()) == 1):
            raise DataError(
                f"action space {action}: expected Discrete, or MultiDiscrete or a Box of floats in one dimension "
                "(rlutils sources and environments flatten MultiDiscrete and MultiBinary)"
            )
        if self.frame_stack < 1 or self.max_steps < 1:
            raise DataError(f"frame_stack {self.frame_stack} and max_steps {self.max_steps} must both be 1 or more")
        if self.frame_stack * math.prod(self.observation_space.shape) > MOST:
            raise DataError(f"frame_stack {self.frame_stack}: so many frames are more than {MOST:,} numbers; use fewer")
        if self.ref_scores is not None:
            normalized_score(0.0, self.ref_scores)

    def encoder_space(self) -> spaces.Box:
        """`observation_space` with frames stacked (`rlalgo.core.spaces.stacked`); still packed, where it is."""
        box = self.observation_space
        assert isinstance(box, spaces.Box)
        return Packed(box.parts, self.frame_stack) if isinstance(box, Packed) else stacked(box, self.frame_stack)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values only, for YAML; `from_mapping` turns them back."""
        return {
            "observation_space": to_mapping(self.observation_space),
            "action_space": to_mapping(self.action_space),
            "frame_stack": self.frame_stack,
            "max_steps": self.max_steps,
            "env_id": self.env_id,
            "ref_scores": None if self.ref_scores is None else [float(x) for x in self.ref_scores],
            "preprocess": dict(self.preprocess),
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DataSpec:
        """The inverse of `to_mapping`; what is lacking has its default.

        Raises:
            DataError: these values describe no data.
        """
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise DataError(f"spec: {first_fault(error)}") from error


def normalized_score(returns: Returns, ref_scores: tuple[float, float]) -> Returns:
    """Returns on the scale from 0 (a random policy) to 100 (an expert), by the reference scores of the two.

    Raises:
        DataError: the two are the same, or not finite.
    """
    random, expert = ref_scores
    if random == expert or not math.isfinite(expert - random):
        raise DataError(
            f"ref_scores {ref_scores}: expected two different finite returns, of a random and an expert policy"
        )
    return 100 * (returns - random) / (expert - random)


def _usual_precision(space: spaces.Space) -> spaces.Space:
    """A Box of floats in float32, Discrete and MultiDiscrete spaces in int64, any other as it is."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n), start=int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.astype(np.int64), start=space.start.astype(np.int64))
    if not isinstance(space, spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        return space
    return as_float32(space)
