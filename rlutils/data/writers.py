"""Episodes as one file: arrays for the source `npz`, or Parquet in the hub's layout for the source `hf`."""

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlalgo import Episodes
from rlalgo.errors import DataError, blaming
from rlutils.config.files import replacing
from rlutils.data.arrow import needing_pyarrow
from rlutils.data.hf_source import SPEC

_NUMBERS = 2**20
"""Of observations, that are copied at a time."""


@dataclass(frozen=True)
class _Part:
    """Some episodes, one after another."""

    observations: np.ndarray
    """(n, *S) of each step."""
    final: np.ndarray
    """(m, *S) of those that have one."""
    episodes: slice
    steps: slice


def write_npz(episodes: Episodes, path: Path) -> None:
    """A file that the source `npz` gives the same episodes of, bit for bit.

    Raises:
        DataError: it cannot be written; an old file stays as it was.
    """
    arrays = {
        "actions": episodes.actions.numpy(),
        "rewards": episodes.rewards.numpy(),
        "terminations": episodes.terminations.numpy(),
        "truncations": episodes.truncations.numpy(),
        "starts": episodes.starts.numpy(),
        "has_final": episodes.has_final.numpy(),
        "spec": np.array([json.dumps(episodes.spec.to_mapping())]),
        **{f"info/{name}": column.numpy() for name, column in episodes.info.items()},
    }
    seen, shape = episodes.spec.observation_space, episodes.observations.shape[1:]
    with _writing(path) as to, zipfile.ZipFile(to, "w") as file:

        def put(name: str, rows: int, shape: tuple[int, ...], dtype: Any, blocks: Iterable[np.ndarray]) -> None:
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (rows, *shape)}
                np.lib.format.write_array_header_1_0(member, header)
                for block in blocks:
                    member.write(np.ascontiguousarray(block).data)

        put("observations", episodes.steps, shape, seen.dtype, (part.observations for part in _parts(episodes)))
        put("final_observations", len(episodes), shape, seen.dtype, _ends(episodes))
        for name, array in arrays.items():
            put(name, len(array), array.shape[1:], array.dtype, [array])


def write_hf(episodes: Episodes, path: Path) -> None:
    """A Parquet file of one row an episode, in the layout that `rlutils.data.hf_source` describes.

    Raises:
        DataError: pyarrow is missing, or it cannot be written; an old file stays as it was.
    """
    with needing_pyarrow(f"{path} needs pyarrow to be written"):
        import pyarrow as pa
        from pyarrow import parquet

    def lists(values: np.ndarray, counts: np.ndarray) -> Any:
        inner = pa.array(values.reshape(-1))
        for size in reversed(values.shape[1:]):
            inner = pa.ListArray.from_arrays(pa.array(np.arange(0, len(inner) + 1, size), pa.int32()), inner)
        return pa.ListArray.from_arrays(pa.array(np.append(0, counts.cumsum()), pa.int32()), inner)

    lengths, has_final = episodes.lengths().numpy(), episodes.has_final.numpy()
    last = episodes.starts[1:].numpy() - 1
    facts = {"truncated": episodes.truncations.numpy()[last]}
    facts |= {name: column.numpy() for name, column in episodes.info.items() if column.ndim == 1}
    with _writing(path) as to, contextlib.ExitStack() as stack:
        writer = None
        for part in _parts(episodes):
            counts = lengths[part.episodes]
            columns = {
                "observations": lists(part.observations, counts),
                "actions": lists(episodes.actions.numpy()[part.steps], counts),
                "rewards": lists(episodes.rewards.numpy()[part.steps], counts),
                "dones": lists(episodes.terminations.numpy()[part.steps], counts),
                "final_observations": lists(part.final, has_final[part.episodes].astype(np.int64)),
                **{name: pa.array(column[part.episodes]) for name, column in facts.items()},
            }
            table = pa.table(columns).replace_schema_metadata({SPEC: json.dumps(episodes.spec.to_mapping())})
            writer = writer or stack.enter_context(parquet.ParquetWriter(to, table.schema, use_dictionary=False))
            writer.write_table(table)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    with blaming(DataError, f"{path}: cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary


def _parts(episodes: Episodes) -> Iterator[_Part]:
    """All of them, a few at a time."""
    starts, rows = episodes.starts.numpy(), episodes.first_rows().numpy()
    has_final, observations = episodes.has_final.numpy(), episodes.observations.numpy()
    most = max(1, _NUMBERS // max(1, observations[:1].size))
    first = 0
    while first < len(episodes):
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + most, "right")) - 1)
        block = observations[rows[first] : starts[end] + end]
        last = starts[first + 1 : end + 1] - starts[first] + np.arange(end - first)  # rows after the last steps
        final = block[last[has_final[first:end]]]
        yield _Part(np.delete(block, last, 0), final, slice(first, end), slice(starts[first], starts[end]))
        first = end


def _ends(episodes: Episodes) -> Iterator[np.ndarray]:
    """The last row of each episode, a few at a time."""
    last = episodes.starts[1:].numpy() + np.arange(len(episodes))
    for rows in np.array_split(last, max(1, len(last) // 1024)):
        yield episodes.observations.numpy()[rows]
