"""Prints what pytest-benchmark measured beside its peer: `python tests/benchmarks/ratios.py FILE.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def table(report: dict[str, Any]) -> list[str]:
    """One line per benchmark: our median, the peer's in the same run, and how many times faster we are."""
    lines = [f"{'':<22}{'ours, ms':>12}{'peer, ms':>12}{'ratio':>9}   peer"]
    for result in sorted(report["benchmarks"], key=lambda result: result["name"]):
        info = result["extra_info"]
        mine, name = result["stats"]["median"] / info["times"], result["name"].removeprefix("test_")
        if info["peer_median"] is None:
            lines.append(f"{name:<22}{1e3 * mine:>12.3f}{'':>12}{'':>9}    none")
            continue
        theirs = info["peer_median"] / info["times"]
        lines.append(f"{name:<22}{1e3 * mine:>12.3f}{1e3 * theirs:>12.3f}{theirs / mine:>8.2f}x   {info['peer']}")
    return lines


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("\n".join(table(json.loads(Path(sys.argv[1]).read_text()))))
