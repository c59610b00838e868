"""BatchRLAlgo: the one contract that every offline RL algorithm fulfils."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from rlalgo.core.scaler import ActionScaler
from rlalgo.core.spec import DataSpec

B = TypeVar("B")


@dataclass(frozen=True)
class NoOptions:
    """PolicyConfig of an algorithm whose policy has nothing to choose."""


class BatchRLAlgo(nn.Module, ABC, Generic[B]):
    """An offline RL algorithm: episodes in, a policy out.

    The life of one: `__init__`, then `prepare` once on the training data, then `update` on batches of
    `dataset(episodes)`, and `policy` whenever somebody wants to play. Raw data in, raw actions out: whatever
    normalizes is a buffer in here and is saved with the weights. Inside, actions are scaled: `scaler` stands at
    the border, and nothing else knows the environment's units.

    `forward` of an algorithm that acts on the present observation alone maps raw observations (B, *S) to a
    distribution over scaled actions (`rlalgo.nets.heads`); `predict` and `ActorPolicy` need no more.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    PolicyConfig: ClassVar[type] = NoOptions
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box, spaces.Discrete)

    clip: float | None = None
    """Largest gradient norm that `minimize` lets through; None for no limit. `clip` of the config, if it has one."""
    stochastic: bool = True
    """Whether the policy has anything to sample."""
    gradient_hook: Callable[[str], None] | None = None
    """Called with the optimizer's name between backward and clipping (averaging over devices, logging)."""

    def __init__(self, spec: DataSpec, config: Any) -> None:
        super().__init__()
        if message := misfit(type(self), spec.action_space):
            raise TypeError(message)
        self.spec = spec
        self.config = config
        self.clip = getattr(config, "clip", self.clip)
        self.scaler = ActionScaler(spec.action_space)
        self.optimizers: dict[str, Optimizer] = {}
        self.schedulers: dict[str, LRScheduler] = {}
        self.prepared = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        """Once, before fitting: scales and normalizers from the data, schedules from the number of updates.

        An algorithm with any of these extends this method and calls it: `super().prepare(episodes, total_steps)`.
        """
        self.scaler.fit(episodes)
        self.prepared = True

    @abstractmethod
    def dataset(self, episodes: Episodes) -> Dataset[B]:
        """The items that `update` trains on."""

    @abstractmethod
    def update(self, batch: B, step: int) -> dict[str, Tensor]:
        """One training step, the `step`-th, 1 at the first.

        Returns detached 0-d tensors by name. One that this step has nothing new for is left out.
        """

    @abstractmethod
    def policy(self, options: Sequence[Any]) -> Policy:
        """A policy with one row for each of the options (instances of `PolicyConfig`)."""

    def predict(self, batch: B) -> Tensor:
        """The policy's likeliest actions for a batch of the data, raw, in eval mode and without gradients."""
        with self.evaluating():
            return self.scaler.inverse(self(batch.observations).mode())  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's. What `prepare` finds in the data comes with the weights."""
        result = super().load_state_dict(state_dict, strict, assign)
        self.prepared = True
        return result

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradients, for acting and predicting; restores the mode on leaving."""
        self._refuse_unprepared()
        training = self.training
        if training:  # setting the mode walks every module, which costs as much as a small forward pass
            self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if training:
                self.train()

    def minimize(self, name: str, loss: Tensor) -> None:
        """One step of optimizer `name` down `loss` (0-d): zero, backward, gradient hook, clip, step, schedule.

        Only the optimizer's own parameters get gradients, so that an actor's loss costs none for the critics in it.
        """
        parameters = self.parameters_of(name)
        for p in parameters:
            p.grad = None
        loss.backward(inputs=parameters)
        self.step(name)

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """What optimizer `name` trains."""
        return [p for group in self.optimizers[name].param_groups for p in group["params"]]

    def step(self, name: str) -> None:
        """The rest of `minimize`, for an algorithm that gathers the gradients itself: hook, clip, step, schedule."""
        self._refuse_unprepared()
        if self.gradient_hook is not None:
            self.gradient_hook(name)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters_of(name), self.clip)
        self.optimizers[name].step()
        if name in self.schedulers:
            self.schedulers[name].step()

    def _refuse_unprepared(self) -> None:
        if not self.prepared:
            raise RuntimeError(
                f"{self.name} is not prepared: call prepare(episodes, total_steps) before it is trained or plays, "
                "or load weights (an algorithm's own prepare calls super().prepare)"
            )


def supports(algo: type[BatchRLAlgo], space: gymnasium.Space) -> bool:
    """Whether the algorithm can act in this action space."""
    return isinstance(space, algo.action_spaces)


def misfit(algo: type[BatchRLAlgo], space: gymnasium.Space, name: str = "", label: str = "the data") -> str | None:
    """Why the algorithm (by this name, else its own) cannot act in the action space of `label`; None if it can."""
    if supports(algo, space):
        return None
    needed = " or ".join(kind.__name__ for kind in algo.action_spaces)
    return f"{name or algo.name} needs a {needed} action space; {label} has {space}"
