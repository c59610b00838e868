"""What every algorithm inherits: `minimize`, `evaluating` and `misfit`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, Transitions
from rlalgo.core.algo import misfit
from rlalgo.nets import warmup_cosine
from tests.rlalgo.toy_data import make_episodes


class Two(BatchRLAlgo):
    """Two layers, an optimizer for each."""

    name = "two"

    def __init__(self) -> None:
        super().__init__(make_episodes().spec, None)
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)
        for name in ("first", "second"):
            self.optimizers[name] = torch.optim.SGD(getattr(self, name).parameters(), lr=0.1)
            self.schedulers[name] = warmup_cosine(self.optimizers[name], 2, 4, 1.0)
        self.prepared = True

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh()).squeeze(-1)

    def dataset(self, episodes: Any) -> Transitions:
        return Transitions(episodes)

    def update(self, batch: Any, step: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def policy(self, options: Any) -> Any:
        raise NotImplementedError

    def predict(self, batch: Any) -> Tensor:
        raise NotImplementedError


def test_minimize_reaches_the_named_parameters_alone() -> None:
    algo, x = Two(), torch.randn(6, 3)
    loss = algo(x).square().mean()
    expected = torch.autograd.grad(loss, list(algo.second.parameters()), retain_graph=True)
    before = [p.clone() for p in algo.parameters()]
    called: list[str] = []
    algo.gradient_hook = called.append
    algo.minimize("second", loss)
    assert called == ["second"]
    assert all(p.grad is None for p in algo.first.parameters())
    for p, old in zip(algo.first.parameters(), before[:2], strict=True):
        assert torch.equal(p, old)
    for p, old, slope in zip(algo.second.parameters(), before[2:], expected, strict=True):
        torch.testing.assert_close(p, old - 0.05 * slope)  # half the rate: the schedule warms up
    assert algo.optimizers["second"].param_groups[0]["lr"] == 0.1
    assert algo.optimizers["first"].param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_minimize_steps_down_one_plain_backward_pass(clip: float | None) -> None:
    """Clipped as a whole; what an earlier step left does not count."""
    algo, x = Two(), torch.randn(6, 3)
    algo.clip = clip
    algo.minimize("first", algo(x).mean())
    before = [p.clone() for p in algo.first.parameters()]
    slopes = torch.autograd.grad(algo(x).square().sum(), list(algo.first.parameters()))
    norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
    assert norm > 1e-3
    algo.minimize("first", algo(x).square().sum())
    for p, old, slope in zip(algo.first.parameters(), before, slopes, strict=True):
        assert p.grad is not None
        expected = slope if clip is None else slope * clip / norm
        torch.testing.assert_close(p.grad, expected, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(p, old - 0.1 * expected)


def test_evaluating_restores_the_mode_whatever_happens() -> None:
    algo = Two()

    def fail() -> None:
        with algo.evaluating():
            assert not algo.training
            assert not algo(torch.zeros(1, 3)).requires_grad
            raise KeyError

    for mode in (True, False):
        algo.train(mode)
        with pytest.raises(KeyError):
            fail()
        assert algo.training is mode
        assert all(part.training is mode for part in algo.modules())


def test_a_misfit_says_what_is_needed_and_what_there_is() -> None:
    class Boxes(Two):
        name = "boxes"
        action_spaces = (spaces.Box,)

    assert misfit(Boxes, spaces.Box(-1, 1, (2,), np.float32)) is None
    assert misfit(Two, spaces.Discrete(3)) is None
    message = misfit(Boxes, spaces.Discrete(3), label="cartpole")
    assert message == "boxes needs a Box action space; cartpole has Discrete(3)"
    assert "other needs a Box" in str(misfit(Boxes, spaces.Discrete(3), "other"))
    assert "needs a Box or Discrete action space" in str(misfit(Two, spaces.MultiBinary(3)))
