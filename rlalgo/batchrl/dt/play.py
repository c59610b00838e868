"""DTPolicy: the last K steps of every row, and a return-to-go that falls with each reward; dt_play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import FrameStack, Policy
from rlalgo.core.rollout import rollout
from rlalgo.nets import Chooser

if TYPE_CHECKING:
    from rlalgo.batchrl.dt.decision_tf import DecisionTransformer


class DTPolicy(Policy):
    """Conditions on `target_return` and on the context so far (Chen et al. 2021, algorithm 1, evaluation).

    Windows are in time order and right-padded, as in training; the action is read at the row of the present step.
    """

    def __init__(self, algo: DecisionTransformer, options: Sequence[Any]) -> None:
        self.algo, self.options = algo, options
        n, K = len(options), algo.config.context
        space, device = algo.spec.action_space, algo.device
        self.K = K
        self.target = torch.tensor([o.target_return for o in options], dtype=torch.float64)  # (n,)
        self.left = self.target.clone()  # (n,) return-to-go; float64, so that it falls by exactly the rewards
        self.step = torch.zeros(n, dtype=torch.int64)  # (n,) steps done in the episode
        self.stack = FrameStack(algo.spec, n, device)
        self.chooser = Chooser(algo.model.head, [o.sample for o in options])
        shape = algo.spec.encoder_space().shape
        self.observations = torch.zeros(n, K, *shape, device=device)
        if isinstance(space, spaces.Discrete):
            self.actions = torch.zeros(n, K, dtype=torch.int64, device=device)
        else:
            self.actions = torch.zeros(n, K, *(space.shape or ()), device=device)
        self.returns_to_go = torch.zeros(n, K, device=device)
        self.timesteps = torch.zeros(n, K, dtype=torch.int64, device=device)

    def begin(self, rows: Tensor) -> None:
        self.stack.begin(rows)
        self.left[rows] = self.target[rows]
        self.step[rows] = 0
        for window in (self.observations, self.actions, self.returns_to_go, self.timesteps):
            window[rows] = 0

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        seen = self.stack.push(observations, rows)
        if self.observations.dtype != seen.dtype:  # image frames stay uint8
            self.observations = self.observations.to(seen.dtype)
        step = self.step[rows]
        full = rows[step >= self.K]
        for window in (self.observations, self.actions, self.returns_to_go, self.timesteps):
            window[full] = window[full].roll(-1, 1)
        place = step.clamp(max=self.K - 1)  # (m,) where the present step stands in its window
        self.observations[rows, place] = seen
        self.returns_to_go[rows, place] = self.left[rows].to(self.returns_to_go)
        self.timesteps[rows, place] = step.to(self.timesteps.device)
        self.actions[rows, place] = 0  # not yet known; nothing that is read attends to it
        with self.algo.evaluating():
            predicted = self.algo.forward(
                self.observations[rows], self.actions[rows], self.returns_to_go[rows], self.timesteps[rows]
            ).actions
        chosen = self.chooser(predicted[torch.arange(len(rows)), place], rows)
        self.actions[rows, place] = chosen.to(self.actions)
        self.step[rows] += 1
        return chosen

    def observe(self, rewards: Tensor, rows: Tensor) -> None:
        if not self.algo.config.delayed:  # in the delayed setting no reward is seen before the end
            self.left[rows] -= rewards.double().cpu()


def dt_play(
    env: gymnasium.Env, algo: DecisionTransformer, target_return: float, episodes: int = 10, seed: int = 0
) -> Episodes:
    """Plays a Decision Transformer in one environment, asking for `target_return` (raw reward units).

    Args:
        env: any environment with the spaces of the training data; raw observations, no wrappers needed.
        algo: a trained Decision Transformer.
        target_return: the return asked for in each episode.
        episodes: how many to play.
        seed: episode k is reset with `seed + k`.
    """
    options = [algo.PolicyConfig(target_return=target_return)]
    return rollout(algo.policy(options), [env], episodes, seed)
