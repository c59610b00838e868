"""Suites: a grid of algorithms, datasets, options and seeds in one YAML file, and the runs that it stands for."""

import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rlalgo.config import Few, Positive, Seed, parse_into
from rlalgo.core.algo import misfit
from rlalgo.errors import ConfigError, DataError, RlalgoError, near
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.overrides import load_mapping, texts_of
from rlutils.config.settings import Settings
from rlutils.data.minari_disk import local_ids, read_metadata
from rlutils.data.minari_remote import require
from rlutils.data.minari_source import MinariSource
from rlutils.data.spaces import stored_actions
from rlutils.sweeps.plan import PlannedRun

MOST_RUNS = 10_000
"""Of one suite."""
_LABEL = r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*"


@dataclass(frozen=True)
class Suite:
    algos: Annotated[Mapping[str, str], Field(min_length=1, max_length=1000)]
    """Label -> configuration file, from this file's folder."""
    datasets: Annotated[Mapping[str, Mapping[str, Any]], Field(min_length=1, max_length=1000)]
    """Label -> the settings that choose it, such as {source.id: rlalgo/hopper/medium-v0}."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """A run of everything for each; those of the first seed come first."""
    set: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Pattern -> settings for what it matches: '*' is every run, edac those of one algorithm, '*/hopper/medium' those
    on one dataset. A mapping is merged into what is there, one with a `name` takes its place; the last one wins."""
    options: Mapping[str, Mapping[str, Annotated[list[Any], Field(min_length=1)]]] = field(default_factory=dict)
    """Pattern -> settings and the values to try of each, in every combination: {td3_bc: {algo.alpha: [1.0, 2.5]}}."""
    out: str | None = None
    """Folder of all runs; null: runs/ and this file's name."""
    processes: Few | None = None
    """Runs at a time; null: one for each core. The cores are divided among them."""
    stall_minutes: Positive | None = 60.0
    """A run of whose files and output none has changed for so long hangs: it is ended, and tried once more. null: runs
    may take as long as they like."""
    plugins: tuple[str, ...] = ()
    """Modules (a.b) and files (./x.py, from this file's folder) to load besides what the configurations name."""


@dataclass(frozen=True)
class Cell(PlannedRun):
    """One run of the grid."""

    settings: Settings
    words: tuple[str, ...]
    """What `rlalgo train` takes to do this run by itself."""

    @property
    def group(self) -> str:
        """What it shares with the other seeds."""
        return self.name.rpartition("/")[0]

    def command(self, out: Path) -> str:
        """What begins this run, goes on with it, or does nothing where it is finished."""
        return shlex.join(["rlalgo", "train", *self.words, "--out", str(out / self.name), "--continue"])


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern names this path of labels, or a beginning of it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")


def read_suite(path: Path, plugins: Sequence[str] = ()) -> tuple[Suite, list[Cell]]:
    """A suite file and its runs, in the order of work: every run of the first seed, then of the second, ...

    Raises:
        ConfigError: every fault of the suite file, else every fault of every run's settings.
    """
    values, faults = load_mapping(path), list[str]()
    suite: Suite | None = parse_into(Suite, values, catalogue(), "", faults)
    if suite is None:  # what else is at fault is seen in what can be read
        sound = {key: values[key] for key in values if not any(re.match(rf"{re.escape(key)}\b", f) for f in faults)}
        suite = parse_into(Suite, sound, catalogue(), "", [])
    if suite is None:
        raise ConfigError(faults, str(path))
    faults += _too_many(suite) or _misfits(suite)
    bases = {}
    for label, file in suite.algos.items():
        config = Path(os.path.normpath(path.parent / file))
        try:
            bases[label] = config, load_mapping(config)
        except ConfigError as error:
            faults += [f"algos.{label}: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError(faults, str(path))
    cells = _cells(suite, bases, [*suite.plugins, *plugins], faults)
    faults += _clashes([cell.name for cell in cells])
    if faults:
        raise ConfigError(faults, str(path))
    return suite, sorted(cells, key=lambda cell: suite.seeds.index(cell.seed))


def check_data(cells: Iterable[Cell], download: bool) -> set[str]:
    """What metadata of Minari datasets say before anything runs; gives the names of runs whose data is to be fetched.

    Args:
        cells: the runs to do.
        download: fetch what is not here, where a run would: now and once, not by several runs at a time.

    Raises:
        ConfigError: every dataset that cannot be had, and every algorithm that cannot act in one's action space.
    """
    users: dict[tuple[str, bool], list[Cell]] = {}
    for cell in cells:
        config = cell.settings.source.config
        if isinstance(config, MinariSource.Config):
            for ident in config.ids:
                users.setdefault((ident, config.download), []).append(cell)
    absent, faults = set[str](), dict[str, list[str]]()
    for (ident, may_download), its in users.items():
        if may_download and not download and ident not in local_ids():
            absent |= {cell.name for cell in its}
            continue
        try:
            require(ident, may_download)
            space = stored_actions(read_metadata(ident).action_space)
        except DataError as error:
            faults[str(error)] = [cell.group for cell in its]
            continue
        for cell in its:
            choice = cell.settings.algo
            assert choice.entry is not None
            if message := misfit(choice.entry.cls, space, choice.name, f"minari:{ident}"):
                faults.setdefault(f"algo: {message}", []).append(cell.group)
    if faults:
        raise ConfigError(_together(faults))
    return absent


def _cells(
    suite: Suite, bases: Mapping[str, tuple[Path, Mapping[str, Any]]], plugins: Sequence[str], faults: list[str]
) -> list[Cell]:
    """The runs by algorithm, dataset, options and seed; faults of their settings are added to those given."""
    cells, wrong = list[Cell](), dict[str, list[str]]()
    loaded = [word for plugin in plugins for word in ("--plugin", plugin)]
    for algo, dataset in itertools.product(suite.algos, suite.datasets):
        config, base = bases[algo]
        for options, texts in _overrides(suite, algo, dataset):
            group = "/".join(part for part in (algo, dataset, options) if part)
            try:
                settings, _ = read_settings(base, texts, plugins)
            except RlalgoError as error:
                for fault in getattr(error, "faults", [error]):
                    wrong.setdefault(str(fault), []).append(group)
                continue
            for seed in suite.seeds:
                words = (str(config), *texts, f"seed={seed}", *loaded)
                seeded = replace(settings, seed=seed)
                cells.append(Cell(f"{group}/s{seed}", algo, dataset, options, seed, seeded, words))
    faults += _together(wrong)
    return cells


def _overrides(suite: Suite, algo: str, dataset: str) -> Iterator[tuple[str, list[str]]]:
    """For each combination of the options tried here: its name, and the overrides of the base configuration."""
    pair = f"{algo}/{dataset}"
    texts = list(texts_of(suite.datasets[dataset]))
    for pattern, values in suite.set.items():
        texts += texts_of(values) if matches(pattern, pair) else []
    for combination in itertools.product(*_axes(suite, pair).values()):
        yield re.sub(r"[^\w.,=+-]+", "_", ",".join(combination).replace('"', "")), [*texts, *combination]


def _axes(suite: Suite, pair: str) -> dict[str, list[str]]:
    """Each setting that is tried here, as overrides."""
    axes: dict[str, list[str]] = {}
    for pattern, tried in suite.options.items():
        axes |= {key: [f"{key}={json.dumps(v)}" for v in vs] for key, vs in tried.items() if matches(pattern, pair)}
    return axes


def _too_many(suite: Suite) -> list[str]:
    """A grid of more runs than a folder or a person can hold, before it is written out."""
    count = len(suite.seeds) * len(suite.algos) * len(suite.datasets)
    if count <= MOST_RUNS:
        pairs = itertools.starmap("{}/{}".format, itertools.product(suite.algos, suite.datasets))
        count = len(suite.seeds) * sum(math.prod(map(len, _axes(suite, pair).values())) for pair in pairs)
    return [f"options: make {count:,} runs, and {MOST_RUNS:,} are the most; split the suite"] * (count > MOST_RUNS)


def _misfits(suite: Suite) -> list[str]:
    """What types cannot say: labels that are no folders, patterns that match nothing, a seed set twice."""
    faults = [
        f"{kind}: '{label}' cannot name a folder; use letters, digits, . _ - + and / between"
        for kind, labels in (("algos", suite.algos), ("datasets", suite.datasets))
        for label in labels
        if not re.fullmatch(_LABEL, label)
    ]
    pairs = [f"{algo}/{dataset}" for algo, dataset in itertools.product(suite.algos, suite.datasets)]
    for kind, patterns in (("set", suite.set), ("options", suite.options)):
        for pattern in patterns:
            if not any(matches(pattern, pair) for pair in pairs):
                cure = near(pattern, [*suite.algos, *pairs]) or f" There are {', '.join(pairs)}."
                faults.append(f"{kind}: '{pattern}' matches nothing.{cure}")
    for kind, places in (("datasets", suite.datasets), ("set", suite.set), ("options", suite.options)):
        faults += [f"{kind}.{label}.seed: the suite's `seeds` say which" for label in places if "seed" in places[label]]
    if len({*suite.seeds}) < len(suite.seeds):
        faults.append(f"seeds: {list(suite.seeds)} has one twice")
    return faults


def _together(faults: Mapping[str, Sequence[str]]) -> list[str]:
    """Every fault once, with the first of those who have it."""
    lines = []
    for fault, everyone in faults.items():
        names = list(dict.fromkeys(everyone))
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        lines.append(f"{', '.join(names[:2])}{more}: {fault}".replace("\n", "\n  "))
    return lines


def _clashes(names: Sequence[str]) -> list[str]:
    """Runs that would share a folder, or lie within one another's."""
    ordered = sorted(names, key=lambda name: name.split("/"))  # what lies within follows at once
    return [
        f"{two}: lies in the folder of {one}; choose other labels" if one != two else f"{one}: two runs have this name"
        for one, two in itertools.pairwise(ordered)
        if f"{two}/".startswith(f"{one}/")
    ]
