"""Whatever is printed, nothing steers the terminal and brackets are no markup."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

import rlutils
from rlalgo.errors import DataError, RlalgoWarning
from rlutils.outcome import complain, reported
from rlutils.terminal import UNSEEN, Terminal, visible

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\udc80"


def printed(*things: object) -> str:
    terminal = Terminal(file=io.StringIO(), width=200)
    for thing in things:
        terminal.print(thing)
    return terminal.file.getvalue()  # type: ignore[attr-defined]


@given(st.text(st.characters(), max_size=40))
def test_no_text_steers_a_terminal(text: str) -> None:
    assert not UNSEEN.search(printed(text, Text(text), visible(text)))
    assert visible(visible(text)) == visible(text)


def test_what_is_hidden_is_written_out() -> None:
    assert visible(HOSTILE) == "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\u202e\\r\\udc80"
    assert visible("tabs\tand\nlines, ± – é 漢") == "tabs\tand\nlines, ± – é 漢"


def test_tables_show_brackets_and_no_control_characters() -> None:
    table = Table("[red]head", title=f"[bold]{HOSTILE}")
    table.add_row(f"[link=file:///etc]x[/] {HOSTILE}")
    text = printed(table, ":smile:")
    assert ":smile:" in text
    assert "[red]head" in text
    assert "[link=file:///etc]x[/] " in text
    assert not UNSEEN.search(text)


@pytest.mark.filterwarnings("always")
def test_errors_and_warnings_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    @reported
    def command() -> None:
        warnings.warn(f"ours {HOSTILE}", RlalgoWarning, stacklevel=1)
        warnings.warn(f"\x1b[33mtheirs\x1b[0m {HOSTILE}", DeprecationWarning, stacklevel=1)
        raise DataError(f"a dataset called {HOSTILE}")

    with pytest.raises(typer.Exit):
        command()
    complain(HOSTILE)
    text = capsys.readouterr().err
    assert not UNSEEN.search(text)
    assert "DeprecationWarning: theirs \\x1b]0;title" in text
    assert text.count("\\x1b]0;title\\x1b[2J\\x9b31m\\u202e\\udc80") == 4  # rich leaves bells out


def test_all_that_is_printed_goes_through_a_terminal() -> None:
    for path in Path(rlutils.__file__).parent.rglob("*.py"):
        found = re.findall(r"(?<![\w.])(?:Rich)?Console\((?!Console\))", path.read_text())
        assert path.name in ("terminal.py", "console.py") or not found, f"{path}: print through rlutils.terminal"
