"""A suite's page and its tables in Markdown."""

from __future__ import annotations

import statistics
from pathlib import Path

from rlutils.reports.suite_page import markdown, write_suite_report
from rlutils.reports.suite_results import suite_results
from tests.rlutils.reports.fake_runs import (
    Page,
    fake_suite,
    scores,
)


def test_markdown_has_every_number(tmp_path: Path) -> None:
    results = suite_results(fake_suite(tmp_path / "out"))
    text = markdown(results)
    means = [statistics.fmean(scores("dt", "cheetah", seed)) for seed in range(3)]
    best = [statistics.fmean(scores("dt", "cheetah", seed, 1000)) for seed in range(3)]
    assert f"**{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}**<br>" in text
    assert f"**{statistics.fmean(best):.1f} ± {statistics.stdev(best):.1f}**<br>" in text
    shown = " | ".join(f"{mean:.1f} ({top:.1f})".replace("-", "−") for mean, top in zip(means, best, strict=True))
    assert f"| cheetah | dt | {shown} | 1,500 | 2 min 5 s |" in text
    assert "chosen by these very episodes, so optimistic" in text
    assert "not with D4RL's" in text
    assert "(dt: target return=3600)" in text  # the highest that was asked for, wherever it stands
    assert "torch 2.13.0" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| cheetah | ")}
    assert widths == {6}


def test_the_page_has_tables_figures_and_nothing_from_outside(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>"
    folder = fake_suite(tmp_path / "out", {"bc/cheetah/s0": "failed", "iql/hopper/medium/s1": None}, error=evil)
    write_suite_report(suite_results(folder), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.tags.count("img") == 4  # scores and curves of each dataset
    assert "script" not in page.tags
    assert evil in page.text
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in page.references)
    last, best, each = page.tables
    assert len(last) == len(best) == 4
    means = [statistics.fmean(scores("bc", "hopper/medium", seed)) for seed in range(3)]
    assert last[1][1][0].startswith(f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}")
    assert len(each) == 7
    assert "16 of 18" in page.text
