"""DTPolicy: the last K steps of every row, and a return-to-go that falls with each reward."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo import BatchRLAlgo, Policy
from rlalgo.core.policy import Acting, FrameStack
from rlalgo.nets import Chooser


class DTPolicy(Policy):
    """Conditions on `target_return` and on the context so far (Chen et al. 2021, algorithm 1, evaluation).

    The model sees windows in time order and right-padded with zeros, as in training. They are kept as rings, so
    that nothing moves while an episode goes on; where the present action will stand is an old one till then,
    which nothing that is read attends to. States are kept embedded: a CNN sees each of them once, not K times.

    Args:
        algo: a Decision Transformer, or another algorithm with its `embed` and `decode`.
        options: one for each row, with `target_return` (raw reward units) and `sample`.
    """

    def __init__(self, algo: BatchRLAlgo, options: Sequence[Any]) -> None:
        self.algo: Any = algo
        self.options, self.spec = options, algo.spec
        n, K, device = len(options), algo.config.context_length, algo.device
        action = algo.spec.action_space
        kind = torch.float32 if isinstance(action, spaces.Box) else torch.int64
        self.K, self.device = K, device
        self.target = torch.tensor([o.target_return for o in options], dtype=torch.float64)  # (n,)
        self.left = self.target.clone()  # (n,) return-to-go; float64, so that it falls by exactly the rewards
        self.step = torch.zeros(n, dtype=torch.int64)  # (n,) steps done in the episode
        self.offsets = torch.arange(K)  # (K,)
        self.stack = FrameStack(algo.spec, n, device)
        self.chooser = Chooser(algo, options)
        self.states = torch.zeros(n, K, algo.config.embed_dim, device=device)  # embedded
        self.actions = torch.zeros(n, K, *(action.shape or ()), dtype=kind, device=device)  # raw
        self.returns_to_go = torch.zeros(n, K, device=device)  # raw

    def reset(self, rows: Tensor) -> None:
        self.stack.reset(rows)
        self.left[rows] = self.target[rows]
        self.step[rows] = 0
        for ring in (self.states, self.actions, self.returns_to_go):
            ring[rows] = 0

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        seen = self.stack.push(observations, rows)
        step = self.step[rows]  # (m,)
        now = rows, step % self.K  # where the present step stands in the rings
        self.returns_to_go[now] = self.left[rows].to(self.returns_to_go)
        first = (step - (self.K - 1)).clamp(min=0)  # (m,) step that the window begins with
        times = first.unsqueeze(1) + self.offsets  # (m, K)
        window = rows.unsqueeze(1), times % self.K
        with self.algo.evaluating():
            self.states[now] = self.algo.embed(seen)
            out = self.algo.decode(
                self.states[window],
                self.actions[window],
                self.returns_to_go[window],
                times.to(self.device),
                at=(step - first).to(self.device),
            )
            chosen = self.chooser(out.actions, rows)
        self.actions[now] = chosen.to(self.actions)
        self.step[rows] = step + 1
        return chosen

    def observe(self, rewards: Tensor, rows: Tensor) -> None:
        if not self.algo.config.delayed:  # in the delayed setting no reward is seen before the end
            self.left[rows] -= rewards.cpu().double()

    def acting(self) -> Acting:
        found = Window(self.algo, {name: getattr(self, name)[0] for name in ("states", "actions", "returns_to_go")})
        found.target_return = float(self.target[0])
        found.sees_rewards = not self.algo.config.delayed
        return found


class Window(Acting):
    """As `DTPolicy`, with windows in time order that move when they are full."""

    def forward(
        self, observations: Tensor, step: Tensor, left: Tensor, memory: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        offsets = torch.arange(len(self.memory["states"]))  # (K,)
        first = (step - offsets[-1]).clamp(min=0).unsqueeze(1)  # (m, 1) step that the window begins with
        now = first + offsets == step.unsqueeze(1)  # (m, K)
        full = step >= len(offsets)  # (m,)

        def put(value: Tensor, window: Tensor) -> Tensor:
            """(m, ...) into the present place of (m, K, ...)."""
            return torch.where(now.view(*now.shape, *(1,) * (window.dim() - 2)), value.unsqueeze(1), window)

        moved = {
            name: torch.where(full.view(-1, *(1,) * (window.dim() - 1)), window.roll(-1, 1), window)
            for name, window in memory.items()
        }
        states = put(self.algo.embed(observations), moved["states"])
        returns_to_go = put(left, moved["returns_to_go"])
        at = step - first.squeeze(1)
        out = self.algo.decode(states, moved["actions"], returns_to_go, first + offsets, at=at)
        chosen = self.algo.scaler.inverse(out.actions.mode())
        return chosen, {"states": states, "actions": put(chosen, moved["actions"]), "returns_to_go": returns_to_go}
