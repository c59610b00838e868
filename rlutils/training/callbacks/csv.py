"""metrics.csv: one row per interval, with the means of the training metrics."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlalgo.config import Count
from rlalgo.hookspecs import hookimpl
from rlutils.config.files import write_atomic
from rlutils.training.callbacks import Averager


class Csv:
    """Rows are appended as they come; a resume cuts the file back to the checkpoint's step."""

    name: ClassVar[str] = "csv"

    @dataclass(frozen=True)
    class Config:
        every: Count = 100
        """Updates between rows."""

    def __init__(self, config: Config) -> None:
        self.every = config.every
        self.means = Averager()

    @hookimpl
    def rlalgo_on_start(self, run: Any) -> None:
        self.path: Path = run.folder / "metrics.csv"
        rows = read_rows(self.path)
        self._rewrite([row for row in rows if int(row["step"]) <= run.step])

    @hookimpl
    def rlalgo_on_step(self, run: Any, step: int, metrics: dict[str, Any]) -> None:
        self.means.add(metrics)
        if step % self.every:
            return
        row = {"step": step, "seconds": f"{run.seconds():.3f}"}
        row |= {key: f"{value:.9g}" for key, value in self.means.take().items()}
        if any(key not in self.columns for key in row):
            self.columns += [key for key in row if key not in self.columns]
            self._rewrite(read_rows(self.path))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def state_dict(self) -> dict[str, Any]:
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means.load_state_dict(state)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        if not hasattr(self, "columns"):
            self.columns = list(rows[0]) if rows else ["step", "seconds"]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a last row that a crash cut short is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [row for row in csv.DictReader(lines) if None not in row.values() and row["step"].isdigit()]
