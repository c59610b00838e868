"""Behaviors: the random search improves, recording spreads over returns, a trained run acts as it was trained."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
import tests.rlalgo.toy_envs  # noqa: F401 (registers the environments)
from rlalgo.config import parse
from rlalgo.core.rollout import episode
from rlalgo.errors import ConfigError, EnvironmentFault
from rlutils.collecting.behaviors.ars import ARS, _Search
from rlutils.collecting.behaviors.random import Random
from rlutils.collecting.behaviors.trained import RunPolicy
from rlutils.collecting.collect import collect
from rlutils.collecting.minari_writer import Recorded
from rlutils.collecting.settings import CollectSettings
from rlutils.config.catalogue import catalogue
from rlutils.config.files import read_yaml
from rlutils.envs.gym import make_env
from tests.rlutils.runs import toy_config
from tests.rlutils.toy_plugin import PointEnv

CONFIGS = Path(__file__).parents[3] / "configs" / "collect"


def quiet(phase: str, done: float) -> None:
    assert 0 <= done <= 1


def recorded(behavior: Any, env: gymnasium.Env, steps: int, seed: int = 0) -> list[Recorded]:
    """Episodes as `collect` plays them, without a dataset."""
    played: list[Recorded] = []
    for policy, facts in behavior.policies(env, seed, quiet):
        played.append((episode(policy, env, facts.get("seed", seed + len(played))), facts))
        if sum(len(trace.rewards) for trace, _ in played) >= steps:
            break
    return played


SMALL = {"budget": 6000, "trials": 2, "trial_budget": 1000, "step_size": 0.1, "std": 0.1, "shift": 0.0, "horizon": 12}


def test_the_search_improves_the_policy() -> None:
    search = _Search(PointEnv(), ARS.Config(**SMALL), np.random.default_rng(0))
    early, late = [], []
    for _ in range(30):
        search.update()
        (early if len(early) < 3 else late).append(search.recent)
    assert np.mean(late[-3:]) > np.mean(early) + 3  # the best possible is about 10 above doing nothing


def test_one_update_is_the_papers_formula() -> None:
    """Algorithm 2 by a plain loop, with the same directions, in an environment whose return is known."""

    class Linear(gymnasium.Env):
        """Three steps; the reward is the first action, whatever is seen."""

        observation_space = spaces.Box(-np.inf, np.inf, (2,))
        action_space = spaces.Box(-100.0, 100.0, (1,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            self.t = 0
            return np.array([1.0, 2.0]), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.t += 1
            return np.array([1.0 + self.t, 2.0]), float(action[0]), self.t == 3, False, {}

    config = ARS.Config(directions=5, top=2, step_size=0.3, std=0.2, shift=0.5)
    search = _Search(Linear(), config, np.random.default_rng(7))
    search.update()

    rng = np.random.default_rng(7)
    directions = rng.standard_normal((5, 1, 2))
    states = [np.array([1.0, 2.0]), np.array([2.0, 2.0]), np.array([3.0, 2.0])]
    plus, minus = [], []
    for d in directions:  # the first update sees raw states: mean 0, deviation 1
        plus.append(sum(float((0.2 * d @ s)[0]) - 0.5 for s in states))
        minus.append(sum(float((-0.2 * d @ s)[0]) - 0.5 for s in states))
    best = sorted(range(5), key=lambda k: -max(plus[k], minus[k]))[:2]
    sigma = np.std([r for k in best for r in (plus[k], minus[k])])
    expected = sum(0.3 / (2 * sigma) * (plus[k] - minus[k]) * directions[k] for k in best)
    assert pytest.approx(expected, rel=1e-4) == search.M
    assert search.mean == pytest.approx([2.0, 2.0])
    assert search.std == pytest.approx([np.std([1, 2, 3]), 1e-6])


def test_running_statistics_equal_those_of_all_states_at_once() -> None:
    search = _Search(PointEnv(), ARS.Config(), np.random.default_rng(0))
    parts = [np.random.default_rng(i).normal(i, 1 + i, (10 + i, 2)) for i in range(4)]
    for part in parts:
        search._normalize(part)
    together = np.concatenate(parts)
    assert search.mean == pytest.approx(together.mean(0))
    assert search.std == pytest.approx(together.std(0))


def test_recorded_returns_spread_from_poor_to_good() -> None:
    played = recorded(ARS(ARS.Config(**SMALL, bins=6, noise=(0.0, 0.1))), PointEnv(), 1200)
    counts, _ = np.histogram([trace.ret for trace, _ in played], bins=5)
    assert (counts >= 5).all()  # no gap anywhere between the worst and the best
    noises = {facts["noise"] for _, facts in played}
    assert 0.0 in noises
    assert 0 < max(noises) <= 0.1
    assert len({facts["policy"] for _, facts in played}) > 10


def test_the_same_seed_records_the_same_arrays() -> None:
    a, b, c = (recorded(ARS(ARS.Config(**SMALL)), PointEnv(), 100, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x.actions, y.actions) and x.seed == y.seed for (x, _), (y, _) in zip(a, b, strict=True))
    assert not np.array_equal(a[0][0].actions, c[0][0].actions)


def test_ars_refuses_what_it_cannot_act_in() -> None:
    with pytest.raises(EnvironmentFault, match=r"needs vector observations and a Box action space.*random"):
        recorded(ARS(ARS.Config(**SMALL)), PointEnv(discrete=True), 10)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for bad in ({"top": 9}, {"noise": (0.5, 0.1)}, {"budget": 1000}):
        with pytest.raises(ValueError, match=r"top|noise|trials"):
            ARS.Config(**bad)


def test_random_actions_cover_the_space() -> None:
    actions = np.concatenate([trace.actions for trace, _ in recorded(Random(Random.Config()), PointEnv(), 2000)])
    assert actions.min() < -0.95
    assert actions.max() > 0.95
    assert abs(actions.mean()) < 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    rlutils.train(toy_config(), out=folder, trainer__steps=20)
    return folder


def test_a_run_acts_as_its_policy_does(run: Path) -> None:
    behavior = RunPolicy(RunPolicy.Config(run=str(run), policies=({"target_return": 2.0}, {"target_return": 7.0})))
    algo = rlutils.load(run)
    for number, (played, facts) in enumerate(recorded(behavior, PointEnv(), 40, seed=5)):
        assert played.seed == 5 + number
        assert facts == {"policy": f"{algo.name} {behavior.config.policies[number % 2]}", "noise": 0.0}
        controller = rlutils.Controller(algo.policy([algo.PolicyConfig(target_return=(2.0, 7.0)[number % 2])]))
        controller.reset()
        for observation, action, reward in zip(played.observations, played.actions, played.rewards, strict=False):
            assert np.array_equal(controller.act(observation), action)
            controller.observe(reward)


def test_a_sampling_policy_gives_the_same_arrays_for_the_same_seed(tmp_path: Path) -> None:
    source = {"name": "toy", "discrete": True}
    config = toy_config("bc", source=source)
    rlutils.train(config, out=tmp_path / "run", trainer__steps=1)
    behavior = RunPolicy(RunPolicy.Config(run=str(tmp_path / "run"), policies=({"sample": True},)))
    played = []
    for seed in (1, 1, 2):
        torch.rand(7)  # whatever was drawn before
        played.append(recorded(behavior, PointEnv(discrete=True), 40, seed))
    a, b, c = ([[int(a) for a in trace.actions] for trace, _ in episodes] for episodes in played)
    assert a == b
    assert a != c
    assert a[0] != a[1]


def test_noise_is_drawn_per_episode_and_stays_in_the_space(run: Path) -> None:
    noisy = RunPolicy(RunPolicy.Config(run=str(run), noise=(0.2, 0.6), policies=({"target_return": 5.0},)))
    played = recorded(noisy, PointEnv(), 60)
    noises = {facts["noise"] for _, facts in played}
    assert len(noises) == len(played)
    assert all(0.2 <= noise <= 0.6 for noise in noises)
    assert all(PointEnv().action_space.contains(a) for trace, _ in played for a in trace.actions)
    plain = recorded(RunPolicy(RunPolicy.Config(run=str(run), policies=({"target_return": 5.0},))), PointEnv(), 10)
    assert not np.array_equal(plain[0][0].actions, played[0][0].actions)


def test_a_run_refuses_another_action_space_and_unknown_options(run: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"does not fit.*actions"):
        recorded(RunPolicy(RunPolicy.Config(run=str(run))), PointEnv(discrete=True), 10)
    with pytest.raises(ConfigError, match="target_retrun"):
        recorded(RunPolicy(RunPolicy.Config(run=str(run), policies=({"target_retrun": 1},))), PointEnv(), 10)


@pytest.mark.parametrize("name", ["hopper", "cartpole"])
def test_the_shipped_random_scores_are_those_of_our_own_environments(name: str) -> None:
    """D4RL's are of others."""
    values = parse(CollectSettings, read_yaml(CONFIGS / f"{name}.yaml"), catalogue())
    assert values.ref_scores is not None
    with contextlib.closing(make_env(values.env.id, values.env.kwargs)) as env:
        policy, _ = next(iter(Random(Random.Config()).policies(env, 0, quiet)))
        returns = [episode(policy, env, 10_000 + number).ret for number in range(100)]
    error = np.std(returns, ddof=1) / 10
    assert abs(np.mean(returns) - values.ref_scores[0]) < 4 * error


@pytest.mark.slow
def test_hopper_collects_a_wide_even_spread_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped configuration: 30,000 steps or more, below 100 to above 2,000, the same arrays again."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    values = read_yaml(CONFIGS / "hopper.yaml")
    arrays = []
    for name in ("a-v0", "b-v0"):
        result = collect(parse(CollectSettings, {**values, "id": f"hopper/{name}"}, catalogue()))
        assert result.steps >= 30_000
        assert min(result.returns) < 100
        assert max(result.returns) > 2_000
        gaps = np.diff(np.sort([r for r in result.returns if r < 2_000]))
        assert gaps.max() < 300
        arrays.append([x for e in minari.load_dataset(f"hopper/{name}") for x in (e.observations, e.actions)])
    assert all(np.array_equal(x, y) for x, y in zip(*arrays, strict=True))
