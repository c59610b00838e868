"""suite.yaml: which runs a suite's folder is to hold."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlalgo.config import parse_into, to_mapping
from rlalgo.errors import ConfigError
from rlutils.config.files import read_yaml, write_yaml

PLAN = "suite.yaml"
"""The file in a suite's folder that says which runs were planned."""


@dataclass(frozen=True)
class PlannedRun:
    name: str
    """`td3_bc/hopper/medium/s0`: its folder within the suite's."""
    algo: str
    dataset: str
    options: str
    """What is tried, `algo.alpha=2.5`, several with a comma between; empty where nothing is."""
    seed: int

    @property
    def row(self) -> str:
        """What a table shows beside its numbers."""
        return f"{self.algo} ({self.options})" if self.options else self.algo


@dataclass(frozen=True)
class Plan:
    suite: str
    runs: list[PlannedRun]


def write_plan(folder: Path, suite: Path, runs: Iterable[PlannedRun]) -> None:
    """Writes suite.yaml into the suite's folder, which is made if need be; ConfigError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{folder} cannot be written: {error.strerror}; choose another --out"]) from error
    planned = [PlannedRun(run.name, run.algo, run.dataset, run.options, run.seed) for run in runs]
    write_yaml(folder / PLAN, to_mapping(Plan(str(suite), planned)))


def read_plan(folder: Path) -> Plan:
    """What was planned for a suite's folder.

    Raises:
        ConfigError: suite.yaml is missing or broken.
    """
    faults = list[str]()
    plan: Plan | None = parse_into(Plan, read_yaml(folder / PLAN), None, "", faults)
    if plan is None:
        raise ConfigError([f"{folder / PLAN}: {faults[0]}; run `rlalgo sweep` again, which writes it"])
    return plan


def refuse_foreign(folder: Path) -> None:
    """ConfigError where something else than a suite's runs lies in the folder, which is to be left alone."""
    inside = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    plan = read_yaml(folder / PLAN) if PLAN in inside else None
    if inside and not (isinstance(plan, dict) and "runs" in plan):
        raise ConfigError([f"{folder} exists, is not empty and is not a suite's folder; choose another --out"])
