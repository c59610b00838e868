"""Speed with images of Atari's size: stacking frames beside a plain copy, acting beside embedding whole windows, and
the encoders of rlalgo-cnn by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
from rlalgo import DataSpec, Episodes
from rlalgo.batchrl.dt import DecisionTransformer, RtgEpDataset
from rlalgo.config import parse
from rlutils.config.catalogue import catalogue
from rlutils.data.mapped import Allocate, map_episodes
from tests.benchmarks.test_speed import compare, full  # noqa: F401 (a fixture)

STACK = 4
PLUGINS = ("rlalgo_cnn",)


def frames(full: bool, allocate: Allocate = np.empty) -> Episodes:  # noqa: F811
    """Single frames of 84x84 (of 40x40 where nothing is measured), 30,000 of them."""
    size, length, e = (84, 1000, 30) if full else (40, 20, 3)
    n = length * e
    observations = allocate((n + e, size, size), np.uint8)
    observations[:] = np.random.default_rng(0).integers(0, 256, observations.shape, np.uint8)
    no = torch.zeros(n, dtype=torch.bool)
    spec = DataSpec(spaces.Box(0, 255, (size, size), np.uint8), spaces.Discrete(4), frame_stack=STACK)
    return Episodes(
        torch.from_numpy(observations), torch.zeros(n, dtype=torch.int64), torch.ones(n), no, no.clone(),
        torch.arange(e + 1) * length, spec,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["memory", "mapped"])
def test_gather_frames(
    benchmark: Any, full: bool, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """128 windows of 30 steps with stacks of four frames, against a copy of as many bytes."""
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path))
    episodes = frames(full) if where == "memory" else map_episodes("frames", {}, lambda make: frames(full, make))
    data = RtgEpDataset(episodes, K=30 if full else 5)
    rows = data.rows(128 if full else 4, torch.Generator().manual_seed(0))
    same = data.gather(rows).observations
    mine, copy = compare(benchmark, lambda: data.gather(rows), same.clone, rounds=12, peer="a copy of the same bytes")
    assert torch.equal(mine.observations, copy)
    window = data.gather(torch.tensor([5])).observations[0]  # and stacks are what they should be, the oldest first
    assert torch.equal(window[3], episodes.observations[5:9])


@pytest.mark.parametrize("n", [1, 32, 256])
@pytest.mark.parametrize("name", ["cnn", "impala"])
def test_encoder(benchmark: Any, full: bool, name: str, n: int) -> None:  # noqa: F811
    """Forward pass on n stacks of four frames of 84x84 bytes."""
    cls = catalogue(PLUGINS).get("encoder", name).cls
    space = spaces.Box(0, 255, (STACK, 84, 84), np.uint8)
    encoder = cls(space, 128, cls.Config())
    images = torch.randint(0, 256, (n if full else 1, *space.shape), dtype=torch.uint8)
    with torch.no_grad():
        out = benchmark.pedantic(encoder, (images,), rounds=15, warmup_rounds=2)
    assert out.shape == (len(images), 128)
    benchmark.extra_info.update(peer="none", peer_median=None, times=1)


def test_act_on_images(benchmark: Any, full: bool) -> None:  # noqa: F811
    """One action of a Decision Transformer with the paper's Atari context, against embedding the whole window anew."""
    episodes = frames(full)
    known = rlutils.catalogue(PLUGINS)
    options = {"context_length": 30 if full else 5, "state_encoder": {"name": "cnn", "tanh": True}, "warmup": 0}
    algo = DecisionTransformer(episodes.spec, parse(DecisionTransformer.Config, options, known, "dt"))
    algo.prepare(episodes, 100)
    algo.eval()
    K = algo.config.context_length
    data, row = RtgEpDataset(episodes, K), torch.zeros(1, dtype=torch.int64)
    policy = algo.policy([algo.PolicyConfig(target_return=90.0)])
    policy.reset(row)
    window = data.gather(row)
    logits: list[torch.Tensor] = []
    decode = algo.model.decode
    algo.model.decode = lambda *inputs: logits.append((out := decode(*inputs)).actions.logits) or out  # type: ignore[method-assign,func-returns-value]
    for frame in episodes.observations[:K]:
        action = policy.act(frame[None], row)
        policy.observe(torch.ones(1), row)
        window.actions[0, len(logits) - 1] = action
    window.returns_to_go[0] = 90.0 - torch.arange(K)
    played = logits[-1]
    algo.model.decode = decode  # type: ignore[method-assign]
    frame = episodes.observations[K : K + 1]

    def whole() -> torch.Tensor:
        with torch.no_grad():
            return algo(window.observations, window.actions, window.returns_to_go, window.timesteps).actions.logits

    _, theirs = compare(
        benchmark, lambda: policy.act(frame, row), whole, rounds=15, times=3, peer="embedding the window"
    )
    torch.testing.assert_close(played[0], theirs[0, -1], atol=1e-4, rtol=1e-4)
