"""OfflineTrainer: updates on batches drawn from fixed data, with evaluation, checkpoints and early stopping."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlalgo import BatchRLAlgo, Episodes, Run, Trainer
from rlalgo.config import Count, Positive, Whole
from rlalgo.errors import CheckpointError, TrainingError
from rlutils.checkpoints.fitting import misfit
from rlutils.randomness import refuse_bad_generator


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
            self._load(state, run)
        run.start(algo, config.steps)
        self._compare(run, run.catch_up(algo))
        algo.train()
        if run.ending and not run.step:
            self._keep(algo, 0, run)
        for step in range(run.step + 1, config.steps + 1):
            if run.ending:
                return
            metrics = algo.update(data.gather(data.rows(config.batch_size, self.generator)), step)
            self.unseen.append((step, metrics))
            every = config.checkpoint_every
            save = run.evaluates_at(step) or step == config.steps or (every > 0 and step % every == 0)
            if save or step % config.check_every == 0:
                self._refuse_bad()
            run.on_step(step, metrics)
            if save or run.ending:
                self._keep(algo, step, run)

    def _keep(self, algo: BatchRLAlgo, step: int, run: Run) -> None:
        """Saves, then evaluates if that is due: in this order, so that an evaluation that fails costs nothing."""
        self._refuse_bad()  # what is bad is never saved
        run.checkpoint(algo, step, self._state())
        if run.evaluates_at(step):
            self._compare(run, run.evaluate(algo, step))

    def _compare(self, run: Run, score: float | None) -> None:
        """Counts evaluations without progress, and stops when patience is at its end."""
        if score is None:
            return
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.config.patience is not None and self.waited >= self.config.patience:
            run.stopped = f"no better score than {self.best:.4g} in {self.waited} evaluations (patience)"

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

    def _load(self, state: dict[str, Any], run: Run) -> None:
        message = misfit(state, self._state(), "trainer")
        if message is None:
            try:
                refuse_bad_generator(state["generator"])
            except ValueError as error:
                message = f"trainer.generator: {error}"
        if message is None and (state["waited"] is None or state["waited"] < 0):
            message = f"trainer.waited: got {state['waited']}, expected a number of evaluations"
        if message is not None:
            raise CheckpointError(f"{run.folder}: not the state of the trainer {self.name}: {message}; train anew")
        self.generator.set_state(state["generator"])
        self.best, self.waited = state["best"], state["waited"]
