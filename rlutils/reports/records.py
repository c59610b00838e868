"""What run folders hold, read once and aggregated: the numbers behind every report.

Runs that differ in nothing but the seed are one experiment, and their numbers are aggregated. A file that is
missing or broken is said to be so and left out; only a folder that is not a run is an error.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from rlalgo.errors import ConfigError, RlalgoError
from rlutils.config.files import read_yaml
from rlutils.evaluation.evaluate import EvalResult, PolicyResult
from rlutils.reports import plots
from rlutils.training.callbacks.csv import read_rows

Series = tuple[np.ndarray, np.ndarray]  # steps (n,), values (n,)


@dataclass(frozen=True)
class RunFacts:
    """run.yaml. Every field has a default: a killed run may not have come to write it."""

    state: str = "unknown"
    step: int = 0
    seconds: float = 0.0
    command: str = ""
    started: str = ""
    stopped: str | None = None
    error: str | None = None
    best_step: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """data.json."""

    name: str
    returns: list[float]
    steps: int
    ref_scores: tuple[float, float] | None = None
    env_id: str | None = None
    held_out: list[int] | None = None
    """Numbers of the episodes that were kept from training."""

    def __post_init__(self) -> None:
        if not self.returns or not np.isfinite(self.returns).all():
            raise ValueError("no or infinite returns")


@dataclass(frozen=True)
class PluginFacts:
    """One row of plugins.yaml: who provided a named thing."""

    kind: str
    name: str
    plugin: str
    distribution: str | None = None
    version: str | None = None
    location: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """All that a run folder says."""

    folder: Path
    config: Mapping[str, Any]
    config_text: str
    facts: RunFacts
    data: DataFacts | None
    plugins: list[PluginFacts]
    curve: list[EvalResult]
    """The evaluations of training that played something, by step."""
    measured: dict[str, EvalResult]
    """What deserves a table: `last`, `best`, and what `rlalgo evaluate` played again."""
    metrics: dict[str, Series]
    """From metrics.csv, then the evaluators'."""
    last_step: int | None
    """Of the checkpoint `last`."""
    notes: list[str]
    """What is missing or unusable."""

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
        ident = source.get("id") if isinstance(source, Mapping) else None
        return self.data.name if self.data else f"{_name(source)}:{ident}" if ident else _name(source)

    @property
    def env_id(self) -> str | None:
        """The environment that was played in, else the data's."""
        played = [result.env_id for result in self.curve if result.env_id]
        return played[-1] if played else self.data.env_id if self.data else None

    @property
    def state(self) -> str:
        return "running, or killed" if self.facts.state == "running" else self.facts.state


@dataclass(frozen=True)
class Row:
    """One line of a table: a policy of one run, or of several seeds together."""

    policy: str
    episodes: int
    mean: float
    sd: float
    """Over episodes; over seeds where there are several."""
    iqm: float
    low: float
    high: float
    """95% bootstrap interval of the mean; of the IQM where there are several seeds."""
    score: float | None
    length: float


@dataclass(frozen=True)
class Section:
    """The rows of one checkpoint."""

    name: str
    steps: list[int]
    """Of each seed."""
    rows: list[Row]
    also_best: bool = False

    @property
    def title(self) -> str:
        low, high = min(self.steps), max(self.steps)
        at = f"step {low:,}" if low == high else f"steps {low:,} to {high:,}"
        name = self.name if at in self.name else f"{self.name}, {at}"
        return name + (" (also the best)" if self.also_best else "")

    @property
    def top(self) -> Row | None:
        """The policy with the highest mean."""
        return max(self.rows, key=lambda row: row.mean, default=None)


@dataclass(frozen=True)
class Conditioning:
    """Whether the return follows the target."""

    targets: np.ndarray
    """(n,) of every single episode."""
    returns: np.ndarray
    """(n,)"""
    rho: float | None
    """Spearman's over these episodes; None where it is undefined because all returns are equal."""
    by_run: list[float | None]
    spread: float
    """Mean return at the highest target minus that at the lowest."""


class Experiment:
    """Runs of one configuration, which differ at most in their seed."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self.runs = list(runs)
        self.title = f"{runs[0].algo} on {runs[0].source}"

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The runs whose numbers are shown together: the finished ones, else the one that came furthest."""
        played = [run for run in self.runs if run.measured]
        finished = [run for run in played if run.facts.state == "finished"]
        return finished or sorted(played, key=lambda run: run.curve[-1].step if run.curve else 0)[-1:]

    @cached_property
    def sections(self) -> list[Section]:
        """The table of the counted runs."""
        return sections(self.counted)

    @property
    def data(self) -> DataFacts | None:
        return next((run.data for run in self.runs if run.data), None)

    def played(self, name: str) -> list[list[PolicyResult]]:
        """What each counted run that has this measurement played."""
        return [run.measured[name].policies for run in self.counted if name in run.measured]

    def conditioning(self, name: str = "last") -> Conditioning | None:
        """Over all single episodes of the counted runs; None where there are not two different targets."""
        pairs = [single_episodes(policies) for policies in self.played(name)]
        if not pairs:
            return None
        targets, returns = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
        if len(np.unique(targets)) < 2:
            return None
        top, bottom = returns[targets == targets.max()], returns[targets == targets.min()]
        by_run = [spearman(*pair) for pair in pairs]
        return Conditioning(targets, returns, spearman(targets, returns), by_run, float(top.mean() - bottom.mean()))

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers should know."""
        said = []
        left_out = ", ".join(f"{run.name} ({run.state})" for run in self.runs if run not in self.counted)
        if self.counted and left_out:
            said.append(f"Not counted in the results and the figures of returns: {left_out}.")
        if self.counted and self.counted[0].facts.state != "finished":
            said.append(f"No run is finished: these are the results of {self.counted[0].name} as far as it came.")
        if len({tuple(run.data.returns) for run in self.runs if run.data}) > 1:
            said.append("The runs were trained on different data under one name: its returns are not the same.")
        said += [
            f"{run.name}: the last checkpoint is of step {run.last_step:,}, its evaluation of {last.step:,}."
            for run in self.counted
            if run.last_step is not None and (last := run.measured.get("last")) and last.step != run.last_step
        ]
        return said


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
    facts = _read(run / "run.yaml", RunFacts, notes) or RunFacts()
    data = _read(run / "data.json", DataFacts, notes)
    owners = _read(run / "plugins.yaml", list[PluginFacts], notes)
    trained = _evaluations(run, "step_*.json", notes)
    again = _evaluations(run, "evaluate_*.json", notes)
    curve = [result for result in trained if result.policies]
    if not curve and not again:
        notes.append("Nothing was played: there is no evaluation with episodes.")
    last, best = (_linked_step(run / "checkpoints" / name) for name in ("last", "best"))
    if last is None:
        notes.append("There is no checkpoint.")
    best = facts.best_step if best is None else best
    measured = {"last": curve[-1]} if curve else {}
    if chosen := next((result for result in curve if result.step == best), None):
        measured["best"] = chosen
    for result in again:
        which = {best: "best", last: "last"}.get(result.step, f"step {result.step:,}")
        elsewhere = f" in {result.env_id}" if curve and result.env_id != curve[-1].env_id else ""
        measured[f"{which}, played again with seed {result.seed:,}{elsewhere}"] = result
    metrics = _metrics(run / "metrics.csv", notes)
    for key in dict.fromkeys(key for result in trained for key in result.metrics):
        pairs = [(result.step, value) for result in trained if np.isfinite(value := result.metrics.get(key, np.nan))]
        if len(pairs) < sum(key in result.metrics for result in trained):
            notes.append(f"{key} is not finite at some evaluations; its curve leaves such points out.")
        if pairs:
            metrics[key] = (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
    text = file.read_text()
    return RunRecord(run, config, text, facts, data, owners or [], curve, measured, metrics, last, notes)


def experiments(runs: Sequence[Path]) -> list[Experiment]:
    """Runs by configuration, whatever their seed, in the order given; a folder named twice counts once."""
    groups: dict[str, list[RunRecord]] = {}
    for folder in {Path(run).resolve(): Path(run) for run in runs}.values():
        record = load_run_record(folder)
        same = {key: value for key, value in record.config.items() if key not in ("seed", "threads")}
        key = json.dumps(same, sort_keys=True, default=str)
        groups.setdefault(key, []).append(record)
    found = [Experiment(records) for records in groups.values()]
    for title in {experiment.title for experiment in found}:
        _tell_apart([experiment for experiment in found if experiment.title == title])
    return found


def sections(runs: Sequence[RunRecord]) -> list[Section]:
    """The results of one run, or of several seeds aggregated: last, best, then what was played again."""
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.measured):
        results = [run.measured[name] for run in runs if name in run.measured]
        policies = by_label([result.policies for result in results])
        rows = [_row(label, same, len(runs) > 1) for label, same in policies.items()]
        found.append(Section(name, [result.step for result in results], rows))
    if len(found) > 1 and found[1].name == "best" and found[0].steps == found[1].steps:
        found[:2] = [Section("last", found[0].steps, found[0].rows, also_best=True)]
    return found


def spearman(targets: np.ndarray, returns: np.ndarray) -> float | None:
    """Rank correlation of targets (n,) and returns (n,); None where one of the two is constant."""
    if len(np.unique(targets)) < 2 or len(np.unique(returns)) < 2:
        return None
    return float(stats.spearmanr(targets, returns).statistic)


def interval(values: np.ndarray, statistic: Callable[..., Any] = np.mean) -> tuple[float, float]:
    """95% bootstrap interval of a statistic of values (n,)."""
    if len(np.unique(values)) < 2:
        return float(statistic(values)), float(statistic(values))
    rng = np.random.default_rng(0)
    found = stats.bootstrap((values,), statistic, n_resamples=2000, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def iqm(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half."""
    return stats.trim_mean(values, 0.25, axis=axis)


# --- reading ---


def _read(path: Path, kind: Any, notes: list[str]) -> Any:
    """A YAML or JSON file checked against a type; None and a note where that fails."""
    try:
        values = json.loads(path.read_text()) if path.suffix == ".json" else read_yaml(path)
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        notes.append(f"{path.name} is left out: {at + ': ' if at else ''}{first['msg']}.")
    except (OSError, ValueError, ConfigError) as error:
        why = str(error).splitlines()[-1].strip() if path.is_file() else "there is no such file"
        notes.append(f"{path.name} is left out: {why}.")
    return None


def _evaluations(run: Path, pattern: str, notes: list[str]) -> list[EvalResult]:
    """By step, and by name within a step."""
    found = []
    for path in sorted((run / "evaluations").glob(pattern)):
        result = _read(path, EvalResult, notes)
        if result and all(p.returns and np.isfinite([*p.returns, p.mean]).all() for p in result.policies):
            found.append(result)
        elif result:
            notes.append(f"{path.name} is left out: no or infinite returns.")
    return sorted(found, key=lambda result: result.step)


def _linked_step(path: Path) -> int | None:
    """The step of the checkpoint that a link names."""
    number = path.resolve().name.removeprefix("step_")
    return int(number) if path.exists() and number.isdigit() else None


def _metrics(path: Path, notes: list[str]) -> dict[str, Series]:
    """metrics.csv by column, without empty cells; NaN and infinity are left out and noted."""
    try:
        rows = read_rows(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        notes.append(f"metrics.csv is left out: it cannot be read ({error}).")
        return {}
    if not rows:
        notes.append("metrics.csv is left out: there is no such file, or it has no rows.")
        return {}
    found = {}
    for name in [key for key in rows[0] if key not in ("step", "seconds")]:
        cells = [(int(row["step"]), row[name]) for row in rows if row[name].strip()]
        try:
            steps, values = (
                np.array([step for step, _ in cells]),
                np.array([float(cell) for _, cell in cells]),
            )
        except ValueError as error:
            notes.append(f"metrics.csv, column {name} is left out: {error}.")
            continue
        finite = np.isfinite(values)
        if not finite.all():
            notes.append(f"{name} is not finite at step {steps[~finite][0]:,}; its curve leaves such points out.")
        if finite.any():
            found[name] = (steps[finite], values[finite])
    return found


def _not_a_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: there is no such folder; give a run folder that `rlalgo train` wrote"
    within = sorted(path.parent for path in folder.glob("*/config.yaml"))
    hint = f"it holds {len(within)} of them, such as {within[0]}" if within else "`rlalgo train` writes them"
    return f"{folder} is not a run folder (it has no config.yaml); {hint}"


# --- numbers ---


def _name(choice: Any) -> str:
    """Of a named thing in a configuration."""
    return str(choice.get("name", "?") if isinstance(choice, Mapping) else choice or "?")


def target_of(policy: PolicyResult) -> float | None:
    value = policy.options.get("target_return")
    return float(value) if isinstance(value, int | float) else None


def single_episodes(policies: Sequence[PolicyResult]) -> Series:
    """(n,) targets and (n,) returns of every single episode that had a target."""
    pairs = [(t, value) for p in policies if (t := target_of(p)) is not None for value in p.returns]
    return np.array([t for t, _ in pairs]), np.array([value for _, value in pairs])


def by_label(runs: Sequence[Sequence[PolicyResult]]) -> dict[str, list[PolicyResult]]:
    """The results of each policy that all of the runs played, rising by target where there are targets."""
    found: dict[str, list[PolicyResult]] = {}
    for policies in runs:
        labels: list[str] = []
        for policy in policies:
            label = policy.label.replace("target_return=", "target ")
            labels.append(label)
            same = labels.count(label)  # options that are alike as far as a label shows
            found.setdefault(label if same == 1 else f"{label} ({same})", []).append(policy)
    kept = {label: results for label, results in found.items() if len(results) == len(runs)}
    return dict(sorted(kept.items(), key=lambda item: target_of(item[1][0]) or 0.0))


def _row(label: str, results: Sequence[PolicyResult], seeds: bool) -> Row:
    """One run's own numbers as it recorded them, or those over seeds (even if only one of them played this)."""
    one = results[0]
    lengths = [float(length) for result in results for length in result.lengths]
    length = float(np.mean(lengths)) if lengths else float("nan")
    if not seeds:
        return Row(label, len(one.returns), one.mean, one.sd, one.iqm, *one.interval, one.normalised, length)
    means = np.array([result.mean for result in results])
    scores = [result.normalised for result in results if result.normalised is not None]
    score = float(np.mean(scores)) if len(scores) == len(results) else None
    pooled = np.concatenate([result.returns for result in results])
    sd = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
    mean, middle = float(means.mean()), float(iqm(pooled))
    return Row(label, len(pooled), mean, sd, middle, *interval(pooled, iqm), score, length)


def group_of(label: str, values: np.ndarray) -> plots.Group:
    return plots.Group(label, values, float(values.mean()), *interval(values))


def groups_of(runs: Sequence[Sequence[PolicyResult]]) -> list[plots.Group]:
    """Every single return of each policy, over all runs."""
    return [group_of(label, np.concatenate([r.returns for r in same])) for label, same in by_label(runs).items()]


def _tell_apart(same: Sequence[Experiment]) -> None:
    """Adds the options that differ to titles that are the same."""
    flat = [_flat(experiment.runs[0].config) for experiment in same]
    keys = dict.fromkeys(key for values in flat for key in values if key != "seed")
    differ = [key for key in keys if len({str(values.get(key)) for values in flat}) > 1]
    for experiment, values in zip(same, flat, strict=True):
        if differ:
            more = ", …" if len(differ) > 3 else ""
            experiment.title += f" ({', '.join(f'{key}={values.get(key)}' for key in differ[:3])}{more})"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists -> dotted paths."""
    if not isinstance(value, Mapping | list):
        return {path: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {k: v for key, item in items for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()}


def places_of(experiment: Experiment) -> int:
    return decimals(row.mean for section in experiment.sections for row in section.rows)


def decimals(values: Iterable[float]) -> int:
    """How many decimals a column of such returns deserves."""
    top = max((abs(value) for value in values), default=0.0)
    return 0 if top >= 1000 else 1 if top >= 100 else 2 if top >= 1 else 3
