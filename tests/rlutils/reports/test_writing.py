"""Numbers, times and YAML as they are written."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlalgo.errors import RlalgoError
from rlutils.config import files
from rlutils.machine import clock
from rlutils.reports.experiments import experiments
from rlutils.reports.runs_page import write_report
from rlutils.reports.writing import decimals, highlight, moment, number
from tests.rlutils.reports.fake_runs import (
    fake_run,
)


@pytest.mark.usefixtures("undrawn")
def test_an_old_page_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = fake_run(tmp_path / "run"), tmp_path / "pages" / "page.html"
    write_report(experiments([run]), out)
    before = out.read_text()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RlalgoError, match="No space left on device; choose another --out"):
        write_report(experiments([run]), out)
    assert out.read_text() == before
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(RlalgoError, match="cannot be written"):
        write_report(experiments([run]), out / "below" / "a_file.html")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-# '\"<>&[]{}1.e5\n~"), max_size=80))
def test_highlighting_changes_no_character(text: str) -> None:
    parser = HTMLParser()
    seen: list[str] = []
    parser.handle_data = seen.append  # type: ignore[method-assign]
    parser.feed(str(highlight(text)))
    parser.close()
    assert "".join(seen) == "\n".join(text.splitlines())


def test_highlighting_knows_keys_numbers_words_and_text() -> None:
    marked = str(highlight("lr: 1e-4\n- {a: b}\nc: null  \nd: text # c\n# all"))
    assert '<span class="k">lr</span>: <span class="n">1e-4</span>' in marked
    assert '<span class="k">d</span>: <span class="s">text # c</span>' in marked
    assert '<span class="c"># all</span>' in marked


def test_numbers_are_written_for_people() -> None:
    assert [number(x, 1) for x in (1234.56, -0.5, -0.01, None, float("nan"))] == ["1,234.6", "−0.5", "0.0", "–", "–"]
    assert [decimals([x]) for x in (-3000, 250, 2.5, 0.1)] == [0, 1, 2, 3]
    assert [clock(x) for x in (4.25, 200, 7500)] == ["4.25 s", "3 min 20 s", "2 h 5 min"]
    assert moment("2025-11-21T09:03:00+01:00") == "21 November 2025, 09:03"
    assert moment("long ago") == "long ago"
