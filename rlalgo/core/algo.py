"""BatchRLAlgo: the one contract that every offline RL algorithm fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlalgo.core.dataset import Dataset
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec

B = TypeVar("B")


@dataclass(frozen=True)
class NoOptions:
    """PolicyConfig of an algorithm whose policy has nothing to choose."""


class BatchRLAlgo(nn.Module, ABC, Generic[B]):
    """An offline RL algorithm: episodes in, a policy out.

    The life of one: `__init__`, then `prepare` once on the training data, then `update` on batches of
    `dataset(episodes)`, and `policy` whenever somebody wants to play. Raw data in, raw actions out: whatever
    normalizes is a buffer in here and is saved with the weights.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    PolicyConfig: ClassVar[type] = NoOptions
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box, spaces.Discrete)

    clip: float | None = None
    """Largest gradient norm that `minimize` lets through; None for no limit."""
    gradient_hook: Callable[[str], None] | None = None
    """Called with the optimizer's name between backward and clipping (averaging over devices, logging)."""

    def __init__(self, spec: DataSpec, config: Any) -> None:
        super().__init__()
        if not isinstance(spec.action_space, self.action_spaces):
            raise TypeError(f"{self.name} needs {needed(type(self))}, got {spec.action_space}")
        self.spec = spec
        self.config = config
        self.optimizers: dict[str, Optimizer] = {}
        self.schedulers: dict[str, LRScheduler] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        """Once, before fitting: normalizers from the data, schedules from the number of updates."""

    @abstractmethod
    def dataset(self, episodes: Episodes) -> Dataset[B]:
        """The items that `update` trains on."""

    @abstractmethod
    def update(self, batch: B) -> dict[str, Tensor]:
        """One training step. Returns detached 0-d tensors, the same keys at every step."""

    @abstractmethod
    def policy(self, options: Sequence[Any]) -> Policy:
        """A policy with one row for each of the options (instances of `PolicyConfig`)."""

    @abstractmethod
    def predict(self, batch: B) -> Tensor:
        """The policy's actions for a batch of the data, raw, in eval mode and without gradients."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradients, for acting and predicting; restores the mode on leaving."""
        training = self.training
        if training:  # setting the mode walks every module, which costs as much as a small forward pass
            self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if training:
                self.train()

    def minimize(self, name: str, loss: Tensor | Iterable[Tensor]) -> None:
        """One step of optimizer `name` down `loss`: zero, backward, gradient hook, clip, step, schedule.

        Only the optimizer's own parameters get gradients, so that an actor's loss costs none for the critics in it.

        Args:
            name: of the optimizer.
            loss: a scalar, or several that add up to it, each of which is let go before the next is asked for.
        """
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for p in parameters:
            p.grad = None
        for part in [loss] if isinstance(loss, Tensor) else loss:
            part.backward(inputs=parameters)
        if self.gradient_hook is not None:
            self.gradient_hook(name)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        optimizer.step()
        if name in self.schedulers:
            self.schedulers[name].step()


def supports(algo: type[BatchRLAlgo], space: gymnasium.Space) -> bool:
    """Whether the algorithm can act in this action space."""
    return isinstance(space, algo.action_spaces)


def needed(algo: type[BatchRLAlgo]) -> str:
    """What `supports` asks for, in words: `a Box or Discrete action space`."""
    return f"a {' or '.join(space.__name__ for space in algo.action_spaces)} action space"
