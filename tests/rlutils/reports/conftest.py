"""What the tests of reports share."""

from __future__ import annotations

import pytest

from rlutils.reports import plots


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of text and numbers: figures are made but not laid out and written, which takes the time."""
    monkeypatch.setattr(plots, "to_svg", lambda figure: "<svg/>")
