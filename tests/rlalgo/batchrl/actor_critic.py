"""What the tests of continuous algorithms share: small ones on a few transitions, and their parts one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from tests.rlalgo.toy_data import make_episodes

GAMMA = 0.9


def three_ends() -> Episodes:
    """Nine steps: one episode that terminates, one that is cut, one that terminates. Actions in [-1, 1] x [0, 4]."""
    return make_episodes("box", (3, 2, 4), seed=3, terminated=[True, False, True])


def without_bounds(episodes: Episodes) -> Episodes:
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    return replace(episodes, spec=DataSpec(episodes.spec.observation_space, box))


def make(cls: type[BatchRLAlgo], episodes: Episodes, total_steps: int = 100, **config: Any) -> Any:
    """A small one whose targets differ from what they follow, with values far from 0; prepared."""
    torch.manual_seed(0)
    algo = cls(episodes.spec, cls.Config(**{"width": 8, "layers": 2, "gamma": GAMMA, **config}))
    for name, p in algo.named_parameters():
        if name.startswith(("critics", "target", "value", "actor")) and "norm" not in name:
            with torch.no_grad():
                p.add_(0.3 * torch.randn_like(p))
    algo.prepare(episodes, total_steps)
    return algo.train()


def everything(algo: BatchRLAlgo, episodes: Episodes) -> Any:
    data = algo.dataset(episodes)
    return data.gather(torch.arange(len(data)))


def scaled(actions: Tensor) -> Tensor:
    """(..., 2) raw actions in [-1, 1] x [0, 4] -> in [-1, 1]."""
    return torch.stack([actions[..., 0], actions[..., 1] / 2 - 1], -1)


def normal(algo: Any, observations: Tensor) -> Tensor:
    return (observations - algo.normalizer.mean) / algo.normalizer.std


def values(critics: Any, state: Tensor, action: Tensor) -> list[float]:
    """Each critic's value of one state (S,) and scaled action (A,)."""
    with torch.no_grad():
        return [float(q) for q in critics(state[None], action[None])[:, 0]]


def recorded(owner: Any, name: str) -> list[Any]:
    """What the owner's function returns from now on, call by call."""
    found: list[Any] = []
    function: Callable = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        found.append(function(*args, **kwargs))
        return found[-1]

    setattr(owner, name, wrapper)
    return found


def copied(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def gradients(algo: BatchRLAlgo, name: str) -> list[Tensor]:
    """Filled with the gradients of an optimizer's parameters at its next step."""
    found: list[Tensor] = []

    def hook(called: str) -> None:
        if called == name:
            parameters = [p for group in algo.optimizers[name].param_groups for p in group["params"]]
            found[:] = [p.grad.clone() for p in parameters if p.grad is not None]

    algo.gradient_hook = hook
    return found
