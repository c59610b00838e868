"""One evaluation as a table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from rlutils.evaluation.statistics import EvalResult


def print_result(result: EvalResult, console: Console) -> None:
    """Every policy that was played, then what evaluators measured."""
    console.print(f"[italic]step {result.step:,}[/italic]")
    if result.policies:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("policy", no_wrap=True)
        for column in ("episodes", "mean", "sd", "IQM", "95% of the mean", "score"):
            table.add_column(column, justify="right", no_wrap=True)
        for policy in result.policies:
            low, high = policy.interval
            single = len(policy.returns) == 1  # which says nothing about others
            table.add_row(
                policy.label,
                str(len(policy.returns)),
                f"{policy.mean:,.1f}",
                "–" if single else f"{policy.sd:,.1f}",
                f"{policy.iqm:,.1f}",
                "–" if single else f"{low:,.0f} to {high:,.0f}",
                "" if policy.normalized is None else f"{policy.normalized:.1f}",
            )
        console.print(table)
    for key, value in result.metrics.items():
        console.print(f"{key}: {value:.6g}")
