"""Algorithms by datasets: what the runs of a suite reached, over their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlutils.evaluation.statistics import EvalResult, PolicyResult, iqm, seed_interval
from rlutils.reports.experiments import Experiment, decimals, target_of
from rlutils.reports.records import RunRecord, load_run_record
from rlutils.reports.writing import clock, number
from rlutils.sweeps.plan import PlannedRun, differences, last_error, one_line, read_plan


@dataclass(frozen=True)
class Summary:
    """One algorithm on one dataset, at one checkpoint of each seed's run."""

    seeds: list[int]
    scores: list[float]
    """Each seed's mean over its episodes."""
    episodes: int
    """Of all seeds together."""
    mean: float
    sd: float
    """Over seeds; NaN of a single one."""
    iqm: float
    """Over all seeds' episodes together."""
    low: float
    high: float
    """95% bootstrap interval of the IQM, which draws seeds and then episodes within them."""


@dataclass(frozen=True)
class Entry:
    """All planned runs of one algorithm on one dataset."""

    row: str
    dataset: str
    planned: list[PlannedRun]
    measured: list[tuple[PlannedRun, RunRecord]]
    """The finished ones that have played."""
    unfinished: list[tuple[PlannedRun, RunRecord]]

    def results(self, best: bool) -> list[EvalResult]:
        """The last evaluation of each measured run, or the one of its best checkpoint."""
        return [best_of(record) if best else record.measured["last"] for _, record in self.measured]

    def episodes(self, scaled: bool, best: bool = False) -> list[np.ndarray]:
        """(E,) single episodes of each measured run, as scores or as returns."""
        results = zip(self.measured, self.results(best), strict=True)
        return [episodes_of(record, chosen(result), scaled) for (_, record), result in results]

    def summary(self, scaled: bool, best: bool = False) -> Summary | None:
        """None where no run is measured."""
        groups = self.episodes(scaled, best)
        return summarize([run.seed for run, _ in self.measured], groups) if groups else None


class SuiteResults:
    """Rows (algorithms and what was tried of them) by datasets, of planned and of measured runs."""

    def __init__(
        self, title: str, runs: Iterable[tuple[PlannedRun, RunRecord | None]], remarks: Sequence[str] = ()
    ) -> None:
        self.title, self.remarks = title, remarks
        self.runs = list(runs)
        self.rows = list(dict.fromkeys(row_of(run) for run, _ in self.runs))
        self.datasets = list(dict.fromkeys(run.dataset for run, _ in self.runs))
        self.entries = {(row, dataset): self._entry(row, dataset) for row in self.rows for dataset in self.datasets}
        self.scaled = {dataset: self._is_scaled(dataset) for dataset in self.datasets}
        """Whether reference scores are known for what was played, so that scores are shown and not returns."""
        self.summaries = {
            (*key, best): entry.summary(self.scaled[entry.dataset], best)
            for key, entry in self.entries.items()
            for best in (False, True)
        }

    @property
    def measured(self) -> list[tuple[PlannedRun, RunRecord]]:
        return [pair for entry in self.entries.values() for pair in entry.measured]

    @property
    def has_best(self) -> bool:
        """Whether any run was evaluated more than once, so that a best is to be chosen."""
        return any(len(record.curve) > 1 for _, record in self.measured)

    def unit(self, dataset: str) -> str:
        return "score" if self.scaled[dataset] else "return"

    def summary(self, row: str, dataset: str, best: bool = False) -> Summary | None:
        return self.summaries[row, dataset, best]

    def caption(self, best: bool = False) -> list[str]:
        """What a reader of the table should know, a sentence each."""
        if best:
            return ["As above, at each run's best checkpoint: chosen by these very episodes, so optimistic."]
        said = [
            "Last checkpoint of each run: mean ± sd over seeds of the mean over a seed's episodes; beneath, the "
            "IQM (mean of the middle half) of all seeds' episodes together, its 95% interval from a bootstrap that "
            "draws seeds and then episodes within them (of one seed, episodes only), and the number of seeds."
        ]
        said.append(f"{len(self.measured)} of {len(self.runs)} planned runs are measured; – is not measured.")
        if any(self.scaled.values()):
            said.append(
                "A score is 100 (mean − random) / (expert − random) with the returns stored in that dataset: "
                "comparable within a dataset only, and not with D4RL's."
            )
        several = {}
        for row in self.rows:
            results = [r for dataset in self.datasets for r in self.entries[row, dataset].results(best=False)]
            if any(len(result.policies) > 1 for result in results):
                several[row] = sorted({chosen(result).label.replace("_", " ") for result in results})
        if several:
            named = "; ".join(f"{row}: {', '.join(labels)}" for row, labels in several.items())
            said.append(f"Of several policies, the one with the highest target, else the last, is shown ({named}).")
        return said

    def notes(self) -> list[str]:
        """What keeps runs from being measured, and seeds that cannot be compared."""
        said = [
            f"{run.name} is not counted: {record.state}{': ' if record.facts.error else ''}"
            + one_line(record.facts.error or "")
            for entry in self.entries.values()
            for run, record in entry.unfinished
        ]
        for entry in self.entries.values():
            configs = [record.config for _, record in entry.measured]
            if any(differences({**configs[0], "seed": config.get("seed")}, config) for config in configs[1:]):
                said.append(f"{entry.row} on {entry.dataset}: the seeds' runs have different settings.")
        return [*said, *self.remarks]

    def _entry(self, row: str, dataset: str) -> Entry:
        mine = [(run, record) for run, record in self.runs if (row_of(run), run.dataset) == (row, dataset)]
        there = [(run, record) for run, record in mine if record is not None]
        counts = [record.facts.state == "finished" and "last" in record.measured for _, record in there]
        return Entry(
            row,
            dataset,
            [run for run, _ in mine],
            [pair for pair, count in zip(there, counts, strict=True) if count],
            [pair for pair, count in zip(there, counts, strict=True) if not count],
        )

    def _is_scaled(self, dataset: str) -> bool:
        pairs = [pair for row in self.rows for pair in self.entries[row, dataset].measured]
        return bool(pairs) and all(
            chosen(record.measured["last"]).normalized is not None and record.data and record.data.ref_scores
            for _, record in pairs
        )


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
        if not started and (said := last_error(folder / "logs" / f"{run.name}.log")):
            remarks.append(f"{run.name} is not counted: it did not get as far as training, and said last: {said}")
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
            differs = experiment.title.removeprefix(f"{record.algo} on {record.source}").strip(" ()")
            seed = record.seed if isinstance(record.seed, int) else 0
            runs.append((PlannedRun(record.name, record.algo, record.source, differs, seed), record))
    return SuiteResults(f"{len(runs)} runs", runs)


def row_of(run: PlannedRun) -> str:
    return f"{run.algo} ({run.options})" if run.options else run.algo


def chosen(result: EvalResult) -> PolicyResult:
    """The policy that a table shows: chosen before anything is played, by the highest target, else the last."""
    order = [(-np.inf if (target := target_of(p)) is None else target, i) for i, p in enumerate(result.policies)]
    return result.policies[max(order)[1]]


def best_of(record: RunRecord) -> EvalResult:
    """The evaluation of the best checkpoint: the one that is kept as such, else the one with the highest score."""
    return record.measured.get("best") or max(record.curve, key=lambda result: result.score or -np.inf)


def episodes_of(record: RunRecord, policy: PolicyResult, scaled: bool) -> np.ndarray:
    """(E,) returns of a policy, or their scores."""
    values = np.asarray(policy.returns, dtype=np.float64)
    if not scaled:
        return values
    assert record.data is not None
    assert record.data.ref_scores is not None
    random, expert = record.data.ref_scores
    return 100 * (values - random) / (expert - random)


def summarize(seeds: Sequence[int], groups: Sequence[np.ndarray]) -> Summary:
    """Statistics of each seed's episodes (E,), at least one seed."""
    scores = [float(group.mean()) for group in groups]
    pooled = np.concatenate(groups)
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
    middle = float(iqm(pooled))
    return Summary(list(seeds), scores, len(pooled), float(np.mean(scores)), sd, middle, *seed_interval(groups))


def table_view(results: SuiteResults, best: bool) -> dict[str, Any]:
    """What the page's table shows."""
    rows = [(row, [cell(results, row, dataset, best) for dataset in results.datasets]) for row in results.rows]
    return {"best": best, "results": results, "rows": rows, "caption": results.caption(best)}


def cell(results: SuiteResults, row: str, dataset: str, best: bool) -> tuple[str, str]:
    """`52.3 ± 1.2` and what stands beneath it; a dash and nothing where no run is measured."""
    found = results.summary(row, dataset, best)
    if found is None:
        return "–", ""
    places = places_of(results, dataset)
    mean, sd, middle, low, high = (number(x, places) for x in (found.mean, found.sd, found.iqm, found.low, found.high))
    top = f"{mean} ± {sd}" if len(found.seeds) > 1 else mean
    return top, f"{middle} ({low} to {high}), {_seeds(found)}"


def each_seed(results: SuiteResults) -> list[list[str]]:
    """Rows of dataset, algorithm, a score for each seed, updates and time."""
    seeds = sorted({run.seed for run, _ in results.runs})
    rows = []
    for dataset in results.datasets:
        for row in results.rows:
            entry, places = results.entries[row, dataset], places_of(results, dataset)
            last, best = (results.summary(row, dataset, which) for which in (False, True))
            shown = {}
            if last and best:
                shown = dict(zip(last.seeds, (number(score, places) for score in last.scores), strict=True))
                for seed, score in zip(best.seeds, best.scores, strict=True):
                    shown[seed] += f" ({number(score, places)})" if results.has_best else ""
            if entry.planned:
                rows.append([dataset, row, *(shown.get(seed, "–") for seed in seeds), *_effort(entry)])
    return rows


def places_of(results: SuiteResults, dataset: str) -> int:
    """Scores have one decimal; returns as many as such returns deserve."""
    if results.scaled[dataset]:
        return 1
    found = (results.summary(row, dataset) for row in results.rows)
    return decimals(summary.mean for summary in found if summary)


def _seeds(found: Summary) -> str:
    return f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"


def _effort(entry: Entry) -> list[str]:
    """How many updates its runs made, and the mean time that they took."""
    records = [record for _, record in entry.measured]
    if not records:
        return ["–", "–"]
    steps = sorted({record.facts.step for record in records})
    return [" to ".join(f"{step:,}" for step in {steps[0]: 0, steps[-1]: 0}),
            clock(float(np.mean([record.facts.seconds for record in records])))]  # fmt: skip
