"""Reports: run folders -> what was trained and how well it plays, as one HTML page and as a table in the terminal.

Runs that differ in nothing but the seed form one experiment, whose numbers are aggregated. A file that a run does
not have, or that cannot be read, is said to be missing; only a folder that is not a run is an error.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table
from scipy import stats

from rlalgo.errors import ConfigError, RlalgoError
from rlalgo.version import __version__
from rlutils import plots
from rlutils.callbacks.csv import read_rows
from rlutils.evaluate import EvalResult, PolicyResult
from rlutils.files import read_yaml, write_atomic

T = TypeVar("T")


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
    lengths: list[int]
    steps: int
    ref_scores: tuple[float, float] | None = None
    env_id: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """All that a run folder says."""

    folder: Path
    config: Mapping[str, Any]
    config_text: str
    facts: RunFacts
    data: DataFacts | None
    plugins: list[dict[str, Any]]
    evaluations: list[EvalResult]
    """Those of training, by step."""
    again: list[EvalResult]
    """Those of `rlalgo evaluate`, the oldest first."""
    metrics: dict[str, tuple[np.ndarray, np.ndarray]]
    """Name -> steps (n,), values (n,): training's from metrics.csv, then the evaluators'."""
    last_step: int | None
    """Of the checkpoint `last`."""
    best_step: int | None
    notes: list[str]
    """What is missing or unreadable."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def algo(self) -> str:
        return _name(self.config.get("algo"))

    @property
    def source(self) -> str:
        """`minari:hopper/medium-v0`."""
        if self.data is not None:
            return self.data.name
        source = self.config.get("source")
        ident = source.get("id") if isinstance(source, Mapping) else None
        return f"{_name(source)}:{ident}" if ident else _name(source)

    @property
    def env_id(self) -> str | None:
        played = [result.env_id for result in self.evaluations if result.env_id]
        return played[-1] if played else self.data.env_id if self.data else None

    @property
    def last(self) -> EvalResult | None:
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> EvalResult | None:
        return next((result for result in self.evaluations if result.step == self.best_step), None)

    @property
    def state(self) -> str:
        return "running, or killed" if self.facts.state == "running" else self.facts.state

    def measured(self) -> dict[str, EvalResult]:
        """Every evaluation worth a table: at the last checkpoint, at the best one, and those made again later."""
        found = {}
        if self.last is not None and self.last.policies:
            found["last"] = self.last
        if self.best is not None and self.best.policies and self.best is not self.last:
            found["best"] = self.best
        for result in self.again:
            which = {self.last_step: "last", self.best_step: "best"}.get(result.step, f"step {result.step:,}")
            where = f" in {result.env_id}" if result.env_id != self.env_id else ""
            if result.policies:
                found[f"{which}, played again with seed {result.seed:,}{where}"] = result
        return found


@dataclass(frozen=True)
class Row:
    """One line of a table: a policy of one run, or of one experiment's runs together."""

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
    """The rows of one checkpoint (`last`, `best`, ...)."""

    name: str
    steps: list[int]
    rows: list[Row]
    also_best: bool = False

    @property
    def title(self) -> str:
        low, high = min(self.steps), max(self.steps)
        at = f"step {low:,}" if low == high else f"steps {low:,} to {high:,}"
        return f"{self.name}, {at}" + (" (also the best)" if self.also_best else "")


@dataclass(frozen=True)
class Conditioning:
    """Whether the achieved return follows the target: over all single episodes."""

    targets: np.ndarray
    """(n,) of every episode."""
    returns: np.ndarray
    """(n,)"""
    rho: float | None
    """Spearman's; None where it is undefined because all returns are equal."""
    by_run: list[float | None]
    spread: float
    """Mean return at the top target minus that at the lowest one."""


class Experiment:
    """Runs of one configuration; they differ at most in their seed."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self.runs = list(runs)
        self.title = f"{runs[0].algo} on {runs[0].source}"

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The runs whose numbers are aggregated: the finished ones, else the one that came furthest."""
        played = [run for run in self.runs if run.measured()]
        finished = [run for run in played if run.facts.state == "finished"]
        return (
            finished
            or sorted(played, key=lambda run: run.evaluations[-1].step if run.evaluations else 0)[-1:]
        )

    @property
    def data(self) -> DataFacts | None:
        return next((run.data for run in self.runs if run.data is not None and run.data.returns), None)

    @property
    def ordered(self) -> bool:
        """Whether the policies are targets, so that they have an order."""
        found = self.counted[0].measured() if self.counted else {}
        return any(len(_targets(result.policies)) > 1 for result in found.values())

    @cached_property
    def sections(self) -> list[Section]:
        """Aggregated over the counted runs; of one run, its own numbers."""
        return sections(self.counted)

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers should know."""
        said = []
        left_out = [run for run in self.runs if run not in self.counted]
        if self.counted and left_out:
            listed = ", ".join(f"{run.name} ({run.state})" for run in left_out)
            said.append(f"Not counted in the tables and the figures of returns: {listed}.")
        if self.counted and self.counted[0].facts.state != "finished":
            said.append(
                f"No run is finished: these are the numbers of {self.counted[0].name} as far as it came."
            )
        if len({tuple(run.data.returns) for run in self.runs if run.data}) > 1:
            said.append(
                "The runs were trained on different data under one name: its returns are not the same."
            )
        for run in self.counted:
            if run.last and run.last_step is not None and run.last.step != run.last_step:
                said.append(
                    f"{run.name}: the last checkpoint is of step {run.last_step:,}, but the last evaluation of "
                    f"step {run.last.step:,}."
                )
        return said

    def policies(self, name: str = "last") -> dict[str, list[PolicyResult]]:
        """Label -> that policy's result in every counted run, rising by target where there are targets."""
        found = [run.measured()[name].policies for run in self.counted if name in run.measured()]
        return _by_label(found)

    def conditioning(self, name: str = "last") -> Conditioning | None:
        """Of the policies with a target; None where there are not two different ones."""
        runs = [run.measured()[name].policies for run in self.counted if name in run.measured()]
        pairs = [_episodes(policies) for policies in runs]
        targets = np.concatenate([t for t, _ in pairs]) if pairs else np.zeros(0)
        returns = np.concatenate([r for _, r in pairs]) if pairs else np.zeros(0)
        if len(np.unique(targets)) < 2:
            return None
        top, bottom = returns[targets == targets.max()], returns[targets == targets.min()]
        return Conditioning(
            targets,
            returns,
            spearman(targets, returns),
            [spearman(t, r) for t, r in pairs],
            float(top.mean() - bottom.mean()),
        )


def load_run_record(run: Path) -> RunRecord:
    """Reads a run folder; what is missing or broken is left out and noted.

    Raises:
        RlalgoError: the folder is not a run.
        ConfigError: its config.yaml cannot be read.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise RlalgoError(_not_a_run(run))
    config = read_yaml(run / "config.yaml")
    if not isinstance(config, Mapping):
        raise RlalgoError(
            f"{run / 'config.yaml'}: expected a mapping, got {type(config).__name__}; is this a run?"
        )
    notes: list[str] = []
    facts = _read(run / "run.yaml", RunFacts, notes, "when and how it ended") or RunFacts()
    data = _read(run / "data.json", DataFacts, notes, "the data's returns")
    plugins = _read(run / "plugins.yaml", list[dict[str, Any]], notes, "what provided its parts")
    if data is not None and not (data.returns and np.isfinite(data.returns).all()):
        notes.append("data.json holds no usable returns: the data is left out.")
        data = None
    folder = run / "evaluations"
    evaluations = _evaluations(sorted(folder.glob("step_*.json")), notes)
    again = _evaluations(sorted(folder.glob("evaluate_*.json")), notes)
    if not evaluations and not again:
        notes.append("There is no evaluation: nothing is known of how it plays.")
    checkpoints = {name: _linked_step(run / "checkpoints" / name) for name in ("last", "best")}
    if checkpoints["last"] is None:
        notes.append("There is no checkpoint.")
    best_step = checkpoints["best"] if checkpoints["best"] is not None else facts.best_step
    evaluations.sort(key=lambda result: result.step)
    return RunRecord(
        folder=run,
        config=config,
        config_text=(run / "config.yaml").read_text(),
        facts=facts,
        data=data,
        plugins=plugins or [],
        evaluations=evaluations,
        again=again,
        metrics=_metrics(run / "metrics.csv", notes) | _measurements(evaluations),
        last_step=checkpoints["last"],
        best_step=best_step,
        notes=notes,
    )


def experiments(runs: Sequence[Path]) -> list[Experiment]:
    """Runs by configuration, seeds aside, in the order given; a folder given twice counts once."""
    folders = {Path(run).resolve(): Path(run) for run in runs}
    groups: dict[str, list[RunRecord]] = {}
    for folder in folders.values():
        record = load_run_record(folder)
        key = json.dumps({k: v for k, v in record.config.items() if k != "seed"}, sort_keys=True, default=str)
        groups.setdefault(key, []).append(record)
    found = [Experiment(records) for records in groups.values()]
    _tell_apart(found)
    return found


def sections(runs: Sequence[RunRecord]) -> list[Section]:
    """The result tables' content, aggregated if there are several runs."""
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.measured()):
        having = [run for run in runs if name in run.measured()]
        results = [run.measured()[name] for run in having]
        if len(runs) > 1 and name == "best":  # where the best is the last, it is the best all the same
            having, results = (
                list(runs),
                [run.measured().get("best") or run.measured()["last"] for run in runs],
            )
        rows = [_row(label, policies) for label, policies in _by_label([r.policies for r in results]).items()]
        also_best = name == "last" and all(run.best is not None and run.best is run.last for run in having)
        found.append(Section(name, [result.step for result in results], rows, also_best))
    return sorted(found, key=lambda section: {"last": 0, "best": 1}.get(section.name, 2))


def spearman(targets: np.ndarray, returns: np.ndarray) -> float | None:
    """Rank correlation over single episodes (n,), (n,); None where one of the two is constant."""
    if len(np.unique(targets)) < 2 or len(np.unique(returns)) < 2:
        return None
    return float(stats.spearmanr(targets, returns).statistic)


def interval(values: np.ndarray, statistic: Callable[..., Any]) -> tuple[float, float]:
    """95% bootstrap interval of a statistic of values (n,)."""
    if len(values) < 2 or np.ptp(values) == 0:
        return float(statistic(values)), float(statistic(values))
    rng = np.random.default_rng(0)
    found = stats.bootstrap((values,), statistic, n_resamples=2000, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def iqm(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half."""
    return stats.trim_mean(values, 0.25, axis=axis)


def print_results(runs: Sequence[Path], console: Console) -> None:
    """The result tables for a terminal."""
    for experiment in experiments(runs):
        many = len(experiment.counted) > 1
        head = f"{experiment.title}, {len(experiment.counted)} seeds" if many else experiment.title
        table = Table(title=plain(head), title_justify="left", title_style="bold")
        table.add_column("policy")
        interval_of = "95% of the IQM" if many else "95% of the mean"
        for column in (
            "episodes",
            "mean",
            "sd over seeds" if many else "sd",
            "IQM",
            interval_of,
            "score",
            "length",
        ):
            table.add_column(column, justify="right")
        places = decimals(row.mean for section in experiment.sections for row in section.rows)
        for section in experiment.sections:
            table.add_section()
            table.add_row(f"[bold]{plain(section.title)}[/bold]")
            for row in section.rows:
                mean, sd, middle, low, high = (
                    number(value, places) for value in (row.mean, row.sd, row.iqm, row.low, row.high)
                )
                table.add_row(plain(row.policy), str(row.episodes), mean, sd, middle, f"{low} to {high}",
                              number(row.score, 1), number(row.length, 0))  # fmt: skip
        if experiment.sections:
            console.print(table)
        else:
            console.print(f"{experiment.title}: no evaluation", markup=False)
        found = experiment.conditioning()
        if found is not None:
            rho = "undefined (all returns are equal)" if found.rho is None else f"{found.rho:.2f}"
            console.print(
                f"target against return over {len(found.returns)} single episodes: Spearman {rho}, "
                f"top minus bottom {number(found.spread, places)}"
            )
        for run in experiment.runs:
            error = f": {run.facts.error}" if run.facts.error else ""
            if run.facts.state != "finished":
                console.print(f"{run.name}: {run.state}{error}", markup=False, soft_wrap=True)
        for note in experiment.notes:
            console.print(note, markup=False, soft_wrap=True)


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Writes one HTML page about the runs, which needs nothing but itself.

    Args:
        runs: run folders, at least one.
        out: the file to write; its folder is made if need be.

    Raises:
        RlalgoError: a folder is not a run, or the page cannot be written.
    """
    if not runs:
        raise RlalgoError("no run given: name at least one run folder")
    found = experiments(runs)
    page = _environment().get_template("report.html.j2").render(
        title=found[0].title if len(found) == 1 else f"{len(found)} experiments",
        experiments=[_view(experiment, i) for i, experiment in enumerate(found)],
        runs=[run for experiment in found for run in experiment.runs],
        comparison=_comparison(found),
        made=datetime.now().astimezone(),
        version=__version__,
    )  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, page)
    except OSError as error:
        raise RlalgoError(
            f"{out} cannot be written: {error.strerror or error}; choose another --out"
        ) from error
    return out


# --- reading ---


def _read(path: Path, kind: type[T], notes: list[str], what: str) -> T | None:
    """A YAML or JSON file checked against a dataclass; None and a note where that fails."""
    if not path.is_file():
        notes.append(f"{path.name} is missing: {what} cannot be told.")
        return None
    try:
        values = json.loads(path.read_text()) if path.suffix == ".json" else read_yaml(path)
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "content"
        notes.append(f"{path.name} cannot be used ({at}: {first['msg']}): {what} cannot be told.")
    except (OSError, ValueError, ConfigError) as error:
        notes.append(
            f"{path.name} cannot be read ({str(error).splitlines()[-1].strip()}): {what} cannot be told."
        )
    return None


def _evaluations(paths: Sequence[Path], notes: list[str]) -> list[EvalResult]:
    found = []
    for path in paths:
        result = _read(path, EvalResult, notes, "this evaluation")
        if result is None:
            continue
        if all(p.returns and np.isfinite(p.returns).all() for p in result.policies):
            found.append(result)
        else:
            notes.append(f"{path.name} holds no or infinite returns: this evaluation is left out.")
    return found


def _linked_step(path: Path) -> int | None:
    """The step of the checkpoint that a link names."""
    number = path.resolve().name.removeprefix("step_")
    return int(number) if path.exists() and number.isdigit() else None


def _metrics(path: Path, notes: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Finite values of metrics.csv by column; empty cells are skipped, others noted."""
    if not path.is_file():
        notes.append("metrics.csv is missing: there are no curves of training metrics.")
        return {}
    try:
        rows = read_rows(path)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        notes.append(f"metrics.csv cannot be read ({error}): there are no curves of training metrics.")
        return {}
    if not rows:
        notes.append("metrics.csv has no rows: there are no curves of training metrics.")
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in [key for key in (rows[0] if rows else {}) if key not in ("step", "seconds")]:
        pairs = [(int(row["step"]), _float(row[name])) for row in rows if row[name].strip()]
        good = [(step, value) for step, value in pairs if np.isfinite(value)]
        if len(good) < len(pairs):
            at = next(step for step, value in pairs if not np.isfinite(value))
            notes.append(f"{name} is not a finite number at step {at:,}; its curve leaves out such points.")
        if good:
            found[name] = (np.array([s for s, _ in good]), np.array([v for _, v in good]))
    return found


def _measurements(evaluations: Sequence[EvalResult]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What evaluators measured, as curves."""
    found = {}
    for name in dict.fromkeys(name for result in evaluations for name in result.metrics):
        pairs = [(result.step, result.metrics[name]) for result in evaluations if name in result.metrics]
        found[name] = (np.array([s for s, _ in pairs]), np.array([v for _, v in pairs]))
    return found


def _not_a_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: there is no such folder; give a run folder that `rlalgo train` wrote"
    within = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
    hint = (
        f"it holds {len(within)} of them, such as {folder / within[0]}"
        if within
        else "`rlalgo train` writes them"
    )
    return f"{folder} is not a run folder (it has no config.yaml); {hint}"


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


# --- numbers ---


def _name(choice: Any) -> str:
    return str(choice.get("name", "?")) if isinstance(choice, Mapping) else str(choice or "?")


def _target(policy: PolicyResult) -> float | None:
    value = policy.options.get("target_return")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _targets(policies: Sequence[PolicyResult]) -> list[float]:
    """The distinct ones, rising."""
    return sorted({target for policy in policies if (target := _target(policy)) is not None})


def _episodes(policies: Sequence[PolicyResult]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) targets and (n,) returns of every single episode that had a target."""
    pairs = [(target, value) for p in policies if (target := _target(p)) is not None for value in p.returns]
    return np.array([target for target, _ in pairs]), np.array([value for _, value in pairs])


def _by_label(runs: Sequence[Sequence[PolicyResult]]) -> dict[str, list[PolicyResult]]:
    """Results of the same policy in several runs; only policies that all of them played."""
    found: dict[str, list[PolicyResult]] = {}
    for policies in runs:
        for policy in policies:
            found.setdefault(shown(policy.label), []).append(policy)
    kept = {label: results for label, results in found.items() if len(results) == len(runs)}
    return dict(sorted(kept.items(), key=lambda item: _target(item[1][0]) or 0.0))


def _row(label: str, results: Sequence[PolicyResult]) -> Row:
    """One run's own numbers, or those over several runs."""
    lengths = np.concatenate([result.lengths for result in results])
    length = float(lengths.mean()) if len(lengths) else float("nan")
    first = results[0]
    if len(results) == 1:
        return Row(
            label,
            len(first.returns),
            first.mean,
            first.sd,
            first.iqm,
            *first.interval,
            first.normalised,
            length,
        )
    pooled = np.concatenate([result.returns for result in results])
    means = np.array([np.mean(result.returns) for result in results])
    scores = [result.normalised for result in results if result.normalised is not None]
    score = float(np.mean(scores)) if len(scores) == len(results) else None
    low, high = interval(pooled, iqm)
    return Row(label, len(pooled), float(means.mean()), float(means.std(ddof=1)), float(iqm(pooled)), low, high,
               score, length)  # fmt: skip


def _group(label: str, results: Sequence[PolicyResult]) -> plots.Group:
    """Every episode of a policy over its runs, for a figure."""
    values = np.concatenate([result.returns for result in results])
    low, high = results[0].interval if len(results) == 1 else interval(values, np.mean)
    return plots.Group(label, values, float(values.mean()), low, high)


def _tell_apart(found: Sequence[Experiment]) -> None:
    """Adds the options that differ to titles that would otherwise be the same."""
    for title in {experiment.title for experiment in found}:
        same = [experiment for experiment in found if experiment.title == title]
        flat = [_flat(experiment.runs[0].config) for experiment in same]
        keys = [key for key in dict.fromkeys(k for values in flat for k in values) if key != "seed"]
        differ = [
            key for key in keys if len({json.dumps(values.get(key), default=str) for values in flat}) > 1
        ]
        for experiment, values in zip(same, flat, strict=True):
            if differ:
                shown_keys = ", ".join(f"{key}={values.get(key)}" for key in differ[:3])
                experiment.title += f" ({shown_keys}{', …' if len(differ) > 3 else ''})"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists -> dotted paths."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return {
            k: v
            for key, inner in items
            for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: value}


# --- what the page shows ---


def number(value: float | None, places: int) -> str:
    """With separators, a true minus sign and a dash for nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{value:,.{places}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")


def decimals(values: Any) -> int:
    """How many decimals a column of such returns deserves."""
    top = max((abs(value) for value in values), default=0.0)
    return 0 if top >= 1000 else 1 if top >= 100 else 2 if top >= 1 else 3


def shown(label: str) -> str:
    """A policy's label for people."""
    return label.replace("target_return=", "target ")


def clock(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(value: str | datetime) -> str:
    """An ISO time for people; anything else as it is."""
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return str(value)
    return f"{when.day} {when:%B %Y, %H:%M}"


_LINE = re.compile(
    r"^(?P<lead>\s*(?:- )*)(?:(?P<key>[^\s#'\"\[{][^:]*|'[^']*'|\"[^\"]*\")(?P<colon>:)(?=\s|$))?(?P<rest>.*)$"
)
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def highlight(text: str) -> Markup:
    """YAML with its keys and values marked up."""
    lines = []
    for line in text.splitlines():
        match = _LINE.match(line)
        assert match is not None
        lead, key, colon, rest = (match[name] or "" for name in ("lead", "key", "colon", "rest"))
        value = rest.strip()
        kind = (
            "n"
            if _NUMBER.fullmatch(value)
            else "w"
            if value in ("true", "false", "null", "[]", "{}")
            else "s"
        )
        kind = "c" if value.startswith("#") else kind
        marked = Markup('<span class="k">{}</span>').format(key) if key else ""
        space = rest[: len(rest) - len(rest.lstrip())]
        lines.append(
            Markup("{}{}{}{}").format(lead, marked, colon, space)
            + (Markup('<span class="{}">{}</span>').format(kind, value) if value else "")
        )
    return Markup("\n").join(lines)


def picture(figure: Figure, alt: str) -> Markup:
    """A figure as an image within the page: nothing in it can meet the page's ids, styles or scripts."""
    coded = base64.b64encode(plots.to_svg(figure).encode()).decode()
    width, height = (round(96 * size) for size in figure.get_size_inches())
    return Markup('<img src="data:image/svg+xml;base64,{}" alt="{}" width="{}" height="{}">').format(
        coded, alt, width, height
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, clock=clock, moment=moment, highlight=highlight, shown=shown)
    return environment


def _view(experiment: Experiment, index: int) -> dict[str, Any]:
    """All that the template shows of one experiment."""
    runs, data = experiment.runs, experiment.data
    rows = [row for section in experiment.sections for row in section.rows]
    each = [(run, sections([run])) for run in runs if run.measured()] if len(runs) > 1 else []
    scored = any(row.score is not None for row in rows)
    return {
        "id": f"experiment-{index + 1}",
        "title": experiment.title,
        "experiment": experiment,
        "run": runs[0],
        "data": data,
        "tiles": _tiles(experiment),
        "sections": experiment.sections,
        "each": each,
        "places": decimals(row.mean for row in rows),
        "scored": scored,
        "best_by": _best_by(runs[0].config),
        "curves": _curves(experiment),
        "conditioning": [_conditioning(experiment, section) for section in experiment.sections],
        "returns": _returns(experiment),
        "metrics": _metric_pictures(experiment),
        "colours": plots.colours(len(runs), ordered=False),
    }


def _tiles(experiment: Experiment) -> list[tuple[str, str, str]]:
    """(what, value, detail): the figures to remember."""
    tiles = []
    section = experiment.sections[0] if experiment.sections else None
    top = max(section.rows, key=lambda row: row.mean) if section and section.rows else None
    seeds = len(experiment.counted)
    if section and top:
        places = decimals([top.mean])
        name = f"{top.policy}, " if top.policy != "policy" else ""
        spread = (
            f"± {number(top.sd, places)} over {seeds} seeds"
            if seeds > 1
            else f"95% {number(top.low, places)} to {number(top.high, places)}"
        )
        tiles.append(("Best policy's mean return", number(top.mean, places),
                      f"{name}{section.name} checkpoint, {spread}"))  # fmt: skip
        if top.score is not None:
            tiles.append(
                ("Normalised score", number(top.score, 1), "of that policy; 0 is random, 100 expert")
            )
    if experiment.data is not None:
        best = max(experiment.data.returns)
        reached = (
            f"; the best policy's mean is {100 * top.mean / best:.0f}% of it" if top and best > 0 else ""
        )
        tiles.append(("Best episode in the data", number(best, decimals([best])),
                      f"of {len(experiment.data.returns):,}{reached}"))  # fmt: skip
    found = experiment.conditioning()
    if found is not None:
        rho = "undefined" if found.rho is None else number(found.rho, 2)
        tiles.append(
            ("Target against return", rho, f"Spearman's ρ over {len(found.returns):,} single episodes")
        )
    seconds = [run.facts.seconds for run in experiment.runs if run.facts.seconds]
    if seconds:
        steps = max(run.facts.step for run in experiment.runs)
        detail = f"{clock(float(np.mean(seconds)))} a run" if len(seconds) > 1 else clock(seconds[0])
        tiles.append(("Update steps", f"{steps:,}", detail))
    return tiles


def _best_by(config: Mapping[str, Any]) -> str:
    """What the best checkpoint was chosen by."""
    for callback in config.get("callbacks") or []:
        if isinstance(callback, Mapping) and callback.get("name") == "best" and callback.get("metric"):
            return f"{'lowest' if callback.get('mode') == 'min' else 'highest'} {callback['metric']}"
    return ""


def _curves(experiment: Experiment) -> Markup | None:
    """Evaluation returns over training; None where there are not two evaluations."""
    runs = [[result for result in run.evaluations if result.policies] for run in experiment.counted]
    common = sorted(set.intersection(*({r.step for r in results} for results in runs))) if runs else []
    if len(common) < 2:
        return None
    curves = []
    for label in experiment.policies("last"):
        lines = []
        for results in runs:
            own = {r.step: p for r in results for p in r.policies if shown(p.label) == label}
            lines.append((np.array(list(own)), np.array([p.mean for p in own.values()]), own))
        if not all(step in own for step in common for _, _, own in lines):
            continue  # this policy came later, by a resume with other settings
        groups = [_group(label, [own[step] for _, _, own in lines]) for step in common]
        curves.append(
            plots.Curve(
                label,
                np.array(common),
                np.array([group.mean for group in groups]),
                np.array([group.low for group in groups]),
                np.array([group.high for group in groups]),
                [(steps, means) for steps, means, _ in lines] if len(runs) > 1 else (),
            )
        )
    if not curves:
        return None
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.learning_curves(curves, experiment.ordered, best, "best episode in the data")
    ends = ", ".join(f"{curve.label}: {curve.mean[-1]:,.1f}" for curve in curves)
    return picture(figure, f"Evaluation return over update steps. At the end: {ends}")


def _conditioning(experiment: Experiment, section: Section) -> dict[str, Any] | None:
    """The target-against-achieved figure of one checkpoint, and the numbers of its caption."""
    found = experiment.conditioning(section.name)
    if found is None or section.name == "best":  # the best checkpoint was chosen by these episodes
        return None
    groups, runs = [], []
    for target in np.unique(found.targets):
        values = found.returns[found.targets == target]
        low, high = interval(values, np.mean)
        groups.append(plots.Group(f"{target:g}", values, float(values.mean()), low, high))
    for run in experiment.counted:
        if section.name in run.measured():
            targets, returns = _episodes(run.measured()[section.name].policies)
            asked = np.unique(targets)
            runs.append((asked, np.array([returns[targets == target].mean() for target in asked])))
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.target_plot(found.targets, found.returns, groups, runs, best)
    means = ", ".join(f"{group.label}: {group.mean:,.1f}" for group in groups)
    return {"picture": picture(figure, f"Achieved mean return by target return. {means}"), "numbers": found,
            "section": section, "places": decimals([found.spread])}  # fmt: skip


def _returns(experiment: Experiment) -> Markup | None:
    """The data's returns above the achieved ones."""
    policies = experiment.policies("last")
    if not policies and experiment.data is None:
        return None
    groups = [_group(label, results) for label, results in policies.items()]
    data = np.array(experiment.data.returns) if experiment.data else None
    figure = plots.returns_plot(groups, data, experiment.ordered)
    return picture(
        figure, "Histogram of the data's returns above the single returns of every policy, on one axis"
    )


def _metric_pictures(experiment: Experiment) -> list[Markup]:
    """A small figure for each metric, a line for each run, failed ones included."""
    names = dict.fromkeys(name for run in experiment.runs for name in run.metrics)
    nothing = (np.zeros(0), np.zeros(0))
    return [
        picture(
            plots.metric_plot(name, {run.name: run.metrics.get(name, nothing) for run in experiment.runs}),
            f"{name} over update steps",
        )
        for name in names
    ]


def _comparison(found: Sequence[Experiment]) -> dict[str, Any] | None:
    """Experiments side by side: the best policy of each; None where there is only one."""
    if len(found) < 2:
        return None
    rows, groups = [], []
    for i, experiment in enumerate(found):
        last = experiment.sections[0] if experiment.sections else None
        top = max(last.rows, key=lambda row: row.mean) if last and last.rows else None
        rows.append({"id": f"experiment-{i + 1}", "experiment": experiment, "section": last, "top": top})
        if last and top:
            groups.append(
                _group(f"{i + 1}. {experiment.runs[0].algo}", experiment.policies(last.name)[top.policy])
            )
    played_in = {experiment.runs[0].env_id for experiment in found}
    figure = None
    if len(played_in) == 1 and len(groups) > 1:
        figure = picture(
            plots.returns_plot(groups), "Single returns of each experiment's best policy, on one axis"
        )
    return {"rows": rows, "picture": figure,
            "places": decimals(row["top"].mean for row in rows if row["top"])}  # fmt: skip
