"""metrics.csv: one row per interval, with the means of the training metrics."""

import csv
import io
from pathlib import Path
from typing import ClassVar

from rlalgo import Run, hookimpl
from rlutils.config.files import write_atomic
from rlutils.training.callbacks import Logger


class Csv(Logger):
    """Rows are appended as they come; a resume cuts the file back to the checkpoint's step."""

    name: ClassVar[str] = "csv"

    @hookimpl
    def rlalgo_on_start(self, run: Run) -> None:
        self.path = run.folder / "metrics.csv"
        rows = read_rows(self.path)
        self.columns = list(rows[0]) if rows else ["step", "seconds"]
        self._rewrite([row for row in rows if int(row["step"]) <= run.step])

    def write(self, run: Run, step: int, means: dict[str, float]) -> None:
        row = {"step": step, "seconds": f"{run.seconds():.3f}", **{key: f"{mean:.9g}" for key, mean in means.items()}}
        if new := [key for key in row if key not in self.columns]:
            self.columns += new
            self._rewrite(read_rows(self.path))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a last row that a crash cut short is left out, and an empty cell is no number."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [row for row in csv.DictReader(lines) if None not in row.values() and row["step"].isdigit()]
