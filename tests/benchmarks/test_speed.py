"""Speed of the Decision Transformer beside Hugging Face's model, at the paper's sizes for Hopper.

Both sides take turns, round by round, so that a busy machine slows both alike; only their ratio means something.
`make bench` prints it. Without --benchmark-enable every piece of work runs once, on a small scale, and its results
are compared, so that both sides are known to do the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes, WindowBatch, rollout
from rlalgo.batchrl.dt import DecisionTransformer, from_hugging_face
from tests.benchmarks.peer import ACTIONS, CONTEXT, LONGEST, SCALE, STATES, Peer

SPEC = DataSpec(
    spaces.Box(-np.inf, np.inf, (STATES,), np.float32),
    spaces.Box(-1, 1, (ACTIONS,), np.float32),
    max_steps=LONGEST,
)


class Steady(gymnasium.Env):
    """Episodes of one length, whatever is done: a falling robot would end them early and flatter every figure."""

    observation_space, action_space = SPEC.observation_space, SPEC.action_space

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.state = 0, self.np_random.normal(size=STATES)
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        self.state *= 0.9
        self.state[:ACTIONS] += action
        return self.state.copy(), float(action[0]), False, self.time == self.length, {}


@pytest.fixture(scope="module")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to work at full size: where something is measured."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture(scope="module")
def episodes(full: bool) -> Episodes:
    """150,000 steps in episodes of various lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 900, 300) if full else np.array([30, 9, 25])
    n, e = int(lengths.sum()), len(lengths)
    starts = torch.from_numpy(np.cumsum([0, *lengths]))
    ends = torch.zeros(n, dtype=torch.bool)
    ends[starts[1:] - 1] = True
    return Episodes(
        observations=torch.from_numpy(rng.normal(size=(n + e, STATES)).astype(np.float32)),
        actions=torch.from_numpy(rng.uniform(-1, 1, (n, ACTIONS)).astype(np.float32)),
        rewards=torch.from_numpy(rng.normal(3, 1, n).astype(np.float32)),
        terminations=torch.zeros(n, dtype=torch.bool),
        truncations=ends,
        starts=starts,
        spec=SPEC,
    )


@pytest.fixture(scope="module")
def lists(episodes: Episodes) -> list[dict[str, list]]:
    """The same data as Hugging Face's `datasets` would hand it out, episode by episode."""
    bounds = zip(episodes.first_rows().tolist(), *episodes.starts.unfold(0, 2, 1).T.tolist(), strict=True)
    return [
        {
            "observations": episodes.observations[row : row + end - start].tolist(),
            "actions": episodes.actions[start:end].tolist(),
            "rewards": episodes.rewards[start:end].tolist(),
        }
        for row, start, end in bounds
    ]


@pytest.fixture
def peer(lists: list[dict[str, list]]) -> Peer:
    """Hugging Face's model."""
    return Peer(lists)


@pytest.fixture
def algo(peer: Peer, episodes: Episodes) -> DecisionTransformer:
    """Ours, with the very same weights, in eval mode as `rlutils.load` gives it."""
    algo = DecisionTransformer(SPEC, DecisionTransformer.Config(max_timestep=LONGEST))
    algo.prepare(episodes, total_steps=100_000)
    theirs = from_hugging_face(peer.model.config.to_dict(), peer.model.state_dict())
    theirs.predict_state = theirs.predict_return = None
    algo.model.load_state_dict(theirs.state_dict())
    return algo.eval()


def pair(batch: WindowBatch, algo: DecisionTransformer) -> dict[str, torch.Tensor]:
    """Full windows as Hugging Face's model takes them."""
    assert batch.mask.all()
    return {
        "states": algo.normalizer(batch.observations),
        "actions": batch.actions,
        "returns_to_go": (batch.returns_to_go / SCALE).unsqueeze(-1),
        "timesteps": batch.timesteps,
        "attention_mask": batch.mask.float(),
    }


def windows(episodes: Episodes, algo: DecisionTransformer, n: int) -> WindowBatch:
    """n windows without padding."""
    data = algo.dataset(episodes)
    rows = data.rows(4 * n + 20, torch.Generator().manual_seed(0))
    rows = rows[data.gather(rows).mask.all(1)]
    return data.gather(rows[torch.arange(n) % len(rows)])


def compare(
    benchmark: Any,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    rounds: int,
    times: int = 1,
    peer: str = "Hugging Face",
) -> tuple[Any, Any]:
    """Both in turn, `rounds` times after warming up; what each gave last.

    Args:
        times: calls in one round, of which short work needs many. The medians are those of whole rounds; `times`
            and the peer's median go into the benchmark's extra_info.
        peer: what the other side is.
    """
    warmup, seconds, results = 3, [], []
    times = times if benchmark.enabled else 1

    def repeat(work: Callable[[], Any]) -> Any:
        for _ in range(times - 1):
            work()
        return work()

    def peers_turn() -> None:
        start = time.perf_counter()
        results[:] = [repeat(theirs)]
        seconds.append(time.perf_counter() - start)

    mine = benchmark.pedantic(repeat, (ours,), setup=peers_turn, rounds=rounds, warmup_rounds=warmup)
    benchmark.extra_info.update(peer=peer, peer_median=statistics.median(seconds[warmup:] or seconds), times=times)
    return mine, results[0]


@pytest.mark.parametrize("n", [1, 64, 256])
def test_forward(benchmark: Any, full: bool, episodes: Episodes, algo: DecisionTransformer, peer: Peer, n: int) -> None:
    """Actions for n windows."""
    batch = windows(episodes, algo, n if full else min(n, 8))
    inputs = pair(batch, algo)
    mine, theirs = compare(
        benchmark,
        lambda: algo.predict(batch),
        lambda: peer.forward(inputs),
        rounds={1: 30, 64: 40, 256: 12}[n],
        times=20 if n == 1 else 1,
    )
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_act(benchmark: Any, episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """One action in one environment, late in an episode."""
    policy = algo.policy([algo.PolicyConfig(target_return=3600.0)])
    row, T = torch.zeros(1, dtype=torch.int64), CONTEXT + 5
    seen = episodes.observations[:T]
    policy.reset(row)
    actions = []
    for observation in seen[:-1]:
        actions.append(policy.act(observation.unsqueeze(0), row)[0])
        policy.observe(torch.ones(1), row)
    history = (
        algo.normalizer(seen),
        torch.stack([*actions, torch.zeros(ACTIONS)]),
        ((3600 - torch.arange(T)) / SCALE).unsqueeze(1),
        torch.arange(T),
    )
    first = []

    def ours() -> None:
        first.append(policy.act(seen[-1:], row)[0])
        policy.observe(torch.ones(1), row)

    _, theirs = compare(benchmark, ours, lambda: peer.act(*history), rounds=30, times=20)
    torch.testing.assert_close(first[0], theirs, atol=1e-5, rtol=1e-5)


def test_train_step(benchmark: Any, full: bool, episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """Forward, backward, clipping, AdamW and schedule on 64 windows."""
    batch = windows(episodes, algo, 64 if full else 4)
    inputs = pair(batch, algo)
    algo.train()
    peer.model.train()
    mine, theirs = compare(benchmark, lambda: algo.update(batch, 1), lambda: peer.step(inputs), rounds=25)
    assert 0.5 < float(mine["actor/loss"]) / float(theirs) < 2  # dropout differs, and so do the steps after it


def test_sampler(benchmark: Any, full: bool, episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """64 random windows of 20 steps."""
    data = algo.dataset(episodes)
    generator = torch.Generator().manual_seed(0)
    n = 64 if full else 5
    mine, theirs = compare(
        benchmark, lambda: data.gather(data.rows(n, generator)), lambda: peer.collate(n), rounds=30, times=20
    )
    assert mine.observations.shape == theirs["states"].shape
    assert mine.actions.shape == theirs["actions"].shape


def test_training(benchmark: Any, full: bool, episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """Sampling and step together."""
    data = algo.dataset(episodes)
    generator = torch.Generator().manual_seed(0)
    n = 64 if full else 5
    algo.train()
    peer.model.train()
    mine, theirs = compare(
        benchmark,
        lambda: algo.update(data.gather(data.rows(n, generator)), 1),
        lambda: peer.step(peer.collate(n)),
        rounds=20,
    )
    assert np.isfinite([float(mine["actor/loss"]), float(theirs)]).all()


def test_rollout(benchmark: Any, full: bool, episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """16 episodes of one length: all side by side, against one after the other."""
    count, length = (16, 60) if full else (2, 8)
    envs = [Steady(length) for _ in range(count)]
    options = [algo.PolicyConfig(target_return=3600.0)] * count

    def ours() -> int:
        return rollout(algo.policy(options), envs, count, seed=0).steps

    mine, theirs = compare(benchmark, ours, lambda: peer.play(envs[0], 3600.0, count), rounds=6)
    assert mine == theirs == count * length


def test_both_play_the_same_episode(episodes: Episodes, algo: DecisionTransformer, peer: Peer) -> None:
    """The peer's evaluation is right: with our weights it acts as our policy does."""
    played = rollout(algo.policy([algo.PolicyConfig(target_return=3600.0)]), [Steady(30)], 1, seed=0)
    seen: list[np.ndarray] = []

    class Watched(Steady):
        def step(self, action: np.ndarray) -> Any:
            seen.append(action.copy())
            return super().step(action)

    peer.play(Watched(30), 3600.0, 1)
    np.testing.assert_allclose(np.stack(seen), played.actions.numpy(), atol=1e-4)
