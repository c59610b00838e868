"""What a collection is made of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rlalgo import Choice, Kind
from rlalgo.config import Count, Seed


@dataclass(frozen=True)
class Environment:
    id: str
    """Gymnasium id."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments."""


def check_id(ident: str) -> None:
    """ValueError for what Minari would not take as a dataset's id."""
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", ident) or len(ident.rpartition("/")[0]) == 1:
        raise ValueError(
            f"id: '{ident}' is no dataset id; it looks like local/hopper/ars-v0 (to Minari, "
            "a namespace has two letters or more)"
        )


@dataclass(frozen=True)
class CollectSettings:
    id: str
    """Id of the dataset to make: namespace/name-v0."""
    env: Environment
    """Where to play."""
    behavior: Annotated[Choice, Kind("behavior")]
    """Who plays."""
    steps: Count = 10_000
    """Steps to record, rounded up to whole episodes."""
    seed: Seed = 0
    """Seed of everything that is drawn."""
    ref_scores: tuple[float, float] | None = None
    """Returns of a random and of an expert policy, for normalized scores; null stores none."""
    description: str = ""
    """Stored with the dataset."""
    author: str = "rlalgo"
    """Stored with the dataset."""
    plugins: tuple[str, ...] = ()
    """Modules and files to load besides what is installed."""

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.ref_scores is not None and self.ref_scores[0] == self.ref_scores[1]:
            raise ValueError("ref_scores: the random and the expert return are the same")


@dataclass(frozen=True)
class CollectResult:
    """What was recorded."""

    id: str
    path: Path
    episodes: int
    steps: int
    returns: list[float]
    seconds: float
