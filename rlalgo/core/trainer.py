"""Trainer: the loop around `BatchRLAlgo.update`, and what it may ask of its run."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy


class StopTraining(Exception):
    """Raised in any hook to end training early and cleanly; its text says why. The run evaluates and saves first."""


class Run(Protocol):
    """What trainers, callbacks and evaluators see of their run."""

    folder: Path
    device: torch.device
    seed: int
    episodes: Episodes
    """What is trained on."""
    held_out: Episodes | None
    """What is not, for evaluators; None where all is trained on."""
    step: int
    """Updates done so far; after a resume, where to go on."""
    total_steps: int
    """Updates in all, once training has started."""
    stopped: str | None
    """Why training ended before its time, if it did."""
    stop_signal: str | None
    """Name of a signal that asked for a clean stop (SIGINT, SIGTERM, SIGHUP), or None."""

    @property
    def ending(self) -> bool:
        """Whether to stop now: a callback wants it, a signal came, or a callback failed. Look after every update,
        and if so save, evaluate where `evaluates_at` says so, and return; the run then says why it ended."""

    # For trainers, in the order in which they call:

    def restore(self, algo: BatchRLAlgo) -> dict[str, Any] | None:
        """On resume: loads weights, optimizers and random states; the trainer's own state, else None."""

    def start(self, algo: BatchRLAlgo, total_steps: int) -> None:
        """Tells every callback that training begins or goes on."""

    def catch_up(self, algo: BatchRLAlgo) -> float | None:
        """After `start`: on resume, the evaluation that belongs to the checkpoint we go on from, if it is due there:
        played now where the run was stopped before it was done, else told to the callbacks once more. Its score."""

    def on_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Tells every callback about one update; metrics are 0-d tensors."""

    def evaluates_at(self, step: int) -> bool:
        """Whether there is to be an evaluation after this update: every so many, at the last, where a callback stops
        the run; never without aim."""

    def evaluate(self, algo: BatchRLAlgo, step: int) -> float | None:
        """Plays and measures; tells the callbacks; the score to compare by (higher is better), or None.

        Call it when `checkpoint` has saved this very step: whatever breaks or stops an evaluation costs no training.

        Raises:
            EnvironmentFault, EvaluatorFault: what failed, and where.
            KeyboardInterrupt: a signal came.
        """

    def rollout(self, policy: Policy, episodes: int, seed: int) -> Episodes:
        """Plays a policy in the run's environments (what an online trainer collects with)."""

    def checkpoint(self, algo: BatchRLAlgo, step: int, state: dict[str, Any]) -> Path:
        """Writes a complete checkpoint, with the trainer's own state, and names it `last`."""

    # For callbacks:

    def mark_best(self, path: Path, step: int) -> None:
        """Names a checkpoint `best`."""

    def seconds(self) -> float:
        """Wall-clock seconds of training, those before a resume included."""


class Trainer(ABC):
    """Trains an algorithm on episodes. Has a `name`, a `Config` and `__init__(self, config)`."""

    name: ClassVar[str]
    Config: ClassVar[type]

    @abstractmethod
    def fit(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        """Trains until done, stopped or failed; leaves a last checkpoint in the run's folder."""
