"""Training steps of the Q-learning algorithms beside d3rlpy's: batches of 256, two hidden layers of 256, as for Hopper.

d3rlpy runs in an environment and a process of its own (`make bench` sets D3RLPY_PYTHON); the two take turns, a block of
steps each, sampling included. Without it only our own steps are done, once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rlutils
from rlalgo import BatchRLAlgo, Episodes
from tests.benchmarks.d3rlpy_scores import export
from tests.benchmarks.test_speed import episodes, full  # noqa: F401 (fixtures)

PEER = "D3RLPY_PYTHON"
BATCH = 256
STEPS = {"td3_bc": 40, "iql": 30, "cql": 4}
"""Steps in a block."""
OTHERS = {"awac": 30, "rebrac": 20, "edac": 3, "sac_n": 3}
"""Of which d3rlpy has none, or none with these settings: measured by themselves."""


class Peer:
    """d3rlpy's trainer, waiting in its own process for the number of steps to do."""

    def __init__(self, name: str, data: Path) -> None:
        script = str(Path(__file__).with_name("peer_d3rlpy.py"))
        self.process = subprocess.Popen(
            [os.environ[PEER], script, "serve", str(data), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        )
        while (line := self._read()) != "ready":
            assert line, "d3rlpy did not start"

    def steps(self, n: int) -> float:
        """Seconds that n steps took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return line.strip() if line else ""


@pytest.fixture
def peer(request: pytest.FixtureRequest, episodes: Episodes, full: bool, tmp_path: Path) -> Iterator[Peer | None]:  # noqa: F811
    name = request.getfixturevalue("name")
    if not full or name not in STEPS or PEER not in os.environ:
        yield None
        return
    export(episodes, tmp_path / "data.npz")
    found = Peer(name, tmp_path / "data.npz")
    yield found
    found.process.kill()
    found.process.wait()


def trained(name: str, episodes: Episodes) -> BatchRLAlgo:  # noqa: F811
    """The algorithm with its defaults, ready to train."""
    torch.manual_seed(0)
    entry = rlutils.catalogue().get("algo", name)
    algo = entry.cls(episodes.spec, entry.Config())
    algo.prepare(episodes, total_steps=100_000)
    return algo.train()


@pytest.mark.parametrize("name", [*STEPS, *OTHERS])
def test_q_step(benchmark: Any, full: bool, episodes: Episodes, peer: Peer | None, name: str) -> None:  # noqa: F811
    algo = trained(name, episodes)
    data = algo.dataset(episodes)
    generator = torch.Generator().manual_seed(0)
    block = (STEPS | OTHERS)[name] if full else 1
    seconds: list[float] = []

    def peers_turn() -> None:
        if peer is not None:
            seconds.append(peer.steps(block))

    def ours() -> dict[str, torch.Tensor]:
        parts = data.rows(BATCH * block, generator).split(BATCH)  # as the trainer draws them
        for step, rows in enumerate(parts, 1):
            metrics = algo.update(data.gather(rows), step)
        return metrics

    warmup = 2
    metrics = benchmark.pedantic(ours, setup=peers_turn, rounds=15 if full else 1, warmup_rounds=warmup)
    assert all(torch.isfinite(value) for value in metrics.values())
    median = statistics.median(seconds[warmup:]) if seconds else None
    benchmark.extra_info.update(peer="d3rlpy" if seconds else "none", peer_median=median, times=block)
