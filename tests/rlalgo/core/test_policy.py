"""Controller and FrameStack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlalgo import Controller, DataSpec, Policy
from rlalgo.core.policy import FrameStack
from tests.rlalgo.core.test_dataset import stacked

SHAPES = ((3,), (4, 5), (2, 4, 5))


class Recorder(Policy):
    """Remembers its calls; answers with the action it was given."""

    def __init__(self, answer: Tensor) -> None:
        self.options, self.answer = [None], answer
        self.calls: list[tuple[Any, ...]] = []

    def reset(self, rows: Tensor) -> None:
        self.calls.append((rows,))

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        self.calls.append((observations, rows))
        return self.answer

    def observe(self, rewards: Tensor, rows: Tensor) -> None:
        self.calls.append((rewards, rows))


@pytest.mark.parametrize("answer", [torch.tensor([[0.5, -1.0]]), torch.tensor([3])])
def test_controller_speaks_numpy(answer: Tensor) -> None:
    policy = Recorder(answer)
    controller = Controller(policy)
    controller.reset()
    seen = np.arange(3, dtype=np.float32)
    action = controller.act(seen)
    controller.observe(np.float64(0.25))
    if answer.dim() == 1:
        assert action == 3
        assert type(action) is int
    else:
        assert isinstance(action, np.ndarray)
        assert action.dtype == np.float32
        assert action.tolist() == [0.5, -1.0]
    (row,), (observations, _), (rewards, _) = policy.calls
    assert row.tolist() == [0]
    assert observations.tolist() == [[0, 1, 2]]
    assert rewards.tolist() == [0.25]
    assert rewards.dtype == torch.float32


def test_a_policy_may_be_memoryless() -> None:
    class Still(Policy):
        def act(self, observations: Tensor, rows: Tensor) -> Tensor:
            return torch.zeros(len(rows), 2)

    policy = Still()
    policy.reset(torch.tensor([0]))
    policy.observe(torch.tensor([1.0]), torch.tensor([0]))
    with pytest.raises(TypeError, match="abstract"):
        Policy()  # type: ignore[abstract]


@given(st.sampled_from(SHAPES), st.integers(1, 4), st.integers(0, 99), st.data())
def test_frame_stack_equals_a_loop_for_any_order_of_rows(shape: tuple[int, ...], k: int, seed: int, data: Any) -> None:
    """Rows begin, pause and begin again in any order, and each sees its own episode alone."""
    rng = np.random.default_rng(seed)
    n = 3
    spec = DataSpec(spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(2), frame_stack=k)
    stack = FrameStack(spec, n, torch.device("cpu"))
    history: list[list[Any]] = [[] for _ in range(n)]
    for _ in range(6):
        begun = data.draw(st.lists(st.integers(0, n - 1), unique=True))
        stack.reset(torch.tensor(begun, dtype=torch.int64))
        for row in begun:
            history[row] = []
        rows = data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1))
        seen = rng.integers(0, 256, (len(rows), *shape), np.uint8)
        got = stack.push(torch.from_numpy(seen), torch.tensor(rows))
        assert got.shape == (len(rows), *spec.encoder_space().shape)
        assert got.dtype == torch.uint8
        for i, row in enumerate(rows):
            history[row].append(seen[i].tolist())
            assert torch.equal(got[i], stacked(history[row], len(history[row]) - 1, k).to(torch.uint8))


@pytest.mark.parametrize("k", [1, 3])
def test_frame_stack_takes_double_precision_observations(k: int) -> None:
    spec = DataSpec(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), frame_stack=k)
    got = FrameStack(spec, 1, torch.device("cpu")).push(torch.rand(1, 2).double(), torch.tensor([0]))
    assert got.dtype == torch.float32
