"""One action of an exported policy beside the native one's, at the sizes for Hopper: alone, and 64 side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlutils
from rlalgo import Episodes
from rlalgo.config import parse
from rlutils.exporting.export import write_export
from rlutils.exporting.runtime import Policy
from tests.benchmarks.test_speed import compare, episodes, full  # noqa: F401 (fixtures)


@pytest.mark.parametrize("n", [1, 64])
@pytest.mark.parametrize("name", ["bc", "iql", "dt"])
def test_exported(benchmark: Any, full: bool, episodes: Episodes, name: str, n: int, tmp_path: Path) -> None:  # noqa: F811
    """Late in an episode; as ONNX where it is measured, else as TorchScript, which is there sooner."""
    catalogue = rlutils.catalogue()
    cls = catalogue.get("algo", name).cls
    algo = cls(episodes.spec, parse(cls.Config, {}, catalogue, name))
    algo.prepare(episodes, 100)
    option = algo.eval().PolicyConfig(**({"target_return": 3600.0} if name == "dt" else {}))
    exported = Policy(write_export(algo, option, tmp_path / "out", "onnx" if full else "torchscript"), rows=n)
    native, rows, seen, reward = algo.policy([option] * n), torch.arange(n), episodes.observations[:n], torch.ones(n)
    native.reset(rows)
    observation, paid = seen.numpy(), reward.numpy()

    def theirs() -> torch.Tensor:
        action = native.act(seen, rows)
        native.observe(reward, rows)
        return action

    for _ in range(25 if full else 2):
        exported.act(observation, paid)
        theirs()
    mine, peers = compare(
        benchmark,
        lambda: exported.act(observation, paid),
        theirs,
        rounds=30,
        times=20 if n == 1 else 5,
        peer="the native policy",
    )
    np.testing.assert_allclose(mine, peers, atol=1e-4)
