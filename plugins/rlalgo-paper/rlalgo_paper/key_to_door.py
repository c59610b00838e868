"""Key-to-Door (Mesnard et al. 2020, after Hung et al. 2019): find a key, cross an empty room, open a door.

A reward of 1 comes at the door alone, and only if the key was picked up in the first room. Each room is left after so
many moves, whatever happened in it; the game is over with the last move, or once the door is open. The geometry is
ours: the Decision Transformer's authors did not publish theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pydantic import Field
from rlalgo import DataSpec, Episodes
from rlalgo.config import Seed, parse
from rlalgo.registry import Catalogue, to_mapping

from rlalgo_paper.lockstep import recorded, seeds_and_draws
from rlalgo_paper.rooms import DOOR, KEY, Rooms, Rules

_COLORS = np.array(
    [
        *([70, 70, 70], [236, 226, 200], [222, 222, 222], [200, 222, 236]),
        *([230, 170, 0], [150, 75, 20], [40, 90, 200], [200, 40, 120]),
    ],
    np.uint8,
)
"""(8, 3) of wall, floor of each room, key, door, oneself without and with the key."""
_FLOOR, _THING, _SELF = 1, 4, 6
_REACH = 2
"""Cells that a crop shows on each side."""


@dataclass(frozen=True)
class State:
    """n games after t moves."""

    t: int
    places: np.ndarray
    """(n, 3, 2) cells of start and key or door in each room."""
    cells: np.ndarray
    """(n,) where one is."""
    key_step: np.ndarray
    """(n,) moves after which the key was picked up; 0: it was not."""

    @property
    def has_key(self) -> np.ndarray:
        """(n,) bool."""
        return self.key_step > 0


class Game:
    """n games side by side: what the environment plays one of, and the source all of its data."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.rooms = rules, Rooms(rules)
        self.length = int(self.rooms.ends[-1])
        """Moves of a whole game."""
        height, width = self.rooms.shape
        cells = height * width
        self._onehot = np.eye(cells + 1, cells, dtype=np.float32)
        """(C+1, C) zeros for cell -1, which is nowhere."""
        row, column = np.divmod(np.arange(cells), width)
        scale = max(height, width, 2) - 1
        self._coordinates = np.append(np.stack([row / scale, column / scale, row >= 0], 1), [[0, 0, 0]], 0)  # (C+1, 3)
        rows, columns = (x[:, None] + np.arange(-_REACH, _REACH + 1) for x in (row, column))  # (C, 5) each
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        around = np.where(inside, rows[:, :, None] * width + columns[:, None], cells)
        self._around = around.reshape(cells, -1)  # (C, 25) cell C is outside
        self._walls = np.pad(~self.rooms.free, ((0, 0), (0, 1)), constant_values=True)  # (3, C+1)
        seen = self.observe(self.begin(np.zeros((1, 3))))[0]
        pixels = seen.dtype == np.uint8
        self.space = spaces.Box(0, 255, seen.shape, np.uint8) if pixels else spaces.Box(0, 1, seen.shape)
        """Of one observation."""

    def begin(self, draws: np.ndarray) -> State:
        """Numbers (n, 3) in [0, 1) -> n games before their first move."""
        places = self.rooms.draw(draws)
        return State(0, places, places[:, KEY, 0], np.zeros(len(draws), int))

    def step(self, state: State, actions: np.ndarray) -> tuple[State, np.ndarray]:
        """After one more move (n,) each, and (n,) bool whether the door was opened by it."""
        room, then = self.rooms.room(state.t), self.rooms.room(state.t + 1)
        cells = self.rooms.next[room, state.cells, actions]
        there = cells == state.places[:, room, 1]
        opened = there & state.has_key & (room == DOOR)
        found = there & ~state.has_key & (room == KEY)
        if then != room:
            cells = state.places[:, then, 0]
        return State(state.t + 1, state.places, cells, np.where(found, state.t + 1, state.key_step)), opened

    def observe(self, state: State) -> np.ndarray:
        """(n, *S) what is seen; the key no more once it is taken."""
        room, (shown, kind) = self.rooms.room(state.t), (self._shown(state), self.rules.observation)
        if kind == "pixels":
            codes = self.paint(state, self.rules.show_key)
            return (36 * codes).repeat(8, 1).repeat(8, 2)
        if kind == "onehot":
            parts = [self._onehot[state.cells], self._onehot[shown]]
        elif kind == "position":
            parts = [self._coordinates[state.cells, :2], self._coordinates[shown]]
        else:
            window = self._around[state.cells]  # (n, 25)
            parts = [self._walls[room, window], window == shown[:, None]]
        parts.append(np.eye(3)[[room] * len(shown)])
        if self.rules.show_key:
            parts.append(state.has_key[:, None])
        return np.concatenate(parts, 1, dtype=np.float32)

    def paint(self, state: State, show_key: bool) -> np.ndarray:
        """(n, H+2, W+2) uint8: what is in each cell, as a row of `_COLORS`."""
        room, shown, games = self.rooms.room(state.t), self._shown(state), np.arange(len(state.cells))
        codes = np.tile(np.where(self.rooms.free[room], _FLOOR + room, 0).astype(np.uint8), (len(games), 1))  # (n, C)
        codes[games[shown >= 0], shown[shown >= 0]] = _THING + (room == DOOR)
        codes[games, state.cells] = _SELF + (state.has_key & show_key)
        return np.pad(codes.reshape(-1, *self.rooms.shape), ((0, 0), (1, 1), (1, 1)))

    def _shown(self, state: State) -> np.ndarray:
        """(n,) the cell of the key or door that is in the room, -1 for none."""
        room = self.rooms.room(state.t)
        return np.where(state.has_key & (room == KEY), -1, state.places[:, room, 1])


class KeyToDoor(gymnasium.Env):
    """One game, `KeyToDoor-v0`; its arguments are the fields of `Rules`.

    The info says `success` (the door was opened by this move) and `key_step` (`State`).

    Raises:
        ConfigError: there is no such option, or a room cannot be played in.
    """

    id: ClassVar[str] = "KeyToDoor-v0"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (as Gymnasium's)

    def __init__(self, render_mode: str | None = None, **rules: Any) -> None:
        self.game = Game(parse(Rules, rules, Catalogue(), self.id))
        self.render_mode = render_mode
        self.observation_space, self.action_space = self.game.space, spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game, by the seed."""
        super().reset(seed=seed)
        self.state = self.game.begin(self.np_random.random((1, 3)))
        return self.game.observe(self.state)[0], {"success": False, "key_step": 0}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One move; into a wall, one stays."""
        self.state, opened = self.game.step(self.state, np.array([action]))
        success, over = bool(opened[0]), self.state.t >= self.game.length
        info = {"success": success, "key_step": int(self.state.key_step[0])}
        return self.game.observe(self.state)[0], float(success), success or over, False, info

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8 the room, and whether one has the key."""
        picture = _COLORS[self.game.paint(self.state, True)[0]]
        return picture.repeat(24, 0).repeat(24, 1)


class KeyToDoorSource:
    """Episodes of uniformly random moves in `KeyToDoor-v0`, which evaluations then play by the same rules."""

    name: ClassVar[str] = "key_to_door"

    @dataclass(frozen=True, kw_only=True)
    class Config(Rules):
        episodes: Annotated[int, Field(ge=1, le=10**6)] = 10_000
        """How many to play."""
        seed: Seed = 0
        """Of their beginnings and moves."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.game = Game(config)

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"{self.name}:{self.config.layout if self.config.rooms is None else 'own rooms'}"

    def load(self) -> Episodes:
        """All episodes; `info` has the seed that gives each its beginning, `key_step` and `success`."""
        n, game, rng = self.config.episodes, self.game, np.random.default_rng(self.config.seed)
        seeds, draws = seeds_and_draws(rng, n, 3)
        actions = rng.integers(4, size=(game.length, n))
        states, opened = [game.begin(draws)], np.zeros((game.length, n), bool)
        for t in range(game.length):
            state, opened[t] = game.step(states[-1], actions[t])
            states.append(state)
        ended = opened.copy()
        ended[-1] = True
        info = {"seed": seeds, "success": opened.any(0), "key_step": states[-1].key_step}
        return recorded(self.label, self._spec(), lambda t: game.observe(states[t]), actions, opened, ended, info)

    def _spec(self) -> DataSpec:
        rules = {rule.name: getattr(self.config, rule.name) for rule in fields(Rules)}
        chance = self.game.rooms.random_success
        return DataSpec(
            self.game.space,
            spaces.Discrete(4),
            max_steps=self.game.length,
            env_id=KeyToDoor.id,
            ref_scores=(chance, 1.0) if chance < 1 else None,
            preprocess={"env_module": "rlalgo_paper", "env_kwargs": to_mapping(rules)},
        )
