"""Runs of one configuration together: the rows of every table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlutils.evaluation.statistics import PolicyResult, interval, iqm, spearman
from rlutils.reports.records import DataFacts, RunRecord, Series, load_run_record


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
        return Row(label, len(one.returns), one.mean, one.sd, one.iqm, *one.interval, one.normalized, length)
    means = np.array([result.mean for result in results])
    scores = [result.normalized for result in results if result.normalized is not None]
    score = float(np.mean(scores)) if len(scores) == len(results) else None
    pooled = np.concatenate([result.returns for result in results])
    sd = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
    mean, middle = float(means.mean()), float(iqm(pooled))
    return Row(label, len(pooled), mean, sd, middle, *interval(pooled, iqm), score, length)


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
