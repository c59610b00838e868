"""Tables, csv or Parquet, of one row a step: what each column is, the options say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from rlalgo import Episodes
from rlalgo.errors import DataError, blaming, shown
from rlutils.data.arrow import ArrowTable
from rlutils.data.columns import Columns, Told, like

Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=100_000)]

_ROWS = 2**13
"""Read at a time."""


class TableSource:
    """Csv and Parquet files with a row for each step; needs pyarrow."""

    name: ClassVar[str] = "table"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """A .parquet file, or else a csv file (which may be .csv.gz) whose first row names the columns."""
        episode: str
        """Column that tells the episodes apart, by numbers or texts; they come in the order of their first rows."""
        observations: Names
        """Columns of the observation, in this order."""
        actions: Names
        """Columns of the action: whole numbers are choices, others one vector."""
        reward: str
        """Column of the reward."""
        terminated: str | None = None
        """Column that says, by 0 and 1 or false and true, whether a step led to a terminal state; null: none did."""
        truncated: str | None = None
        """Column that says whether a step was the last for another reason, a time limit. An episode whose last row
        says neither counts as cut there."""
        next_observations: Names | None = None
        """Columns of what was seen after the step, of which the last of each episode is used; null: it is not known."""
        order: str | None = None
        """Column of numbers that the steps of an episode are in order of; null: the rows of each episode stand
        together and in order."""
        discrete: bool | None = None
        """Whether actions are choices; null: if all their columns are of whole numbers (of a csv file: its first
        rows) or have `categories`."""
        categories: Mapping[str, Names] = field(default_factory=dict)
        """Of columns of text: all that stands there; `{color: [red, blue]}` makes red 0 and blue 1."""
        missing: Mapping[str, float | str] = field(default_factory=dict)
        """What to put where a column has no value or NaN, by column; without it such rows are refused."""

        def __post_init__(self) -> None:
            if self.next_observations is not None and len(self.next_observations) != len(self.observations):
                got = f"{len(self.next_observations)} columns, and observations {len(self.observations)}"
                raise ValueError(f"next_observations: has {got}; name as many")
            numbers = {*self.observations, *self.actions, *(self.next_observations or ()), self.reward}
            for option in ("categories", "missing"):
                if unused := sorted({*getattr(self, option)} - numbers):
                    raise ValueError(f"{option}: '{unused[0]}' is no column of observations, actions or reward")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"table:{self.config.path}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: the file cannot be read, or holds something that training must not see.
        """
        with blaming(DataError, f"{self.label}: is damaged"):
            return _Reader(self.config, self.label).episodes()


class _Reader:
    """The file, read twice: for the places of its rows, then for their values."""

    def __init__(self, config: TableSource.Config, label: str) -> None:
        self.config = config
        self.table = ArrowTable(config.path, label)
        import pyarrow as pa

        wanted = [*config.observations, *config.actions, config.reward, *(config.next_observations or ())]
        flags = [name for name in (config.terminated, config.truncated) if name]
        places = [name for name in (config.episode, config.order) if name]
        self.columns = list(dict.fromkeys([*wanted, *flags]))
        self.table.require([*self.columns, *places])
        kinds = self.table.kinds
        whole = (re.match("u?int", kinds[name]) or name in config.categories for name in config.actions)
        self.discrete = all(whole) if config.discrete is None else config.discrete
        self.action_shape = () if self.discrete and len(config.actions) == 1 else (len(config.actions),)
        # What a csv file's columns are, its later rows may not decide.
        types = dict.fromkeys(wanted, pa.float32())
        types |= dict.fromkeys(config.actions, pa.int64() if self.discrete else pa.float32())
        types |= dict.fromkeys(config.categories, pa.string()) | dict.fromkeys(flags, pa.bool_())
        types[config.episode] = pa.string()
        self.table = ArrowTable(config.path, label, types)

    def episodes(self) -> Episodes:
        """What is in the file, checked."""
        config, (order, lengths), first = self.config, self._steps(), 0
        actions = like(self.action_shape, np.int64 if self.discrete else np.float32, actions=True)
        columns = Columns(self.table.label, lengths, like((len(config.observations),), np.float32), actions)
        for batch in self.table.batches(self.columns, _ROWS):
            rows = np.arange(first, first + batch.num_rows)
            steps = rows if order is None else order[rows]  # (T,) which step of all each row is
            columns.fill(steps, **self._values(batch, first))
            if config.next_observations:
                last = np.isin(steps, columns.starts[1:] - 1)
                ids = np.searchsorted(columns.starts, steps[last], "right") - 1
                columns.finish(ids, self._vectors(batch, config.next_observations, np.float32, first)[last])
            first += batch.num_rows
        return columns.checked(config)

    def _steps(self) -> tuple[np.ndarray | None, np.ndarray]:
        """(N,) the step that each row is of all, None if they are in order; and (E,) the steps of each episode."""
        config, known, rows = self.config, dict[Any, int](), 0
        found: list[np.ndarray] = []
        ordered: list[np.ndarray] = []
        for batch in self.table.batches([config.episode, *([config.order] if config.order else [])], _ROWS):
            names = self._present(batch, config.episode, rows).dictionary_encode()
            numbers = [known.setdefault(name, len(known)) for name in names.dictionary.to_pylist()]
            found.append(np.array(numbers, np.int32)[names.indices.to_numpy()])
            if config.order:
                ordered.append(self._numbers(batch, config.order, rows))
            rows += batch.num_rows
        episodes = np.concatenate([np.zeros(0, np.int32), *found])  # (N,) numbered by their first rows
        if not config.order:
            again = np.flatnonzero(np.diff(episodes) < 0)
            if len(again):
                row = int(again[0]) + 1
                where = f"{self._row(row)}: episode {shown(list(known)[episodes[row]])} goes on after another one began"
                raise DataError(f"{where}; sort the rows, or name the column that steps are in order of as `order`")
            return None, np.bincount(episodes)
        order = np.concatenate(ordered) if ordered else np.zeros(0)
        rows_of = np.lexsort((order, episodes))  # (N,) the row that each step is
        same = (np.diff(order[rows_of]) == 0) & (np.diff(episodes[rows_of]) == 0)
        if same.any():
            row = int(rows_of[int(same.argmax()) + 1])
            raise DataError(f"{self._row(row)}: {config.order} is {order[row]:g}, as in another row of its episode")
        step_of = np.empty(rows, np.int64)
        step_of[rows_of] = np.arange(rows)
        return step_of, np.bincount(episodes)

    def _values(self, batch: Any, rows: int) -> dict[str, np.ndarray]:
        """(T, ...) columns of a batch that so many rows come before, by their names in Episodes."""
        config, dtype = self.config, np.int64 if self.discrete else np.float32
        flags = {"terminations": config.terminated, "truncations": config.truncated}
        return {
            "observations": self._vectors(batch, config.observations, np.float32, rows),
            "actions": self._vectors(batch, config.actions, dtype, rows).reshape(-1, *self.action_shape),
            "rewards": self._numbers(batch, config.reward, rows),
            **{flag: self._numbers(batch, name, rows) for flag, name in flags.items() if name},
        }

    def _vectors(self, batch: Any, names: Names, dtype: Any, rows: int) -> np.ndarray:
        """(T, D) columns side by side."""
        out = np.empty((batch.num_rows, len(names)), dtype)
        for column, name in enumerate(names):
            with np.errstate(over="ignore"):  # beyond float32: infinity, which is refused
                out[:, column] = self._numbers(batch, name, rows, whole=dtype is np.int64)
        return out

    def _row(self, row: int) -> str:
        """Of row 0, 1, ...: as an editor numbers it."""
        return f"{self.table.label}: row {row + 1 + self.table.header}"

    def _present(self, batch: Any, name: str, rows: int, nan: bool = False) -> Any:
        """A column without missing values, rows of it after that many others."""
        from pyarrow import compute, scalar, types

        column = batch.column(name)
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        lacking = compute.is_null(column, nan_is_null=nan)
        if not compute.any(lacking).as_py():
            return column
        if name not in self.config.missing:
            row = self._row(rows + lacking.to_pylist().index(True))
            cure = f"`missing: {{{name}: VALUE}}` puts one there" if nan else "give it one"
            raise DataError(f"{row}: column '{name}' has no value; {cure}")
        given = self.config.missing[name]
        with blaming(DataError, f"missing: {name}: {given!r} is no {column.type}"):
            return compute.if_else(lacking, scalar(given, column.type), column)

    def _numbers(self, batch: Any, name: str, rows: int, whole: bool = False) -> np.ndarray:
        """(T,) a column of numbers or flags."""
        import pyarrow as pa
        from pyarrow import compute

        column = self._present(batch, name, rows, nan=True)
        if texts := self.config.categories.get(name):
            column, given = compute.index_in(column, value_set=pa.array(texts, column.type)), column
            if column.null_count:
                row = column.is_null().to_pylist().index(True)
                got = shown(given[row].as_py())
                raise DataError(f"{self._row(rows + row)}: column '{name}' is {got}, which is none of its `categories`")
        kind = column.type
        right = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or (pa.types.is_floating(kind) and not whole)
        if not right:
            cure = f"say what texts mean, `categories: {{{name}: [...]}}`, or name other columns"
            what = "whole numbers" if whole else "numbers"
            raise DataError(f"{self.table.label}: column '{name}' holds {kind}, expected {what}; {cure}")
        return column.to_numpy(zero_copy_only=False)
