"""Raw actions to scaled ones and back."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rlalgo.core.scaler import ActionScaler

bounds = st.tuples(st.floats(-50, 50, width=32), st.floats(0.125, 100, width=32)).map(lambda b: (b[0], b[0] + b[1]))
fixed = st.floats(-50, 50, width=32).map(lambda x: (x, x))
above = st.floats(-50, 50, width=32).map(lambda x: (x, np.inf))
below = st.floats(-50, 50, width=32).map(lambda x: (-np.inf, x))
open_ = st.just((-np.inf, np.inf))


def box(dimensions: list[tuple[float, float]]) -> spaces.Box:
    low, high = (np.array(edges, np.float32) for edges in zip(*dimensions, strict=True))
    return spaces.Box(low, high)


@given(st.lists(bounds | fixed, min_size=1, max_size=4), st.integers(0, 99))
def test_a_bounded_space_becomes_one_to_one(dimensions: list[tuple[float, float]], seed: int) -> None:
    space = box(dimensions)
    space.seed(seed)
    scaler = ActionScaler(space)
    raw = torch.from_numpy(np.stack([space.sample() for _ in range(6)]))
    scaled = scaler(raw)
    for row, action in zip(scaled.tolist(), raw.double().tolist(), strict=True):
        for x, a, low, high in zip(row, action, space.low.tolist(), space.high.tolist(), strict=True):
            assert abs(x - (0 if low == high else (2 * a - low - high) / (high - low))) < 2e-3
    back = scaler.inverse(scaled)
    torch.testing.assert_close(back, raw, atol=1e-4, rtol=1e-5)
    ends = scaler(torch.from_numpy(np.stack([space.low, space.high])))
    free = torch.from_numpy(space.low < space.high)
    torch.testing.assert_close(ends, torch.stack([-free.float(), free.float()]), atol=2e-3, rtol=0)
    for actions in (back, scaler.inverse(3 * torch.randn(6, len(dimensions)))):
        assert all(space.contains(action) for action in actions.numpy())  # past the ends too


@given(st.lists(bounds | fixed | above | below | open_, max_size=3), above | below | open_, st.integers(0, 99))
def test_a_space_without_some_bounds_keeps_its_units_and_the_bounds_it_has(
    others: list[tuple[float, float]], unbounded: tuple[float, float], seed: int
) -> None:
    space = box([*others, unbounded])
    space.seed(seed)
    scaler = ActionScaler(space)
    raw = torch.from_numpy(np.stack([space.sample() for _ in range(6)]))
    assert torch.equal(scaler(raw), raw)
    assert torch.equal(scaler.inverse(raw), raw)
    far = 1e3 * torch.randn(6, len(others) + 1)
    expected = np.clip(far.numpy(), space.low, space.high)
    assert torch.equal(scaler.inverse(far), torch.from_numpy(expected))


@given(st.lists(st.integers(0, 5), min_size=1))
def test_discrete_actions_pass(actions: list[int]) -> None:
    scaler, raw = ActionScaler(spaces.Discrete(6)), torch.tensor(actions)
    assert torch.equal(scaler(raw), raw)
    assert torch.equal(scaler.inverse(raw), raw)
    assert not list(scaler.buffers())


def test_bounds_come_from_the_spec_and_not_from_weights() -> None:
    assert not ActionScaler(box([(-1, 1), (0, 4)])).state_dict()
