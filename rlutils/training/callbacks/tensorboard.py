"""TensorBoard events: training metrics and evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rlalgo.config import Count
from rlalgo.hookspecs import hookimpl
from rlutils.training.callbacks import Averager


class TensorBoard:
    """Look at it with `tensorboard --logdir RUN`. After a resume, points beyond the checkpoint are purged."""

    name: ClassVar[str] = "tensorboard"

    @dataclass(frozen=True)
    class Config:
        every: Count = 100
        """Updates between points."""

    def __init__(self, config: Config) -> None:
        self.every = config.every
        self.means = Averager()
        self.writer: Any = None

    @hookimpl
    def rlalgo_on_start(self, run: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only who logs needs it

        purge = run.step + 1 if run.step else None
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)

    @hookimpl
    def rlalgo_on_step(self, step: int, metrics: dict[str, Any]) -> None:
        self.means.add(metrics)
        if step % self.every == 0:
            for key, value in self.means.take().items():
                self.writer.add_scalar(f"train/{key}", value, step)

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: Any) -> None:
        for policy in result.policies:
            self.writer.add_scalar(f"evaluation/return/{policy.label}", policy.mean, step)
            if policy.normalized is not None:
                self.writer.add_scalar(f"evaluation/normalized/{policy.label}", policy.normalized, step)
        for key, value in result.metrics.items():
            self.writer.add_scalar(f"evaluation/{key}", value, step)
        self.writer.flush()

    @hookimpl
    def rlalgo_on_end(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def state_dict(self) -> dict[str, Any]:
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means.load_state_dict(state)
