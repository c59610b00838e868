"""OfflineTrainer: updates on batches drawn from fixed data, with evaluation, checkpoints and early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlalgo.config import Count, Positive, Whole
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.episodes import Episodes
from rlalgo.core.trainer import Run, StopTraining, Trainer
from rlalgo.errors import TrainingError


class OfflineTrainer(Trainer):
    name: ClassVar[str] = "offline"

    @dataclass(frozen=True)
    class Config:
        steps: Count = 100_000
        """Updates in all."""
        batch_size: Count = 64
        """Items in a batch: windows for dt, transitions for the others."""
        checkpoint_every: Whole = 5_000
        """Updates between checkpoints; one is also written at every evaluation and at the end. 0: only those."""
        patience: Count | None = None
        """Stop after this many evaluations without a better score than before; None never stops early."""
        max_loss: Positive = 1e8
        """A metric whose name ends in `loss` and which is larger than this stops the run as exploding."""
        check_every: Count = 100
        """Updates between looks at the metrics for NaN and explosion (each look waits for the device)."""
        block: Count = 64
        """Batches whose rows are drawn at once."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        config = self.config
        self.generator = torch.Generator().manual_seed(run.seed)
        self.rows = torch.zeros(0, dtype=torch.int64)  # drawn and not yet used up
        self.position = 0
        self.best: float | None = None
        self.waited = 0  # evaluations since the best
        self.recent: list[dict[str, Tensor]] = []  # metrics not yet looked at
        data = algo.dataset(episodes).to(run.device)
        state = run.restore(algo)
        if state is not None:
            self._load(state)
        run.start(algo, config.steps)
        algo.train()
        step = run.step
        stopping = False
        while step < config.steps and not stopping:
            metrics = algo.update(data.gather(self._next_rows(data)))
            step += 1
            self.recent.append(metrics)
            last = step == config.steps
            evaluate = last or (bool(run.evaluate_every) and step % run.evaluate_every == 0)
            save = evaluate or (bool(config.checkpoint_every) and step % config.checkpoint_every == 0)
            if evaluate or step % config.check_every == 0:
                self._refuse_bad(step)
            try:
                run.on_step(step, metrics)
                if evaluate:
                    self._compare(run.evaluate(algo, step))
            except StopTraining as reason:
                run.stopped = str(reason)
                stopping = True
            if save or stopping or run.stop_signal:
                self._refuse_bad(step)  # what is bad is never saved
                run.checkpoint(algo, step, self._state())
            if run.stop_signal:
                raise KeyboardInterrupt(f"stopped by {run.stop_signal} after step {step}; a checkpoint is written")

    def _next_rows(self, data: Any) -> Tensor:
        """(B,) the rows of the next batch."""
        B = self.config.batch_size
        if self.position + B > len(self.rows):  # as many as there are but for another batch size on resuming
            self.rows = data.rows(B * self.config.block, self.generator)
            self.position = 0
        self.position += B
        return self.rows[self.position - B : self.position]

    def _compare(self, score: float | None) -> None:
        """Counts evaluations without progress; StopTraining when patience is at its end."""
        if score is None:
            return
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.config.patience is not None and self.waited >= self.config.patience:
            raise StopTraining(f"no better score than {self.best:.2f} in {self.waited} evaluations (patience)")

    def _refuse_bad(self, step: int) -> None:
        """TrainingError with the step and the metric of the first NaN or exploding loss since the last look."""
        if not self.recent:
            return
        names = list(self.recent[0])
        values = torch.stack([torch.stack([m[name].float() for name in names]) for m in self.recent]).cpu()  # (n, M)
        limit = torch.tensor([self.config.max_loss if name.endswith("loss") else torch.inf for name in names])
        bad = ~torch.isfinite(values) | (values > limit)
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            at = step - len(self.recent) + 1 + row
            raise TrainingError(
                f"step {at}: {names[column]} is {values[row, column]:g}; training stopped and this state is not saved. "
                "Try a lower learning rate, gradient clipping or other scales (rewards, returns)"
            )
        self.recent.clear()

    def _state(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "rows": self.rows,
            "position": self.position,
            "best": self.best,
            "waited": self.waited,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.rows, self.position = state["rows"], state["position"]
        self.best, self.waited = state["best"], state["waited"]
