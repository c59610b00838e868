"""run.yaml and data.json as values: what a run's folder says of how far it has come, and of its data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlalgo.config import Whole
from rlalgo.errors import CheckpointError
from rlutils.config.files import disk_failed, read_as
from rlutils.evaluation.statistics import Finite


@dataclass(frozen=True)
class RunFacts:
    """run.yaml. Every field has a default: a killed run may not have come to write it."""

    state: str = "unknown"
    step: Whole = 0
    seconds: Annotated[Finite, Field(ge=0)] = 0.0
    command: str = ""
    started: str = ""
    stopped: str | None = None
    error: str | None = None
    best_step: Whole | None = None
    versions: dict[str, str] = field(default_factory=dict)


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


def read_run_facts(folder: Path) -> RunFacts:
    """Of a run's folder.

    Raises:
        CheckpointError: there is no run.yaml, or it is broken.
    """
    return read_as(RunFacts, folder / "run.yaml")


def run_facts(folder: Path) -> RunFacts:
    """As `read_run_facts`, but nothing is known where it is missing or broken, which is no reason to stop."""
    try:
        return read_run_facts(folder)
    except CheckpointError as error:
        if disk_failed(error):
            raise
        return RunFacts()


def read_data_facts(folder: Path) -> DataFacts:
    """Of a run's folder.

    Raises:
        CheckpointError: there is no data.json, or it is broken.
    """
    return read_as(DataFacts, folder / "data.json")


def refuse_changed_data(folder: Path, fingerprint: str, label: str) -> None:
    """CheckpointError if a run began with other data than this; one whose data.json does not tell goes on."""
    try:
        began = read_data_facts(folder).fingerprint
    except CheckpointError:
        return
    if began not in (None, fingerprint):
        was = f"{label} is not the data that it began with: fingerprint {fingerprint}, not {began}"
        raise CheckpointError(f"{folder}: {was}; give that data, or train anew")
