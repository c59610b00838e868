"""Augmented Random Search V2-t (Mania, Guy and Recht 2018, https://arxiv.org/abs/1803.07055, algorithm 2).

    M <- M + alpha / (b sigma_R) sum_{k <= b} (r(M + nu D_k) - r(M - nu D_k)) D_k,    action = M (s - mean) / std

over the b best of N random directions D, sigma_R being the standard deviation of the 2b returns used. The policies met
on the way are kept, and episodes are recorded with policies drawn evenly over their returns, since taking them as they
came leaves gaps where the search jumps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pydantic import Field

from rlalgo.config import Count, Positive
from rlalgo.errors import ConfigError, EnvironmentFault
from rlutils.collecting.recording import MakeEnv, Recorded, Say, play_episode


class ARS:
    """Improves a linear policy, then records the policies met on the way with an even spread of returns."""

    name: ClassVar[str] = "ars"

    @dataclass(frozen=True)
    class Config:
        budget: Count = 400_000
        """Steps of the search, all trials together."""
        trials: Count = 4
        """Searches to begin with; the best goes on alone, since many starts never leave the ground."""
        trial_budget: Count = 30_000
        """Steps of each of them."""
        directions: Count = 8
        """N, random directions of an update."""
        top: Count = 4
        """b, how many of them count."""
        step_size: Positive = 0.01
        """alpha."""
        std: Positive = 0.025
        """nu, standard deviation of the parameters' noise."""
        shift: float = 0.0
        """Taken off every reward during the search: the bonus for being alive, if there is one (section 4)."""
        horizon: Count = 1000
        """Longest episode of the search."""
        bins: Count = 12
        """Equal ranges of return that recorded policies are drawn from evenly."""
        noise: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 0.3)
        """Least and largest standard deviation of the actions' noise, in half ranges of the action space."""

        def __post_init__(self) -> None:
            if self.top > self.directions:
                raise ValueError(f"top {self.top} is more than directions {self.directions}")
            if self.noise[0] > self.noise[1]:
                raise ValueError(f"noise: the least level {self.noise[0]} is above the largest {self.noise[1]}")
            if self.trials > 1 and self.trials * self.trial_budget >= self.budget:
                raise ValueError(f"{self.trials} trials of {self.trial_budget} steps leave nothing of {self.budget}")

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self, make_env: MakeEnv, steps: int, seed: int, say: Say) -> Iterator[Recorded]:
        """Searches, then records until `steps` are reached."""
        config = self.config
        env = make_env()
        space, seen = env.action_space, env.observation_space
        if not isinstance(space, spaces.Box) or not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
            raise EnvironmentFault(
                f"behavior 'ars' needs vector observations and a Box action space, got {seen} and {space}; "
                "try behavior: random, or run"
            )
        seeds = np.random.SeedSequence(seed).spawn(config.trials + 1)
        searches = [_Search(env, config, np.random.default_rng(s)) for s in seeds[1:]]
        used = 0

        def go_on(search: _Search, until: int) -> None:
            nonlocal used
            while search.steps < until:
                before = search.steps
                search.update()
                used += search.steps - before
                say(f"searching: best return {max(s.best for s in searches):,.0f}", min(used / config.budget, 1.0))

        if config.trials > 1:
            for search in searches:
                go_on(search, config.trial_budget)
        best = max(searches, key=lambda s: s.recent)
        go_on(best, best.steps + config.budget - used)
        yield from self._record(env, [p for s in searches for p in s.met], steps, np.random.default_rng(seeds[0]))
        env.close()

    def _record(
        self, env: gymnasium.Env, met: list[_Linear], steps: int, rng: np.random.Generator
    ) -> Iterator[Recorded]:
        """Each time the range of returns with the fewest steps so far is filled by one of the policies met in it."""
        config, space = self.config, env.action_space
        assert isinstance(space, spaces.Box)
        if not met:
            raise ConfigError(["behavior: the search met no policy; give it a larger budget"])
        returns = np.array([policy.ret for policy in met])
        edges = np.linspace(returns.min(), returns.max(), config.bins + 1)
        place = np.clip(np.digitize(returns, edges) - 1, 0, config.bins - 1)  # (n,) which range each policy is in
        filled = {int(b): 0 for b in np.unique(place)}
        done = 0
        while done < steps:
            here = min(filled, key=lambda b: (filled[b], b))
            policy = met[int(rng.choice(np.flatnonzero(place == here)))]
            noise = float(rng.uniform(*config.noise)) * float(rng.random() < 0.7)  # some episodes without any
            half = (space.high - space.low) / 2 if space.is_bounded() else 1.0

            def act(observation: Any, policy: _Linear = policy, noise: Any = noise * half) -> Any:
                action = policy.act(observation)
                action = action + noise * rng.standard_normal(action.shape)
                return np.clip(action, space.low, space.high).astype(space.dtype)

            label = f"ars update {policy.update}"
            episode = play_episode(env, act, int(rng.integers(2**31)), label, noise)
            yield episode
            done += len(episode.rewards)
            filled[here] += len(episode.rewards)


@dataclass(frozen=True)
class _Linear:
    """A policy that the search met: action = weights @ observation + bias."""

    weights: np.ndarray  # (A, S)
    bias: np.ndarray  # (A,)
    ret: float
    update: int

    def act(self, observation: np.ndarray) -> np.ndarray:
        return self.weights @ observation + self.bias


class _Search:
    """One search: the mean policy M in normalized states, and all that it has met."""

    def __init__(self, env: gymnasium.Env, config: ARS.Config, rng: np.random.Generator) -> None:
        assert isinstance(env.action_space, spaces.Box)
        self.env, self.config, self.rng = env, config, rng
        self.low, self.high = env.action_space.low, env.action_space.high
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
        shifted = np.zeros((N, 2))
        returns = np.zeros((N, 2))
        states: list[np.ndarray] = []
        for k, direction in enumerate(directions):
            seed = int(self.rng.integers(2**31))  # both ways from one start, which halves the noise of the difference
            for j, sign in enumerate((1, -1)):
                weights = (self.M + sign * config.std * direction) / self.std
                policy = _Linear(weights, -weights @ self.mean, 0.0, self.updates)
                returns[k, j], length = self._play(policy, seed, states)
                shifted[k, j] = returns[k, j] - config.shift * length
                self.met.append(_Linear(weights, policy.bias, float(returns[k, j]), self.updates))
                self.steps += length
        top = np.argsort(-shifted.max(1), kind="stable")[: config.top]
        used = shifted[top]  # (b, 2)
        scale = config.step_size / (config.top * (used.std() + 1e-6))
        self.M = self.M + scale * np.einsum("k,kas->as", used[:, 0] - used[:, 1], directions[top])
        self._normalize(np.asarray(states))
        self.updates += 1
        self.recent = float(returns.mean())
        self.best = max(self.best, float(returns.max()))

    def _play(self, policy: _Linear, seed: int, states: list[np.ndarray]) -> tuple[float, int]:
        """Return and length of an episode; its states are added to the list."""
        observation, _ = self.env.reset(seed=seed)
        total, length, over = 0.0, 0, False
        while not over and length < self.config.horizon:
            states.append(observation)
            action = np.minimum(np.maximum(policy.act(observation), self.low), self.high)
            observation, reward, terminated, truncated, _ = self.env.step(action)
            total, length, over = total + float(reward), length + 1, terminated or truncated
        return total, length

    def _normalize(self, states: np.ndarray) -> None:
        """Mean and standard deviation of all states met, by the parallel update of Chan et al. (1979)."""
        n, mean = len(states), states.mean(0)
        total, delta = self.count + n, mean - self.mean
        self.squares += ((states - mean) ** 2).sum(0) + delta**2 * self.count * n / total
        self.mean = self.mean + delta * n / total
        self.count = total
        self.std = np.maximum(np.sqrt(self.squares / total), 1e-6)
