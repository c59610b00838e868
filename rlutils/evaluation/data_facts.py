"""data.json as a value: what a run's folder says of its data, and whether that has the returns that are asked for."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rlalgo.config import Whole
from rlalgo.errors import CheckpointError, RlalgoWarning
from rlutils.config.files import read_as
from rlutils.evaluation.statistics import Finite
from rlutils.machine import amount


class TargetWarning(RlalgoWarning):
    """A return is asked for that lies beyond what the data has."""


@dataclass(frozen=True)
class DataFacts:
    """data.json."""

    name: str
    returns: Annotated[list[Finite], Field(min_length=1)]
    steps: Whole
    lengths: list[Whole] = field(default_factory=list)
    """In steps, of each episode."""
    ref_scores: tuple[Finite, Finite] | None = None
    env_id: str | None = None
    held_out: list[Whole] = field(default_factory=list)
    """Numbers of the episodes that were kept from training."""
    fingerprint: str | None = None
    """Of the data (rlalgo.core.fingerprint); runs of older versions have none."""

    @property
    def range(self) -> tuple[float, float]:
        """The lowest return and the best."""
        return min(self.returns), max(self.returns)

    @property
    def asked(self) -> tuple[float, float]:
        """What may be asked for without a warning: a tenth of the largest return in size below and above these."""
        low, high = self.range
        slack = 0.1 * max(abs(low), abs(high))
        return low - slack, high + slack

    def share(self, target: float) -> float:
        """Of the episodes, those with a return of at least the target."""
        return sum(value >= target for value in self.returns) / len(self.returns)


def read_data_facts(folder: Path) -> DataFacts:
    """Of a run's folder.

    Raises:
        CheckpointError: there is no data.json, or it is broken.
    """
    return read_as(DataFacts, folder / "data.json")


def data_facts(folder: Path) -> DataFacts | None:
    """As `read_data_facts`, but nothing is known where it is missing or broken, which is no reason to stop."""
    try:
        return read_data_facts(folder)
    except CheckpointError:
        return None


def warn_unsupported(folder: Path, options: Sequence[Any]) -> None:
    """Says which of a run's policies ask for a return that its data has not; nothing where the data is unknown."""
    asked = {getattr(option, "target_return", None) for option in options}
    targets = sorted(target for target in asked if isinstance(target, int | float))
    if not targets or (data := data_facts(folder)) is None:
        return
    low, high = data.asked
    if beyond := ", ".join(amount(target) for target in targets if not low <= target <= high):
        lowest, best = map(amount, data.range)
        text = f"target_return {beyond}: beyond the data's returns, {lowest} to {best}, so nothing was learnt of it; "
        warnings.warn(f"{text}see which target to ask for: rlalgo targets {folder}", TargetWarning, stacklevel=3)
