"""The rooms of Key-to-Door: drawings, where one can go in them, and what chance and skill reach in them, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field
from rlalgo.config import Few, Seed

KEY, EMPTY, DOOR = range(3)
"""The rooms, in the order of play."""
ROOMS = ("key room", "empty room", "door room")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Actions: up, down, left, right."""

Drawing = Annotated[str, Field(pattern=r"^[#.st*]{1,20}( [#.st*]{1,20}){0,19}$")]


class Layout(NamedTuple):
    """Three rooms and the moves that are played in each."""

    rooms: tuple[str, str, str]
    moves: tuple[int, int, int]


_DOOR_ABOVE = "#t# ... .s. ..."
_FIVE = "ttttt ttttt ttstt ttttt ttttt"
LAYOUTS = {
    "g1": Layout(("ttt tst ttt", "... .s. ...", _DOOR_ABOVE), (3, 4, 6)),
    "open": Layout((_FIVE, _FIVE.replace("t", "."), _FIVE), (6, 4, 7)),
    "tvt": Layout(("ttttt ttttt #...# sssss sssss", 4 * "......... " + "....s....", _DOOR_ABOVE), (15, 30, 15)),
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Options of the game, the same for data and play."""

    layout: Literal["g1", "open", "tvt"] = "g1"
    """Rooms and moves: 3x3 with the door in a wall; 5x5, key and door anywhere; those of Hung et al. 2019."""
    rooms: tuple[Drawing, Drawing, Drawing] | None = None
    """Rooms of your own: rows of # (wall), . (floor), s (start), t (key or door) and * (both), with spaces between."""
    moves: tuple[Few, Few, Few] | None = None
    """Moves in each room; null: the layout's."""
    observation: Literal["onehot", "position", "crop", "pixels"] = "onehot"
    """The room's cells, coordinates, the 5x5 cells around oneself, or a picture of bytes."""
    show_key: bool = False
    """Whether an observation says that one holds the key. Else it has to be remembered, which is the point."""
    layout_seed: Seed | None = None
    """Draw start, key and door once, by this seed, for all episodes; null: anew for each, by the episode's seed."""

    def __post_init__(self) -> None:
        Rooms(self)


class Rooms:
    """What the rules come to: C cells, numbered row by row, on a grid (H, W) that holds each of the three rooms.

    Raises:
        ValueError: a room cannot be played in.
    """

    def __init__(self, rules: Rules) -> None:
        layout = LAYOUTS[rules.layout]
        drawn = [drawing.split() for drawing in rules.rooms or layout.rooms]
        self.moves = rules.moves or layout.moves
        self.ends = np.cumsum(self.moves)
        """(3,) moves after which each room is left."""
        self.shape = max(len(rows) for rows in drawn), max(len(rows[0]) for rows in drawn)
        """(H, W)."""
        signs = np.array([_padded(room, rows, *self.shape) for room, rows in enumerate(drawn)])  # (3, C)
        self.free = signs != "#"
        """(3, C) bool: no wall."""
        height, width = self.shape
        cells = np.arange(height * width)
        row, column = np.divmod(cells, width)
        beside = [(row + y).clip(0, height - 1) * width + (column + x).clip(0, width - 1) for y, x in MOVES]
        there = np.stack(beside, -1)  # (C, 4)
        self.next = np.where(self.free[:, there], there, cells[:, None])
        """(3, C, 4) the cell that an action leads to: one stays where a wall is."""
        self.places = [self._places(room, signs[room]) for room in range(3)]
        """Of each room (P, 2): every start with every place of key or door, drawn alike; -1 in the empty room."""
        if rules.layout_seed is not None:
            drawn_once = self.draw(np.random.default_rng(rules.layout_seed).random((1, 3)))
            self.places = [drawn_once[:, room] for room in range(3)]
        for room, what in ((KEY, "key"), (DOOR, "door")):
            if self.reached(room, np.max).min() < 1:
                raise ValueError(
                    f"moves: {self.moves[room]} in the {ROOMS[room]} do not lead from every start to every {what}; "
                    "give more moves, or draw the room otherwise"
                )

    def draw(self, draws: np.ndarray) -> np.ndarray:
        """Numbers (n, 3) in [0, 1) -> (n, 3, 2) start and target of n games in each room."""
        chosen = [places[(draws[:, room] * len(places)).astype(int)] for room, places in enumerate(self.places)]
        return np.stack(chosen, 1)

    def room(self, t: int) -> int:
        """The room that one is in after t moves."""
        return min(int(np.searchsorted(self.ends, t, "right")), DOOR)

    def reached(self, room: int, over: Callable[..., Any]) -> np.ndarray:
        """(P,) the probability of reaching each place from its start within the room's moves.

        Args:
            room: the key room or the door room.
            over: `np.mean` for uniformly random moves, `np.max` for the best ones.
        """
        chance = np.eye(self.free.shape[1])  # (C, C) of reaching a cell (column) from another (row)
        for _ in range(self.moves[room]):
            chance = over(chance[self.next[room]], axis=1)
            np.fill_diagonal(chance, 1)
        start, target = self.places[room].T
        return chance[start, target]

    def success(self, over: Callable[..., Any]) -> float:
        """The exact share of episodes that succeed; `over` as in `reached`."""
        return float(self.reached(KEY, over).mean() * self.reached(DOOR, over).mean())

    @property
    def random_success(self) -> float:
        """Of a policy that moves at random."""
        return self.success(np.mean)

    @property
    def best_success(self) -> float:
        """Of the best policy that sees everything: 1, or the rules would have been refused."""
        return self.success(np.max)

    def _places(self, room: int, signs: np.ndarray) -> np.ndarray:
        starts, targets = (np.flatnonzero(np.isin(signs, [sign, "*"])) for sign in "st")
        pairs = [(s, t) for s in starts for t in (targets if room != EMPTY else [-1]) if s != t]
        if not pairs:
            needed = "a start (s)" if room == EMPTY else "a start (s) and another cell for key or door (t)"
            raise ValueError(f"rooms[{room}]: the {ROOMS[room]} needs {needed}; draw them, or * for both")
        return np.array(pairs)


def _padded(room: int, rows: Sequence[str], height: int, width: int) -> list[str]:
    """The signs of a drawing as (C,), with walls around."""
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise ValueError(f"rooms[{room}]: its rows have {lengths} cells; draw them equally long")
    return list("".join(row.ljust(width, "#") for row in [*rows, *[""] * (height - len(rows))]))
