"""Augmented Random Search V2-t (Mania, Guy and Recht 2018, https://arxiv.org/abs/1803.07055, algorithm 2).

    M <- M + alpha / (b sigma_R) sum_{k <= b} (r(M + nu D_k) - r(M - nu D_k)) D_k,    action = M (s - mean) / std

over the b best of N random directions D, sigma_R being the standard deviation of the 2b returns used. The policies met
on the way are kept, and episodes are recorded with policies drawn evenly over their returns, since taking them as they
came leaves gaps where the search jumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from torch import Tensor

from rlalgo import Policy
from rlalgo.config import Count, Few, Positive
from rlalgo.core.rollout import episode
from rlalgo.errors import EnvironmentFault
from rlutils.collecting.behavior import Facts, Progress
from rlutils.collecting.behaviors.noise import Levels, Noisy, check_levels


class ARS:
    """Improves a linear policy, then records the policies met on the way with an even spread of returns."""

    name: ClassVar[str] = "ars"

    @dataclass(frozen=True)
    class Config:
        budget: Count = 400_000
        """Steps of the search, all trials together."""
        trials: Few = 4
        """Searches to begin with; the best goes on alone, since many starts never leave the ground."""
        trial_budget: Count = 30_000
        """Steps of each of them."""
        directions: Few = 8
        """N, random directions of an update."""
        top: Few = 4
        """b, how many of them count."""
        step_size: Positive = 0.01
        """alpha."""
        std: Positive = 0.025
        """nu, standard deviation of the parameters' noise."""
        shift: float = 0.0
        """Taken off every reward during the search: the bonus for being alive, if there is one (section 4)."""
        horizon: Count = 1000
        """Longest episode of the search."""
        bins: Few = 12
        """Equal ranges of return that recorded policies are drawn from evenly."""
        noise: Levels = (0.0, 0.3)
        """Least and largest standard deviation of the actions' noise, in half ranges of the action space."""

        def __post_init__(self) -> None:
            if self.top > self.directions:
                raise ValueError(f"top {self.top} is more than directions {self.directions}")
            check_levels(self.noise)
            if self.trials > 1 and self.trials * self.trial_budget >= self.budget:
                raise ValueError(f"{self.trials} trials of {self.trial_budget} steps leave nothing of {self.budget}")

    def __init__(self, config: Config) -> None:
        self.config = config

    def policies(self, env: gymnasium.Env, seed: int, progress: Progress) -> Iterator[tuple[Policy, Facts]]:
        """Searches; then each episode goes to one of the policies met, with noise, and has a seed of its own.

        It is one in that range of returns which has the fewest steps so far.
        """
        config, space, observed = self.config, env.action_space, env.observation_space
        if not isinstance(space, spaces.Box) or not isinstance(observed, spaces.Box) or len(observed.shape) != 1:
            raise EnvironmentFault(
                f"behavior 'ars' needs vector observations and a Box action space, got {observed} and {space}; "
                "try behavior: random, or run"
            )
        seeds = np.random.SeedSequence(seed).spawn(config.trials + 1)
        rng = np.random.default_rng(seeds[0])
        met = self._search(env, seeds[1:], progress)
        returns = np.array([policy.ret for policy in met])
        edges = np.linspace(returns.min(), returns.max(), config.bins + 1)
        place = np.clip(np.digitize(returns, edges) - 1, 0, config.bins - 1)  # (n,) which range each policy is in
        filled = {int(b): 0 for b in np.unique(place)}
        while True:
            here = min(filled, key=lambda b: (filled[b], b))
            policy = met[int(rng.choice(np.flatnonzero(place == here)))]
            noise = float(rng.uniform(*config.noise)) * float(rng.random() < 0.7)  # some episodes without any
            noisy = Noisy(policy, space, noise, rng)
            yield noisy, {"policy": f"ars update {policy.update}", "noise": noise, "seed": int(rng.integers(2**31))}
            filled[here] += noisy.steps

    def _search(self, env: gymnasium.Env, seeds: Sequence[np.random.SeedSequence], progress: Progress) -> list[_Linear]:
        """All policies met in one search for each of the seeds, of which the best goes on until the budget is used."""
        config = self.config
        searches = [_Search(env, config, np.random.default_rng(seed)) for seed in seeds]

        def search_on(search: _Search, until: int) -> None:
            while search.steps < until:
                search.update()
                used, best = sum(s.steps for s in searches), max(s.best for s in searches)
                progress(f"searching: best return {best:,.0f}", min(used / config.budget, 1.0))

        if config.trials > 1:
            for search in searches:
                search_on(search, config.trial_budget)
        best = max(searches, key=lambda search: search.recent)
        search_on(best, config.budget - sum(s.steps for s in searches if s is not best))
        return [policy for search in searches for policy in search.met]


@dataclass(frozen=True)
class _Linear(Policy):
    """A policy that the search met: action = weights @ observation + bias, which may lie outside the space."""

    weights: np.ndarray  # (A, S)
    bias: np.ndarray  # (A,)
    update: int
    ret: float = math.nan

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        return torch.from_numpy((self.weights @ observations.numpy()[0] + self.bias)[None])


class _Clipped(gymnasium.ActionWrapper):
    """As Gymnasium's own, in a fifth of the time."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.action_space, spaces.Box)
        self.low, self.high = env.action_space.low, env.action_space.high

    def action(self, action: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(action, self.low), self.high)


class _Search:
    """One search: the mean policy M in normalized states, and all that it has met."""

    def __init__(self, env: gymnasium.Env, config: ARS.Config, rng: np.random.Generator) -> None:
        self.env, self.config, self.rng = _Clipped(TimeLimit(env, config.horizon)), config, rng
        S, A = env.observation_space.shape[0], env.action_space.shape[0]  # type: ignore[index]
        self.M = np.zeros((A, S))
        self.count, self.mean, self.squares = 0, np.zeros(S), np.zeros(S)  # of the states met
        self.std = np.ones(S)
        self.steps = self.updates = 0
        self.best = self.recent = -np.inf
        self.met: list[_Linear] = []

    def update(self) -> None:
        """One update from 2 N episodes."""
        config, N = self.config, self.config.directions
        directions = self.rng.standard_normal((N, *self.M.shape))
        returns, lengths = np.zeros((N, 2)), np.zeros((N, 2))
        states: list[np.ndarray] = []
        for k, direction in enumerate(directions):
            seed = int(self.rng.integers(2**31))  # both ways from one start, which halves the noise of the difference
            for j, sign in enumerate((1, -1)):
                weights = (self.M + sign * config.std * direction) / self.std
                policy = _Linear(weights, -weights @ self.mean, self.updates)
                played = episode(policy, self.env, seed)
                states += played.observations[:-1]
                returns[k, j], lengths[k, j] = played.ret, len(played.rewards)
                self.met.append(replace(policy, ret=played.ret))
        self.steps += int(lengths.sum())
        shifted = returns - config.shift * lengths
        top = np.argsort(-shifted.max(1), kind="stable")[: config.top]
        used = shifted[top]  # (b, 2)
        scale = config.step_size / (config.top * (used.std() + 1e-6))
        self.M = self.M + scale * np.einsum("k,kas->as", used[:, 0] - used[:, 1], directions[top])
        self._normalize(np.asarray(states))
        self.updates += 1
        self.recent = float(returns.mean())
        self.best = max(self.best, float(returns.max()))

    def _normalize(self, states: np.ndarray) -> None:
        """Mean and standard deviation of all states met, by the parallel update of Chan et al. (1979)."""
        n, mean = len(states), states.mean(0)
        total, delta = self.count + n, mean - self.mean
        self.squares += ((states - mean) ** 2).sum(0) + delta**2 * self.count * n / total
        self.mean = self.mean + delta * n / total
        self.count = total
        self.std = np.maximum(np.sqrt(self.squares / total), 1e-6)
