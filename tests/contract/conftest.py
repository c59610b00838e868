"""The fixture that the suites of algorithms share."""

from __future__ import annotations

import pytest

from tests.contract.setups import Setup, algos, build


@pytest.fixture(params=algos(), ids="-".join)
def setup(request: pytest.FixtureRequest) -> Setup:
    """Every registered algorithm in every action space, one after another."""
    return build(*request.param)
