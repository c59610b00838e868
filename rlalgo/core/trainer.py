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
    """Raised by a callback or a trainer to end training early and cleanly; its text says why."""


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
    """Name of a signal that asked for a clean stop (SIGINT, SIGTERM), or None."""

    # For trainers, in the order in which they call:

    def restore(self, algo: BatchRLAlgo) -> dict[str, Any] | None:
        """On resume: loads weights, optimizers and random states; the trainer's own state, else None."""

    def start(self, algo: BatchRLAlgo, total_steps: int) -> None:
        """Tells every callback that training begins or goes on."""

    def on_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Tells every callback about one update; metrics are 0-d tensors."""

    def evaluates_at(self, step: int) -> bool:
        """Whether there is to be an evaluation after this update: every so many, at the last, never without aim."""

    def evaluate(self, algo: BatchRLAlgo, step: int) -> float | None:
        """Plays and measures; tells the callbacks; the score to compare by (higher is better), or None."""

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
