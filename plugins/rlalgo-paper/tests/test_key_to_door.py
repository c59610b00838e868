"""Key-to-Door: vectorized data, environment and exact numbers against each other and against a game by hand."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import by_hand
import gymnasium
import numpy as np
import pytest
import rlutils
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import assume, given
from hypothesis import strategies as st
from rlalgo import Episodes
from rlalgo.errors import ConfigError
from rlutils.config.catalogue import read_settings
from rlutils.envs.gym import GymEnv
from scipy.stats import binom

from rlalgo_paper import LAYOUTS, KeyToDoor, KeyToDoorSource, Rooms, Rules

KINDS = ("onehot", "position", "crop", "pixels")
SMALL = ("*t* .#s", "s.", "#t s.")


def load(**options: Any) -> Episodes:
    return KeyToDoorSource(KeyToDoorSource.Config(**options)).load()


@pytest.mark.parametrize(
    "options",
    [
        *({"observation": kind, "show_key": show} for kind in KINDS for show in (False, True)),
        {"layout": "open"},
        {"layout": "tvt", "observation": "crop"},
        {"layout": "open", "layout_seed": 3},
        {"rooms": SMALL, "moves": (4, 2, 3), "observation": "position"},
    ],
    ids=str,
)
def test_the_data_is_what_the_environment_gives_for_the_same_moves(options: dict[str, Any]) -> None:
    episodes = load(episodes=60, **options).check("test")
    (env,) = GymEnv(GymEnv.Config()).make(episodes.spec, 1)
    for number in range(len(episodes)):
        one = episodes.select(torch.tensor([number]))
        observation, _ = env.reset(seed=int(one.info["seed"]))
        seen, rewards, over = [observation], [], False
        for action in one.actions.tolist():
            assert not over, "the episode goes on until it is over"
            observation, reward, over, _, info = env.step(action)
            seen.append(observation)
            rewards.append(reward)
        assert over
        assert torch.equal(torch.from_numpy(np.stack(seen)), one.observations)
        assert rewards == one.rewards.tolist()
        assert (info["success"], info["key_step"]) == (bool(one.info["success"]), int(one.info["key_step"]))
    assert episodes.terminations.sum() == len(episodes), "the game is over, nothing is cut"
    assert episodes.has_final.all()


@st.composite
def drawings(draw: st.DrawFn, playable: bool = True) -> str:
    """Up to 3x3 cells; playable ones have a start and another place for key or door, if perhaps no way between them."""
    wide, high = draw(st.integers(1 + playable, 3)), draw(st.integers(1, 3))
    signs = draw(st.lists(st.sampled_from("...#st*"), min_size=wide * high, max_size=wide * high))
    if playable:
        start, target = draw(st.permutations(range(wide * high)))[:2]
        signs[start], signs[target] = "s", "t"
    return " ".join("".join(signs[first : first + wide]) for first in range(0, wide * high, wide))


@given(
    rooms=st.tuples(drawings(), drawings(), drawings()),
    moves=st.tuples(*[st.integers(3, 6)] * 3),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_the_game_is_the_one_played_by_hand(
    rooms: tuple[str, str, str], moves: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    try:
        env = KeyToDoor(rooms=rooms, moves=moves, observation="position", show_key=True)
    except ConfigError:
        assume(False)
    high, wide = (max(sizes) for sizes in zip(*((len(r.split()), len(r.split()[0])) for r in rooms), strict=True))

    def seen(observation: np.ndarray) -> tuple[int, Any, Any, bool]:
        y, x, ty, tx = (observation[:4] * (max(high, wide, 2) - 1)).round().astype(int).tolist()
        return int(observation[5:8].argmax()), (y, x), (ty, tx) if observation[4] else None, bool(observation[8])

    observation, _ = env.reset(seed=seed)
    places = env.state.places[0].tolist()
    begin = [tuple(divmod(cell, wide) if cell >= 0 else None for cell in pair) for pair in places]
    for room, (start, target) in enumerate(begin):
        assert start in by_hand.cells(rooms[room], "s*")
        assert (target is None) if room == 1 else (start, target) in by_hand.places(rooms[room])
    actions = data.draw(st.lists(st.integers(0, 3), min_size=sum(moves), max_size=sum(moves)))
    trace, rewards = [seen(observation)], []
    for action in actions:
        observation, reward, over, truncated, info = env.step(action)
        trace.append(seen(observation))
        rewards.append(reward)
        assert not truncated
        if over:
            break
    assert (trace, rewards) == by_hand.play(rooms, moves, begin, actions)
    assert info["key_step"] == next((t for t, (*_, has_key) in enumerate(trace) if has_key), 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_about_three_percent_of_random_episodes_succeed_and_all_of_the_best(layout: Any) -> None:
    rooms = Rooms(Rules(layout=layout))
    assert 0.025 <= rooms.random_success <= 0.035
    assert rooms.best_success == 1
    episodes = load(layout=layout, observation="position")
    low, high = binom.interval(0.999, 10_000, rooms.random_success)
    assert low <= int(episodes.info["success"].sum()) <= high
    assert episodes.returns().tolist() == episodes.info["success"].double().tolist()
    assert episodes.spec.ref_scores == (rooms.random_success, 1.0)


def test_the_exact_chance_is_that_of_all_sequences_of_moves() -> None:
    rooms, moves = LAYOUTS["g1"]
    key, door = by_hand.chance(rooms[0], moves[0]), by_hand.chance(rooms[2], moves[2])
    assert (key, door) == (Fraction(31, 128), Fraction(525, 4096))
    assert Rooms(Rules()).random_success == pytest.approx(float(key * door), abs=1e-15)


@given(key=drawings(False), door=drawings(), moves=st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 3)))
def test_rules_are_refused_where_something_is_out_of_reach_and_exact_elsewhere(
    key: str, door: str, moves: tuple[int, int, int]
) -> None:
    chances, solvable = [], True
    for room, most in ((key, moves[0]), (door, moves[2])):
        places, ways = by_hand.places(room), list(product(range(4), repeat=most))
        solvable &= bool(places) and all(any(by_hand.reaches(room, *place, way) for way in ways) for place in places)
        chances.append(by_hand.chance(room, most) if places else 0)
    if not solvable:
        with pytest.raises(ValueError, match=r"draw the(m| room)"):
            Rules(rooms=(key, "s", door), moves=moves)
        return
    rooms = Rooms(Rules(rooms=(key, "s", door), moves=moves))
    assert rooms.random_success == pytest.approx(float(chances[0] * chances[1]), abs=1e-12)
    assert rooms.best_success == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whoever_sees_everything_can_always_succeed(layout: str) -> None:
    env = KeyToDoor(layout=layout)
    rooms = env.game.rooms
    for seed in range(30):
        env.reset(seed=seed)
        over = False
        while not over:
            room, cell = rooms.room(env.state.t), int(env.state.cells[0])
            way = np.full(rooms.free.shape[1], 10**6)  # steps from each cell to the key or door
            way[env.state.places[0, room, 1]] = 0
            for _ in range(len(way)):
                way = np.minimum(way, way[rooms.next[room]].min(1) + 1)
            *_, over, _, info = env.step(int(way[rooms.next[room, cell]].argmin()))
        assert info["success"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_who_is_told_sees_that_one_has_the_key(kind: Any) -> None:
    for show in (False, True):
        env = KeyToDoor(layout="open", observation=kind, show_key=show)
        for seed in range(5):
            env.reset(seed=seed)
            for t in range(env.game.length):
                env.step(env.np_random.integers(4))
                if t + 1 >= env.game.rooms.ends[0]:
                    both = [env.game.observe(replace(env.state, key_step=np.array([has]))) for has in (0, 1)]
                    assert np.array_equal(*both) != show


def test_the_key_is_seen_until_it_is_taken() -> None:
    env = KeyToDoor(rooms=("s.t", "s", "st"), moves=(3, 1, 1))
    key = 3 + 2  # after the plane of oneself
    seen = [env.reset(seed=0)[0], *(env.step(3)[0] for _ in range(2))]
    assert [observation[key] for observation in seen] == [1, 1, 0]
    assert [observation[:3].argmax() for observation in seen] == [0, 1, 2]


def test_a_crop_shows_walls_and_things_around_oneself() -> None:
    env = KeyToDoor(rooms=("s.t", "s", "#t .s"), moves=(2, 1, 1), observation="crop")
    seen = [env.reset(seed=0)[0], *(env.step(3)[0] for _ in range(3))]
    for t, floor, thing in ((0, [(2, 2), (2, 3), (2, 4)], (2, 4)), (3, [(1, 2), (2, 1), (2, 2)], (1, 2))):
        walls, things = seen[t][:50].reshape(2, 5, 5)
        assert list(map(tuple, np.argwhere(walls == 0))) == floor
        assert list(map(tuple, np.argwhere(things))) == [thing]


def test_the_seeds_say_everything() -> None:
    def same(a: Episodes, b: Episodes) -> bool:
        return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("observations", "actions", "rewards"))

    assert same(load(layout="open", episodes=50), load(layout="open", episodes=50))
    assert not same(load(layout="open", episodes=50), load(layout="open", episodes=50, seed=1))
    fixed = [load(layout="open", episodes=50, layout_seed=4, seed=seed) for seed in (0, 1)]
    firsts = torch.cat([episodes.observations[episodes.first_rows()] for episodes in fixed])
    assert len(firsts.unique(dim=0)) == 1, "all begin alike"
    assert not same(*fixed)
    others = {load(layout="open", episodes=1, layout_seed=seed).observations[0].numpy().tobytes() for seed in range(9)}
    assert len(others) > 1
    assert (load(episodes=50).info["seed"] > 2**32 + 10**6).all(), "no evaluation begins as the data does"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gymnasiums_checker_has_nothing_to_say(layout: str, kind: str) -> None:
    env = gymnasium.make("KeyToDoor-v0", render_mode="rgb_array", layout=layout, observation=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.reset(seed=0)
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
    assert not any(side % 2 for side in frame.shape[:2]), "films want even sides"
    env.step(0)


def test_ten_thousand_episodes_take_seconds() -> None:
    before = time.process_time()
    assert len(load()) == 10_000
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "g2"}, r"source.layout: should be 'g1', 'open' or 'tvt', got 'g2'. Did you mean 'g1'"),
        ({"observation": "image"}, r"source.observation: should be 'onehot', 'position', 'crop' or 'pixels'"),
        ({"moves": [3, 4]}, r"source.moves"),
        ({"moves": [3, 0, 6]}, r"source.moves\[1\]: should be greater than or equal to 1, got 0"),
        (
            {"moves": [1, 4, 6]},
            r"source: moves: 1 in the key room do not lead from every start to every key; give more",
        ),
        ({"moves": [3, 4, 1]}, r"source: moves: 1 in the door room do not lead"),
        ({"rooms": ["st", "s", "sx"]}, r"source.rooms\[2\]: should match pattern .*got 'sx'"),
        ({"rooms": ["st", "s", "st #"]}, r"source: rooms\[2\]: its rows have 2, 1 cells; draw them equally long"),
        (
            {"rooms": ["s.", "s", "st"]},
            r"source: rooms\[0\]: the key room needs a start \(s\) and another cell for key",
        ),
        ({"rooms": ["st", ".", "st"]}, r"source: rooms\[1\]: the empty room needs a start \(s\); draw them"),
        ({"rooms": ["s#t", "s", "st"]}, r"source: moves: 3 in the key room do not lead"),
        ({"episodes": 0}, r"source.episodes: should be greater than or equal to 1"),
        ({"layout_sed": 0}, r"source.layout_sed: unknown key 'layout_sed'. Did you mean 'layout_seed'"),
    ],
)
def test_wrong_options_are_told_with_what_to_do(options: dict[str, Any], message: str) -> None:
    settings = {"plugins": ["rlalgo_paper"], "source": {"name": "key_to_door", **options}, "algo": "bc"}
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(settings)
    assert len(caught.value.faults) == 1


def test_the_environment_refuses_them_too() -> None:
    with pytest.raises(ConfigError, match=r"KeyToDoor-v0: 1 fault.*\s+layout: should be 'g1', 'open' or 'tvt'"):
        gymnasium.make("KeyToDoor-v0", layout="g2")
    spec = load(episodes=1).spec
    with pytest.raises(ConfigError, match=r"observation: should be"):
        GymEnv(GymEnv.Config(kwargs={"observation": "all"})).make(spec, 1)


def test_the_catalogue_has_both_sources() -> None:
    known = rlutils.catalogue(plugins=("rlalgo_paper",))
    assert known.get("source", "key_to_door").cls is KeyToDoorSource
    assert known.get("source", "shortest_path").owner.plugin == "rlalgo_paper"
