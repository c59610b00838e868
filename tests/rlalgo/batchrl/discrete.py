"""What the tests of discrete algorithms share: small ones on a few transitions, and an encoder of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, Episodes
from rlalgo.config import parse
from rlalgo.registry import Catalogue, Entry, Owner
from tests.rlalgo.toy_data import make_episodes

GAMMA = 0.9


def three_ends() -> Episodes:
    """Nine steps: one episode that terminates, one that is cut, one that terminates. Three actions."""
    return make_episodes("discrete", (3, 2, 4), seed=3, terminated=[True, False, True])


def make(cls: type[BatchRLAlgo], episodes: Episodes, total_steps: int = 100, **config: Any) -> Any:
    """A small one whose targets differ from what they follow; prepared."""
    torch.manual_seed(0)
    algo = cls(episodes.spec, cls.Config(**{"width": 8, "layers": 1, "gamma": GAMMA, **config}))
    with torch.no_grad():
        for p in algo.parameters():
            p.add_(0.5 * torch.randn_like(p))
    algo.prepare(episodes, total_steps)
    return algo.train()


def everything(algo: BatchRLAlgo, episodes: Episodes) -> Any:
    data = algo.dataset(episodes)
    return data.gather(torch.arange(len(data)))


def normal(algo: Any, observations: Tensor) -> Tensor:
    return (observations - algo.normalizer.mean) / algo.normalizer.std


def values(critic: Any, state: Tensor) -> list[list[float]]:
    """Each member's value of every action in one normalized state (S,)."""
    with torch.no_grad():
        return critic(state[None])[:, 0].tolist()


def follows_gradient(algo: BatchRLAlgo, batch: Any, name: str, loss: Tensor) -> None:
    """Asserts that the next update of an optimizer is down the gradient of this loss."""
    parameters = [p for group in algo.optimizers[name].param_groups for p in group["params"]]
    wanted = torch.autograd.grad(loss, parameters)
    found: list[Tensor] = []

    def hook(called: str) -> None:
        if called == name:
            found.extend(p.grad.clone() for p in parameters if p.grad is not None)

    algo.gradient_hook = hook
    algo.update(batch)
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


def check_follows_slowly(algo: BatchRLAlgo, batch: Any, source: nn.Module, target: Any, tau: float) -> None:
    """Asserts that an update moves the target network to the trained one by this share."""
    before = [p.clone() for p in target.copy.parameters()]
    algo.update(batch)
    for old, new, now in zip(before, source.parameters(), target.copy.parameters(), strict=True):
        torch.testing.assert_close(now, (1 - tau) * old + tau * new)


class TinyConv(nn.Module):
    """An encoder of (C, H, W) bytes, as a plugin's author would write it."""

    name = "tiny_conv"
    ROLES = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        channels: int = 4
        """Of the one layer."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        assert space.shape is not None
        C, H, W = space.shape
        self.seen: list[tuple[torch.dtype, torch.Size]] = []
        self.net = nn.Sequential(
            nn.Conv2d(C, config.channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(config.channels * H * W, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((x.dtype, x.shape[1:]))
        return self.net(x.float() / 255)


def with_conv(cls: Any, **config: Any) -> Any:
    """A Config read as from YAML, with the encoder chosen by name."""
    catalogue = Catalogue()
    catalogue.add(Entry("encoder", TinyConv.name, TinyConv, Owner("test")))
    return parse(cls.Config, {"state_encoder": {"name": "tiny_conv", "channels": 3}, **config}, catalogue)
