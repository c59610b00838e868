"""Environments with several choices at a time, from a random recording to a trained policy that records in its turn."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
from rlalgo.config import parse
from rlalgo.errors import ConfigError
from rlutils.collecting.collect import collect
from rlutils.collecting.settings import CollectSettings
from rlutils.config.catalogue import catalogue
from rlutils.data.minari_source import MinariSource
from rlutils.evaluation.evaluators.action_error import error_of

SPACES = {
    "binary": spaces.MultiBinary((1, 3)),
    "discrete": spaces.MultiDiscrete([2, 3], start=[-1, 4]),
    "many": spaces.MultiDiscrete([3] * 8, start=[1] * 8),
}


class Match(gymnasium.Env):
    """Shows what to choose, as numbers; the reward is the share of right choices, for five steps."""

    def __init__(self, kind: str) -> None:
        self.action_space = SPACES[kind]
        self.observation_space = spaces.Box(-9, 9, (math.prod(self.action_space.shape or ()),), np.float32)

    def look(self) -> np.ndarray:
        self.right = self.action_space.sample()
        return self.right.ravel().astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.action_space.seed(seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        return *self._next(float((action == self.right).mean())), self.t == 5, {}

    def _next(self, reward: float) -> tuple[np.ndarray, float, bool]:
        return self.look(), reward, False


for name in SPACES:
    gymnasium.register(
        f"choices/{name}-v0", entry_point="tests.rlutils.test_choices:Match", kwargs={"kind": name}, max_episode_steps=5
    )

ALGOS: dict[str, dict[str, Any]] = {
    "bc": {"hidden_dims": [32], "lr": 1e-2, "gaussian": False},
    "dt": {"context_length": 2, "embed_dim": 16, "n_layers": 1, "lr": 3e-3, "warmup": 1, "return_scale": 5.0},
    "dqn": {"hidden_dims": [32], "lr": 1e-2, "gamma": 0.1},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path


def recorded(kind: str, name: str, behavior: Any, steps: int) -> str:
    values = {
        "id": f"choices/{kind}-{name}-v0",
        "env": {"id": f"choices/{kind}-v0"},
        "behavior": behavior,
        "steps": steps,
    }
    return collect(parse(CollectSettings, values, catalogue(()))).id


def trained(ident: str, algo: str, out: Path, steps: int, **evaluation: Any) -> Any:
    config = {
        "threads": 1,
        "source": {"name": "minari", "id": ident},
        "algo": {"name": algo, **ALGOS[algo]},
        "trainer": {"name": "offline", "steps": steps, "batch_size": 64},
        "evaluation": {"episodes": 10, **evaluation},
        "callbacks": [],
    }
    return rlutils.train(config, out=out)


def test_the_error_of_several_actions_is_the_share_of_wrong_ones() -> None:
    batch = SimpleNamespace(actions=torch.tensor([[0, 1], [2, 0]]))
    pairs = [(torch.tensor([[0, 0], [2, 0]]), batch), (torch.tensor([[1, 0], [2, 0]]), batch)]
    assert error_of(iter(pairs)) == (0.5 + 0 + 1 + 0) / 4


@pytest.mark.parametrize("kind", SPACES)
def test_from_a_random_recording_to_a_policy_and_back(kind: str, root: Path) -> None:
    """Values tell what is right, and cloning who knows it does as well."""
    teacher = recorded(kind, "random", "random", 500)
    if kind == "many":
        with pytest.raises(
            ConfigError, match=r"dqn needs a Discrete action space; .* has MultiDiscrete.* Try: bc, dt\."
        ):
            trained(teacher, "dqn", root / "dqn", 1)
        with pytest.raises(
            ConfigError, match=r"fqe: critics value actions of a Box or Discrete space, got MultiDiscrete"
        ):
            trained(teacher, "bc", root / "judged", 1, evaluators=["fqe"])
    else:
        run = trained(teacher, "dqn", root / "dqn", 200)
        assert np.mean(run.last_result.policies[0].returns) > 4.9
        behavior = {"name": "run", "run": str(run.folder), "noise": [0.1, 0.1]}
        teacher = recorded(kind, "good", behavior, 500)
    data = MinariSource(MinariSource.Config(teacher)).load()
    assert len(data.actions.unique(dim=0)) > 3
    for algo in ("bc", "dt"):
        run = trained(teacher, algo, root / algo, 120)
        (result,) = rlutils.evaluate(run.folder).policies
        assert len(result.returns) == 10
        if kind != "many":
            assert np.mean(result.returns) > 4.5, algo
