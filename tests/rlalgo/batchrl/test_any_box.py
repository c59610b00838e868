"""Actions of any unit and any bounds are learnt as well as those in [-1, 1]; discrete ones may start anywhere."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo.config import parse
from rlalgo.plugins import default_catalogue
from tests.rlalgo.toy_data import make_episodes

SMALL: dict[str, dict[str, Any]] = {
    "bc": {"hidden_dims": (8, 8)},
    "dt": {"context_length": 4, "embed_dim": 8, "n_layers": 1},
    "iql": {"hidden_dims": (8, 8)},
    "awac": {"hidden_dims": (8, 8)},
    "td3_bc": {"hidden_dims": (8, 8)},
    "rebrac": {"hidden_dims": (8, 8)},
    "cql": {"hidden_dims": (8, 8)},
    "edac": {"hidden_dims": (8, 8), "n_critics": 2},
}
BIGGEST = float(np.finfo(np.float32).max)
BOXES = {
    "0 to 100": (0.0, 100.0),
    "unbounded": (-np.inf, np.inf),
    "0 to infinity": (0.0, np.inf),
    "at most 100": (-np.inf, 100.0),
    "wide": (-1e6, 1e6),
    "widest": (-BIGGEST, BIGGEST),
}


def boxed(low: float, high: float, change: Callable[[Tensor], Tensor]) -> Episodes:
    """Episodes whose actions, changed from [-1, 1], reach both ends of the range in both dimensions."""
    episodes = make_episodes("box", (6, 5, 7), seed=1)
    actions = torch.randint(-64, 65, (18, 2), generator=torch.Generator().manual_seed(0)) / 64
    actions[0], actions[1] = -1, 1
    space = spaces.Box(low, high, (2,), np.float32)
    spec = DataSpec(episodes.spec.observation_space, space)
    return replace(episodes, actions=change(actions), spec=spec).check("boxed")


def trained(name: str, episodes: Episodes, steps: int = 15) -> tuple[BatchRLAlgo, Any]:
    """A small algorithm after some updates on all of the data, and that batch."""
    entry = default_catalogue().get("algo", name)
    torch.manual_seed(0)
    algo = entry.cls(
        episodes.spec, parse(entry.Config, SMALL.get(name, {"hidden_dims": [8, 8]}), default_catalogue(), name)
    )
    algo.prepare(episodes, steps)
    data = algo.dataset(episodes)
    batch = data.gather(torch.arange(len(data)))
    algo.train()
    for step in range(steps):
        algo.update(batch, step + 1)
    return algo, batch


@pytest.mark.parametrize("bounds", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("name", SMALL)
def test_other_units_and_bounds_change_nothing(name: str, bounds: tuple[float, float]) -> None:
    """Actions times 50 plus 50 are learnt to the same error, whatever the bounds are."""
    plain, batch = trained(name, boxed(-1, 1, lambda actions: actions))
    other, same_batch = trained(name, boxed(*bounds, lambda actions: 50 * actions + 50))
    real = getattr(batch, "mask", ...)  # what a window predicts at padding means nothing
    expected, got = plain.predict(batch)[real], other.predict(same_batch)[real]
    torch.testing.assert_close((got - 50) / 50, expected, atol=1e-5, rtol=0)
    error = (expected - batch.actions[real]).square().mean()
    torch.testing.assert_close((got - same_batch.actions[real]).square().mean() / 2500, error, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_the_range_of_the_data_is_saved_with_the_weights(name: str) -> None:
    algo, batch = trained(name, boxed(-np.inf, np.inf, lambda actions: 50 * actions + 50), steps=3)
    loaded = type(algo)(algo.spec, algo.config)
    loaded.load_state_dict(algo.state_dict())
    assert torch.equal(loaded.predict(batch), algo.predict(batch))


@pytest.mark.parametrize("start", [-5, 2, 7])
@pytest.mark.parametrize("name", ["bc", "dt", "dqn", "discrete_cql", "discrete_iql"])
def test_discrete_actions_start_anywhere(name: str, start: int) -> None:
    """Windows are padded with zeros, which need be no action."""
    episodes = make_episodes("discrete", (6, 2, 7))
    spec = DataSpec(episodes.spec.observation_space, spaces.Discrete(3, start=start))
    moved = replace(episodes, actions=episodes.actions + start, spec=spec).check("moved")
    (plain, batch), (other, same_batch) = trained(name, episodes), trained(name, moved)
    real = getattr(batch, "mask", ...)
    assert torch.equal(other.predict(same_batch)[real], plain.predict(batch)[real] + start)
    policy = other.policy([other.PolicyConfig()] * 4)
    policy.reset(torch.arange(4))
    for _ in range(3):
        assert all(spec.action_space.contains(int(a)) for a in policy.act(torch.randn(4, 2), torch.arange(4)))
