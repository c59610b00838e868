"""rollout: what the policy is told, what is recorded, and that neither depends on how many rows play."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlalgo import Episodes, Policy, rollout
from rlalgo.core.rollout import distinct, episode, traces
from rlalgo.errors import EnvironmentFault
from tests.rlalgo.toy_data import as_lists
from tests.rlalgo.toy_envs import Blink, Chain, Drift

MAKERS: list[Callable[[], gymnasium.Env]] = [Chain, Drift, Blink]


@dataclass(frozen=True)
class Options:
    pull: float = 1.0
    target: float | None = None
    fast: bool = False
    label: str = "x"


class Deterministic(Policy):
    """A hash of everything it was told in this episode, so that a wrong step anywhere changes what follows.

    In whole numbers, which no batch size rounds otherwise. Answers from one buffer that it uses again and
    again, as a fast policy might.
    """

    def __init__(self, space: Any, options: Sequence[Any]) -> None:
        self.space, self.options = space, options
        self.memory = torch.zeros(len(options), dtype=torch.int64)
        dtype = torch.int64 if space.shape == () else torch.float32
        self.buffer = torch.zeros((len(options), *space.shape), dtype=dtype)
        self.log: list[tuple] = []

    def reset(self, rows: Tensor) -> None:
        self.log.append(("begin", rows.tolist()))
        self.memory[rows] = torch.tensor([int(self.options[row].pull * 100) for row in rows.tolist()])

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        self.log.append(("act", rows.tolist(), observations.clone()))
        seen = (observations.flatten(1).double() * 1000).round().long()  # (m, size)
        self.learn(rows, (seen * torch.arange(1, seen.shape[1] + 1)).sum(1))
        if self.space.shape == ():
            self.buffer[rows] = self.memory[rows] // 7 % int(self.space.n)
        else:
            mixed = self.memory[rows].unsqueeze(1) * torch.tensor([1, 5])  # (m, 2)
            low, high = torch.tensor(self.space.low), torch.tensor(self.space.high)
            self.buffer[rows] = mixed % 65 / 64 * (high - low) + low
        return self.buffer if len(rows) == len(self.options) else self.buffer[rows]

    def observe(self, rewards: Tensor, rows: Tensor) -> None:
        self.log.append(("observe", rows.tolist(), rewards.clone()))
        self.learn(rows, (rewards.double() * 1000).round().long())

    def learn(self, rows: Tensor, facts: Tensor) -> None:
        self.memory[rows] = (self.memory[rows] * 31 + facts) % 1_000_003


def single(make: Callable[[], gymnasium.Env], option: Any, seed: int) -> dict[str, Any]:
    """One episode by the plainest loop there is."""
    env = make()
    policy = Deterministic(env.action_space, [option])
    row = torch.tensor([0])
    policy.reset(row)
    seen, _ = env.reset(seed=seed)
    dtype = np.uint8 if seen.dtype == np.uint8 else np.float32
    out: dict[str, Any] = {name: [] for name in ("actions", "rewards", "terminations", "truncations")}
    out["observations"] = [np.array(seen, dtype).tolist()]
    done = False
    while not done:
        action: Any = policy.act(torch.from_numpy(np.array(seen, dtype)[None]), row)[0].tolist()
        out["actions"].append(action)
        given = action if isinstance(action, int) else np.array(action, np.float32)
        seen, reward, terminated, truncated, _ = env.step(given)
        policy.observe(torch.tensor([reward], dtype=torch.float32), row)
        out["rewards"].append(float(np.float32(reward)))
        out["terminations"].append(terminated)
        out["truncations"].append(truncated)
        out["observations"].append(np.array(seen, dtype).tolist())
        done = terminated or truncated
    return out


def play(make: Callable[[], gymnasium.Env], options: Sequence[Any], episodes: int, seed: int = 5) -> Episodes:
    envs = [make() for _ in options]
    return rollout(Deterministic(envs[0].action_space, options), envs, episodes, seed)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 9])
def test_batched_episodes_equal_single_ones(make: Callable[[], gymnasium.Env], rows: int) -> None:
    """Whatever the number of rows: the same starts, the same actions, the same order."""
    played = play(make, [Options()] * rows, 7)
    wanted = [single(make, Options(), 5 + number) for number in range(7)]
    for got, expected in zip(as_lists(played), wanted, strict=True):
        assert {name: got[name] for name in expected} == expected
    assert played.info["seed"].tolist() == [5, 6, 7, 8, 9, 10, 11]
    played.check("played")
    if make is not Blink:
        assert len(set(played.lengths().tolist())) > 1  # or it would not prove much


@pytest.mark.parametrize("make", MAKERS)
def test_options_play_the_same_starts_each_with_its_own_quota(make: Callable[[], gymnasium.Env]) -> None:
    a, b = Options(pull=1.0), Options(pull=2.0)
    played = play(make, [a, b, a, b, a], 4)
    assert played.info["option"].tolist() == [0] * 4 + [1] * 4
    assert played.info["seed"].tolist() == [5, 6, 7, 8] * 2
    assert played.info["pull"].tolist() == [1.0] * 4 + [2.0] * 4
    wanted = [single(make, option, 5 + number) for option in (a, b) for number in range(4)]
    for got, expected in zip(as_lists(played), wanted, strict=True):
        assert {name: got[name] for name in expected} == expected


@pytest.mark.parametrize("make", MAKERS)
def test_the_policy_is_told_the_very_observations_and_rewards(make: Callable[[], gymnasium.Env]) -> None:
    class Witness(gymnasium.Wrapper):
        """Writes down copies of what the environment says."""

        def reset(self, **arguments: Any) -> Any:
            result = super().reset(**arguments)
            self.said = [np.array(result[0])]
            self.paid: list[float] = []
            return result

        def step(self, action: Any) -> Any:
            result = super().step(action)
            self.said.append(np.array(result[0]))
            self.paid.append(float(result[1]))
            return result

    envs = [Witness(make()) for _ in range(3)]
    policy = Deterministic(envs[0].action_space, [Options(pull=float(i)) for i in range(3)])
    rollout(policy, envs, 1, seed=11)
    told: list[list[Any]] = [[], [], []]
    paid: list[list[float]] = [[], [], []]
    for what, rows, *rest in policy.log:
        for i, row in enumerate(rows):
            if what == "act":
                told[row].append(rest[0][i].numpy())
            elif what == "observe":
                paid[row].append(rest[0][i].item())
    for row, env in enumerate(envs):
        assert np.array_equal(told[row], env.said[:-1])  # never the one after the end
        assert {seen.dtype for seen in told[row]} == {env.said[0].dtype}
        assert paid[row] == [float(np.float32(reward)) for reward in env.paid]


def test_finished_rows_leave_the_batch_and_begin_is_called_for_each_episode() -> None:
    options = [Options(pull=float(i)) for i in range(3)]
    envs = [Chain() for _ in range(3)]
    policy = Deterministic(envs[0].action_space, options)
    played = rollout(policy, envs, 2, seed=0)
    lengths = played.lengths().view(3, 2)
    begun = [row for what, rows, *_ in policy.log if what == "begin" for row in rows]
    assert sorted(begun) == [0, 0, 1, 1, 2, 2]
    acted = [rows for what, rows, *_ in policy.log if what == "act"]
    for i in range(3):
        assert sum(i in rows for rows in acted) == int(lengths[i].sum())
    assert len(acted) == int(lengths.sum(1).max())  # one batched call per step, no call for finished rows
    assert len(acted[-1]) < 3


def test_more_rows_than_episodes_leaves_rows_idle() -> None:
    policy = Deterministic(Chain().action_space, [Options()] * 5)
    played = rollout(policy, [Chain() for _ in range(5)], 2, seed=0)
    assert len(played) == 2
    assert {row for _, rows, *_ in policy.log for row in rows} == {0, 1}


def test_short_episodes_are_not_counted_more_often() -> None:
    """Each row plays its quota: a bias towards short episodes would show in which numbers were played."""
    played = play(Chain, [Options()] * 3, 30)
    assert played.info["seed"].tolist() == list(range(5, 35))


def test_numbers_among_the_options_are_recorded() -> None:
    given = [Options(target=3.0, fast=True), Options(target=4.0)]
    info = play(Chain, given, 1).info
    assert set(info) == {"option", "seed", "pull", "target", "fast"}
    assert info["target"].tolist() == [3.0, 4.0]
    assert info["fast"].tolist() == [1.0, 0.0]
    assert "target" not in play(Chain, [Options(target=3.0), Options()], 1).info  # one of them has none
    assert set(play(Chain, [Options()], 1).info) == {"option", "seed", "pull", "fast"}


def test_options_need_not_be_dataclasses() -> None:
    class Plain:
        pull = 0.0

    plain = Plain()
    assert set(play(Chain, [plain, plain], 1).info) == {"option", "seed"}


@pytest.mark.parametrize("make", MAKERS)
def test_without_observations_it_is_the_same_play_in_no_memory(make: Callable[[], gymnasium.Env]) -> None:
    options = [Options(), Options(pull=2.0)]
    kept, bare = (
        rollout(Deterministic(make().action_space, options), [make() for _ in options], 3, 5, keep_observations=keep)
        for keep in (True, False)
    )
    for name in ("actions", "rewards", "terminations", "truncations", "starts"):
        assert torch.equal(getattr(kept, name), getattr(bare, name))
    assert (bare.observations.shape, bare.observations.dtype) == (kept.observations.shape, kept.observations.dtype)
    assert not bare.observations.any()
    assert bare.observations.untyped_storage().nbytes() == kept.observations[0].nbytes
    assert bare.check("bare") is bare


class Says(Chain):
    """Its episode number k ends with the k-th of the infos; all other steps claim success, in vain."""

    def __init__(self, infos: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.infos = infos

    def reset(self, **arguments: Any) -> tuple[Any, dict]:
        self.episode = arguments["seed"]
        return super().reset(**arguments)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        *answer, terminated, truncated, _ = super().step(action)
        over = terminated or truncated
        return *answer, terminated, truncated, self.infos[self.episode] if over else {"success": True, "x": 9}


NUMBERS = st.none() | st.booleans() | st.floats(width=32) | st.integers(-9, 9).map(np.int64)
INFOS = st.dictionaries(st.sampled_from(["success", "is_success", "x", "y", "other"]), NUMBERS)


@given(st.lists(INFOS, min_size=1, max_size=5), st.integers(1, 3))
def test_numbers_of_the_last_info_are_recorded(infos: list[dict[str, Any]], rows: int) -> None:
    envs = [Says(infos) for _ in range(rows)]
    policy = Deterministic(envs[0].action_space, [Options()] * rows)
    played = rollout(policy, envs, len(infos), 0, info=["x", "y", "z"])

    def expected(name: str, otherwise: float) -> list[float]:
        said = [info.get(name, info.get("is_success") if name == "success" else None) for info in infos]
        return [otherwise if value is None or not np.isfinite(value) else float(value) for value in said]

    columns = {"success": expected("success", math.nan), "x": expected("x", math.nan), "y": expected("y", math.nan)}
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    if "success" in columns:
        columns["success"] = expected("success", 0.0)
    assert set(played.info) == {"option", "seed", "pull", "fast", *columns}
    for name, values in columns.items():
        np.testing.assert_array_equal(played.info[name].numpy(), np.array(values, np.float32))


@pytest.mark.parametrize("value", ["yes", np.zeros(2), [1], {}, 1j])
@pytest.mark.parametrize("name", ["success", "is_success", "x"])
def test_what_is_no_number_there_is_refused(name: str, value: Any) -> None:
    env = Says([{name: value}])
    policy = Deterministic(env.action_space, [Options()])
    with pytest.raises(
        EnvironmentFault, match=r"episode of seed 0, step \d+: the info's (success|x) is .*; expected a"
    ):
        rollout(policy, [env], 1, 0, info=["x"])


def test_the_spec_is_the_environments() -> None:
    made = gymnasium.make("toy/Drift-v0", disable_env_checker=True)
    spec = rollout(Deterministic(made.action_space, [Options()]), [made], 1, 0).spec
    assert (spec.env_id, spec.max_steps) == ("toy/Drift-v0", 10)
    assert spec.observation_space.dtype == np.float32  # what is stored
    unnamed = play(Drift, [Options()], 4)
    assert unnamed.spec.env_id is None
    assert unnamed.spec.max_steps == int(unnamed.lengths().max())  # none is claimed that was not seen
    assert unnamed.observations.dtype == torch.float32


def test_numpy_seeds_will_do() -> None:
    assert play(Chain, [Options()], 2, seed=np.int64(5)).info["seed"].tolist() == [5, 6]  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "envs", "episodes"), [(2, 1, 1), (1, 2, 1), (0, 0, 1), (1, 1, 0)])
def test_what_cannot_be_played_is_refused(rows: int, envs: int, episodes: int) -> None:
    with pytest.raises(ValueError, match=r"rows for|episodes must be"):
        rollout(
            Deterministic(Chain().action_space, [Options()] * rows),
            [Chain() for _ in range(envs)],
            episodes,
            0,
        )


def test_traces_come_at_each_observation_and_hold_what_the_environment_gave() -> None:
    """Raw precision, copies of what the environment overwrites, seeds taken one by one; endless seeds may be left."""
    env = Drift()
    taken: list[int] = []

    def seeds() -> Iterator[int]:
        for seed in count(3):
            taken.append(seed)
            yield seed

    lengths, before = [], 0
    for trace in traces(Deterministic(env.action_space, [Options()]), [env], [seeds()]):
        lengths.append((trace.seed, len(trace.observations)))
        assert trace.over == bool(trace.terminated or trace.truncated)
        if trace.over:
            assert len(trace.observations) == len(trace.actions) + 1 == len(trace.rewards) + 1
            assert trace.ret == pytest.approx(sum(trace.rewards))
            assert trace.observations[0].dtype == np.float64
            assert any(action.any() for action in trace.actions)  # Drift sets those it is given to 0
            before += 1
            if before == 2:
                break
    assert taken == [3, 4]
    assert lengths[:2] == [(3, 1), (3, 2)]
    chain = episode(Deterministic(Chain().action_space, [Options()]), Chain(), 0)  # gives one array again and again
    assert len({tuple(o) for o in chain.observations}) == len(chain.observations)


def test_observations_that_are_no_arrays_come_as_a_list() -> None:
    class Tree(Chain):
        def _look(self) -> Any:
            return {"place": self.place, "both": (super()._look(), self.time)}

    class Right(Policy):
        def act(self, observations: Any, rows: Tensor) -> Tensor:
            assert isinstance(observations, list)
            self.seen = observations
            return torch.ones(len(rows), dtype=torch.int64)

    policy, tree = Right(), Tree()
    both = spaces.Tuple((spaces.Box(-9, 9, (2,)), spaces.Discrete(99)))
    tree.observation_space = spaces.Dict(place=spaces.Discrete(99), both=both)
    (trace,) = (t for t in traces(policy, [tree], [[1]]) if t.over)
    assert policy.seen == trace.observations[-2:-1]
    assert [o["both"][1] for o in trace.observations] == list(range(len(trace.rewards) + 1))
    assert trace.observations[0]["both"][0][1] == 0  # a copy: the environment overwrites it
    assert trace.terminated


def test_distinct_options() -> None:
    assert distinct([[1], [2], [1]]) == [[1], [2]]  # equal, though not hashable
    assert distinct([]) == []
