"""Runs of one configuration together: the rows of every table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlalgo.errors import RlalgoError
from rlutils.config.recorded import HOW_NOT_WHAT, completed, differences
from rlutils.evaluation.statistics import EvalResult, PolicyResult, interval, iqm, spearman
from rlutils.reports.records import DataFacts, RunRecord, Series, load_run_record
from rlutils.reports.writing import decimals, number


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
    info: Mapping[str, float] = field(default_factory=dict)
    """Means of what the episodes' last infos say: `success` and what `evaluation.info` names."""


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
    def said(self) -> list[str]:
        """The names in the rows' infos."""
        return list(dict.fromkeys(name for row in self.rows for name in row.info))

    @property
    def top(self) -> Row:
        """The policy with the highest mean."""
        return max(self.rows, key=lambda row: row.mean)


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


class Measured(NamedTuple):
    """The table of what evaluators measured."""

    columns: list[str]
    rows: list[tuple[str, str, list[str]]]
    """Run, checkpoint, and a number for each column."""


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
    def places(self) -> int:
        """How many decimals its returns deserve."""
        return decimals(row.mean for section in self.sections for row in section.rows)

    @property
    def data(self) -> DataFacts | None:
        return next((run.data for run in self.runs if run.data), None)

    @property
    def data_best(self) -> float | None:
        """Return of the data's best episode."""
        return max(self.data.returns) if self.data else None

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
        notes = []
        left_out = ", ".join(f"{run.name} ({run.state})" for run in self.runs if run not in self.counted)
        if self.counted and left_out:
            notes.append(f"Not counted in the results and the figures of returns: {left_out}.")
        if self.counted and self.counted[0].facts.state != "finished":
            notes.append(f"No run is finished: these are the results of {self.counted[0].name} as far as it came.")
        if len({tuple(run.data.returns) for run in self.runs if run.data}) > 1:
            notes.append("The runs were trained on different data under one name: its returns are not the same.")
        notes += [
            f"{run.name}: the last checkpoint is of step {run.last_step:,}, its evaluation of {last.step:,}."
            for run in self.counted
            if run.last_step is not None and (last := run.measured.get("last")) and last.step != run.last_step
        ]
        return notes


def experiments(runs: Sequence[Path]) -> list[Experiment]:
    """Runs by configuration, whatever their seed, in the order given; a folder named twice counts once.

    Raises:
        RlalgoError: no folder is given, or one is not a run.
    """
    if not runs:
        raise RlalgoError("no run given: name at least one run folder")
    groups: dict[str, list[RunRecord]] = {}
    for folder in {Path(run).resolve(): Path(run) for run in runs}.values():
        record = load_run_record(folder)
        record = replace(record, config=completed(record.config))
        settings = {key: value for key, value in record.config.items() if key not in ("seed", *HOW_NOT_WHAT)}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(record)
    grouped = [Experiment(records) for records in groups.values()]
    for title in {experiment.title for experiment in grouped}:
        _tell_apart([experiment for experiment in grouped if experiment.title == title])
    return grouped


def sections(runs: Sequence[RunRecord]) -> list[Section]:
    """The results of one run, or of several seeds aggregated: last, best, then what was played again.

    A measurement where nothing was played, because only evaluators were asked, has none.
    """
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.measured):
        part = section(name, [run.measured[name] for run in runs if name in run.measured], seeds=len(runs) > 1)
        found += [part] if part.rows else []
    if len(found) > 1 and found[1].name == "best" and found[0].steps == found[1].steps:
        found[:2] = [replace(found[0], also_best=True)]
    return found


def section(name: str, results: Sequence[EvalResult], seeds: bool) -> Section:
    """The policies that all of the evaluations played; `seeds`: rows are over seeds, even over a single one."""
    policies = by_label([result.policies for result in results])
    rows = [_row(label, played, seeds) for label, played in policies.items()]
    return Section(name, [result.step for result in results], rows)


def measured(runs: Sequence[RunRecord]) -> Measured | None:
    """The evaluators' numbers at each run's last evaluation, and at its best checkpoint; None where there are none."""
    rows: list[tuple[str, str, dict[str, float]]] = []
    for run in runs:
        results = {result.step: result for result in run.evaluations if result.metrics}
        last, best = max(results, default=None), run.facts.best_step
        also = " (also the best)" if last == best else ""
        rows += [(run.name, f"last, step {last:,}{also}", results[last].metrics)] if last is not None else []
        rows += [(run.name, f"best, step {best:,}", results[best].metrics)] if best in results and best != last else []
    columns = list(dict.fromkeys(key for _, _, values in rows for key in values))
    places = {key: 1 + decimals(values[key] for _, _, values in rows if key in values) for key in columns}
    written = [(name, at, [number(values.get(key), places[key]) for key in columns]) for name, at, values in rows]
    return Measured(columns, written) if rows else None


def shared_evaluations(runs: Sequence[RunRecord]) -> dict[int, list[EvalResult]]:
    """Step -> each run's evaluation, for the steps at which all of the runs were evaluated."""
    by_step = [{result.step: result for result in run.curve} for run in runs]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return {step: [results[step] for results in by_step] for step in steps}


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
            count = labels.count(label)  # options that are alike as far as a label shows
            found.setdefault(label if count == 1 else f"{label} ({count})", []).append(policy)
    shared = {label: results for label, results in found.items() if len(results) == len(runs)}
    return dict(sorted(shared.items(), key=lambda item: target_of(item[1][0]) or 0.0))


def pooled(results: Sequence[PolicyResult]) -> np.ndarray:
    """(n,) every single return."""
    return np.concatenate([result.returns for result in results])


def _row(label: str, results: Sequence[PolicyResult], seeds: bool) -> Row:
    """One run's own numbers as it recorded them, or those over seeds (even if only one of them played this)."""
    one = results[0]
    lengths = [float(length) for result in results for length in result.lengths]
    length = float(np.mean(lengths)) if lengths else float("nan")
    if not seeds:
        own = one.mean, one.sd, one.iqm, *one.interval, one.normalized
        return Row(label, len(one.returns), *own, length, one.means)
    means = np.array([result.mean for result in results])
    scores = [result.normalized for result in results if result.normalized is not None]
    score = float(np.mean(scores)) if len(scores) == len(results) else None
    sd = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
    values = pooled(results)
    over = float(means.mean()), sd, float(iqm(values)), *interval(values, iqm), score
    return Row(label, len(values), *over, length, mean_info(results))


def mean_info(results: Sequence[PolicyResult]) -> dict[str, float]:
    """The mean over seeds of each number in the policies' infos, of those that have it."""
    names = dict.fromkeys(name for result in results for name in result.means)
    return {name: float(np.mean([r.means[name] for r in results if name in r.means])) for name in names}


def _tell_apart(alike: Sequence[Experiment]) -> None:
    """Adds the options that differ to titles that are the same."""
    first = alike[0].runs[0].config
    changes = [differences(first, experiment.runs[0].config) for experiment in alike]
    before = {key: value for change in changes for key, (value, _) in change.items() if key != "seed"}
    for experiment, change in zip(alike, changes, strict=True):
        if before:
            values = [f"{key}={change.get(key, (None, value))[1]}" for key, value in before.items()]
            experiment.title += f" ({', '.join(values[:3])}{', …' if len(values) > 3 else ''})"
