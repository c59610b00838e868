"""Algorithms by datasets: what the runs of a suite reached, over their seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlalgo.core.spec import normalized_score
from rlutils.config.recorded import completed, differences
from rlutils.evaluation.statistics import EvalResult, PolicyResult, iqm, seed_interval
from rlutils.machine import clock
from rlutils.reports.experiments import Experiment, mean_info, target_of
from rlutils.reports.records import RunRecord, load_run_record
from rlutils.reports.writing import decimals, number, short
from rlutils.sweeps.job import last_error, one_line
from rlutils.sweeps.plan import PlannedRun, read_plan

NOT_MEASURED = "–"


@dataclass(frozen=True)
class Summary:
    """One algorithm on one dataset, at one checkpoint of each seed's run."""

    seeds: list[int]
    scores: list[float]
    """Each seed's mean over its episodes."""
    mean: float
    sd: float
    """Over seeds; NaN of a single one."""
    iqm: float
    """Over all seeds' episodes together."""
    low: float
    high: float
    """95% bootstrap interval of the IQM, which draws seeds and then episodes within them."""
    info: Mapping[str, float]
    """Means over seeds of `success` and what else is said of the episodes."""


@dataclass(frozen=True)
class Entry:
    """All planned runs of one algorithm on one dataset."""

    planned: list[PlannedRun]
    measured: list[tuple[PlannedRun, RunRecord]]
    """The finished ones that have played."""
    unfinished: list[tuple[PlannedRun, RunRecord]]

    @property
    def records(self) -> list[RunRecord]:
        """Of the measured runs."""
        return [record for _, record in self.measured]


class ScoreTable(NamedTuple):
    """Algorithms by datasets, as it is written."""

    best: bool
    """Of each run's best checkpoint rather than its last."""
    rows: list[tuple[str, list[tuple[str, str]]]]
    """The algorithm; for each dataset `52.3 ± 1.2` and what stands beneath it, empty where no run is measured."""
    caption: list[str]
    """What a reader should know, a sentence each."""


class SuiteResults:
    """Rows (algorithms and what was tried of them) by datasets, of planned and of measured runs."""

    def __init__(
        self, title: str, runs: Sequence[tuple[PlannedRun, RunRecord | None]], remarks: Sequence[str] = ()
    ) -> None:
        self.title, self.runs, self.remarks = title, runs, remarks
        self.rows = list(dict.fromkeys(run.row for run, _ in runs))
        self.datasets = list(dict.fromkeys(run.dataset for run, _ in runs))
        self.seeds = sorted({run.seed for run, _ in runs})
        self.entries = {(row, dataset): self._entry(row, dataset) for row in self.rows for dataset in self.datasets}
        self.measured = [record for entry in self.entries.values() for record in entry.records]
        self.scaled = {dataset: self._is_scaled(dataset) for dataset in self.datasets}
        """Whether reference scores are known for what was played, so that scores are shown and not returns."""
        self._summaries = {
            (row, dataset, best): _summarize(entry, self.scaled[dataset], best)
            for (row, dataset), entry in self.entries.items()
            for best in (False, True)
        }

    @property
    def has_best(self) -> bool:
        """Whether any run was evaluated more than once, so that a best is to be chosen."""
        return any(len(record.curve) > 1 for record in self.measured)

    @cached_property
    def tables(self) -> list[ScoreTable]:
        """Of the last checkpoints, and of the best ones where there are any."""
        return [self._table(best) for best in ((False, True) if self.has_best else (False,))]

    def unit(self, dataset: str) -> str:
        return "score" if self.scaled[dataset] else "return"

    def summary(self, row: str, dataset: str, best: bool = False) -> Summary | None:
        """None where no run is measured."""
        return self._summaries[row, dataset, best]

    def each_seed(self) -> list[list[str]]:
        """Rows of dataset, algorithm, a score for each seed with that of the best checkpoint, updates and time."""
        rows = []
        for dataset in self.datasets:
            places = self._places(dataset)
            for row in self.rows:
                entry = self.entries[row, dataset]
                last, best = (self.summary(row, dataset, which) for which in (False, True))
                scores = {}
                if last and best:
                    scores = dict(zip(last.seeds, (number(score, places) for score in last.scores), strict=True))
                    for seed, score in zip(best.seeds, best.scores, strict=True):
                        scores[seed] += f" ({number(score, places)})" if self.has_best else ""
                if entry.planned:
                    cells = (scores.get(seed, NOT_MEASURED) for seed in self.seeds)
                    rows.append([dataset, row, *cells, *_effort(entry.records)])
        return rows

    def notes(self) -> list[str]:
        """What keeps runs from being measured, and seeds that cannot be compared."""
        notes = [
            f"{run.name} is not counted: {record.state}{': ' if record.facts.error else ''}"
            + one_line(record.facts.error or "")
            for entry in self.entries.values()
            for run, record in entry.unfinished
        ]
        for (row, dataset), entry in self.entries.items():
            configs = [{**completed(record.config), "seed": None} for record in entry.records]
            if any(differences(configs[0], config) for config in configs[1:]):
                notes.append(f"{row} on {dataset}: the seeds' runs have different settings.")
        return [*notes, *self.remarks]

    def _entry(self, row: str, dataset: str) -> Entry:
        runs = [(run, record) for run, record in self.runs if (run.row, run.dataset) == (row, dataset)]
        entry = Entry([run for run, _ in runs], [], [])
        for run, record in runs:
            if record is not None:
                counts = record.facts.state == "finished" and "last" in record.measured
                (entry.measured if counts else entry.unfinished).append((run, record))
        return entry

    def _is_scaled(self, dataset: str) -> bool:
        records = [record for row in self.rows for record in self.entries[row, dataset].records]
        return bool(records) and all(
            policy_shown(record.measured["last"]).normalized is not None and record.data and record.data.ref_scores
            for record in records
        )

    def _places(self, dataset: str) -> int:
        """Scores have one decimal; returns as many as such returns deserve."""
        if self.scaled[dataset]:
            return 1
        summaries = (self.summary(row, dataset) for row in self.rows)
        return decimals(summary.mean for summary in summaries if summary)

    def _table(self, best: bool) -> ScoreTable:
        places = {dataset: self._places(dataset) for dataset in self.datasets}
        rows = [
            (row, [_cell(self.summary(row, dataset, best), places[dataset]) for dataset in self.datasets])
            for row in self.rows
        ]
        return ScoreTable(best, rows, self._caption(best))

    def _caption(self, best: bool) -> list[str]:
        if best:
            return ["As above, at each run's best checkpoint: chosen by these very episodes, so optimistic."]
        caption = [
            "Last checkpoint of each run: mean ± sd over seeds of the mean over a seed's episodes; beneath, the "
            "IQM (mean of the middle half) of all seeds' episodes together, its 95% interval from a bootstrap that "
            "draws seeds and then episodes within them (of one seed, episodes only), and the number of seeds.",
            f"{len(self.measured)} of {len(self.runs)} planned runs are measured; {NOT_MEASURED} is not measured.",
        ]
        if any(self.scaled.values()):
            caption.append(
                "A score is 100 (mean − random) / (expert − random) with the returns stored in that dataset: "
                "comparable within a dataset only, and not with D4RL's."
            )
        several = {}
        for row in self.rows:
            results = [r.measured["last"] for dataset in self.datasets for r in self.entries[row, dataset].records]
            if any(len(result.policies) > 1 for result in results):
                several[row] = sorted({policy_shown(result).label.replace("_", " ") for result in results})
        if several:
            labels = "; ".join(f"{row}: {', '.join(labels)}" for row, labels in several.items())
            caption.append(f"Of several policies, the one with the highest target, else the last, is shown ({labels}).")
        return caption


def suite_results(folder: Path) -> SuiteResults:
    """What a sweep's folder holds of what was planned.

    Raises:
        ConfigError: its suite.yaml is missing or broken.
    """
    plan = read_plan(folder)
    runs: list[tuple[PlannedRun, RunRecord | None]] = []
    remarks = []
    for run in plan.runs:
        started = (folder / run.name / "config.yaml").is_file()
        runs.append((run, load_run_record(folder / run.name) if started else None))
        if not started and (error := last_error(folder / "logs" / f"{run.name}.log")):
            remarks.append(f"{run.name} is not counted: it did not get as far as training, and said last: {error}")
    others = sorted({p.parent.relative_to(folder).as_posix() for p in folder.rglob("config.yaml")})
    others = [name for name in others if not any(f"{name}/".startswith(f"{run.name}/") for run in plan.runs)]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        which = "run in this folder is" if len(others) == 1 else "runs in this folder are"
        remarks.append(f"{len(others)} {which} no longer in the suite: {', '.join(others[:5])}{more}.")
    return SuiteResults(plan.suite, runs, remarks)


def results_of(experiments: Sequence[Experiment]) -> SuiteResults:
    """The same of single runs, each of which counts as planned."""
    runs = []
    for experiment in experiments:
        for record in experiment.runs:
            options = experiment.title.removeprefix(f"{record.algo} on {record.source}").strip(" ()")
            seed = record.seed if isinstance(record.seed, int) else 0
            runs.append((PlannedRun(record.name, record.algo, record.source, options, seed), record))
    return SuiteResults(f"{len(runs)} runs", runs)


def policy_shown(result: EvalResult) -> PolicyResult:
    """The policy that a table shows: chosen before anything is played, by the highest target, else the last."""
    order = [(-np.inf if (target := target_of(p)) is None else target, i) for i, p in enumerate(result.policies)]
    return result.policies[max(order)[1]]


def episodes_shown(record: RunRecord, result: EvalResult, scaled: bool) -> np.ndarray:
    """(E,) returns of that policy, or their scores."""
    values = np.asarray(policy_shown(result).returns, dtype=np.float64)
    if not scaled:
        return values
    assert record.data is not None
    assert record.data.ref_scores is not None
    return normalized_score(values, record.data.ref_scores)


def _best(record: RunRecord) -> EvalResult:
    """The evaluation of the best checkpoint: the one that is kept as such, else the one with the highest score."""
    return record.measured.get("best") or max(record.curve, key=lambda result: max(p.mean for p in result.policies))


def _summarize(entry: Entry, scaled: bool, best: bool) -> Summary | None:
    if not entry.measured:
        return None
    results = [_best(record) if best else record.measured["last"] for record in entry.records]
    groups = [episodes_shown(*pair, scaled) for pair in zip(entry.records, results, strict=True)]
    scores = [float(group.mean()) for group in groups]
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
    middle, (low, high) = float(iqm(np.concatenate(groups))), seed_interval(groups)
    info = mean_info([policy_shown(result) for result in results])
    return Summary([run.seed for run, _ in entry.measured], scores, float(np.mean(scores)), sd, middle, low, high, info)


def _cell(summary: Summary | None, places: int) -> tuple[str, str]:
    if summary is None:
        return NOT_MEASURED, ""
    mean, sd, middle, low, high = (
        number(value, places) for value in (summary.mean, summary.sd, summary.iqm, summary.low, summary.high)
    )
    seeds = len(summary.seeds)
    top = f"{mean} ± {sd}" if seeds > 1 else mean
    said = "".join(f", {name} {short(value)}" for name, value in summary.info.items())
    return top, f"{middle} ({low} to {high}), {seeds} seed{'s' if seeds > 1 else ''}{said}"


def _effort(records: Sequence[RunRecord]) -> tuple[str, str]:
    """How many updates the runs made, and the mean time that they took."""
    if not records:
        return NOT_MEASURED, NOT_MEASURED
    steps = [record.facts.step for record in records]
    updates = " to ".join(f"{step:,}" for step in sorted({min(steps), max(steps)}))
    return updates, clock(float(np.mean([record.facts.seconds for record in records])))
