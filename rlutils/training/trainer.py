"""OfflineTrainer: updates on batches drawn from fixed data, with evaluation, checkpoints and early stopping."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlalgo import BatchRLAlgo, Episodes, Run, StopTraining, Trainer
from rlalgo.config import Count, Positive, Whole
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

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        config = self.config
        self.generator = torch.Generator().manual_seed(run.seed)
        self.best: float | None = None
        self.waited = 0  # evaluations since the best
        self.unseen: list[tuple[int, dict[str, Tensor]]] = []  # steps and metrics not yet looked at
        data = algo.dataset(episodes).to(run.device)
        if (state := run.restore(algo)) is not None:
            self._load(state)
        run.start(algo, config.steps)
        algo.train()
        for step in range(run.step + 1, config.steps + 1):
            metrics = algo.update(data.gather(data.rows(config.batch_size, self.generator)), step)
            self.unseen.append((step, metrics))
            evaluate = run.evaluates_at(step)
            every = config.checkpoint_every
            save = evaluate or step == config.steps or (every > 0 and step % every == 0)
            if evaluate or step % config.check_every == 0:
                self._refuse_bad()
            try:
                run.on_step(step, metrics)
                if evaluate:
                    self._compare(run.evaluate(algo, step))
            except StopTraining as reason:
                run.stopped = str(reason)
            if save or run.stopped is not None or run.stop_signal:
                self._refuse_bad()  # what is bad is never saved
                run.checkpoint(algo, step, self._state())
            if run.stop_signal:
                raise KeyboardInterrupt(f"stopped by {run.stop_signal} after step {step}; a checkpoint is written")
            if run.stopped is not None:
                return

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

    def _refuse_bad(self) -> None:
        """TrainingError with the step and the metric of the first NaN or exploding loss since the last look."""
        places = [(step, name) for step, metrics in self.unseen for name in metrics]
        if not places:
            return
        values = torch.stack([value.float() for _, metrics in self.unseen for value in metrics.values()]).cpu()  # (n,)
        limits = torch.tensor([self.config.max_loss if name.endswith("loss") else torch.inf for _, name in places])
        bad = ~torch.isfinite(values) | (values > limits)
        if bad.any():
            first = int(bad.nonzero()[0])
            step, name = places[first]
            raise TrainingError(
                f"step {step}: {name} is {values[first]:g}; training stopped and this state is not saved. "
                "Try a lower learning rate, gradient clipping or other scales (rewards, returns)"
            )
        self.unseen.clear()

    def _state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "best": self.best, "waited": self.waited}

    def _load(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.best, self.waited = state["best"], state["waited"]
