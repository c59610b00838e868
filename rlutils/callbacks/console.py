"""What a person sees while it trains: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlalgo.config import Count, Positive
from rlalgo.hookspecs import hookimpl
from rlutils.callbacks import Averager


class Console:
    """Rate, losses and time left; one line for every policy of every evaluation."""

    name: ClassVar[str] = "console"

    @dataclass(frozen=True)
    class Config:
        every: Count = 50
        """Updates between refreshes of the bar."""
        seconds: Positive = 10.0
        """Seconds between plain lines where there is no terminal."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.terminal = Terminal(stderr=True, highlight=False)
        self.means = Averager()
        self.bar: Progress | None = None

    @hookimpl
    def rlalgo_on_start(self, run: Any) -> None:
        self.began, self.first = time.perf_counter(), run.step
        self.said = self.began
        if self.terminal.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}"),
                console=self.terminal,
            )
            self.task = self.bar.add_task("training", total=run.total_steps, completed=run.step, rate="", losses="")
            self.bar.start()

    @hookimpl
    def rlalgo_on_step(self, run: Any, step: int, metrics: dict[str, Any]) -> None:
        self.means.add(metrics)
        if step % self.config.every and step != run.total_steps:
            return
        now = time.perf_counter()
        rate = (step - self.first) / (now - self.began)
        if self.bar is not None:
            losses = _losses(self.means.take())
            self.bar.update(self.task, completed=step, rate=f"{rate:,.0f}/s", losses=losses)
        elif now - self.said >= self.config.seconds or step == run.total_steps:
            self.said = now
            left = (run.total_steps - step) / rate
            self._say(f"step {step:,}/{run.total_steps:,}  {rate:,.0f}/s  {_clock(left)} left  "
                      f"{_losses(self.means.take())}")  # fmt: skip

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: Any) -> None:
        for policy in result.policies:
            low, high = policy.interval
            text = (
                f"step {step:,}  {policy.label}: return {policy.mean:,.1f} ± {policy.sd:,.1f} over "
                f"{len(policy.returns)} episodes, 95% of the mean {low:,.0f} to {high:,.0f}"
            )
            self._say(text + (f", score {policy.normalised:.1f}" if policy.normalised is not None else ""))
        if result.metrics:
            self._say(f"step {step:,}  " + "  ".join(f"{k} {v:.4g}" for k, v in result.metrics.items()))

    @hookimpl
    def rlalgo_on_end(self, run: Any, error: BaseException | None) -> None:
        if self.bar is not None:
            self.bar.stop()
        if error is None:
            reason = f"; {run.stopped}" if run.stopped else ""
            self._say(f"done: {run.step:,} updates in {_clock(run.seconds())}, {run.folder}{reason}")

    def _say(self, text: str) -> None:
        (self.bar.console if self.bar is not None else self.terminal).print(text, soft_wrap=True, markup=False)


def _losses(means: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in list(means.items())[:4])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
