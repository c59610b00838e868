"""TensorBoard events: training metrics and evaluations."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from rlalgo import Run, hookimpl
from rlutils.evaluation.statistics import EvalResult
from rlutils.training.callbacks import Logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Logger):
    """Look at it with `tensorboard --logdir RUN`. After a resume, points beyond the checkpoint are purged."""

    name: ClassVar[str] = "tensorboard"
    writer: SummaryWriter | None = None

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only who logs needs it

        self.before = threading.excepthook
        threading.excepthook = self._hear
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def write(self, run: Run, step: int, means: dict[str, float]) -> None:
        self._add("train", means, step)

    @hookimpl
    def rlalgo_on_evaluation(self, step: int, result: EvalResult) -> None:
        played = result.policies
        self._add("evaluation/return", {policy.label: policy.mean for policy in played}, step)
        scores = {policy.label: policy.normalized for policy in played if policy.normalized is not None}
        self._add("evaluation/normalized", scores, step)
        for policy in played:
            self._add("evaluation", {f"{name}/{policy.label}": mean for name, mean in policy.means.items()}, step)
        self._add("evaluation", result.metrics, step)
        with self._writing():
            if self.writer is not None:
                self.writer.flush()

    @hookimpl
    def rlalgo_on_end(self) -> None:
        if self.writer is not None:
            self.writer.close()
        threading.excepthook = getattr(self, "before", threading.excepthook)

    def _add(self, group: str, values: dict[str, float], step: int) -> None:
        with self._writing():
            for key, value in values.items():
                if self.writer is not None:
                    self.writer.add_scalar(f"{group}/{key}", value, step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A writer that has failed once would fail again when it is closed."""
        try:
            yield
        except OSError:
            self.writer = None
            raise

    def _hear(self, failed: threading.ExceptHookArgs) -> None:
        """The writer's thread hands its error on to the next call, and would print it besides."""
        if type(failed.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
            self.before(failed)
