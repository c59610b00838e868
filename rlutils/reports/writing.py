"""How tables and pages are written: numbers, times, YAML, the templates, the file."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from rlalgo.errors import RlalgoError
from rlalgo.version import __version__
from rlutils.config.files import write_atomic
from rlutils.machine import amount, clock


def number(value: float | None, places: int) -> str:
    """With separators and a true minus sign; a dash for nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # adding 0.0 makes -0.0 a plain zero


def short(value: float | None) -> str:
    """As `amount`, with a true minus sign."""
    return amount(value).replace("-", "−")


def decimals(values: Iterable[float]) -> int:
    """How many decimals a column of such returns deserves."""
    top = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    return 0 if top >= 1000 else 1 if top >= 100 else 2 if top >= 1 else 3


def print_table(
    console: Console,
    rows: Sequence[Sequence[str]],
    left: Collection[int] = (0,),
    dim: Collection[int] = (0,),
    cyan: int | None = None,
) -> None:
    """Rows of cells, never cut short: an id can always be copied, and a number that is cut is another one.

    Args:
        left: which columns are aligned to the left.
        dim: which rows are faint, as headings are.
        cyan: which column stands out.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = Text(style="dim" if number in dim else "")
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            style = "cyan" if i == cyan and number not in dim else ""
            line.append((cell.ljust(width) if i in left else cell.rjust(width)) + "  ", style)
        line.rstrip()
        console.print(line, soft_wrap=True)


def moment(value: str) -> str:
    """An ISO time for people; anything else as it is."""
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return value
    return f"{when.day} {when:%B %Y, %H:%M}"


_LINE = re.compile(r"(\s*(?:- )*)(?:([^\s#'\"\[{-][^:]*|'[^']*'|\"[^\"]*\")(:(?=\s|$)))?(\s*)(.*)")
_KINDS = {
    "n": re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
    "w": re.compile(r"true|false|null|\[\]|\{\}"),
    "c": re.compile(r"#.*"),
}


def highlight(text: str) -> Markup:
    """YAML with its keys and values marked up; everything is escaped."""
    lines = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None
        lead, key, colon, space, value = (part or "" for part in match.groups())
        kind = next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(value)), "s")
        marked = Markup('<span class="k">{}</span>').format(key) if key else ""
        lines.append(Markup('{}{}{}{}<span class="{}">{}</span>').format(lead, marked, colon, space, kind, value))
    return Markup("\n").join(lines)


def render(template: str, **values: Any) -> str:
    """A page from a template, which can use the ways of writing above and knows when and by what it is made."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, short=short, clock=clock, moment=moment, highlight=highlight)
    made = datetime.now().astimezone().isoformat()
    return environment.get_template(template).render(**values, made=made, version=__version__)


def write_text(path: Path, text: str, option: str) -> None:
    """Writes the file, and its folder if need be.

    Raises:
        RlalgoError: it cannot be written; names the option to change.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise RlalgoError(f"{path} cannot be written: {error.strerror or error}; choose another {option}") from error
