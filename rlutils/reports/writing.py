"""How pages are written: numbers, clocks, pictures, templates."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from rlalgo.errors import RlalgoError
from rlutils.config.files import write_atomic
from rlutils.reports import plots


def number(value: float | None, places: int) -> str:
    """With separators and a true minus sign; a dash for nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # adding 0.0 makes -0.0 a plain zero


def clock(seconds: float) -> str:
    """`2 h 5 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


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
    "s": re.compile(r".+"),
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


def picture(figure: Figure, alt: str) -> Markup:
    """A figure as an image within the page: nothing in it can meet the page's own ids and styles."""
    coded = base64.b64encode(plots.to_svg(figure).encode()).decode()
    width, height = (round(96 * size) for size in figure.get_size_inches())
    tag = '<img src="data:image/svg+xml;base64,{}" alt="{}" width="{}" height="{}">'
    return Markup(tag).format(coded, alt, width, height)


def environment() -> jinja2.Environment:
    """Where the pages' templates are, with the ways of writing that they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, clock=clock, moment=moment, highlight=highlight)
    return environment


def write_text(path: Path, text: str, option: str) -> None:
    """RlalgoError that names the option to change if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise RlalgoError(f"{path} cannot be written: {error.strerror or error}; choose another {option}") from error
