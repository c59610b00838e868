"""Shortest paths from random walks (Chen et al. 2021, section 1): reach one node of a fixed random directed graph.

A step costs 1 unless it reaches the goal, so that the return of a walk of k steps that does is 1 - k, and -10 for one
that does not within its 10 steps. The graph, its goal and where walks begin are ours: the authors published none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw
from pydantic import Field
from rlalgo import DataSpec, Episodes
from rlalgo.config import Few, Fraction, Seed, Whole, parse
from rlalgo.registry import Catalogue, to_mapping
from scipy.sparse.csgraph import shortest_path

from rlalgo_paper.lockstep import recorded, seeds_and_draws

_SIDE, _RADIUS = 320, 9
"""Pixels of a picture, and of a node in it."""


@dataclass(frozen=True, kw_only=True)
class GraphRules:
    """Options of the graph, the same for data and play."""

    nodes: Annotated[int, Field(ge=2, le=1000)] = 20
    """How many nodes there are."""
    edge_probability: Fraction = 0.1
    """Of an edge from one node to another, in that direction."""
    graph_seed: Seed = 4
    """Of the edges; the graph is the same in all episodes."""
    goal: Whole | None = None
    """The node to reach; null: the one that most others reach, and of these the one that is farthest from them."""

    def __post_init__(self) -> None:
        Graph(self)


class Graph:
    """A fixed directed graph and the ways to its goal.

    Raises:
        ValueError: there is no such goal, or no way to it.
    """

    def __init__(self, rules: GraphRules) -> None:
        n = rules.nodes
        self.edges = np.random.default_rng(rules.graph_seed).random((n, n)) < rules.edge_probability
        """(n, n) bool, from row to column."""
        np.fill_diagonal(self.edges, False)
        if rules.goal is not None and rules.goal >= n:
            raise ValueError(f"goal: there are nodes 0 to {n - 1}, got {rules.goal}")
        ways = shortest_path(self.edges.astype(float), unweighted=True)  # (n, n) steps; infinite where there is no way
        reaching = np.isfinite(ways).sum(0)  # (n,) nodes that reach each, itself included
        far = np.where(np.isfinite(ways), ways, 0).sum(0)
        self.goal = int(np.lexsort((far, reaching))[-1]) if rules.goal is None else rules.goal
        self.distances = ways[:, self.goal]
        """(n,) fewest steps from each node to the goal; infinite where there is no way."""
        self.starts = np.flatnonzero(np.isfinite(self.distances) & (self.distances > 0))
        """Nodes that walks begin at: all that reach the goal, but the goal."""
        if not len(self.starts):
            raise ValueError(
                f"goal: no way leads to node {self.goal} in this graph; choose another goal or graph_seed, or a higher "
                "edge_probability"
            )
        moves = self.edges.copy()
        dead = ~moves.any(1)
        moves[dead, dead] = True  # where no edge leads away, a walk stays
        self.degrees = moves.sum(1)
        """(n,) how many moves there are from each node."""
        self.moves = np.argsort(~moves, 1, kind="stable")
        """(n, n) where they lead, in the first columns."""
        self._chance = moves / self.degrees[:, None]  # (n, n) of a random walk's next step

    def step(self, nodes: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(m,) the node after each action, which is the node to go to; one stays where no edge leads there."""
        return np.where(self.edges[nodes, actions], actions, nodes)

    def start(self, draws: np.ndarray) -> np.ndarray:
        """Numbers (m,) in [0, 1) -> nodes to begin at."""
        return self.starts[(draws * len(self.starts)).astype(int)]

    def optimum(self, steps: int = 10) -> np.ndarray:
        """(steps + 1,) the histogram of the shortest paths, one from each start."""
        away = self.distances[self.starts]
        return histogram(np.minimum(away, steps).astype(int), away <= steps, steps)

    def walks(self, steps: int = 10) -> np.ndarray:
        """(steps + 1,) the histogram of all random walks, as exact shares."""
        at = np.bincount(self.starts, minlength=len(self.edges)) / len(self.starts)  # (n,) where walks are
        shares = []
        for _ in range(steps):
            at = at @ self._chance
            shares.append(at[self.goal])
            at[self.goal] = 0
        return np.array([*shares, at.sum()])


def histogram(lengths: Any, success: Any, steps: int = 10) -> np.ndarray:
    """(steps + 1,) int64: episodes that reached the goal in 1, 2, ... steps, then those that failed.

    Args:
        lengths: (E,) steps of each episode.
        success: (E,) whether it reached the goal.
        steps: after how many an episode is cut, which is what a failure counts.
    """
    return np.bincount(np.where(success, np.asarray(lengths) - 1, steps), minlength=steps + 1)


def mean_steps(counts: np.ndarray) -> float:
    """Steps to the goal, of a histogram; a failure counts as the longest walk."""
    steps = np.minimum(np.arange(1, len(counts) + 1), len(counts) - 1)
    return float(counts @ steps / counts.sum())


def mean_return(counts: np.ndarray) -> float:
    """The return, of a histogram."""
    return float(-(counts @ np.arange(len(counts))) / counts.sum())


class ShortestPath(gymnasium.Env):
    """`ShortestPath-v0`; its arguments are the fields of `GraphRules`. Cut after 10 steps (`max_episode_steps`).

    An action is the node to go to. The info says `success` (the goal is reached) and `start`, the node begun at.

    Raises:
        ConfigError: there is no such option, or no way to the goal.
    """

    id: ClassVar[str] = "ShortestPath-v0"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (as Gymnasium's)

    def __init__(self, render_mode: str | None = None, **rules: Any) -> None:
        parsed = parse(GraphRules, rules, Catalogue(), self.id)
        self.graph, self.render_mode = Graph(parsed), render_mode
        self.observation_space, self.action_space = _spaces(parsed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A new walk; the seed says where it begins."""
        super().reset(seed=seed)
        self.start = self.node = int(self.graph.start(self.np_random.random(1))[0])
        return self._seen()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """To the node `action` if an edge leads there; else one stays, which costs a step as well."""
        self.node = int(self.graph.step(np.array([self.node]), np.array([action]))[0])
        seen, info = self._seen()
        return seen, float(info["success"]) - 1, info["success"], False, info

    def render(self) -> np.ndarray:
        """(320, 320, 3) uint8 the graph in a circle: the goal green, the present node blue, edges from it black."""
        picture = Image.new("RGB", (_SIDE, _SIDE), "white")
        draw, n = ImageDraw.Draw(picture), len(self.graph.edges)
        turns = np.arange(n) * 2 * math.pi / n
        at = (_SIDE / 2 + (_SIDE / 2 - 2 * _RADIUS) * np.stack([np.sin(turns), -np.cos(turns)], 1)).tolist()  # (n, 2)
        edges = np.argwhere(self.graph.edges).tolist()
        for a, b in sorted(edges, key=lambda edge: edge[0] == self.node):
            draw.line([*at[a], *at[b]], fill="black" if a == self.node else "lightgray")
        for node, (x, y) in enumerate(at):
            fill = "royalblue" if node == self.node else "limegreen" if node == self.graph.goal else "lightgray"
            draw.ellipse([x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS], fill=fill)
        return np.array(picture)

    def _seen(self) -> tuple[np.ndarray, dict[str, Any]]:
        observation = np.zeros(len(self.graph.edges), np.float32)
        observation[self.node] = 1
        return observation, {"success": self.node == self.graph.goal, "start": self.start}


class ShortestPathSource:
    """Random walks over the edges of `ShortestPath-v0`, which evaluations then play in the same graph."""

    name: ClassVar[str] = "shortest_path"

    @dataclass(frozen=True, kw_only=True)
    class Config(GraphRules):
        episodes: Annotated[int, Field(ge=1, le=10**6)] = 1_000
        """How many walks."""
        steps: Few = 10
        """Steps after which a walk is cut, in evaluations too; what a failure counts."""
        seed: Seed = 0
        """Of the walks."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.graph = Graph(config)

    @property
    def label(self) -> str:
        """How messages and reports call the data."""
        return f"{self.name}:{self.config.nodes} nodes"

    def load(self) -> Episodes:
        """All walks; `info` has the seed that gives each its beginning, the node it starts at, and `success`."""
        config, graph, rng = self.config, self.graph, np.random.default_rng(self.config.seed)
        seeds, draws = seeds_and_draws(rng, config.episodes, 1)
        nodes, choices = [graph.start(draws[:, 0])], rng.random((config.steps, config.episodes))
        for choice in choices:
            nodes.append(graph.moves[nodes[-1], (choice * graph.degrees[nodes[-1]]).astype(int)])
        actions = np.stack(nodes[1:])  # (T, n)
        reached, seen = actions == graph.goal, np.eye(config.nodes, dtype=np.float32)
        info = {"seed": seeds, "start": nodes[0], "success": reached.any(0)}
        return recorded(self.label, self._spec(), lambda t: seen[nodes[t]], actions, reached - 1.0, reached, info)

    def _spec(self) -> DataSpec:
        config = self.config
        rules = {rule.name: getattr(config, rule.name) for rule in fields(GraphRules)}
        random, best = (
            mean_return(counts) for counts in (self.graph.walks(config.steps), self.graph.optimum(config.steps))
        )
        return DataSpec(
            *_spaces(config),
            max_steps=config.steps,
            env_id=ShortestPath.id,
            ref_scores=(random, best) if random < best else None,
            preprocess={
                "env_module": "rlalgo_paper",
                "env_kwargs": {**to_mapping(rules), "max_episode_steps": config.steps},
            },
        )


def _spaces(rules: GraphRules) -> tuple[spaces.Box, spaces.Discrete]:
    """Of observations, one number for each node, and of actions."""
    return spaces.Box(0, 1, (rules.nodes,)), spaces.Discrete(rules.nodes)
