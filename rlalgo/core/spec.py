"""DataSpec: what the data is made of, enough to rebuild a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces

from rlalgo.core.spaces import as_float32, from_mapping, to_mapping
from rlalgo.errors import DataError

Returns = TypeVar("Returns", float, np.ndarray)


@dataclass(frozen=True)
class DataSpec:
    """What the data is made of: saved with every checkpoint, enough to rebuild a policy.

    Floats are float32 and discrete actions int64 throughout; spaces of another precision are taken as such.
    """

    observation_space: spaces.Space
    """Space of one stored observation: a Box (a single frame where frames are stacked)."""
    action_space: spaces.Space
    """Box with one dimension, or Discrete with any start."""
    frame_stack: int = 1
    """Observations an encoder sees at once; applied when gathering and playing, never stored."""
    max_steps: int = 1000
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
        one_box = isinstance(action, spaces.Box) and action.dtype == np.float32 and len(action.shape) == 1
        if not one_box and not isinstance(action, spaces.Discrete):
            raise DataError(f"action space {action}: expected a Discrete space or a one-dimensional Box of floats")
        if self.frame_stack < 1 or self.max_steps < 1:
            raise DataError(f"frame_stack {self.frame_stack} and max_steps {self.max_steps} must both be 1 or more")
        if self.ref_scores is not None:
            normalized_score(0.0, self.ref_scores)

    def encoder_space(self) -> spaces.Box:
        """What encoders see: `observation_space` with frames stacked.

        (H, W) frames become (k, H, W), (C, H, W) become (k*C, H, W) and vectors (S,) become (k, S).
        """
        box = self.observation_space
        assert isinstance(box, spaces.Box)
        if self.frame_stack == 1:
            return box
        dtype: Any = box.dtype
        return spaces.Box(
            stack_frames(np.stack([box.low] * self.frame_stack), box.shape),
            stack_frames(np.stack([box.high] * self.frame_stack), box.shape),
            dtype=dtype,
        )

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
        """The inverse of `to_mapping`."""
        scores = values["ref_scores"]
        return cls(
            observation_space=from_mapping(values["observation_space"]),
            action_space=from_mapping(values["action_space"]),
            frame_stack=int(values["frame_stack"]),
            max_steps=int(values["max_steps"]),
            env_id=values["env_id"],
            ref_scores=None if scores is None else (float(scores[0]), float(scores[1])),
            preprocess=dict(values["preprocess"]),
        )


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


def stack_frames(frames: Any, shape: Sequence[int]) -> Any:
    """(..., k, *shape) -> what an encoder sees; images with channels join along the channels."""
    if len(shape) == 3:
        return frames.reshape(*frames.shape[:-4], -1, *shape[1:])
    return frames


def _usual_precision(space: spaces.Space) -> spaces.Space:
    """A Box of floats in float32, a Discrete space in int64, any other as it is."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n), start=int(space.start))
    if not isinstance(space, spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        return space
    return as_float32(space)
