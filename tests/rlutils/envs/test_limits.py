"""Environments without a time limit are cut at the data's longest episode, and that is said."""

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlalgo import DataSpec
from rlutils.envs import limits
from rlutils.envs.gym import GymEnv

SPEC = DataSpec(spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,)), max_steps=9, env_id="tests/Endless-v0")


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "_TOLD", set())
    gymnasium.register("tests/Endless-v0", "gymnasium.envs.classic_control:PendulumEnv")
    yield
    del gymnasium.registry["tests/Endless-v0"]


def length(env: gymnasium.Env, most: int = 300) -> int:
    """Steps until it is truncated."""
    env.reset(seed=0)
    for step in range(1, most + 1):
        _, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert not terminated
        if truncated:
            return step
    return 0


def test_an_environment_that_never_ends_is_cut_and_that_is_said_once() -> None:
    envs = GymEnv(GymEnv.Config()).make(SPEC, 2)
    with pytest.warns(limits.CutWarning) as told:
        assert [length(env) for env in envs for _ in range(2)] == [9] * 4
    assert [str(warning.message) for warning in told] == [
        "environment tests/Endless-v0 has no time limit of its own: episodes are cut after 9 steps, the longest of the "
        "data (env.kwargs: {max_episode_steps: N} sets another)"
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"kwargs": {"max_episode_steps": 12}}, 12), ({"id": "Pendulum-v1"}, 200)],
    ids=["set", "its own"],
)
def test_a_limit_of_its_own_stands(config: dict, expected: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", limits.CutWarning)
        assert length(GymEnv(GymEnv.Config(**config)).make(SPEC, 1)[0]) == expected
