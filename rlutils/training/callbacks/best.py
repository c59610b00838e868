"""Keeps the best checkpoint besides the last one, and names it so."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rlalgo import Run, hookimpl
from rlalgo.errors import RlalgoWarning, near
from rlutils.evaluation.statistics import EvalResult


class NoBestWarning(RlalgoWarning):
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
        self.warned = False

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        path = run.folder / "checkpoints" / f"step_{self.step or 0:09d}"
        if self.step is not None and path.is_dir():  # a kill may have come between the checkpoint and its name
            run.mark_best(path, self.step)

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: EvalResult) -> None:
        metric, known = self.config.metric, list(result.metrics)
        score = result.score if metric is None else result.metrics.get(metric)
        if score is None and metric is not None and not self.warned:
            self.warned = True
            listed = ", ".join(known) or "none, as there are no evaluators"
            message = f"evaluations have no number '{metric}', so no checkpoint is named best.{near(metric, known)}"
            text = f"step {step:,}: callbacks: best.metric: {message} Known: {listed}"
            warnings.warn(text, NoBestWarning, stacklevel=2)
        if score is None or math.isnan(score):
            return
        if self.score is None or (score > self.score if self.config.mode == "max" else score < self.score):
            self.score, self.step = score, step

    @hookimpl
    def rlalgo_on_checkpoint(self, run: Run, step: int, path: Path) -> None:
        if step == self.step:
            run.mark_best(path, step)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.step = state["score"], state["step"]
