"""A small suite, and a sweep of it that is not shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from rlutils.config.files import write_yaml
from rlutils.sweeps import sweep as sweeping
from rlutils.sweeps.sweep import sweep
from tests.rlutils.runs import toy_config


def write_suite(folder: Path, **changes: Any) -> Path:
    for algo in ("bc", "dt"):
        write_yaml(folder / f"{algo}.yaml", toy_config(algo))
    values = {
        "algos": {"bc": "bc.yaml", "dt": "dt.yaml"},
        "datasets": {"small": {"source.episodes": 10}, "large/one": {"source": {"episodes": 30}}},
        "seeds": [3, 1],
        "out": str(folder / "out"),
        "processes": 1,
    }
    write_yaml(folder / "suite.yaml", {k: v for k, v in {**values, **changes}.items() if v is not None})
    return folder / "suite.yaml"


def quiet(path: Path, **options: Any) -> tuple[list[sweeping.Job], str]:
    console = Console(file=io.StringIO(), width=200)
    jobs = sweep(path, console=console, **options)
    return jobs, console.file.getvalue()  # type: ignore[attr-defined]
