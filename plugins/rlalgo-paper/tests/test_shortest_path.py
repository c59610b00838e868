"""Shortest paths: graph, walks and histograms against plain searches, data against the environment."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import assume, given
from hypothesis import strategies as st
from rlalgo import Episodes
from rlalgo.errors import ConfigError
from rlutils.config.catalogue import read_settings
from rlutils.envs.gym import GymEnv
from scipy.stats import chisquare

from rlalgo_paper import Graph, GraphRules, ShortestPath, ShortestPathSource, histogram, mean_return, mean_steps

RULES = {
    "nodes": st.integers(2, 9),
    "edge_probability": st.floats(0.05, 0.8),
    "graph_seed": st.integers(0, 99),
}


def load(**options: Any) -> Episodes:
    return ShortestPathSource(ShortestPathSource.Config(**options)).load()


def graph(**options: Any) -> Graph:
    try:
        return Graph(GraphRules(**options))
    except ValueError:
        assume(False)
        raise


@given(**RULES)
def test_distances_are_those_of_a_plain_search(**options: Any) -> None:
    found = graph(**options)
    edges = found.edges
    reaching = []
    for goal in range(len(edges)):
        steps, front = {goal: 0}, [goal]
        while front:
            front = [a for a in range(len(edges)) if a not in steps and any(edges[a, b] for b in front)]
            steps |= dict.fromkeys(front, max(steps.values()) + 1)
        reaching.append(steps)
    mine = reaching[found.goal]
    assert {n: d for n, d in enumerate(found.distances) if np.isfinite(d)} == mine
    assert found.starts.tolist() == sorted(set(mine) - {found.goal})
    assert (len(mine), sum(mine.values())) == max((len(steps), sum(steps.values())) for steps in reaching)
    assert not edges.diagonal().any()


@given(steps=st.integers(1, 4), **RULES)
def test_the_walks_histogram_is_exact(steps: int, **options: Any) -> None:
    found, shares = graph(**options), [Fraction(0)] * (steps + 1)

    def walk(node: int, taken: int, chance: Fraction) -> None:
        ways = np.flatnonzero(found.edges[node]).tolist() or [node]
        for to in ways:
            if to == found.goal or taken + 1 == steps:
                shares[taken if to == found.goal else steps] += chance / len(ways)
            else:
                walk(to, taken + 1, chance / len(ways))

    for start in found.starts.tolist():
        walk(start, 0, Fraction(1, len(found.starts)))
    assert found.walks(steps) == pytest.approx([float(share) for share in shares], abs=1e-12)


def test_the_default_graph_and_its_numbers() -> None:
    found = Graph(GraphRules())
    assert len(found.edges) == 20
    assert len(found.starts) == 17
    assert mean_steps(found.optimum()) == pytest.approx(48 / 17)
    assert mean_steps(found.walks()) == pytest.approx(7.0753, abs=1e-4)
    episodes = load(episodes=10_000)
    played = histogram(episodes.lengths(), episodes.info["success"].bool())
    assert chisquare(played, 10_000 * found.walks()).pvalue > 1e-3
    assert mean_return(played) == pytest.approx(float(episodes.returns().mean()))
    assert episodes.spec.ref_scores == pytest.approx((mean_return(found.walks()), mean_return(found.optimum())))


def test_histograms_count_failures_as_the_longest_walk() -> None:
    counts = histogram([1, 3, 10, 10], [True, True, True, False])
    assert counts.tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert mean_steps(counts) == (1 + 3 + 10 + 10) / 4
    assert mean_return(counts) == (0 - 2 - 9 - 10) / 4


@pytest.mark.parametrize("options", [{}, {"nodes": 7, "edge_probability": 0.4, "steps": 4}, {"goal": 3}], ids=str)
def test_the_data_is_what_the_environment_gives_for_the_same_moves(options: dict[str, Any]) -> None:
    episodes = load(episodes=80, **options).check("test")
    (env,) = GymEnv(GymEnv.Config()).make(episodes.spec, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(len(episodes)):
            one = episodes.select(torch.tensor([number]))
            observation, info = env.reset(seed=int(one.info["seed"]))
            assert info["start"] == int(one.info["start"])
            seen, rewards, ends = [observation], [], []
            for action in one.actions.tolist():
                observation, reward, terminated, truncated, info = env.step(action)
                seen.append(observation)
                rewards.append(reward)
                ends.append((terminated, truncated and not terminated))
            assert torch.equal(torch.from_numpy(np.stack(seen)), one.observations)
            assert rewards == one.rewards.tolist()
            assert ends == list(zip(one.terminations.tolist(), one.truncations.tolist(), strict=True))
            assert info["success"] == bool(one.info["success"])
    assert set(episodes.info["success"].tolist()) == {False, True}


@given(**RULES)
def test_walks_go_over_edges_and_stay_where_there_are_none(**options: Any) -> None:
    found = graph(**options)
    episodes = load(episodes=20, **options)
    rows = torch.arange(episodes.steps) + episodes.episode_ids()
    nodes = episodes.observations.argmax(1)
    here, then = nodes[rows], nodes[rows + 1]
    assert torch.equal(then, episodes.actions)
    stays = torch.from_numpy(~found.edges.any(1))[here] & (here == then)
    assert (torch.from_numpy(found.edges)[here, then] | stays).all()


def test_the_shortest_way_is_played_and_a_wrong_one_costs_a_step() -> None:
    env = ShortestPath()
    found = env.graph
    for seed in range(40):
        env.reset(seed=seed)
        wrong = int(np.flatnonzero(~found.edges[env.node])[0])
        seen, reward, over, *_ = env.step(wrong)
        assert (seen.argmax(), reward, over) == (env.start, -1, False)
        total, steps = 0.0, 0
        while not over:
            ways = np.flatnonzero(found.edges[env.node])
            _, reward, over, _, info = env.step(int(ways[found.distances[ways].argmin()]))
            total, steps = total + reward, steps + 1
        assert steps == found.distances[info["start"]]
        assert total == 1 - steps
        assert info["success"]


def test_the_seeds_say_everything() -> None:
    a, b, other = load(episodes=50), load(episodes=50), load(episodes=50, seed=1)
    assert torch.equal(a.actions, b.actions)
    assert not (len(a.actions) == len(other.actions) and torch.equal(a.actions, other.actions))
    assert not np.array_equal(Graph(GraphRules()).edges, Graph(GraphRules(graph_seed=5)).edges)


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    env = gymnasium.make("ShortestPath-v0", render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (320, 320, 3)
    env.step(int(np.flatnonzero(env.unwrapped.graph.edges[env.unwrapped.node])[0]))
    assert not np.array_equal(before, env.render())
    assert env.spec.max_episode_steps == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 1}, r"source.nodes: should be greater than or equal to 2, got 1"),
        ({"edge_probability": 0.0}, r"source.edge_probability: should be greater than 0"),
        ({"goal": 20}, r"source: goal: there are nodes 0 to 19, got 20"),
        ({"goal": 5, "nodes": 9, "edge_probability": 0.001}, r"source: goal: no way leads to node 5 .*choose another"),
        ({"step": 9}, r"source.step: unknown key 'step'. Did you mean 'steps'"),
    ],
)
def test_wrong_options_are_told_with_what_to_do(options: dict[str, Any], message: str) -> None:
    settings = {"plugins": ["rlalgo_paper"], "source": {"name": "shortest_path", **options}, "algo": "bc"}
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(settings)
    assert len(caught.value.faults) == 1
