"""run.yaml as a value: what a run's folder says of how far it has come."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlalgo.config import Whole
from rlalgo.errors import CheckpointError
from rlutils.config.files import disk_failed, read_as
from rlutils.evaluation.data_facts import data_facts
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


def refuse_changed_data(folder: Path, fingerprint: str, label: str) -> None:
    """CheckpointError if a run began with other data than this; one whose data.json does not tell goes on."""
    began = data_facts(folder)
    if began is not None and began.fingerprint not in (None, fingerprint):
        was = f"{label} is not the data that it began with: fingerprint {fingerprint}, not {began.fingerprint}"
        raise CheckpointError(f"{folder}: {was}; give that data, or train anew")
