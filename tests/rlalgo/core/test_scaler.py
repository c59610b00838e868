"""Raw actions to scaled ones and back."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rlalgo import Episodes
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


def seen(actions: torch.Tensor) -> Episodes:
    """Episodes of which a scaler looks at the actions (N, A) alone."""
    return cast(Episodes, SimpleNamespace(actions=actions))


@given(st.lists(bounds | fixed | above | below | open_, max_size=3), above | below | open_, st.integers(0, 99))
def test_where_bounds_are_missing_the_range_of_the_data_becomes_one_to_one(
    others: list[tuple[float, float]], unbounded: tuple[float, float], seed: int
) -> None:
    space = box([*others, unbounded])
    space.seed(seed)
    scaler, plain = ActionScaler(space), ActionScaler(space)
    raw = torch.from_numpy(np.stack([space.sample() for _ in range(6)]))
    assert torch.equal(plain(raw)[:, -1], raw[:, -1])  # its own units, before the data is known
    scaler.fit(seen(raw))
    scaler.fit(seen(raw))  # again, with the same result
    scaled = scaler(raw)
    assert scaled.abs().max() <= 1 + 1e-4
    missing = torch.from_numpy(~(np.isfinite(space.low) & np.isfinite(space.high)))
    assert torch.allclose(scaled.amin(0)[missing], -torch.ones(int(missing.sum())), atol=1e-3)
    assert torch.allclose(scaled.amax(0)[missing], torch.ones(int(missing.sum())), atol=1e-3)
    torch.testing.assert_close(scaler.inverse(scaled), raw, atol=1e-4, rtol=1e-5)
    far = scaler.inverse(1e3 * torch.randn(6, len(others) + 1)).numpy()
    assert ((space.low <= far) & (far <= space.high)).all()


def test_bounds_of_which_the_data_uses_a_tiny_share_are_as_good_as_none() -> None:
    big = float(np.finfo(np.float32).max)
    space = box([(-1, 1), (-1e6, 1e6), (-big, big), (-1, 1), (-1e6, 1e6), (0, 100)])
    low, high = torch.tensor([[-0.1, 3, -2, 0.5, 7, 20], [0.3, 5, 2, 0.5, 7, 30]])
    scaler = ActionScaler(space)
    scaler.fit(seen(torch.stack([low, high])))
    assert scaler.center.tolist() == [0, 4, 0, 0, 7, 50]  # of the bounds, of the data, or what is always the same
    assert scaler.radius.tolist() == [1, 1, 2, 1, 1, 50]
    scaler.fit(seen(torch.tensor([[0.0] * 2 + [-big] + [0.0] * 3, [0.0] * 2 + [big] + [0.0] * 3])))
    assert scaler.radius[2] == big


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(-9, 9))
def test_discrete_actions_are_counted_from_0(actions: list[int], start: int) -> None:
    scaler, counted = ActionScaler(spaces.Discrete(6, start=start)), torch.tensor(actions)
    raw = counted + start
    assert torch.equal(scaler(raw), counted)
    assert torch.equal(scaler.inverse(counted), raw)
    assert 0 <= int(scaler(torch.tensor(0))) < 6  # padding
    assert not scaler.state_dict()


def test_several_discrete_actions_are_counted_from_0() -> None:
    scaler = ActionScaler(spaces.MultiDiscrete([3, 2], start=[-1, 4]))
    raw = torch.tensor([[[-1, 5], [1, 4]]])  # (1, 2, M)
    assert scaler(raw).tolist() == [[[0, 1], [2, 0]]]
    assert torch.equal(scaler.inverse(scaler(raw)), raw)
    assert scaler(torch.zeros(2, dtype=torch.int64)).tolist() == [1, 0]  # padding is within
    assert not scaler.state_dict()


def test_bounds_come_from_the_spec_and_scales_with_the_weights() -> None:
    assert ActionScaler(box([(-1, 1), (0, 4)])).state_dict().keys() == {"center", "radius"}
