"""Which rows draw their actions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlalgo.core.scaler import ActionScaler
from rlalgo.nets import Categorical, Chooser, Gaussian

BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32))


def chooser(space: spaces.Space, *samples: bool, stochastic: bool = True) -> Chooser:
    algo: Any = SimpleNamespace(scaler=ActionScaler(space), stochastic=stochastic)
    return Chooser(algo, [SimpleNamespace(sample=sample) for sample in samples])


def test_only_the_rows_that_ask_draw() -> None:
    torch.manual_seed(0)
    choose = chooser(spaces.Discrete(2), False, True, False, True)
    rows, even = torch.tensor([1, 2, 3]), Categorical(torch.tensor([[0.0, 1e-3]] * 3))
    drawn = torch.stack([choose(even, rows) for _ in range(200)])  # (200, 3)
    assert drawn[:, 1].unique().tolist() == [1]  # the likeliest
    for column in (0, 2):
        assert 60 < int(drawn[:, column].sum()) < 140
    state = torch.get_rng_state()
    choose(even, rows)
    assert torch.equal(state, torch.get_rng_state())  # it has a generator of its own


def test_continuous_actions_are_drawn_and_raw() -> None:
    torch.manual_seed(0)
    choose = chooser(BOX, False, True, False)
    one = torch.ones(2)
    distribution = Gaussian(torch.zeros(2, 2), torch.zeros(2), -one, one)
    drawn = torch.stack([choose(distribution, torch.tensor([1, 2])) for _ in range(50)])  # (50, 2, 2)
    assert drawn[:, 1].unique(dim=0).tolist() == [[-0.5, 2]]
    assert len(drawn[:, 0].unique(dim=0)) > 25  # many lie on an edge
    assert all(BOX.contains(action) for action in drawn.flatten(0, 1).numpy())


def test_options_without_sample_take_the_likeliest_action() -> None:
    algo: Any = SimpleNamespace(scaler=ActionScaler(spaces.Discrete(2)), stochastic=False)
    assert Chooser(algo, [object()])(Categorical(torch.tensor([[0.0, 1.0]])), torch.tensor([0])).tolist() == [1]
    with pytest.raises(ValueError, match="sample: true needs a Discrete action space or a Gaussian policy"):
        chooser(BOX, False, True, stochastic=False)
