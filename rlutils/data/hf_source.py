"""Datasets in the hub's layout for Decision Transformers: one row an episode, and a list over its steps per column.

That is the layout of `edbeeching/decision_transformer_gym_replay`: `observations` (T, D), `actions` (T, A), `rewards`
(T,) and `dones` (T,). `rlalgo data convert` adds what that leaves out: `final_observations` (1, D), what was seen after
the last step, `truncated`, the numbers of the episode, and in the file's own metadata what the data is of.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from rlalgo import DataSpec, Episodes
from rlalgo.errors import CheckpointError, DataError, blaming
from rlutils.config.files import read_as
from rlutils.data.arrow import ArrowTable, is_list, stacked
from rlutils.data.columns import Columns, Told, like
from rlutils.data.hub import fetched, is_repo
from rlutils.data.minari_file import NO_FACTS

SPEC = b"rlalgo.spec"
"""Name under which a file's metadata has its DataSpec, as JSON."""

_ROWS = 16
"""Episodes read at a time."""
_COLUMNS = {"observations": "observations", "actions": "actions", "rewards": "rewards", "dones": "terminations"}


@dataclass(frozen=True)
class _DataFile:
    filename: str


@dataclass(frozen=True)
class _State:
    """state.json of `save_to_disk`, as far as it matters here."""

    files: Annotated[list[_DataFile], Field(alias="_data_files", min_length=1)]


class HfSource:
    """Datasets of Hugging Face's hub with one row an episode; needs pyarrow, not `datasets`."""

    name: ClassVar[str] = "hf"

    @dataclass(frozen=True, kw_only=True)
    class Config(Told):
        path: Path
        """A .parquet or .arrow file, or a folder: what `save_to_disk` wrote, or one with such files in it or in its
        `data`; or, where `subset` is given, OWNER/NAME of a dataset on the hub, which rlalgo-hf fetches to its cache.
        `dones` are terminal states; an episode whose last step is none counts as cut there."""
        subset: str | None = None
        """Folder within, as `halfcheetah-expert-v2`; on the hub `default`, where a dataset has no others."""
        split: str = "train"
        """Part of a folder that holds several."""
        revision: str = "refs/convert/parquet"
        """Branch, tag or commit of a dataset on the hub; this is the branch where the hub keeps each one as Parquet."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"hf:{self.config.path / (self.config.subset or '')}"

    def load(self) -> Episodes:
        """All episodes, checked.

        Raises:
            DataError: there are no such files, or they hold something that training must not see.
        """
        tables = [ArrowTable(path, self.label) for path in self._files()]
        with blaming(DataError, f"{self.label}: is damaged"):
            return self._read(tables)

    def _read(self, tables: list[ArrowTable]) -> Episodes:
        names = set.intersection(*({*table.kinds} for table in tables))
        lengths, info = _lengths(tables, names)
        columns = self._columns(tables[0], lengths)
        final = sorted({"final_observations"} & names)
        for table, batch, episode in _batches(tables, [*_COLUMNS, *final]):
            for name, column in _COLUMNS.items():
                values, counts = _flat(table, batch, name, episode)
                expected = lengths[episode : episode + len(counts)]
                if len(wrong := np.flatnonzero(counts != expected)):
                    bad = int(wrong[0])
                    why = f"{counts[bad]} {name} but {expected[bad]} rewards"
                    raise DataError(f"{table.label}: episode {episode + bad}: {why}")
                numbers = column in ("rewards", "terminations") and values.shape[1:] == (1,)
                columns.fill(columns.starts[episode], **{column: values[:, 0] if numbers else values})
            for name in final:
                values, counts = _flat(table, batch, name, episode)
                if counts.any():
                    columns.finish(episode + np.flatnonzero(counts), values)
        columns.truncations[columns.starts[1:] - 1] = info.pop("truncated", False)
        return columns.checked(self.config, info)

    def _columns(self, table: ArrowTable, lengths: np.ndarray) -> Columns:
        """For what the file says of itself, or else for what its first episode looks like."""
        if said := (table.schema.metadata or {}).get(SPEC):
            with blaming(DataError, f"{table.label}: what it says of itself is not understood"):
                spec = DataSpec.from_mapping(json.loads(said))
            return Columns(self.label, lengths, spec.observation_space, spec.action_space, spec)
        for _, batch, _ in _batches([table], ["observations", "actions"]):
            seen, actions = (_flat(table, batch[:1], name, 0)[0] for name in ("observations", "actions"))
            spaces = like(seen.shape[1:], seen.dtype), like(actions.shape[1:], actions.dtype, actions=True)
            return Columns(self.label, lengths, *spaces)
        raise DataError(f"{table.label}: holds no episodes; record some before training on it")

    def _files(self) -> list[Path]:
        path, subset, split = self.config.path, self.config.subset, self.config.split
        is_id = is_repo(path) and not path.exists() and path.suffix not in (".parquet", ".arrow")
        if is_id and subset:
            patterns = [f"{subset}/{split}/*.parquet", f"{subset}/{split}-*.parquet"]
            path = fetched(str(path), self.config.revision, patterns, "dataset")
        path = path / (subset or "")
        if path.is_file():
            return [path]
        if not path.is_dir():
            cure = "; for a dataset on the hub give its subset, too (subset: default)" if is_id else ""
            raise DataError(f"{self.label}: there is no such file or folder here{cure}")
        if (path / "dataset_dict.json").is_file() or (path / split).is_dir():
            path = path / split
        if (path / "state.json").is_file():
            try:
                state: _State = read_as(_State, path / "state.json")
            except CheckpointError as error:
                raise DataError(f"{self.label}: {error}") from error
            return [path / Path(file.filename).name for file in state.files]  # none beyond this folder
        found = [file for at in (path, path / "data") for file in sorted(at.glob("*.*"))]
        found = [file for file in found if file.suffix in (".parquet", ".arrow")]
        if any(re.search(r"-\d+-of-\d+$", file.stem) for file in found):
            found = [file for file in found if file.name.startswith(f"{split}-")]
        if not found:
            raise DataError(f"{self.label}: {path} has no .parquet or .arrow files of '{split}'; give their folder")
        return found


def _batches(tables: Sequence[ArrowTable], columns: Sequence[str]) -> Iterator[tuple[ArrowTable, Any, int]]:
    """(table, batch of some episodes, the number of the first one)."""
    episode = 0
    for table in tables:
        for batch in table.batches(columns, _ROWS):
            yield table, batch, episode
            episode += batch.num_rows


def _lengths(tables: Sequence[ArrowTable], names: set[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(E,) int64 steps of each episode, and (E,) of each column that has one number for every episode."""
    lengths = [np.zeros(0, np.int64)]
    facts: dict[str, list[np.ndarray]] = {
        name: []
        for name in sorted(names - {*NO_FACTS})
        if all(re.fullmatch(r"u?int\d+|float|double|bool", table.kinds[name]) for table in tables)
    }
    for table, batch, episode in _batches(tables, ["rewards", *facts]):
        lengths.append(_flat(table, batch, "rewards", episode)[1])
        for name in [name for name in facts if batch[name].null_count]:
            del facts[name]
        for name, column in facts.items():
            column.append(batch[name].to_numpy(zero_copy_only=False))
    return np.concatenate(lengths), {name: np.concatenate(column) for name, column in facts.items() if column}


def _flat(table: ArrowTable, batch: Any, name: str, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists over the steps of some episodes, the first of which has this number.

    Returns:
        (n, ...) values of all steps, and (e,) how many each episode has.
    """
    from pyarrow import compute

    lists = getattr(batch[name], "storage", batch[name])  # of an extension type, as `datasets` has for arrays
    if lists.null_count:
        missing = lists.is_null().to_pylist().index(True)
        raise DataError(f"{table.label}: episode {episode + missing}: {name} have no value")
    if not is_list(lists):
        raise DataError(f"{table.label}: column '{name}' holds {lists.type}, expected a list over the steps")
    counts = compute.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)

    def where(step: int) -> str:
        ends = counts.cumsum()
        at = int(np.searchsorted(ends, step, "right"))
        return f"{table.label}: episode {episode + at}, step {step - ends[at] + counts[at]}"

    return stacked(lists.flatten(), name, where), counts
