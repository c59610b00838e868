"""What a run folder holds.

A file that is missing or broken is noted and left out; only a folder that is not a run is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rlalgo.errors import CheckpointError, RlalgoError
from rlutils.checkpoints.description import Provided, read_plugins
from rlutils.checkpoints.index import look, step_of_name
from rlutils.checkpoints.store import wanted
from rlutils.config.files import read_yaml
from rlutils.evaluation.data_facts import DataFacts, read_data_facts
from rlutils.evaluation.statistics import EvalResult, read_result
from rlutils.evaluation.targets import Targets, read_targets
from rlutils.training.callbacks.csv import read_rows
from rlutils.training.facts import RunFacts, read_run_facts

T = TypeVar("T")

Series = tuple[np.ndarray, np.ndarray]  # steps (n,), values (n,)


@dataclass(frozen=True)
class RunRecord:
    """All that a run folder says."""

    folder: Path
    config: Mapping[str, Any]
    config_text: str
    facts: RunFacts
    data: DataFacts | None
    plugins: list[Provided]
    evaluations: list[EvalResult]
    """Of training, by step."""
    targets: Targets | None
    """What `rlalgo targets` played of the latest checkpoint that it was asked about."""
    measured: dict[str, EvalResult]
    """What deserves a table: `last`, `best`, and what `rlalgo evaluate` played again."""
    metrics: dict[str, Series]
    """From metrics.csv, then the evaluators'."""
    last_step: int | None
    """Of the checkpoint `last`."""
    notes: list[str]
    """What is missing or unusable."""

    @property
    def curve(self) -> list[EvalResult]:
        """The evaluations of training that played something, by step."""
        return [result for result in self.evaluations if result.policies]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def seed(self) -> Any:
        return self.config.get("seed", "unknown")

    @property
    def algo(self) -> str:
        return _name(self.config.get("algo"))

    @property
    def source(self) -> str:
        """`minari:hopper/medium-v0`."""
        source = self.config.get("source")
        ident = source.get("id") or source.get("path") if isinstance(source, Mapping) else None
        return self.data.name if self.data else f"{_name(source)}:{ident}" if ident else _name(source)

    @property
    def env_id(self) -> str | None:
        """The environment that was played in, else the data's."""
        played = [result.env_id for result in self.curve if result.env_id]
        return played[-1] if played else self.data.env_id if self.data else None

    @property
    def state(self) -> str:
        return "running, or killed" if self.facts.state == "running" else self.facts.state


def load_run_record(run: Path) -> RunRecord:
    """Reads a run folder; what is missing or broken is left out and noted.

    Raises:
        RlalgoError: the folder is not a run.
        ConfigError: its config.yaml cannot be read.
    """
    run = Path(run)
    file = run / "config.yaml"
    if not file.is_file():
        raise RlalgoError(_not_a_run(run))
    config = read_yaml(file)
    if not isinstance(config, Mapping):
        raise RlalgoError(f"{file}: expected a mapping, got {type(config).__name__}; is {run} a run folder?")
    notes: list[str] = []
    facts = _read(read_run_facts, run, "run.yaml", notes) or RunFacts()
    data = _read(read_data_facts, run, "data.json", notes)
    owners = _read(read_plugins, run, "plugins.yaml", notes)
    trained = _evaluations(run, "step_*.json", notes)
    replayed = _evaluations(run, "evaluate_*.json", notes)
    curve = [result for result in trained if result.policies]
    if not curve and not replayed:
        notes.append("Nothing was played: there is no evaluation with episodes.")
    last, best = _named_steps(run / "checkpoints", notes)
    if last is None:
        notes.append("There is no checkpoint.")
    measured = _measured(curve, replayed, last, facts.best_step if best is None else best)
    metrics = _metrics(run / "metrics.csv", notes) | _evaluator_series(trained, notes)
    text = file.read_text(encoding="utf-8")
    files = sorted((run / "targets").glob("step_*.json"))
    played = [_read(read_targets, path, f"targets/{path.name}", notes) for path in files]
    asked = max(filter(None, played), key=lambda targets: targets.step, default=None)
    return RunRecord(run, config, text, facts, data, owners or [], trained, asked, measured, metrics, last, notes)


def _read(reader: Callable[[Path], T], path: Path, name: str, notes: list[str]) -> T | None:
    """What a reader makes of a path; None, and a note that has this name, where it refuses."""
    try:
        return reader(path)
    except CheckpointError as error:
        notes.append(f"{name} is left out: {str(error).rpartition(f'{name}: ')[2]}.")
    return None


def _evaluations(run: Path, pattern: str, notes: list[str]) -> list[EvalResult]:
    """By step, and by name within a step."""
    found = (_read(read_result, path, path.name, notes) for path in sorted((run / "evaluations").glob(pattern)))
    return sorted(filter(None, found), key=lambda result: result.step)


def _measured(
    curve: Sequence[EvalResult], replayed: Sequence[EvalResult], last: int | None, best: int | None
) -> dict[str, EvalResult]:
    """See `RunRecord.measured`; `last` and `best` are the steps of these checkpoints."""
    measured = {"last": curve[-1]} if curve else {}
    if chosen := next((result for result in curve if result.step == best), None):
        measured["best"] = chosen
    for result in replayed:
        which = {best: "best", last: "last"}.get(result.step, f"step {result.step:,}")
        elsewhere = f" in {result.env_id}" if curve and result.env_id != curve[-1].env_id else ""
        measured[f"{which}, played again with seed {result.seed:,}{elsewhere}"] = result
    return measured


def _named_steps(folder: Path, notes: list[str]) -> tuple[int | None, int | None]:
    """The steps of the checkpoints `last` and `best`."""
    try:
        index = look(folder)
    except CheckpointError as error:
        notes.append(f"The checkpoints' index is left out: {error}.")
        return None, None
    last, best = (name if name and (folder / name).is_dir() else None for name in (index.last, index.best))
    return step_of_name(last), step_of_name(best)


def _metrics(path: Path, notes: list[str]) -> dict[str, Series]:
    """metrics.csv by column, without empty cells."""
    if not (rows := _read(read_rows, path, path.name, notes)):
        notes += ["metrics.csv is left out: there is no such file, or it has no rows."] if rows == [] else []
        return {}
    metrics = {}
    for name in [key for key in rows[0] if key not in ("step", "seconds")]:
        try:
            points = [(int(row["step"]), float(row[name])) for row in rows if row[name].strip()]
        except ValueError as error:
            notes.append(f"metrics.csv, column {name} is left out: {error}.")
            continue
        if series := _finite(name, points, notes):
            metrics[name] = series
    return metrics


def _evaluator_series(results: Sequence[EvalResult], notes: list[str]) -> dict[str, Series]:
    """What evaluators measured, and the best policy's `success` and the like, by its name."""
    metrics = {}
    for name in dict.fromkeys(name for result in results for name in result.numbers):
        points = [(result.step, result.numbers[name]) for result in results if name in result.numbers]
        if series := _finite(name, points, notes):
            metrics[name] = series
    return metrics


def _finite(name: str, points: Sequence[tuple[int, float]], notes: list[str]) -> Series | None:
    """Points as arrays; NaN and infinity are left out and noted. None where nothing is left."""
    steps, values = np.array([step for step, _ in points]), np.array([value for _, value in points])
    finite = np.isfinite(values)
    if not finite.all():
        notes.append(f"{name} is not finite at step {steps[~finite][0]:,}; its curve leaves such points out.")
    return (steps[finite], values[finite]) if finite.any() else None


def _not_a_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: there is no such folder; {wanted(folder)}"
    within = sorted(path.parent for path in folder.glob("*/config.yaml"))
    hint = f"it holds {len(within)} of them, such as {within[0]}" if within else "`rlalgo train` writes them"
    return f"{folder} is not a run folder (it has no config.yaml); {hint}"


def _name(choice: Any) -> str:
    """Of a named thing in a configuration."""
    return str(choice.get("name", "?") if isinstance(choice, Mapping) else choice or "?")
