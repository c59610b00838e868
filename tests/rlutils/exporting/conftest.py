"""Exports that several tests look at; copy one before changing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlalgo import BatchRLAlgo
from rlutils.exporting.export import write_export
from tests.contract.setups import build


@pytest.fixture(scope="session")
def dt() -> BatchRLAlgo:
    return build("dt", "box").train(30).eval()


@pytest.fixture(scope="session")
def dt_folder(dt: BatchRLAlgo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(dt, dt.PolicyConfig(target_return=5.0), tmp_path_factory.mktemp("exports") / "dt")


@pytest.fixture(scope="session")
def bc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    algo = build("bc", "discrete").train(30).eval()
    return write_export(algo, algo.PolicyConfig(), tmp_path_factory.mktemp("exports") / "bc")
