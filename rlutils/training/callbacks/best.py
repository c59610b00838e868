"""Keeps the best checkpoint besides the last one, and names it so."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rlalgo.errors import near
from rlalgo.hookspecs import hookimpl


class NoBestWarning(UserWarning):
    """Evaluations lack what the best checkpoint is to be chosen by. Not an error: training is worth more than that."""


class Best:
    """The checkpoint of the evaluation with the best score. Chosen on those very episodes, so it flatters."""

    name: ClassVar[str] = "best"

    @dataclass(frozen=True)
    class Config:
        metric: str | None = None
        """`evaluator/number` to compare by; None takes the best policy's mean return."""
        mode: Literal["max", "min"] = "max"
        """Whether larger or smaller is better."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.score: float | None = None
        self.step: int | None = None
        self.lacks = ""  # what was said

    @hookimpl
    def rlalgo_on_start(self, run: Any) -> None:
        path = run.folder / "checkpoints" / f"step_{self.step or 0:09d}"
        if self.step is not None and path.is_dir():  # a kill may have come between the checkpoint and its name
            run.mark_best(path, self.step)

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: Any) -> None:
        score = result.score if self.config.metric is None else result.metrics.get(self.config.metric)
        metric, known = self.config.metric, list(result.metrics)
        if score is None and metric is not None and not self.lacks:
            self.lacks = (
                f"callbacks: best.metric: evaluations have no number '{metric}'.{near(metric, known)} "
                f"Known: {', '.join(known) or 'none, as there are no evaluators'}"
            )
            warnings.warn(f"step {step:,}: {self.lacks}", NoBestWarning, stacklevel=2)
        if score is None or math.isnan(score):
            return
        better = self.score is None or (score > self.score if self.config.mode == "max" else score < self.score)
        if better:
            self.score, self.step = score, step

    @hookimpl
    def rlalgo_on_checkpoint(self, run: Any, step: int, path: Path) -> None:
        if step == self.step:
            run.mark_best(path, step)

    @hookimpl
    def rlalgo_on_end(self) -> None:
        if self.step is None and self.lacks:
            warnings.warn(f"no checkpoint is named best: {self.lacks}", NoBestWarning, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.step = state["score"], state["step"]
