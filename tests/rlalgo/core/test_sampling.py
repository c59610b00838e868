"""How often episodes are drawn, against counts over all steps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import rlutils
from rlalgo import DataSpec, Episodes, Transitions
from rlalgo.config import parse
from rlalgo.core.sampling import sampled
from rlalgo.errors import DataError

SPEC = DataSpec(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))


def episodes(lengths: list[int], returns: list[float], weights: list[float] | None = None) -> Episodes:
    """All reward at the end."""
    n, ends = sum(lengths), torch.tensor(lengths).cumsum(0)
    rewards, last = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    rewards[ends - 1], last[ends - 1] = torch.tensor(returns).float(), True
    return Episodes(
        torch.zeros(n + len(lengths), 2),
        torch.zeros(n, dtype=torch.int64),
        rewards,
        last,
        torch.zeros(n, dtype=torch.bool),
        torch.cat([torch.zeros(1, dtype=torch.int64), ends]),
        SPEC,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        info={"care": torch.arange(len(lengths)), "two": torch.zeros(len(lengths), 2)},
    )


def shares(data: Episodes) -> np.ndarray:
    """(N,) the chance of each step, by the dataset that draws them."""
    found = Transitions(data)
    chances = np.arange(1, len(found) + 1) / len(found) if found.chances is None else found.chances
    return np.diff(chances, prepend=0)


made = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([0.0, 1.0, -2.5]), st.sampled_from([0.5, 1.0, 3.0])), min_size=1
)


@given(made, st.booleans())
def test_steps_of_each_return_are_drawn_equally_often(rows: list[tuple[int, float, float]], weighted: bool) -> None:
    lengths, returns, weights = (list(column) for column in zip(*rows, strict=True))
    data = episodes(lengths, returns, weights if weighted else None)
    share = shares(sampled(data, "by_return_class"))
    of_class: Counter[float] = Counter()
    for chance, episode in zip(share, data.episode_ids().tolist(), strict=True):
        of_class[returns[episode]] += chance
        alike = [i for i, ret in enumerate(returns) if ret == returns[episode]]
        held = sum(lengths[i] * (weights[i] if weighted else 1) for i in alike)
        own = weights[episode] if weighted else 1
        assert chance == pytest.approx(own / held / len(set(returns)))  # within a class as before
    assert list(of_class.values()) == pytest.approx([1 / len(set(returns))] * len(set(returns)))


def test_a_column_of_facts_multiplies_the_weights() -> None:
    share = shares(sampled(episodes([1, 2, 1], [0, 0, 1], [1, 1, 4]), "care"))
    assert share == pytest.approx(np.array([0, 1, 1, 8]) / 10)


def test_uniform_is_what_there_was() -> None:
    data = episodes([1, 2], [0, 1], [1, 3])
    assert sampled(data, "uniform") is data


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ("by_return_class", "algo.sampling: by_return_class: there are 101 different returns"),
        ("cara", r"algo.sampling: nothing is called 'cara'. Did you mean 'care'\? There are uniform, by_return_class"),
        ("two", "algo.sampling: 'two' is no column of weights"),
        ("success", "There are uniform, by_return_class, care, two"),
    ],
)
def test_what_cannot_be_is_told(sampling: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        sampled(episodes([1] * 101, [float(i) for i in range(101)]), sampling)


@pytest.mark.parametrize("name", ["bc", "dt"])
def test_algorithms_that_imitate_have_it(name: str) -> None:
    known = rlutils.catalogue()
    cls: Any = known.get("algo", name).cls
    data = episodes([30, 10], [0, 1])
    drawn = cls(SPEC, parse(cls.Config, {"sampling": "by_return_class"}, known, name)).dataset(data)
    rows = drawn.rows(4000, torch.Generator().manual_seed(0))
    assert 0.45 < (rows >= 30).float().mean() < 0.55
    plain = cls(SPEC, parse(cls.Config, {}, known, name)).dataset(data)
    assert 0.2 < (plain.rows(4000, torch.Generator().manual_seed(0)) >= 30).float().mean() < 0.3
