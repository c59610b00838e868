"""What the tests of the algorithms share: small ones on a few transitions, and their parts one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo.plugins import default_catalogue
from tests.rlalgo.toy_data import make_episodes

GAMMA = 0.9
TERMINAL = (2, 8)
"""The steps of `three_ends` that end in a terminal state. Step 4 is only cut."""


def three_ends(kind: str = "box") -> Episodes:
    """Nine steps: one episode that terminates, one that is cut, one that terminates.

    Actions lie in [-1, 1] x [0, 4], or there are three of them.
    """
    return make_episodes(kind, (3, 2, 4), seed=3, terminated=[True, False, True])


def without_bounds(episodes: Episodes) -> Episodes:
    """The same with actions of an unbounded Box."""
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    return replace(episodes, spec=DataSpec(episodes.spec.observation_space, box))


def make(name: str, episodes: Episodes, total_steps: int = 100, **config: Any) -> Any:
    """A small one of this registered name, whose targets differ from what they follow, far from 0; prepared."""
    entry = default_catalogue().get("algo", name)
    torch.manual_seed(0)
    algo = entry.cls(episodes.spec, entry.Config(**{"hidden_dims": (8, 8), "gamma": GAMMA, **config}))
    for key, p in algo.named_parameters():
        if key.startswith(("critic", "target", "value", "actor")) and "norm" not in key:
            with torch.no_grad():
                p.add_(0.4 * torch.randn_like(p))
    algo.prepare(episodes, total_steps)
    return algo.train()


def everything(algo: BatchRLAlgo, episodes: Episodes) -> Any:
    """All items of the data in one batch, in order."""
    data = algo.dataset(episodes)
    return data.gather(torch.arange(len(data)))


def scaled(actions: Tensor) -> Tensor:
    """(..., 2) raw actions in [-1, 1] x [0, 4] -> in [-1, 1]; discrete ones unchanged."""
    if not actions.is_floating_point():
        return actions
    return torch.stack([actions[..., 0], actions[..., 1] / 2 - 1], -1)


def normal(algo: Any, observations: Tensor) -> Tensor:
    """Observations as networks see them."""
    return (observations - algo.normalizer.mean) / algo.normalizer.std


def values(critics: Any, state: Tensor, *action: Tensor) -> list[Any]:
    """Each critic's value of one normalized state (S,) and scaled action, or of every discrete action."""
    with torch.no_grad():
        return critics(state[None], *(a[None] for a in action))[:, 0].tolist()


def squashed(policy: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draws of a squashed Gaussian made of this noise (B, ..., A), and their log densities (B, ...), in float64."""
    mean, std = policy.mean.detach().double(), policy.log_std.detach().double().exp()  # (B, A)
    while mean.dim() < noise.dim():
        mean, std = mean.unsqueeze(1), std.unsqueeze(1)
    before = mean + std * noise
    log_prob = torch.distributions.Normal(mean, std).log_prob(before) - torch.log1p(-before.tanh().square())
    return before.tanh(), log_prob.sum(-1)


def copied(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def parameters(algo: BatchRLAlgo, name: str) -> list[nn.Parameter]:
    """What an optimizer trains."""
    return [p for group in algo.optimizers[name].param_groups for p in group["params"]]


def check_gradients(algo: BatchRLAlgo, name: str, batch: Any, loss: Tensor, seed: int = 0, rtol: float = 1e-4) -> None:
    """Asserts that the next update of an optimizer is down the gradient of this loss, by one plain backward pass."""
    trained = parameters(algo, name)
    expected = torch.autograd.grad(loss, trained, materialize_grads=True)
    found: list[Tensor] = []

    def hook(called: str) -> None:
        if called == name:
            found.extend(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained)

    algo.gradient_hook = hook
    torch.manual_seed(seed)
    algo.update(batch, 1)
    assert len(found) == len(expected)
    for got, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(got, plain, atol=1e-5, rtol=rtol)
