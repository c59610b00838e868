"""Environments that would never end."""

import warnings
from typing import Any

import gymnasium

from rlalgo.core.stepping import env_name
from rlalgo.errors import RlalgoWarning


class CutWarning(RlalgoWarning):
    """An episode was cut, since its environment has no time limit."""


_TOLD: set[tuple[str, int]] = set()
"""Environments and limits that this process has been told of."""


class DataLimit(gymnasium.wrappers.TimeLimit):
    """A time limit that the environment does not have itself. The first episode that is cut is told."""

    def step(self, action: Any) -> Any:
        """As the environment's, and truncated at the limit."""
        result = super().step(action)
        case = env_name(self.env), self._max_episode_steps
        if self._elapsed_steps == self._max_episode_steps and not result[2] and case not in _TOLD:
            _TOLD.add(case)
            warnings.warn(
                f"environment {case[0]} has no time limit of its own: episodes are cut after {case[1]:,} steps, the "
                "longest of the data (env.kwargs: {max_episode_steps: N} sets another)",
                CutWarning,
                stacklevel=2,
            )
        return result


def limited(env: gymnasium.Env, steps: int) -> gymnasium.Env:
    """`env`, cut after so many steps if it has no time limit of its own."""
    made_by = env.spec
    own = made_by is not None and (made_by.max_episode_steps or made_by.kwargs.get("max_num_frames_per_episode"))
    return env if own else DataLimit(env, steps)
