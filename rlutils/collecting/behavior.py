"""What a behavior is: policies that play, and what to note of each episode."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import gymnasium

from rlalgo import Policy

Facts = Mapping[str, Any]
"""Numbers and texts to store with an episode: `policy`, a label; `noise`, its level; whatever else is worth it."""

Progress = Callable[[str, float], None]
"""Shows what goes on: a phase and how much of it is done, 0 to 1."""


class Behavior(Protocol):
    """Has a `name`, a `Config` and `__init__(self, config)` besides."""

    def policies(self, env: gymnasium.Env, seed: int, progress: Progress) -> Iterator[tuple[Policy, Facts]]:
        """For one episode after the other the policy, of one row, that plays it, and its facts.

        The next is asked for when an episode is over, until enough is recorded: it need never end.

        Args:
            env: the environment that will be played in, for its spaces, or to search in before.
            seed: of all that is drawn. Episode k is reset with `seed + k`, unless its facts have a `seed`.
            progress: for what takes long before the first episode.
        """
