"""Reports: run folders -> what was trained and how well it plays, as an HTML page and as tables to print.

Runs that differ in nothing but the seed are one experiment, and their numbers are aggregated. A file that is
missing or broken is said to be so and left out; only a folder that is not a run is an error.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import stats

from rlalgo.errors import ConfigError, RlalgoError
from rlalgo.version import __version__
from rlutils import plots
from rlutils.callbacks.csv import read_rows
from rlutils.evaluate import EvalResult, PolicyResult
from rlutils.files import read_yaml, write_atomic

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
        pairs = [_episodes(policies) for policies in self.played(name)]
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
        pairs = [(result.step, result.metrics[key]) for result in trained if key in result.metrics]
        metrics[key] = (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
    text = file.read_text()
    return RunRecord(run, config, text, facts, data, owners or [], curve, measured, metrics, last, notes)


def experiments(runs: Sequence[Path]) -> list[Experiment]:
    """Runs by configuration, whatever their seed, in the order given; a folder named twice counts once."""
    groups: dict[str, list[RunRecord]] = {}
    for folder in {Path(run).resolve(): Path(run) for run in runs}.values():
        record = load_run_record(folder)
        key = json.dumps({k: v for k, v in record.config.items() if k != "seed"}, sort_keys=True, default=str)
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
        policies = _by_label([result.policies for result in results])
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


def print_results(runs: Sequence[Path], console: Console) -> None:
    """The results as tables for a terminal."""
    for experiment in experiments(runs):
        seeds, places = len(experiment.counted), _places(experiment)
        console.print(f"[bold]{escape(experiment.title)}[/bold]{f', {seeds} seeds' if seeds > 1 else ''}")
        for section in experiment.sections:
            table = Table(section.title, box=None, padding=(0, 2, 0, 0))
            for column in ("episodes", "mean", "sd", "IQM", "95%", "score", "length"):
                table.add_column(column, justify="right", no_wrap=True)
            for row in section.rows:
                mean, sd, middle = (number(value, places) for value in (row.mean, row.sd, row.iqm))
                span = f"{number(row.low, places)} to {number(row.high, places)}"
                cells = (
                    str(row.episodes),
                    mean,
                    sd,
                    middle,
                    span,
                    number(row.score, 1),
                    number(row.length, 0),
                )
                table.add_row(escape(row.policy), *cells)
            console.print(table)
        if not experiment.sections:
            console.print("nothing was played")
        elif seeds > 1:
            console.print("mean and sd: over seeds; IQM and its 95% interval: over all their episodes")
        else:
            console.print("95%: bootstrap interval of the mean over episodes")
        if any(section.name == "best" for section in experiment.sections):
            console.print("best: chosen by these very episodes, so optimistic")
        if found := experiment.conditioning():
            console.print(
                f"target against return at last: Spearman {number(found.rho, 2)} over {len(found.returns):,} "
                f"single episodes, highest minus lowest target {number(found.spread, places)}",
                soft_wrap=True,
            )
        unfinished = [run for run in experiment.runs if run.facts.state != "finished"]
        said = [f"{run.name}: {run.state}{': ' + run.facts.error if run.facts.error else ''}" for run in unfinished]
        for line in said + experiment.notes:
            console.print(line, markup=False, soft_wrap=True)


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
        experiments=[_view(experiment, i) for i, experiment in enumerate(found, 1)],
        runs=[run for experiment in found for run in experiment.runs],
        comparison=_comparison(found) if len(found) > 1 else None,
        made=datetime.now().astimezone().isoformat(),
        version=__version__,
    )  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, page)
    except OSError as error:
        raise RlalgoError(f"{out} cannot be written: {error.strerror or error}; choose another --out") from error
    return out


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


def _target(policy: PolicyResult) -> float | None:
    value = policy.options.get("target_return")
    return float(value) if isinstance(value, int | float) else None


def _episodes(policies: Sequence[PolicyResult]) -> Series:
    """(n,) targets and (n,) returns of every single episode that had a target."""
    pairs = [(t, value) for p in policies if (t := _target(p)) is not None for value in p.returns]
    return np.array([t for t, _ in pairs]), np.array([value for _, value in pairs])


def _by_label(runs: Sequence[Sequence[PolicyResult]]) -> dict[str, list[PolicyResult]]:
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
    return dict(sorted(kept.items(), key=lambda item: _target(item[1][0]) or 0.0))


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


def _group(label: str, values: np.ndarray) -> plots.Group:
    return plots.Group(label, values, float(values.mean()), *interval(values))


def _groups(runs: Sequence[Sequence[PolicyResult]]) -> list[plots.Group]:
    """Every single return of each policy, over all runs."""
    return [_group(label, np.concatenate([r.returns for r in same])) for label, same in _by_label(runs).items()]


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


def _places(experiment: Experiment) -> int:
    return decimals(row.mean for section in experiment.sections for row in section.rows)


# --- how things are written ---


def number(value: float | None, places: int) -> str:
    """With separators and a true minus sign; a dash for nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # adding 0.0 makes -0.0 a plain zero


def decimals(values: Iterable[float]) -> int:
    """How many decimals a column of such returns deserves."""
    top = max((abs(value) for value in values), default=0.0)
    return 0 if top >= 1000 else 1 if top >= 100 else 2 if top >= 1 else 3


def clock(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(value: str) -> str:
    """An ISO time for people; anything else as it is."""
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return value
    return f"{when.day} {when:%B %Y, %H:%M}"


_LINE = re.compile(r"(\s*(?:- )*)(?:([^\s#'\"\[{-][^:]*|'[^']*'|\"[^\"]*\")(:(?=\s|$)))?(\s*)(.*)")
_KINDS = {
    "n": re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
    "w": re.compile(r"true|false|null|\[\]|\{\}"),
    "c": re.compile(r"#.*"),
    "s": re.compile(r".+"),
}


def highlight(text: str) -> Markup:
    """YAML with its keys and values marked up; everything is escaped."""
    lines = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None
        lead, key, colon, space, value = (part or "" for part in match.groups())
        kind = next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(value)), "s")
        marked = Markup('<span class="k">{}</span>').format(key) if key else ""
        lines.append(Markup('{}{}{}{}<span class="{}">{}</span>').format(lead, marked, colon, space, kind, value))
    return Markup("\n").join(lines)


def picture(figure: Figure, alt: str) -> Markup:
    """A figure as an image within the page: nothing in it can meet the page's own ids and styles."""
    coded = base64.b64encode(plots.to_svg(figure).encode()).decode()
    width, height = (round(96 * size) for size in figure.get_size_inches())
    tag = '<img src="data:image/svg+xml;base64,{}" alt="{}" width="{}" height="{}">'
    return Markup(tag).format(coded, alt, width, height)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, clock=clock, moment=moment, highlight=highlight)
    return environment


# --- what the page shows ---


def _view(experiment: Experiment, index: int) -> dict[str, Any]:
    """All that the template shows of one experiment."""
    runs = experiment.runs
    return {
        "id": f"experiment-{index}",
        "experiment": experiment,
        "run": runs[0],
        "tiles": _tiles(experiment),
        "each": [(run, sections([run])) for run in runs if run.measured] if len(runs) > 1 else [],
        "places": _places(experiment),
        "scored": any(row.score is not None for section in experiment.sections for row in section.rows),
        "best_by": _best_by(runs[0].config),
        "conditioning": [
            shown for section in experiment.sections if (shown := _conditioning(experiment, section)) is not None
        ],
        "returns": _returns(experiment),
        "curve": _curve(experiment),
        "metrics": _metric_pictures(runs),
        "colours": plots.colours(len(runs), ordered=False),
    }


def _tiles(experiment: Experiment) -> list[tuple[str, str, str]]:
    """(what, value, detail): the figures to remember."""
    tiles = []
    section = experiment.sections[0] if experiment.sections else None
    top = section.top if section else None
    seeds = len(experiment.counted)
    if section and top:
        mean, sd, low, high = (number(x, decimals([top.mean])) for x in (top.mean, top.sd, top.low, top.high))
        spread = f"± {sd} over {seeds} seeds" if seeds > 1 else f"95% {low} to {high}"
        tiles.append(("Best policy's mean return", mean, f"{top.policy}, {section.name} checkpoint, {spread}"))
        if top.score is not None:
            tiles.append(("Normalised score", number(top.score, 1), "of that policy; 0 is random, 100 expert"))
    if experiment.data:
        best = max(experiment.data.returns)
        reached = f"; the best policy's mean is {100 * top.mean / best:.0f}% of it" if top and best > 0 else ""
        detail = f"of {len(experiment.data.returns):,}{reached}"
        tiles.append(("Best episode in the data", number(best, decimals([best])), detail))
    if found := experiment.conditioning():
        detail = f"Spearman's ρ over {len(found.returns):,} single episodes"
        tiles.append(("Target against return", number(found.rho, 2), detail))
    seconds = [run.facts.seconds for run in experiment.runs if run.facts.seconds]
    if seconds:
        detail = clock(float(np.mean(seconds))) + (" a run" if len(seconds) > 1 else "")
        tiles.append(("Update steps", f"{max(run.facts.step for run in experiment.runs):,}", detail))
    return tiles


def _best_by(config: Mapping[str, Any]) -> str:
    """The evaluator's number that the best checkpoint was chosen by; empty for the usual score."""
    for callback in config.get("callbacks") or []:
        if isinstance(callback, Mapping) and callback.get("name") == "best" and callback.get("metric"):
            return f"{'lowest' if callback.get('mode') == 'min' else 'highest'} {callback['metric']}"
    return ""


def _ordered(runs: Sequence[Sequence[PolicyResult]]) -> bool:
    """Whether the policies are targets, so that they have an order."""
    return len({_target(policy) for policies in runs for policy in policies} - {None}) > 1


def _curve(experiment: Experiment) -> Markup | None:
    """Evaluation returns over training; None where there are not two evaluations."""
    by_step = [{result.step: result.policies for result in run.curve} for run in experiment.counted]
    steps = sorted(set.intersection(*(set(results) for results in by_step))) if by_step else []
    if len(steps) < 2:
        return None
    groups = [{g.label: g for g in _groups([results[step] for results in by_step])} for step in steps]
    curves = []
    for label in groups[-1]:
        line = [(step, found[label]) for step, found in zip(steps, groups, strict=True) if label in found]
        if len(line) < 2:
            continue  # played since a resume only
        at = np.array([step for step, _ in line])
        each = [[_by_label([results[step]])[label][0].mean for step, _ in line] for results in by_step]
        if len(each) > 1:
            mean = np.mean(each, axis=0)
            runs = [(at, np.array(values)) for values in each]
        else:
            mean, runs = np.array(each[0]), []
        low, high = np.array([g.low for _, g in line]), np.array([g.high for _, g in line])
        curves.append(plots.Curve(label, at, mean, low, high, runs))
    if not curves:
        return None
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.learning_curves(curves, _ordered(experiment.played("last")), best)
    ends = ", ".join(f"{curve.label}: {curve.mean[-1]:,.1f}" for curve in curves)
    return picture(figure, f"Evaluation return over update steps. At the end: {ends}")


def _conditioning(experiment: Experiment, section: Section) -> dict[str, Any] | None:
    """The figure of one checkpoint and its caption's numbers; not of the best, chosen by these episodes."""
    found = experiment.conditioning(section.name)
    if found is None or section.name == "best":
        return None
    asked = np.unique(found.targets)
    groups = [_group(f"{target:g}", found.returns[found.targets == target]) for target in asked]
    runs = []
    for targets, returns in (_episodes(policies) for policies in experiment.played(section.name)):
        own = np.unique(targets)
        runs.append((own, np.array([returns[targets == target].mean() for target in own])))
    best = max(experiment.data.returns) if experiment.data else None
    figure = plots.target_plot(found.targets, found.returns, groups, runs, best)
    means = ", ".join(f"{group.label}: {group.mean:,.1f}" for group in groups)
    alt = f"Achieved mean return by target return. {means}"
    return {"section": section, "picture": picture(figure, alt), "found": found}


def _returns(experiment: Experiment) -> Markup | None:
    """The data's returns above those achieved at the first of the measurements."""
    played = experiment.played(experiment.sections[0].name) if experiment.sections else []
    if not played and not experiment.data:
        return None
    data = np.array(experiment.data.returns) if experiment.data else None
    figure = plots.returns_plot(_groups(played), data, _ordered(played))
    return picture(figure, "Histogram of the data's returns above the single returns of every policy, on one axis")


def _metric_pictures(runs: Sequence[RunRecord]) -> list[Markup]:
    """A small figure for each metric with a line for each run, failed ones included."""
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        lines = [run.metrics.get(name, (np.zeros(0), np.zeros(0))) for run in runs]
        found.append(picture(plots.metric_plot(name, lines), f"{name} over update steps"))
    return found


def _comparison(found: Sequence[Experiment]) -> dict[str, Any]:
    """The experiments' best policies side by side; in a figure too if all played in one environment."""
    rows, groups = [], []
    for i, experiment in enumerate(found, 1):
        section = experiment.sections[0] if experiment.sections else None
        top = section.top if section else None
        rows.append({"id": f"experiment-{i}", "experiment": experiment, "section": section, "top": top})
        if section and top:
            best = next(g for g in _groups(experiment.played(section.name)) if g.label == top.policy)
            groups.append(best._replace(label=f"{i}. {experiment.runs[0].algo}"))
    drawn = None
    if len({experiment.runs[0].env_id for experiment in found}) == 1 and len(groups) > 1:
        alt = "Single returns of each experiment's best policy, on one axis"
        drawn = picture(plots.returns_plot(groups), alt)
    return {"rows": rows, "picture": drawn, "places": decimals(group.mean for group in groups)}
