"""Key-to-Door once more, one game at a time and without arrays: what the tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

Cell = tuple[int, int]


def cells(drawing: str, signs: str) -> list[Cell]:
    """Row and column of the cells with one of these signs, in the order of reading."""
    rows = drawing.split()
    return [(y, x) for y, row in enumerate(rows) for x, sign in enumerate(row) if sign in signs]


def moved(drawing: str, at: Cell, action: int) -> Cell:
    y, x = at
    to = (y - (action == 0) + (action == 1), x - (action == 2) + (action == 3))
    return to if to in cells(drawing, ".st*") else at


def places(drawing: str) -> list[tuple[Cell, Cell]]:
    """Every start with every other place of key or door."""
    pairs = product(cells(drawing, "s*"), cells(drawing, "t*"))
    return [(start, target) for start, target in pairs if start != target]


def reaches(drawing: str, start: Cell, target: Cell, actions: Sequence[int]) -> bool:
    at = start
    for action in actions:
        at = moved(drawing, at, action)
        if at == target:
            return True
    return False


def chance(drawing: str, moves: int) -> Fraction:
    """Of reaching the target, over all places and all sequences of moves, counted one by one."""
    tries = list(product(places(drawing), product(range(4), repeat=moves)))
    return Fraction(sum(reaches(drawing, *place, actions) for place, actions in tries), len(tries))


def play(rooms: Sequence[str], moves: Sequence[int], begin: Sequence[tuple[Cell, Cell | None]], actions: Sequence[int]):
    """(room, own cell, visible key or door, has the key) before each move and at last, and the rewards."""
    seen, rewards, has_key, move = [], [], False, iter(actions)
    for room, (at, target) in enumerate(begin):
        for _ in range(moves[room]):
            seen.append((room, at, None if room == 0 and has_key else target, has_key))
            at = moved(rooms[room], at, next(move))
            has_key |= room == 0 and at == target
            rewards.append(float(room == 2 and at == target and has_key))
            if rewards[-1]:
                break
    seen.append((2, at, target, has_key))
    return seen, rewards
