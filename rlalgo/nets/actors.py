"""What plays an actor: the policy of every algorithm that acts on the present observation alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.policy import Acting, FrameStack, Policy


class Chooser:
    """Turns distributions into raw actions on the CPU; row i samples where option i says `sample: true`."""

    def __init__(self, algo: BatchRLAlgo, options: Sequence[Any]) -> None:
        self.sample = torch.tensor([getattr(option, "sample", False) for option in options])  # (n,)
        self.any = bool(self.sample.any())
        if self.any and not algo.stochastic:
            raise ValueError("sample: true needs a Discrete action space or a Gaussian policy; this one has neither")
        self.scaler = algo.scaler
        self.generator = torch.Generator()
        if self.any:  # seeded from the default generator, which an evaluation forks
            self.generator.manual_seed(int(torch.randint(2**62, ())))

    def __call__(self, distribution: Any, rows: Tensor) -> Tensor:
        """Over scaled actions, for rows (m,) -> raw actions (m, A) | (m,)."""
        actions = self.scaler.inverse(distribution.mode()).cpu()
        if self.any and (drawn := self.sample[rows]).any():
            sampled = self.scaler.inverse(distribution.sample(self.generator)).cpu()
            actions[drawn] = sampled[drawn]
        return actions


class ActorPolicy(Policy):
    """Plays the distribution that the algorithm's `forward` gives for the present observations of n rows.

    Args:
        algo: whose policy it is.
        options: one for each row; `sample`, where an option has it, draws the action.
    """

    def __init__(self, algo: BatchRLAlgo, options: Sequence[Any]) -> None:
        self.algo, self.options, self.spec = algo, options, algo.spec
        self.stack = FrameStack(algo.spec, len(options), algo.device)
        self.chooser = Chooser(algo, options)

    def reset(self, rows: Tensor) -> None:
        self.stack.reset(rows)

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        with self.algo.evaluating():
            return self.chooser(self.algo(self.stack.push(observations, rows)), rows)

    def acting(self) -> Acting:
        return Actor(self.algo, {})


class Actor(Acting):
    """The likeliest action for the present observation."""

    def forward(
        self, observations: Tensor, step: Tensor, left: Tensor, memory: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.algo.scaler.inverse(self.algo(observations).mode()), memory
