"""What a person sees while it trains: a progress bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor

from rlalgo import Run, hookimpl
from rlalgo.config import Count, Positive
from rlutils.evaluation.statistics import EvalResult
from rlutils.machine import amount, clock
from rlutils.terminal import Terminal
from rlutils.training.callbacks import Averager


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
        self.terminal = Terminal(stderr=True)
        self.means = Averager()
        self.bar: Progress | None = None
        self.evaluating = 0.0  # seconds of evaluations since the start

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        self.began, self.first = time.perf_counter(), run.step
        self.printed = self.began
        if self.terminal.is_terminal:
            whole = Column(no_wrap=True)  # for the losses to be what gives way in a narrow terminal
            self.bar = Progress(
                TextColumn("{task.description}", table_column=whole),
                BarColumn(bar_width=12, table_column=whole),
                MofNCompleteColumn(table_column=whole),
                TextColumn("{task.fields[pace]}", table_column=whole),
                _LossColumn(),
                console=self.terminal,
            )
            self.task = self.bar.add_task("training", total=run.total_steps, completed=run.step, pace="", losses=[])
            self.bar.start()

    @hookimpl
    def rlalgo_on_step(self, run: Run, step: int, metrics: dict[str, Tensor]) -> None:
        self.means.add(metrics)
        last, evaluates = step == run.total_steps, run.evaluates_at(step)
        if step % self.config.every and not last and not evaluates:
            return
        now = time.perf_counter()
        rate = (step - self.first) / (now - self.began - self.evaluating)
        left = (run.total_steps - step) * (now - self.began) / (step - self.first)  # with evaluations as they were
        pace = f"{rate:,.0f}/s  {clock(left)} left"
        if self.bar is not None:
            description = "evaluating" if evaluates else "training"
            losses = _losses(self.means.take())
            self.bar.update(self.task, completed=step, description=description, pace=pace, losses=losses)
            return
        if now - self.printed >= self.config.seconds or last:
            self.printed = now
            self._print(f"step {step:,}/{run.total_steps:,}  {pace}  {'  '.join(_losses(self.means.take()))}")
        if evaluates:
            self._print(f"step {step:,}  evaluating")

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: EvalResult) -> None:
        self.evaluating += result.seconds
        if self.bar is not None:
            self.bar.update(self.task, description="training")
        for policy in result.policies:
            returns = f"{amount(policy.mean)} in 1 episode"
            if (n := len(policy.returns)) > 1:
                low, high = map(amount, policy.interval)
                spread = f"± {amount(policy.sd)} over {n} episodes, 95% of the mean {low} to {high}"
                returns = f"{amount(policy.mean)} {spread}"
            score = "" if policy.normalized is None else f", score {policy.normalized:.1f}"
            said = "".join(f", {name} {amount(mean)}" for name, mean in policy.means.items())
            self._print(f"step {step:,}  {policy.label}: return {returns}{score}{said}")
        if result.metrics:
            self._print(f"step {step:,}  " + "  ".join(f"{k} {v:.4g}" for k, v in result.metrics.items()))

    @hookimpl
    def rlalgo_on_end(self, run: Run, error: BaseException | None) -> None:
        if self.bar is not None:
            self.bar.stop()
        if error is None:
            reason = f"; {run.stopped}" if run.stopped else ""
            self._print(f"done: {run.step:,} updates in {clock(run.seconds())}, {run.folder}{reason}")

    def _print(self, text: str) -> None:
        (self.bar.console if self.bar is not None else self.terminal).print(text, soft_wrap=True)


class _LossColumn(ProgressColumn):
    def render(self, task: Task) -> _Losses:
        return _Losses(task.fields["losses"])


class _Losses:
    """As many as there is room for, each of them whole: a number cut short is another number."""

    def __init__(self, parts: list[str]) -> None:
        self.texts = ["  ".join(parts[:n]) for n in range(len(parts) + 1)]

    def __rich_measure__(self, console: RichConsole, options: ConsoleOptions) -> Measurement:
        return Measurement(0, len(self.texts[-1]))

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        yield Text([text for text in self.texts if len(text) <= options.max_width][-1])


def _losses(means: dict[str, float]) -> list[str]:
    return [f"{key} {value:.4g}" for key, value in list(means.items())[:4]]
