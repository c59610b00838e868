"""Actors, and the policy that plays one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.policy import FrameStack, Policy


class Chooser:
    """Turns predictions into raw actions on the CPU; row i samples if `sample[i]`, with its own generator."""

    def __init__(self, head: Any, sample: Sequence[bool]) -> None:
        if any(sample) and not head.stochastic:
            raise ValueError("sample: true needs a Discrete action space or a Gaussian policy; this one has neither")
        self.head = head
        self.sample = torch.tensor(sample)  # (n,)
        self.any = any(sample)
        self.generator = torch.Generator()
        if self.any:  # seeded from the default generator, which an evaluation forks
            self.generator.manual_seed(int(torch.randint(2**62, ())))

    def __call__(self, prediction: Tensor, rows: Tensor) -> Tensor:
        """Predictions (m, ...) of rows (m,) -> actions (m, A) | (m,)."""
        actions = self.head.actions(prediction).cpu()
        if self.any and (drawn := self.sample[rows]).any():
            actions[drawn] = self.head.actions(prediction[drawn.to(prediction.device)], self.generator).cpu()
        return actions


class Actor(nn.Module):
    """A trunk and the head on it: (B, *S) -> the prediction that the head's `actions`, `sample` and `loss` take."""

    def __init__(self, trunk: nn.Module, head: Any) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, observations: Tensor) -> Tensor:
        return self.head(self.trunk(observations))


class ActorPolicy(Policy):
    """Plays what a network predicts from the present observation alone, for n rows.

    Args:
        algo: whose network it is.
        predict: stacked raw observations (m, *S) -> what `head.actions` takes.
        head: turns predictions into raw actions.
        options: `sample`, where an option has it, draws the action.
    """

    def __init__(
        self, algo: BatchRLAlgo, predict: Callable[[Tensor], Tensor], head: Any, options: Sequence[Any]
    ) -> None:
        self.algo, self.predict, self.options = algo, predict, options
        self.stack = FrameStack(algo.spec, len(options), algo.device)
        self.chooser = Chooser(head, [getattr(option, "sample", False) for option in options])

    def reset(self, rows: Tensor) -> None:
        self.stack.reset(rows)

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        with self.algo.evaluating():
            return self.chooser(self.predict(self.stack.push(observations, rows)), rows)
