"""What reaches the terminal: text as it is, whoever wrote it, and nothing that steers the terminal."""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tabs and line breaks, those that turn the direction of writing, halves of characters."""


def visible(text: str) -> str:
    """With what could steer a terminal written out, as `\\x1b`."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """All that is printed goes through one: brackets are no markup, colons no emoji, and what is hidden is seen."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, highlight=False, markup=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
