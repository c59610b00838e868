"""Transitions and stacked frames against a loop over episodes and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rlalgo import Episodes, TransitionBatch, Transitions
from rlalgo.batchrl.dt import RtgEpDataset
from rlalgo.batchrl.rebrac import Pairs
from rlalgo.core.dataset import Frames
from rlalgo.errors import DataError
from tests.rlalgo.toy_data import OBSERVATIONS, as_lists, make_episodes

lengths_lists = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def stacked(rows: list[Any], t: int, k: int) -> torch.Tensor:
    """What an encoder sees at row t of an episode's rows: the last k of them, the first repeated."""
    frames = [torch.tensor(rows[max(t - back, 0)]) for back in range(k - 1, -1, -1)]
    if k == 1:
        return frames[0]
    return torch.cat(frames) if frames[0].dim() == 3 else torch.stack(frames)


def by_loop(episodes: Episodes) -> list[tuple]:
    """Every usable transition, one after another."""
    k, found = episodes.spec.frame_stack, []
    for episode in as_lists(episodes):
        for t in range(len(episode["rewards"])):
            last = t == len(episode["rewards"]) - 1
            if last and not episode["has_final"] and not episode["terminations"][t]:
                continue  # truncated, and nobody saw what came next
            found.append(
                (
                    stacked(episode["observations"], t, k),
                    torch.tensor(episode["actions"][t]),
                    torch.tensor(episode["rewards"][t]),
                    stacked(episode["observations"], t + 1, k),
                    torch.tensor(float(episode["terminations"][t])),
                )
            )
    return found


@given(st.sampled_from(sorted(OBSERVATIONS)), lengths_lists, st.integers(0, 99), st.sampled_from([1, 2, 4]))
def test_every_transition_equals_the_loops(kind: str, lengths: list[int], seed: int, k: int) -> None:
    has_final = [i % 3 != 1 for i in range(len(lengths))]
    episodes = make_episodes(kind, lengths, seed, has_final=has_final, frame_stack=k)
    expected = by_loop(episodes)
    if not expected:
        with pytest.raises(DataError, match="successor"):
            Transitions(episodes)
        return
    data = Transitions(episodes)
    assert len(data) == len(expected)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    batch = data.gather(order)
    assert batch.observations.shape[1:] == episodes.spec.encoder_space().shape
    for i, row in enumerate(order.tolist()):
        for name, got, wanted in zip(batch._fields, batch, expected[row], strict=True):
            assert torch.equal(got[i], wanted.to(got.dtype)), (name, row)


def test_types_of_a_batch() -> None:
    batch = Transitions(make_episodes("frames", frame_stack=2)).gather(torch.tensor([0, 2]))
    assert batch.observations.dtype == batch.next_observations.dtype == torch.uint8
    assert batch.actions.dtype == torch.int64
    assert batch.rewards.dtype == batch.terminals.dtype == torch.float32


def test_only_terminations_stop_bootstrapping() -> None:
    data = make_episodes(lengths=(2, 2), terminated=[True, False])
    assert Transitions(data).gather(torch.arange(4)).terminals.tolist() == [0, 1, 0, 0]


def test_a_truncated_last_step_without_successor_is_left_out() -> None:
    data = make_episodes(lengths=(2, 2), terminated=[True, False], has_final=[False, False])
    transitions = Transitions(data)
    assert len(transitions) == 3
    assert torch.equal(transitions.gather(torch.arange(3)).rewards, data.rewards[:3])
    with pytest.raises(DataError, match="successor"):
        Transitions(make_episodes(lengths=(1,), terminated=[False], has_final=[False]))


def test_gather_does_not_change_the_data() -> None:
    episodes = make_episodes("frames", frame_stack=4)
    before = episodes.observations.clone()
    batch = Transitions(episodes).gather(torch.arange(5))
    batch.observations.zero_()
    batch.actions.zero_()
    assert torch.equal(episodes.observations, before)


def test_rows_come_from_the_generator_alone() -> None:
    data = Transitions(make_episodes(lengths=(9, 9)))
    torch.manual_seed(1)
    one = data.rows(1000, torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    again = data.rows(1000, torch.Generator().manual_seed(7))
    other = data.rows(1000, torch.Generator().manual_seed(8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.dtype == torch.int64
    assert set(one.tolist()) == set(range(len(data)))  # every item, with replacement


def test_a_data_loader_serves_whole_batches() -> None:
    data = Transitions(make_episodes(lengths=(4, 3)))
    loader: Any = DataLoader(data, batch_size=3, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    batches = list(loader)
    assert [len(batch.rewards) for batch in batches] == [3, 3, 1]
    assert all(isinstance(batch, TransitionBatch) for batch in batches)
    assert torch.equal(torch.cat([batch.rewards for batch in batches]), data.gather(torch.arange(7)).rewards)


def test_to_keeps_the_items() -> None:
    data = Transitions(make_episodes("channels", frame_stack=2))
    before = data.gather(torch.arange(len(data)))
    for a, b in zip(before, data.to("cpu").gather(torch.arange(len(data))), strict=True):
        assert torch.equal(a, b)
    meta = data.to("meta").gather(torch.arange(3))  # every column went along
    assert {column.device.type for column in meta} == {"meta"}
    assert [tuple(column.shape) for column in meta] == [tuple(column[:3].shape) for column in before]


def test_frames_take_rows_of_any_shape() -> None:
    """Windows gather (B, K) rows at once."""
    episodes = make_episodes("channels", (3, 2), frame_stack=3)
    rows, first = torch.tensor([[0, 3], [4, 6]]), torch.tensor([[0, 0], [4, 4]])
    got = Frames(episodes).at(rows, first)
    parts = as_lists(episodes)
    assert got.shape == (2, 2, 6, 4, 5)
    for i, j, episode, t in ((0, 0, 0, 0), (0, 1, 0, 3), (1, 0, 1, 0), (1, 1, 1, 2)):
        assert torch.equal(got[i, j], stacked(parts[episode]["observations"], t, 3).to(torch.uint8))


def test_moving_is_a_copy(small_episodes: Callable[..., Episodes]) -> None:
    data = Transitions(small_episodes("box", (3, 2)))
    moved = data.to("meta")
    assert (moved.device.type, moved.steps.device.type, moved.episodes.rewards.device.type) == ("meta",) * 3
    assert data.device.type == data.steps.device.type == data.episodes.rewards.device.type == "cpu"


@pytest.mark.parametrize("make", [Transitions, lambda data: RtgEpDataset(data, 3), Pairs])
def test_weights_say_how_often_an_episode_is_drawn(make: Callable[[Episodes], Any]) -> None:
    """A share of 3 to 1 between episodes of different lengths, and none of the third, whatever is left out."""
    plain = make_episodes(lengths=(10, 40, 5), terminated=[True, True, True])
    share = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64) / plain.lengths()
    data = make(replace(plain, weights=share).check("x"))
    rows = data.rows(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(rows, data.to("cpu").rows(20_000, torch.Generator().manual_seed(0)))
    rewards = data.gather(rows).rewards.reshape(len(rows), -1)[:, 0]
    first, second, third = (torch.isin(rewards, plain.select(torch.tensor([i])).rewards) for i in range(3))
    assert abs(float(first.double().mean()) - 0.75) < 0.02
    assert len(rewards[second].unique()) == 40
    assert not third.any()


def test_equal_weights_draw_everything_and_no_weights_draw_as_ever() -> None:
    plain = make_episodes(lengths=(4, 3))
    even = Transitions(replace(plain, weights=torch.full((2,), 0.3, dtype=torch.float64)))
    counts = torch.bincount(even.rows(7000, torch.Generator().manual_seed(0)), minlength=7)
    assert counts.min() > 850
    drawn = Transitions(plain).rows(9, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, torch.randint(7, (9,), generator=torch.Generator().manual_seed(5)))


def test_nothing_is_drawn_of_episodes_without_weight_alone() -> None:
    episodes = make_episodes(lengths=(2, 2), terminated=[True, True])
    weighted = replace(episodes, weights=torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert Transitions(weighted.select(torch.tensor([1]))).rows(3, torch.Generator()).shape == (3,)
    with pytest.raises(DataError, match="weights of all that can be drawn are 0"):
        Transitions(weighted.select(torch.tensor([0])))


def test_an_episode_that_goes_on_after_success() -> None:
    """A chain whose second step reaches the goal (reward 1); the recording goes on, with rewards of -10.

    Values, by dynamic programming over the transitions alone, know nothing of what came after the goal; windows do.
    """
    gamma, length = 0.5, 5
    chain = make_episodes("discrete", lengths=(length,), terminated=[False])
    chain = replace(
        chain,
        observations=torch.arange(length + 1.0).unsqueeze(1).expand(-1, 2).contiguous(),
        rewards=torch.tensor([0.0, 1.0, -10.0, -10.0, -10.0]),
        terminations=torch.tensor([False, True, False, False, False]),
    )
    with pytest.raises(DataError, match=r"step 1: termination True is before the last step.*`continues: true`"):
        chain.check("x")
    chain = replace(chain, continues=True).check("x")
    batch = Transitions(chain).gather(torch.arange(length))
    at, after = batch.observations[:, 0].long(), batch.next_observations[:, 0].long()
    values = torch.zeros(length + 1)
    for _ in range(length):
        values[at] = batch.rewards + gamma * (1 - batch.terminals) * values[after]
    assert values.tolist() == [0.5, 1.0, -17.5, -15.0, -10.0, 0.0]
    window = RtgEpDataset(chain, length).gather(torch.tensor([0]))
    assert window.mask.all()
    assert window.returns_to_go[0].tolist() == [-29.0, -29.0, -30.0, -20.0, -10.0]
    again = chain.select(torch.tensor([0, 0])).concat(make_episodes("discrete"))
    assert again.check("x").continues
    with pytest.raises(DataError, match="truncation True is before the last step; split the episode there"):
        replace(chain, truncations=chain.terminations).check("x")
