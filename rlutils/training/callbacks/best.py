"""Keeps the best checkpoint besides the last one, and names it so."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rlalgo import Run, hookimpl
from rlalgo.errors import RlalgoWarning, near
from rlutils.checkpoints.index import is_listed
from rlutils.evaluation.statistics import EvalResult


class NoBestWarning(RlalgoWarning):
    """Evaluations lack what the best checkpoint is to be chosen by. Not an error: training is worth more than that."""


class Best:
    """The checkpoint of the evaluation with the best score. Chosen on those very episodes, so it flatters."""

    name: ClassVar[str] = "best"

    @dataclass(frozen=True)
    class Config:
        metric: str | None = None
        """`evaluator/number`, or `success` and the like, to compare by; None takes the best policy's mean return."""
        mode: Literal["max", "min"] = "max"
        """Whether larger or smaller is better."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.score: float | None = None
        self.step: int | None = None
        self.warned = False

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        self._mark(run)  # a kill may have come between the checkpoint and its name

    @hookimpl
    def rlalgo_on_evaluation(self, run: Run, step: int, result: EvalResult) -> None:
        metric, known = self.config.metric, list(result.numbers)
        score = result.score if metric is None else result.numbers.get(metric)
        if score is None and metric is not None and not self.warned:
            self.warned = True
            listed = ", ".join(known) or "none"
            message = f"evaluations have no number '{metric}', so no checkpoint is named best.{near(metric, known)}"
            text = f"step {step:,}: callbacks: best.metric: {message} Known: {listed}"
            warnings.warn(text, NoBestWarning, stacklevel=2)
        if score is None or math.isnan(score):
            return
        if self.score is None or (score > self.score if self.config.mode == "max" else score < self.score):
            self.score, self.step = score, step
            self._mark(run)

    @hookimpl
    def rlalgo_on_checkpoint(self, run: Run, step: int) -> None:
        if step == self.step:  # of a trainer that evaluates before it saves
            self._mark(run)

    def _mark(self, run: Run) -> None:
        if self.step is None:
            return
        path = run.folder / "checkpoints" / f"step_{self.step:09d}"
        if is_listed(path):
            run.mark_best(path, self.step)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        score, step = state["score"], state["step"]
        if not isinstance(score, float | int | None) or not (step is None or (type(step) is int and step >= 0)):
            raise ValueError(f"got the score {score} at step {step}")
        self.score, self.step = score, step
