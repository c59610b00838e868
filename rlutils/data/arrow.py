"""Csv, Parquet and Arrow files, a batch of rows at a time, through pyarrow, which is an extra of the package."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlalgo.errors import DataError, blaming, near
from rlutils.machine import host_memory, size

_BLOCK = 2**18
"""Bytes of a csv file that are parsed at a time."""
_TRUE, _FALSE = ["1", "1.0", "true", "True", "TRUE"], ["0", "0.0", "false", "False", "FALSE"]


@contextmanager
def needing_pyarrow(what: str) -> Iterator[None]:
    """DataError that begins with these words and says what to install, where pyarrow is missing."""
    try:
        yield
    except ImportError as error:
        raise DataError(f'{what}: pip install "rlalgo[arrow]" ({error})') from error


class ArrowTable:
    """One file, of a kind that its name tells: .parquet, .arrow (a stream or a file), or else csv.

    Args:
        path: of the file.
        label: how messages call the data; the file's name is added if it is not there.
        types: pyarrow's type of a csv file's columns, by name, where it is not to be guessed from the first rows.

    Raises:
        DataError: pyarrow is missing, or the file cannot be read.
    """

    def __init__(self, path: Path, label: str, types: Mapping[str, Any] | None = None) -> None:
        self.path, self._types = path, types
        self.label = label if label.endswith(path.name) else f"{label}: {path.name}"
        if not path.is_file():
            raise DataError(f"{label}: {path} is missing, or is no file")
        self.header = int(path.suffix not in (".parquet", ".arrow"))
        """Rows before the first one of data."""
        with needing_pyarrow(f"{self.label} needs pyarrow to be read"):
            import pyarrow  # noqa: F401
        with blaming(DataError, f"{self.label} cannot be read"), self._open(None, 1) as (schema, _):
            self.schema = schema
            self.kinds = dict(zip(schema.names, map(str, schema.types), strict=True))
            """Name of each column -> pyarrow's name of its type."""

    def require(self, columns: Sequence[str]) -> None:
        """DataError if a column is not there, or twice."""
        names = self.schema.names
        for name in columns:
            if (count := names.count(name)) != 1:
                hint = near(name, filter(str.isprintable, names)) if count == 0 else ""
                has = f"{count or 'no'} columns '{name}'.{hint} Expected one; there are"
                raise DataError(f"{self.label}: has {has} {', '.join(names[:40])!r}{', ...' if names[40:] else ''}")

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Record batches of these columns, of at most that many rows each where the file is Parquet.

        Raises:
            DataError: the file is damaged, with the row where pyarrow says so.
        """
        self.require(columns)
        with blaming(DataError, f"{self.label} cannot be read"), self._open(list(columns), rows) as (_, batches):
            for batch in batches:
                batch.validate(full=True)  # of an Arrow file nothing was looked at yet
                yield batch

    @contextmanager
    def _open(self, columns: list[str] | None, rows: int) -> Iterator[tuple[Any, Any]]:
        """The schema, and all batches."""
        from pyarrow import csv, ipc, memory_map, parquet

        if self.path.suffix == ".parquet":
            # Without a buffer of its own a whole group of rows, which may be all of them, would be read at once.
            with parquet.ParquetFile(self.path, buffer_size=_BLOCK, pre_buffer=False) as file:
                if (least := 4 * file.metadata.num_rows * len(columns or ())) > host_memory():
                    raise DataError(f"{self.label}: takes {size(least)} of memory, and there are {size(host_memory())}")
                yield file.schema_arrow, file.iter_batches(rows, columns=columns, use_threads=False)
        elif self.path.suffix == ".arrow":
            with memory_map(str(self.path)) as bytes_:
                whole = bytes_.read(6) == b"ARROW1"
                bytes_.seek(0)
                with (ipc.open_file if whole else ipc.open_stream)(bytes_) as reader:
                    batches = map(reader.get_batch, range(reader.num_record_batches)) if whole else reader
                    yield reader.schema, (batch.select(columns) for batch in batches)
        else:
            how = csv.ConvertOptions(
                include_columns=columns, column_types=self._types, strings_can_be_null=True,
                true_values=_TRUE, false_values=_FALSE,
            )  # fmt: skip
            # One thread: errors then name their row.
            reading = csv.ReadOptions(use_threads=False, block_size=_BLOCK)
            with csv.open_csv(self.path, reading, convert_options=how) as reader:
                yield reader.schema, reader


def is_list(values: Any) -> bool:
    """Whether a column of pyarrow's has a list in each row."""
    return bool(re.match(r"(large_|fixed_size_)?list<", str(values.type)))


def stacked(values: Any, name: str, where: Callable[[int], str]) -> np.ndarray:
    """A column of n numbers, or of lists (of lists ...) of them that all have one size, as (n, ...).

    Args:
        values: pyarrow's array; of an extension type, as `datasets` has for arrays, what it stores.
        name: of the column, in the plural, for messages.
        where: what messages call row 0, 1, ...

    Raises:
        DataError: a value is missing, or a list has another size than the others.
    """
    from pyarrow import compute

    rows, shape = len(values), list[int]()
    while True:
        values = getattr(values, "storage", values)
        if values.null_count:
            row = values.is_null().to_pylist().index(True) // math.prod(shape)
            raise DataError(f"{where(row)}: {name} have no value")
        if not is_list(values):
            if not re.fullmatch(r"u?int\d+|float|halffloat|double|bool", str(values.type)):
                raise DataError(f"{where(0)}: {name} are {values.type}, expected numbers")
            return values.to_numpy(zero_copy_only=False).reshape(rows, *shape)
        sizes = compute.list_value_length(values).to_numpy(zero_copy_only=False)
        if len(uneven := np.flatnonzero(sizes != sizes[:1])):
            i = int(uneven[0])
            why = f"have {sizes[i]} numbers, expected {sizes[0]} as before"
            raise DataError(f"{where(i // math.prod(shape))}: {name} {why}")
        shape.append(int(sizes[0]) if len(sizes) else 0)
        values = values.flatten()
