"""RtgEpDataset against windows cut by plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader

from rlalgo import Episodes, WindowBatch
from rlalgo.batchrl.dt import RtgEpDataset
from tests.rlalgo.toy_data import make_episodes

KINDS = ["box", "discrete", "frames", "channels"]
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def stacked(frames: list[np.ndarray], k: int) -> np.ndarray:
    """The last k frames, the first one repeated where there are fewer, as an encoder of k frames sees them."""
    last = [frames[max(len(frames) - k + i, 0)] for i in range(k)]
    if k == 1:
        return last[0]
    return np.concatenate(last) if last[0].ndim == 3 else np.stack(last)


def by_hand(episodes: Episodes, K: int) -> list[dict[str, Any]]:
    """Every window, cut one by one from one episode after the other; in the order of the steps."""
    out = []
    step = row = 0
    for end in episodes.starts[1:].tolist():
        T = end - step
        seen = [x.numpy() for x in episodes.observations[row : row + T + 1]]
        actions = [x.numpy() for x in episodes.actions[step:end]]
        rewards = [float(r) for r in episodes.rewards[step:end]]
        for t in range(T):
            window: dict[str, list] = {name: [] for name in WindowBatch._fields}
            for i in range(t, t + K):
                real = i < T
                frames = stacked(seen[: min(i, T - 1) + 1], episodes.spec.frame_stack)
                action = actions[min(i, T - 1)]
                window["observations"].append(frames if real else np.zeros_like(frames))
                window["actions"].append(action if real else np.zeros_like(action))
                window["rewards"].append(rewards[i] if real else 0.0)
                window["returns_to_go"].append(sum(rewards[i:]) if real else 0.0)
                window["timesteps"].append(i if real else 0)
                window["mask"].append(real)
            out.append(window)
        step, row = end, row + T + 1
    return out


def assert_equal(batch: WindowBatch, windows: list[dict[str, Any]]) -> None:
    for name, got in zip(WindowBatch._fields, batch, strict=True):
        expected = np.array([window[name] for window in windows])
        assert got.shape == expected.shape, name
        if name == "returns_to_go":
            np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
        else:
            np.testing.assert_array_equal(got.numpy(), expected, err_msg=name)


@given(LENGTHS, st.integers(1, 12), st.sampled_from(KINDS), st.sampled_from([1, 4]), st.integers(0, 99))
def test_windows_are_those_cut_by_hand(lengths: list[int], K: int, kind: str, stack: int, seed: int) -> None:
    episodes = make_episodes(kind, lengths, seed, frame_stack=stack)
    data = RtgEpDataset(episodes, K)
    windows = by_hand(episodes, K)
    assert len(data) == len(windows) == sum(lengths)
    assert_equal(data.gather(torch.arange(len(data))), windows)
    drawn = data.rows(7, torch.Generator().manual_seed(seed))
    assert_equal(data.gather(drawn), [windows[i] for i in drawn.tolist()])


@pytest.mark.parametrize("kind", KINDS)
def test_types_and_shapes(kind: str) -> None:
    episodes = make_episodes(kind, (5, 2), frame_stack=3)
    batch = RtgEpDataset(episodes, K=4).gather(torch.tensor([0, 3, 6]))
    assert batch.observations.shape == (3, 4, *episodes.spec.encoder_space().shape)
    assert batch.observations.dtype == episodes.observations.dtype
    assert batch.actions.dtype == episodes.actions.dtype
    assert batch.rewards.dtype == batch.returns_to_go.dtype == torch.float32
    assert batch.timesteps.dtype == torch.int64
    assert batch.mask.dtype == torch.bool


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 6, 12, 40])
def test_no_window_is_all_padding_whatever_the_lengths(K: int) -> None:
    """An episode as long as a multiple of the context is where public code has lost or emptied windows."""
    data = RtgEpDataset(make_episodes("box", (4, 8, 12, 1)), K)
    batch = data.gather(torch.arange(len(data)))
    assert batch.mask[:, 0].all()
    assert (batch.mask[:, 1:] <= batch.mask[:, :-1]).all()  # real steps first, padding after


def test_every_step_is_as_likely_to_begin_a_window() -> None:
    data = RtgEpDataset(make_episodes("box", (1, 30, 3, 14, 2)), K=8)
    batch = data.gather(data.rows(50_000, torch.Generator().manual_seed(0)))
    begun = batch.rewards[:, 0]  # no two rewards are alike
    counts = [(begun == reward).sum().item() for reward in data.episodes.rewards]
    assert sum(counts) == 50_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_depend_on_the_generator_alone() -> None:
    data = RtgEpDataset(make_episodes("box", (30, 20)), K=8)
    first = data.rows(100, torch.Generator().manual_seed(3))
    torch.rand(5)
    assert torch.equal(first, data.rows(100, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, data.rows(100, torch.Generator().manual_seed(4)))


def test_serves_torchs_data_loader() -> None:
    data = RtgEpDataset(make_episodes("discrete", (7, 4, 9)), K=5)
    loader = DataLoader(data, batch_size=6, collate_fn=lambda batch: batch)
    batches = list(loader)
    assert [len(batch.mask) for batch in batches] == [6, 6, 6, 2]
    whole = data.gather(torch.arange(20))
    for part, expected in zip(zip(*batches, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(part), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_shared_and_never_written(kind: str) -> None:
    episodes = make_episodes(kind, (6, 3, 2))
    before = [getattr(episodes, name).clone() for name in ("observations", "actions", "rewards")]
    data = RtgEpDataset(episodes, K=4)
    for name in ("observations", "actions", "rewards"):
        assert getattr(data.episodes, name).data_ptr() == getattr(episodes, name).data_ptr(), name
    batch = data.gather(torch.arange(len(data)))
    batch.observations.fill_(7)
    batch.actions.zero_()
    batch.rewards.zero_()
    for name, values in zip(("observations", "actions", "rewards"), before, strict=True):
        assert torch.equal(getattr(episodes, name), values), name


def test_keeps_little_besides_the_episodes() -> None:
    episodes = make_episodes("box", (500,) * 4)
    data = RtgEpDataset(episodes, K=20)
    own = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
    assert sum(x.numel() * x.element_size() for x in own) < 32 * episodes.steps


def test_moves_to_a_device() -> None:
    data = RtgEpDataset(make_episodes("box", (5, 4)), K=3).to("meta")
    batch = data.gather(torch.tensor([0, 5]))
    assert {x.device.type for x in batch} == {"meta"}


@pytest.mark.parametrize("K", [0, -1])
def test_a_context_below_one_is_refused(K: int) -> None:
    with pytest.raises(ValueError, match="K must be 1 or more"):
        RtgEpDataset(make_episodes("box", (3,)), K)
