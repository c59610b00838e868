"""The callback `tracker`: a run in Weights & Biases, MLflow, Trackio, SwanLab or Aim, through accelerate's trackers.

Neither accelerate nor a tracker's package is imported before a run that uses it begins.
"""

import contextlib
import importlib
import inspect
import math
import os
import re
import secrets
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, TypeAdapter
from rlalgo import Run, hookimpl
from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError, PluginError, RlalgoWarning, blaming, near, told
from rlutils.evaluation.statistics import EvalResult
from rlutils.training.callbacks import Logger

MOST = 1000
"""Rows that wait for a tracker that does not answer; the oldest go first."""
PAUSE, SHARE = 60.0, 10
"""Seconds at least, and multiples of the time that it cost, until a tracker that failed is asked again."""
Text = Annotated[str, Field(min_length=1, max_length=64)]


class TrackerWarning(RlalgoWarning):
    """A tracker failed. Training goes on."""


class _Kind(NamedTuple):
    package: str
    """To install."""
    adapter: str
    """accelerate's class."""
    takes: str
    """What `options` are arguments of, within the tracker's module; of the adapter where this is empty."""
    id: str
    """Where a started run says by what it is gone on with."""
    log: dict[str, Any]
    """Further arguments with every row."""
    arguments: Callable[["Tracker", str, Path], dict[str, Any]]
    """To start with, of the run's name and folder."""


KINDS = {
    "wandb": _Kind("wandb", "WandBTracker", "init", "id", {"commit": True}, lambda self, name, folder: {
        "name": name, "group": self.group, "tags": [*self.config.tags], "dir": str(folder),
        "id": self.id or self.token, "resume": "allow",
        # seconds to wait for the network, and between writes to the file of an offline run
        "settings": {"init_timeout": 30.0, "finish_timeout": 120.0, "x_transaction_log_flush_interval": 1.0},
    }),
    "mlflow": _Kind("mlflow-skinny", "MLflowTracker", "", "info.run_id", {}, lambda self, name, folder: {
        "run_name": name, "run_id": self.id,
        "tags": dict.fromkeys(self.config.tags, "") | ({"group": self.group} if self.group else {}),
    }),
    "trackio": _Kind("trackio", "TrackioTracker", "init", "name", {}, lambda self, name, folder: {
        "name": self.id or f"{name}-{self.token}", "group": self.group, "resume": "allow",
    }),
    "swanlab": _Kind("swanlab", "SwanLabTracker", "init", "id", {}, lambda self, name, folder: {
        "name": name, "group": self.group, "tags": [*self.config.tags], "log_dir": str(folder / "swanlog"),
        "id": self.id or self.token, "resume": "allow",
    }),
    "aim": _Kind("aim", "AimTracker", "Run", "hash", {}, lambda self, name, folder: {
        "experiment": self.config.project, "run_hash": self.id, "force_resume": self.id is not None,
    }),
}  # fmt: skip

EXTRA = {"mlflow": {"tracking_uri"}, "aim": {"logging_dir"}}
"""Options that go elsewhere than the others."""
OURS = {
    *("project", "experiment", "experiment_name", "name", "run_name", "group", "tags", "config", "repo"),
    *("id", "resume", "run_id", "run_hash", "force_resume", "kwargs"),
}
"""Arguments that are no options, as the callback gives them."""


@dataclass(frozen=True)
class _State:
    to: str
    id: str | None
    sent: int
    rows: dict[int, dict[str, float]]


class Tracker(Logger):
    """Configuration, training metrics, evaluations and a summary. What fails in it never costs training.

    A resumed run goes on in the same tracked run. `tracker.txt` in the run's folder says which rows were sent, so that
    none is sent twice.
    """

    name: ClassVar[str] = "tracker"
    config: "Config"
    group: str | None
    id: str | None = None
    """By which the tracked run is gone on with."""
    token: str
    """The id of a new one, or part of its name, where that may be chosen."""

    @dataclass(frozen=True)
    class Config(Logger.Config):
        to: Literal["wandb", "mlflow", "trackio", "swanlab", "aim"] = field(kw_only=True)
        """Which tracker."""
        project: Annotated[str, Field(pattern=r"^\w[\w .-]{0,99}$")] = "rlalgo"
        """The project, or experiment, there."""
        run_name: Text | None = None
        """None: the run folder's name, or in a sweep the run's name in its suite."""
        group: Text | None = None
        """Of runs that belong together; None: the suite's folder in a sweep."""
        tags: tuple[Text, ...] = ()
        """Words to find the run by."""
        options: dict[str, Any] = field(default_factory=dict)
        """Further arguments of wandb.init, trackio.init, swanlab.init or aim.Run, or of accelerate's MLflowTracker."""

        def __post_init__(self) -> None:
            spec = find_spec(self.to)
            if spec is None or spec.origin is None:  # a folder called wandb, as wandb makes them, is no package
                raise ValueError(f"to: {self.to} is not installed; pip install {KINDS[self.to].package}")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config, self.kind, self.group = config, KINDS[config.to], config.group
        with blaming(PluginError, f"callbacks: {config.to} is installed, but cannot be imported"):
            self.adapter = getattr(importlib.import_module("accelerate.tracking"), self.kind.adapter)
            module: Any = importlib.import_module(config.to)
        takes = inspect.signature(getattr(module, self.kind.takes) if self.kind.takes else self.adapter)
        known = {*takes.parameters, *EXTRA.get(config.to, ())} - OURS
        if faults := [f"unknown key '{key}'.{near(key, known)}" for key in config.options if key not in known]:
            raise ConfigError([f"callbacks.tracker.options: {fault}" for fault in faults])
        self.run: Any = None
        self.tracker: Any = None
        self.token = secrets.token_hex(4)
        self.rows: dict[int, dict[str, float]] = {}
        """What is to be sent, by step: in one piece, as Weights & Biases takes no step twice."""
        self.sent = self.before = -1
        """The last step of which a row was sent; and that when this process began."""
        self.next_try, self.warned, self.dropped = 0.0, False, 0

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        self.run, self.file = run, run.folder / "tracker.txt"
        with contextlib.suppress(OSError):  # what was killed may have sent more than its last checkpoint knows of
            lines = re.findall(r"(\S+) ([0-9]{1,12})\n", self.file.read_text(errors="replace"))
            self.sent = max([self.sent, *(int(step) for id, step in lines if id == self.id)])
        self.before = self.sent
        self.rows = {step: row for step, row in self.rows.items() if step > self.before}
        self._send(0)

    def write(self, run: Run, step: int, means: dict[str, float]) -> None:
        self._add(step, {f"train/{key}": mean for key, mean in means.items()})
        self._send(step)  # this one when nothing more can come to it, such as an evaluation

    @hookimpl
    def rlalgo_on_evaluation(self, run: Run, step: int, result: EvalResult) -> None:
        row: dict[str, float | None] = {f"evaluation/{name}": number for name, number in result.metrics.items()}
        for policy in result.policies:
            low, high = policy.interval
            found = {"return": policy.mean, "return_low": low, "return_high": high, "normalized": policy.normalized}
            numbers = {**found, **policy.means}
            row |= {f"evaluation/{name}/{policy.label}": number for name, number in numbers.items()}
        self._add(step, row)

    @hookimpl
    def rlalgo_on_end(self, run: Any, error: BaseException | None) -> None:
        if self.run is None:
            return
        self.next_try = 0.0
        if error is None:
            score = run.last_result and run.last_result.score
            self.before = -1  # it may be told of the step that was sent last
            summary = {"return": score, "best_step": run.best_step, "seconds": run.seconds()}
            self._add(run.step, {f"summary/{key}": number for key, number in summary.items()})
        self._send(run.step + (error is None))
        self._close()
        if error is None and (missing := self.dropped + len(self.rows)):
            self._warn(f"{missing:,} rows were not sent; the run's own files have their numbers")

    def _add(self, step: int, numbers: Mapping[str, float | None]) -> None:
        if step <= self.before:
            return
        known = {_named(key): float(n) for key, n in numbers.items() if n is not None and math.isfinite(n)}
        self.rows.setdefault(step, {}).update(known)
        if len(self.rows) > MOST:
            del self.rows[min(self.rows)]
            self.dropped += 1

    def _send(self, until: int) -> None:
        """Sends the rows of the steps before that one, and those that still wait."""
        began = time.monotonic()
        if began < self.next_try:
            return
        try:
            if self.tracker is None:
                self._start()
            for step in [step for step in self.rows if step < until]:
                self.tracker.log(self.rows[step], step=step, **self.kind.log)
                del self.rows[step]
                self.sent = step
                with self.file.open("a") as file:
                    file.write(f"{self.id} {step}\n")
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a tracker raises, training is worth more)
            self._close()
            now = time.monotonic()
            self.next_try = now + max(PAUSE, SHARE * (now - began))
            if not self.warned:
                self.warned = True
                self._warn(f"{told(error)}; training goes on, and it is asked again from time to time")

    def _start(self) -> None:
        from accelerate import PartialState
        from accelerate.utils import clear_environment

        with clear_environment():  # under mpirun it would wait for the other processes
            PartialState(cpu=True)
        folder = self.run.folder.absolute()
        suite = next((parent for parent in folder.parents if (parent / "suite.yaml").is_file()), folder.parent)
        name = self.config.run_name or "-".join(folder.relative_to(suite).parts)
        if self.group is None and (suite / "suite.yaml").is_file():
            self.group = suite.name
        options = self.kind.arguments(self, name, folder) | self.config.options
        if self.config.to == "mlflow":
            import mlflow

            if uri := options.pop("tracking_uri", None):
                mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(self.config.project)  # which processes may do at the same time
        with _unattended():
            tracker = self.adapter(name if self.config.to == "aim" else self.config.project, **options)
            tracker.start()
        self.tracker, known = tracker, self.id is not None
        self.id = attrgetter(self.kind.id)(tracker.tracker)
        if not (known and self.config.to == "mlflow"):  # which refuses a parameter that changed, such as trainer.steps
            values = to_mapping(self.run.settings)
            callbacks = [{**given, "options": {}} for given in values["callbacks"]]  # where keys and passwords may be
            tracker.store_init_configuration(dict(_flat({**values, "callbacks": callbacks})))

    def _close(self) -> None:
        tracker, self.tracker = self.tracker, None
        with contextlib.suppress(Exception, SystemExit), _unattended():
            if tracker is not None:
                tracker.finish()

    def _warn(self, text: str) -> None:
        text = re.sub(r"//[^/@\s]+@", "//", text)  # names and passwords within addresses
        warnings.warn(f"callback 'tracker': {self.config.to}: {text}", TrackerWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        rows = {step: dict(row) for step, row in self.rows.items()}
        return {**super().state_dict(), "to": self.config.to, "id": self.id, "sent": self.sent, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        own = TypeAdapter(_State).validate_python(state)
        if own.to == self.config.to:  # else it is resumed with another one, which knows nothing of it
            self.id, self.sent, self.rows = own.id, own.sent, own.rows


@contextlib.contextmanager
def _unattended() -> Iterator[None]:
    """Nobody is asked for a login, and Ctrl-C remains ours."""
    handler, stdin = signal.getsignal(signal.SIGINT), sys.stdin
    try:
        with Path(os.devnull).open() as sys.stdin:
            yield
    finally:
        sys.stdin = stdin
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every plain value in it."""
    if isinstance(value, Mapping | list):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield _named(path), value


def _named(text: str) -> str:
    """A name of a metric that all five take."""
    parts = (re.sub(r"[^\w .-]", "_", part, flags=re.ASCII).strip(" .") or "_" for part in text.split("/"))
    return "/".join(parts)[:250]


@hookimpl
def rlalgo_register_callbacks(register: Any) -> None:
    register(Tracker)
