"""Episodes and DataSpec against plain Python loops over one episode after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from rlalgo import DataSpec, Episodes
from rlalgo.core.spec import normalized_score
from rlalgo.errors import DataError
from rlutils.config.yaml_text import dump_yaml, parse_yaml
from tests.rlalgo.toy_data import BOX_ACTIONS, OBSERVATIONS, as_lists, make_episodes

lengths_lists = st.lists(st.integers(1, 7), min_size=1, max_size=6)
kinds = st.sampled_from(sorted(OBSERVATIONS))


def test_sizes() -> None:
    data = make_episodes(lengths=(3, 1, 4))
    assert len(data) == 3
    assert data.steps == 8
    assert data.lengths().tolist() == [3, 1, 4]
    assert data.has_final.tolist() == [True, True, True]
    assert data.first_rows().tolist() == [0, 4, 6]


@given(lengths_lists)
def test_episode_ids_and_timesteps(lengths: list[int]) -> None:
    data = make_episodes(lengths=lengths)
    assert data.episode_ids().tolist() == [e for e, length in enumerate(lengths) for _ in range(length)]
    assert data.timesteps().tolist() == [t for length in lengths for t in range(length)]
    assert data.timesteps().dtype == data.episode_ids().dtype == torch.int64


@given(lengths_lists, st.integers(0, 99))
def test_returns(lengths: list[int], seed: int) -> None:
    data = make_episodes(lengths=lengths, seed=seed)
    expected = [math.fsum(episode["rewards"]) for episode in as_lists(data)]
    torch.testing.assert_close(data.returns(), torch.tensor(expected, dtype=torch.float64))


@given(lengths_lists, st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.99, 1.0, 1.1]))
def test_returns_to_go(lengths: list[int], seed: int, gamma: float) -> None:
    data = make_episodes(lengths=lengths, seed=seed)
    expected = []
    for episode in as_lists(data):
        rewards = episode["rewards"]
        later = [rewards[t:] for t in range(len(rewards))]
        expected += [sum(gamma**k * reward for k, reward in enumerate(rest)) for rest in later]
    got = data.returns_to_go(gamma)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(expected))


def test_long_returns_are_summed_in_double_precision() -> None:
    steps = 20_000
    data = replace(make_episodes(lengths=(steps,)), rewards=torch.full((steps,), 0.1))
    exact = steps * float(torch.tensor(0.1))
    assert data.returns().item() == pytest.approx(exact, rel=1e-10)
    assert data.returns_to_go()[0].item() == pytest.approx(exact, rel=1e-7)


@given(lengths_lists, st.integers(0, 99), st.floats(0.01, 1.0))
def test_top_takes_the_best_that_the_share_holds(lengths: list[int], seed: int, share: float) -> None:
    data = make_episodes(lengths=lengths, seed=seed)
    episodes = as_lists(data)
    best_first = sorted(range(len(episodes)), key=lambda e: -math.fsum(episodes[e]["rewards"]))
    # The authors' own loop (decision-transformer, gym/experiment.py, pct_traj).
    wanted, taken, steps = max(int(share * sum(lengths)), 1), best_first[:1], lengths[best_first[0]]
    while len(taken) < len(lengths) and steps + lengths[best_first[len(taken)]] <= wanted:
        taken.append(best_first[len(taken)])
        steps += lengths[taken[-1]]
    assert as_lists(data.top(share)) == [episodes[e] for e in sorted(taken)]


def test_top_at_an_exact_share_takes_just_that() -> None:
    """0.29 * 100 is 28.999999999999996: an episode too few if that is taken literally."""
    data = make_episodes(lengths=[1] * 100)
    assert [len(data.top(share)) for share in (0.29, 0.55)] == [29, 55]
    assert len(data.top(1e-9)) == 1
    assert data.top(1.0) is data


def test_top_stays_below_the_share() -> None:
    data = make_episodes(lengths=[5] * 4)
    assert [len(data.top(share)) for share in (0.2, 0.26, 0.49, 0.5, 0.99)] == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, math.nan])
def test_top_refuses_what_is_no_share(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        make_episodes().top(fraction)


def test_top_keeps_earlier_of_equal_episodes() -> None:
    data = make_episodes(lengths=[2] * 400)
    data = replace(data, rewards=torch.ones(800))
    assert data.top(0.5).info["seed"].tolist() == list(range(200))


@given(kinds, lengths_lists, st.integers(0, 99), st.data())
def test_select(kind: str, lengths: list[int], seed: int, data: Any) -> None:
    full = make_episodes(kind, lengths, seed, has_final=[i % 3 > 0 for i in range(len(lengths))])
    ids = data.draw(st.lists(st.integers(-len(lengths), len(lengths) - 1), max_size=8))
    got = full.select(torch.tensor(ids, dtype=torch.int64))
    assert as_lists(got) == [as_lists(full)[i] for i in ids]
    if ids:
        got.check("selected")


def test_select_takes_a_mask_too() -> None:
    full = make_episodes()
    got = full.select(torch.tensor([True, False, True]))
    assert as_lists(got) == [as_lists(full)[0], as_lists(full)[2]]


@given(st.lists(st.integers(1, 7), min_size=2, max_size=6), st.floats(0.05, 0.95), st.integers(0, 99))
def test_split_parts_whole_episodes(lengths: list[int], fraction: float, seed: int) -> None:
    full = make_episodes(lengths=lengths)
    first, second = full.split(fraction, torch.Generator().manual_seed(seed))
    assert abs(len(first) - fraction * len(full)) <= 1
    assert len(first) >= 1
    assert len(second) >= 1
    there = [*first.info["seed"].tolist(), *second.info["seed"].tolist()]
    assert sorted(there) == list(range(len(full)))
    assert sorted(there[: len(first)]) == there[: len(first)]  # file order is kept
    for part in (first, second):
        assert as_lists(part) == [as_lists(full)[i] for i in part.info["seed"].tolist()]


def test_split_depends_on_the_generator_alone() -> None:
    full = make_episodes(lengths=[1] * 20)
    one, again, other = (full.split(0.5, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert one.info["seed"].tolist() == again.info["seed"].tolist() != other.info["seed"].tolist()
    with pytest.raises(ValueError, match="two episodes"):
        make_episodes(lengths=[3]).split(0.5, torch.Generator())
    with pytest.raises(ValueError, match="fraction"):
        full.split(1.0, torch.Generator())


@given(lengths_lists, st.integers(0, 99))
def test_delayed(lengths: list[int], seed: int) -> None:
    data = make_episodes(lengths=lengths, seed=seed)
    late = data.delayed()
    for before, after in zip(as_lists(data), as_lists(late), strict=True):
        assert after["rewards"][:-1] == [0.0] * (len(before["rewards"]) - 1)
        assert after["rewards"][-1] == pytest.approx(math.fsum(before["rewards"]), abs=1e-5)
    torch.testing.assert_close(late.returns(), data.returns(), atol=1e-5, rtol=1e-5)
    assert late.observations is data.observations


@given(kinds, lengths_lists, lengths_lists)
def test_concat(kind: str, mine: list[int], theirs: list[int]) -> None:
    a, b = make_episodes(kind, mine, 1), make_episodes(kind, theirs, 2, has_final=[False] * len(theirs))
    joined = a.concat(b).check("joined")
    assert as_lists(joined) == as_lists(a) + as_lists(b)
    assert joined.spec == a.spec


def test_concat_drops_facts_of_one_side_and_refuses_other_spaces() -> None:
    a = make_episodes()
    b = replace(make_episodes(), info={"seed": torch.arange(3)})
    assert set(a.concat(b).info) == {"seed"}
    with pytest.raises(DataError, match="different spaces"):
        a.concat(make_episodes("discrete"))


def test_helpers_do_not_copy_observations() -> None:
    """A dataset may fill most of the memory: what follows must not make a second one."""
    data = make_episodes(lengths=[500] * 400)
    size = data.observations.numel() * data.observations.element_size()
    worst = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal worst
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                inputs = [a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)]
                if out.untyped_storage().data_ptr() not in inputs and out.dim() > 1:
                    worst = max(worst, out.untyped_storage().nbytes())
            return out

    with Watch():
        data.check("large")
        data.delayed()
        data.returns()
        data.returns_to_go()
        data.top(1.0)
    assert worst < size / 4  # a bool for each action and each of its bounds
    with Watch():
        data.observations.clone()
    assert worst >= size  # the watch would have seen it


# --- check ---


@pytest.mark.parametrize("kind", sorted(OBSERVATIONS))
def test_check_passes_good_data_and_returns_it(kind: str) -> None:
    data = make_episodes(kind)
    assert data.check("good") is data


def _spoil(**changes: Any) -> Episodes:
    return replace(make_episodes(lengths=(3, 1, 4)), **changes)


def _with(column: str, row: int, value: Any, kind: str = "box") -> Episodes:
    data = make_episodes(kind, (3, 1, 4), terminated=[True] * 3)
    values = getattr(data, column).clone()
    values[row] = value
    return replace(data, **{column: values})


@pytest.mark.parametrize(
    ("data", "episode", "step", "words"),
    [
        (_with("rewards", 3, math.nan), 1, 0, "reward nan is not finite"),
        (_with("rewards", 7, -math.inf), 2, 3, "reward -inf is not finite"),
        (_with("observations", 2, math.nan), 0, 2, "observation [nan, nan, nan] is not finite"),
        (_with("observations", 3, math.inf), 0, 3, "not finite"),  # the one after the last step
        (_with("observations", 4, math.inf), 1, 0, "not finite"),
        (_with("observations", 10, math.inf), 2, 4, "not finite"),
        (_with("actions", 4, math.nan), 2, 0, "action [nan, nan] is not finite"),
        (_with("actions", 5, torch.tensor([0.0, -0.1])), 2, 1, "outside the action space"),
        (_with("actions", 5, torch.tensor([1.1, 0.0])), 2, 1, "outside the action space"),
        (_with("actions", 2, 3, "discrete"), 0, 2, "action 3 is outside the action space Discrete(3)"),
        (_with("actions", 2, -1, "discrete"), 0, 2, "action -1 is outside"),
        (_with("terminations", 5, True), 2, 1, "before the last step"),
        (_with("truncations", 0, True), 0, 0, "before the last step"),
    ],
)
def test_check_names_dataset_episode_and_step(data: Episodes, episode: int, step: int, words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.check("some/set-v0")
    assert f"some/set-v0: episode {episode}, step {step}: " in str(caught.value)
    assert words in str(caught.value)


def test_check_counts_the_bad_rows_and_keeps_the_message_short() -> None:
    data = make_episodes("box", (3, 3))
    bad = data.rewards.clone()
    bad[1:5] = math.nan
    with pytest.raises(DataError, match="4 such rows"):
        replace(data, rewards=bad).check("x")
    wide = replace(
        data,
        observations=torch.full((8, 500), math.nan),
        spec=replace(data.spec, observation_space=spaces.Box(-1, 1, (500,), np.float32)),
    )
    with pytest.raises(DataError) as caught:
        wide.check("x")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_spoil(actions=torch.zeros(7, 2)), "actions are (7, 2) float32, expected (8, 2) float32"),
        (_spoil(observations=torch.zeros(8, 3)), "observations are (8, 3) float32, expected (11, 3) float32"),
        (_spoil(observations=torch.zeros(11, 4)), "observations are (11, 4)"),
        (_spoil(observations=torch.zeros(11, 3).double()), "observations are (11, 3) float64"),
        (_spoil(actions=torch.zeros(8, 2).double()), "actions are (8, 2) float64"),
        (_spoil(actions=torch.zeros(8).long()), "actions are (8,) int64"),
        (_spoil(rewards=torch.zeros(8, 1)), "rewards are (8, 1)"),
        (_spoil(rewards=torch.zeros(8).long()), "rewards are (8,) int64"),
        (_spoil(terminations=torch.zeros(8)), "terminations are (8,) float32, expected (8,) bool"),
        (_spoil(truncations=torch.zeros(9).bool()), "truncations are (9,) bool"),
        (_spoil(has_final=torch.ones(2).bool()), "has_final are (2,) bool, expected (3,) bool"),
        (_spoil(info={"noise": torch.zeros(2)}), "info 'noise' has 2 rows, expected 3"),
        (_spoil(weights=torch.ones(2, dtype=torch.float64)), "weights have to be 3 finite numbers of 0 or more"),
        (_spoil(weights=torch.tensor([1, math.nan, 1])), "weights have to be 3 finite"),
        (_spoil(weights=torch.tensor([1.0, -1, 1])), "weights have to be 3 finite"),
        (_spoil(starts=torch.tensor([0])), "no episodes"),
        (_spoil(starts=torch.tensor([0, 3, 3, 8])), "episode 1 is empty"),
        (_spoil(starts=torch.tensor([0, 5, 4, 8])), "episode 1 is empty"),
        (_spoil(starts=torch.tensor([1, 3, 4, 8])), "starts at step 1"),
    ],
)
def test_check_names_a_column_that_does_not_fit(data: Episodes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        data.check("some/set-v0")
    assert str(caught.value).startswith("some/set-v0: ")
    assert words in str(caught.value)


def test_check_lets_the_rounding_of_a_file_pass_but_no_more() -> None:
    just = BOX_ACTIONS.high + np.float32(3e-6)
    _with("actions", 0, torch.from_numpy(just)).check("x")
    with pytest.raises(DataError, match="outside"):
        _with("actions", 0, torch.from_numpy(BOX_ACTIONS.high + np.float32(1e-3))).check("x")


def test_a_half_open_action_space_keeps_its_one_bound() -> None:
    data = make_episodes(lengths=(2,))
    low, high = np.zeros(2, np.float32), np.full(2, np.inf, np.float32)
    data = replace(data, spec=replace(data.spec, action_space=spaces.Box(low, high)))
    replace(data, actions=torch.tensor([[0.0, 1e6], [5.0, 0.0]])).check("x")
    with pytest.raises(DataError, match="episode 0, step 1"):
        replace(data, actions=torch.tensor([[0.0, 1e6], [5.0, -1.0]])).check("x")


def test_huge_but_finite_numbers_are_not_called_infinite() -> None:
    """Their float32 sum overflows, which must only make the check look closer."""
    data = make_episodes()
    replace(data, observations=torch.full((11, 3), 3e38)).check("x")


# --- DataSpec ---

bounds = st.floats(width=32, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn, dims: tuple[int, int] = (1, 3)) -> spaces.Box:
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=dims[0], max_size=dims[1])))
    size = math.prod(shape)
    pairs = [sorted(draw(st.tuples(bounds, bounds))) for _ in range(size)]
    low, high = (np.array(side, np.float32).reshape(shape) for side in zip(*pairs, strict=True))
    low[low == np.inf], high[high == -np.inf] = 0, 0
    return spaces.Box(low, high, dtype=np.float32)


@st.composite
def specs(draw: st.DrawFn) -> DataSpec:
    observation = draw(st.one_of(boxes(), st.sampled_from(list(OBSERVATIONS.values()))))
    action = draw(st.one_of(boxes((1, 1)), st.integers(1, 9).map(spaces.Discrete)))
    scores = st.tuples(*[st.floats(-1e30, 1e30)] * 2).filter(lambda pair: pair[0] != pair[1])
    return DataSpec(
        observation,
        action,
        frame_stack=draw(st.integers(1, 4)),
        max_steps=draw(st.integers(1, 10**6)),
        env_id=draw(st.none() | st.just("Hopper-v5")),
        ref_scores=draw(st.none() | scores),
        preprocess=draw(st.sampled_from([{}, {"gray": True, "resize": [84, 84], "kwargs": {"x": None}}])),
    )


TINY = spaces.Box(np.float32(-0.1), np.float32(1e-30), (3,), np.float32)


@pytest.mark.parametrize("scores", [(3.0, 3.0), (math.nan, 1.0), (0.0, math.inf)])
def test_reference_scores_that_span_nothing_are_refused(scores: tuple[float, float]) -> None:
    with pytest.raises(DataError, match=r"ref_scores \(.*: expected two different finite returns"):
        DataSpec(TINY, TINY, ref_scores=scores)
    with pytest.raises(DataError, match="ref_scores"):
        normalized_score(1.0, scores)


@given(specs())
@example(DataSpec(TINY, TINY, ref_scores=(-20.272305, 3234.3)))
def test_spec_survives_yaml_exactly(spec: DataSpec) -> None:
    again = DataSpec.from_mapping(parse_yaml(dump_yaml(spec.to_mapping())))
    assert again == spec
    for name in ("observation_space", "action_space"):
        mine, theirs = getattr(spec, name), getattr(again, name)
        if isinstance(mine, spaces.Box):  # equality of Boxes is only approximate
            assert np.array_equal(mine.low, theirs.low)
            assert np.array_equal(mine.high, theirs.high)
            assert mine.dtype == theirs.dtype


def test_equal_bounds_are_written_once() -> None:
    written = make_episodes("frames").spec.to_mapping()["observation_space"]
    assert (written["low"], written["high"], written["shape"]) == (0, 255, [4, 5])
    assert make_episodes("box").spec.to_mapping()["action_space"]["high"] == [1.0, 4.0]


def test_floats_are_single_precision_and_discrete_actions_int64() -> None:
    spec = DataSpec(spaces.Box(-1e300, 0.1, (2,), np.float64), spaces.Discrete(3, dtype=np.int32))
    assert spec.observation_space == spaces.Box(-np.inf, np.float32(0.1), (2,), np.float32)
    assert spec.action_space == spaces.Discrete(3)


@pytest.mark.parametrize(("shape", "expected"), [((3,), (4, 3)), ((5, 6), (4, 5, 6)), ((2, 5, 6), (8, 5, 6))])
def test_encoder_space_stacks_frames(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    low = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    spec = DataSpec(spaces.Box(low, low + 1), spaces.Discrete(2), frame_stack=4)
    stacked = spec.encoder_space()
    assert stacked.shape == expected
    assert np.array_equal(stacked.low.reshape(4, *shape), np.stack([low] * 4))
    assert np.array_equal(stacked.high, stacked.low + 1)
    assert replace(spec, frame_stack=1).encoder_space() == spec.observation_space


SEEN = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((spaces.Dict({"a": SEEN}), spaces.Discrete(2)), "flatten"),
        ((SEEN, spaces.MultiBinary(2)), "expected Discrete, or MultiDiscrete or a Box of floats in one dimension"),
        ((SEEN, spaces.MultiDiscrete([[2, 2]])), "in one dimension"),
        ((SEEN, spaces.Box(-1, 1, (2, 2))), "in one dimension"),
        ((SEEN, spaces.Box(0, 9, (2,), np.int64)), "of floats"),
        ((SEEN, spaces.Discrete(3), 0), "frame_stack 0"),
        ((SEEN, spaces.Discrete(3), 1, 0), "max_steps 0"),
    ],
)
def test_spec_refuses_what_no_algorithm_can_use(arguments: tuple, words: str) -> None:
    with pytest.raises(DataError, match=words):
        DataSpec(*arguments)


def test_clipped_rewards_are_signs_and_their_sums_are_kept() -> None:
    episodes = make_episodes("box", (4, 3))
    rewards = torch.tensor([-2.5, 0.0, 7.0, 0.25, 1.0, -1.0, 0.0])
    clipped = replace(episodes, rewards=rewards).clipped()
    assert clipped.rewards.tolist() == [-1, 0, 1, 1, 1, -1, 0]
    assert clipped.info["unclipped_return"].tolist() == [4.75, 0.0]
    assert clipped.clipped().info["unclipped_return"].tolist() == [4.75, 0.0]
    assert clipped.select(torch.tensor([1])).info["unclipped_return"].tolist() == [0.0]


def test_shows_itself_in_one_line(small_episodes: Callable[..., Episodes]) -> None:
    text = repr(small_episodes("box", (3, 2)))
    assert "\n" not in text
    assert "2 episodes, 5 steps" in text
    returns = small_episodes("box", (3, 2)).returns()
    assert f"returns {returns.min():.6g} to {returns.max():.6g}" in text
