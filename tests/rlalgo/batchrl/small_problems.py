"""Two problems whose answers are known: a gridworld (value iteration) and linear-quadratic control (Riccati)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from scipy import linalg
from torch import Tensor

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo.core.dataset import TransitionBatch
from rlalgo.plugins import default_catalogue

WALLS = [
    ".....",
    ".##..",
    "...#.",
    ".#...",
    "...#G",
]
MOVES = [(-1, 0), (0, 1), (1, 0), (0, -1)]


@dataclass(frozen=True)
class Grid:
    """S cells, four moves; G ends the episode with reward 10. With probability `slip` the move is a random one."""

    chances: np.ndarray  # (S, 4, S) of the next cell
    rewards: np.ndarray  # (S, 4) expected
    goal: int
    gamma: float

    def optimal(self) -> np.ndarray:
        """(S, 4) the best action values, by value iteration."""
        q = np.zeros(self.rewards.shape)
        for _ in range(500):
            v = q.max(1)
            v[self.goal] = 0
            q = self.rewards + self.gamma * self.chances @ v
        return q

    def value(self, actions: np.ndarray) -> np.ndarray:
        """(S,) what always taking these actions (S,) is worth: the solution of the linear system."""
        cells = np.arange(len(actions))
        onward = self.chances[cells, actions].copy()  # (S, S)
        onward[:, self.goal] = 0
        return np.linalg.solve(np.eye(len(cells)) - self.gamma * onward, self.rewards[cells, actions])

    def cells(self) -> np.ndarray:
        """Those that one acts in: all but the goal."""
        return np.delete(np.arange(len(self.rewards)), self.goal)

    def batch(self) -> TransitionBatch:
        """A batch with every cell's observation, in order."""
        S = len(self.rewards)
        zeros = torch.zeros(S)
        return TransitionBatch(torch.eye(S), zeros.long(), zeros, torch.eye(S), zeros)

    def episodes(self, n: int = 400, horizon: int = 20, seed: int = 0) -> Episodes:
        """Random moves from random cells, cut after `horizon` steps."""
        rng = np.random.default_rng(seed)
        S = len(self.rewards)
        cells, actions, rewards, ends, starts = [], [], [], [], [0]
        for _ in range(n):
            cell = int(rng.choice(self.cells()))
            cells.append(cell)
            for _ in range(horizon):
                action = int(rng.integers(4))
                cell = int(rng.choice(S, p=self.chances[cell, action]))
                cells.append(cell)
                actions.append(action)
                rewards.append(10.0 * (cell == self.goal))
                ends.append(cell == self.goal)
                if cell == self.goal:
                    break
            starts.append(len(actions))
        last = torch.zeros(len(actions), dtype=torch.bool)
        last[torch.tensor(starts[1:]) - 1] = True
        terminations = torch.tensor(ends)
        return Episodes(
            observations=torch.eye(S)[cells],
            actions=torch.tensor(actions),
            rewards=torch.tensor(rewards),
            terminations=terminations,
            truncations=last & ~terminations,
            starts=torch.tensor(starts),
            spec=DataSpec(spaces.Box(0, 1, (S,), np.float32), spaces.Discrete(4), max_steps=horizon),
        )


def make_grid(slip: float = 0.1, gamma: float = 0.9) -> Grid:
    places = [(i, j) for i, row in enumerate(WALLS) for j, mark in enumerate(row) if mark != "#"]
    goal = next(k for k, (i, j) in enumerate(places) if WALLS[i][j] == "G")
    S = len(places)
    sure = np.zeros((S, 4, S))
    for k, (i, j) in enumerate(places):
        for a, (di, dj) in enumerate(MOVES):
            there = (i + di, j + dj)
            sure[k, a, places.index(there) if there in places else k] = 1
    chances = (1 - slip) * sure + slip * sure.mean(1, keepdims=True)
    return Grid(chances, 10 * chances[:, :, goal], goal, gamma)


@dataclass(frozen=True)
class LinearQuadratic:
    """x' = A x + B u; a step costs x'Qx + u'Ru, discounted by gamma; it never ends. Controls in [-2, 2],
    which the best one never leaves from where episodes start."""

    A: np.ndarray
    B: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    gamma: float

    def best_gain(self) -> np.ndarray:
        """K of the optimal control -K x, from the Riccati equation of the discounted problem."""
        root = np.sqrt(self.gamma)
        P = linalg.solve_discrete_are(root * self.A, root * self.B, self.Q, self.R)
        return np.linalg.solve(self.R + self.gamma * self.B.T @ P @ self.B, self.gamma * self.B.T @ P @ self.A)

    def costs(self, K: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n,) discounted cost of controls -K x from each of x (n, S), from the Lyapunov equation."""
        closed = np.sqrt(self.gamma) * (self.A - self.B @ K)
        P = linalg.solve_discrete_lyapunov(closed.T, self.Q + K.T @ self.R @ K)
        return np.einsum("ni,ij,nj->n", x, P, x)

    def played(self, act: Callable[[Tensor], Tensor], x: np.ndarray, steps: int = 150) -> np.ndarray:
        """(n,) discounted cost of playing from each of x (n, S), step by step."""
        total, weight = np.zeros(len(x)), 1.0
        for _ in range(steps):
            u = act(torch.from_numpy(x).float()).double().numpy()
            total += weight * (np.einsum("ni,ij,nj->n", x, self.Q, x) + np.einsum("ni,ij,nj->n", u, self.R, u))
            x = x @ self.A.T + u @ self.B.T
            weight *= self.gamma
        return total

    def starts(self, n: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-0.8, 0.8, (n, len(self.A)))

    def episodes(
        self, n: int = 400, horizon: int = 20, share: float = 0.2, noise: float = 0.8, seed: int = 0
    ) -> Episodes:
        """Controls -share K x + normal noise, from starts near 0; every episode is cut."""
        rng, K = np.random.default_rng(seed), share * self.best_gain()
        x = self.starts(n, seed)
        xs, us, costs = [x], [], []
        for _ in range(horizon):
            u = (-x @ K.T + noise * rng.standard_normal((n, self.B.shape[1]))).clip(-2, 2)
            us.append(u)
            costs.append(np.einsum("ni,ij,nj->n", x, self.Q, x) + np.einsum("ni,ij,nj->n", u, self.R, u))
            x = x @ self.A.T + u @ self.B.T
            xs.append(x)
        last = torch.zeros(n, horizon, dtype=torch.bool)
        last[:, -1] = True
        S, U = self.B.shape
        return Episodes(
            observations=torch.from_numpy(np.stack(xs, 1)).float().flatten(0, 1),
            actions=torch.from_numpy(np.stack(us, 1)).float().flatten(0, 1),
            rewards=-torch.from_numpy(np.stack(costs, 1)).float().flatten(),
            terminations=torch.zeros(n * horizon, dtype=torch.bool),
            truncations=last.flatten(),
            starts=torch.arange(0, n * horizon + 1, horizon),
            spec=DataSpec(
                spaces.Box(-np.inf, np.inf, (S,), np.float32), spaces.Box(-2, 2, (U,), np.float32), max_steps=horizon
            ),
        )


def make_lq() -> LinearQuadratic:
    """Two states, one control: a position that drifts with its speed, which the control pushes."""
    return LinearQuadratic(
        A=np.array([[1.0, 0.3], [0.0, 0.9]]),
        B=np.array([[0.0], [0.4]]),
        Q=np.diag([1.0, 0.1]),
        R=np.array([[0.3]]),
        gamma=0.9,
    )


def trained(
    name: str, episodes: Episodes, steps: int, batch_size: int = 128, seed: int = 0, **config: Any
) -> BatchRLAlgo:
    """The algorithm of this registered name after so many updates."""
    entry = default_catalogue().get("algo", name)
    torch.manual_seed(seed)
    algo = entry.cls(episodes.spec, entry.Config(**config))
    algo.prepare(episodes, steps)
    data = algo.dataset(episodes)
    batches = data.rows(steps * batch_size, torch.Generator().manual_seed(seed)).split(batch_size)
    for step, rows in enumerate(batches, 1):
        algo.update(data.gather(rows), step)
    return algo
