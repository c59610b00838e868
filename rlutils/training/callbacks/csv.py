"""metrics.csv: one row per interval, with the means of the training metrics."""

import csv
import io
import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

from rlalgo import Run, hookimpl
from rlalgo.errors import CheckpointError, ConfigError, RlalgoWarning, shown
from rlutils.config.files import disk_failed, persist, read_text, write_atomic
from rlutils.training.callbacks import Logger

LARGEST = 500_000_000
"""Bytes of a metrics.csv that is read."""
STEP = "[0-9]{1,18}"


class MetricsWarning(RlalgoWarning):
    """metrics.csv was not to be read when a run went on."""


class Csv(Logger):
    """Rows are appended as they come; a resume cuts the file back to the checkpoint's step."""

    name: ClassVar[str] = "csv"

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        self.path = run.folder / "metrics.csv"
        rows = self._rows()
        self.columns = list(rows[0]) if rows else ["step", "seconds"]
        self._rewrite([row for row in rows if int(row["step"]) <= run.step])
        if run.step % self.every == 0 and (left := self.means.take()):  # the row that ended the run by a full disk
            self.write(run, run.step, left)

    def write(self, run: Run, step: int, means: dict[str, float]) -> None:
        row = {"step": step, "seconds": f"{run.seconds():.3f}", **{key: f"{mean:.9g}" for key, mean in means.items()}}
        if new := [key for key in row if key not in self.columns]:
            self.columns += new
            self._rewrite(self._rows())
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint goes on from the rows before it, so they are on the disk first."""
        persist(self.path)
        return super().state_dict()

    def _rows(self) -> list[dict[str, str]]:
        """Those there are. A file that is none is put aside: it is no reason to stop, nor to lose it."""
        try:
            return read_rows(self.path)
        except CheckpointError as error:
            if disk_failed(error):
                raise
            aside = self.path.replace(self.path.with_name("metrics.broken.csv"))
            warnings.warn(f"{error}; it is called {aside.name} now", MetricsWarning, stacklevel=2)
            return []

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, none where there is no such file; an empty cell is no number.

    What is no row is left out: a crash may have cut the last one short.

    Raises:
        CheckpointError: it is not a table of steps.
    """
    if not path.exists():
        return []
    try:
        table = csv.DictReader(read_text(path, LARGEST).split("\n")[:-1])
        columns = list(table.fieldnames or ())
        if "step" not in columns or len(set(columns)) < len(columns):
            raise csv.Error(f"expected a column 'step' and others of different names, got {shown(columns)}")
        whole = (row for row in table if None not in row and None not in row.values())
        return [row for row in whole if re.fullmatch(STEP, row["step"])]
    except ConfigError as error:
        raise CheckpointError(error.faults[0]) from error
    except csv.Error as error:
        raise CheckpointError(f"{path}: is not a table of metrics: {error}") from error
