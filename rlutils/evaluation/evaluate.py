"""Evaluation: all policies through one batched rollout, every episode kept, and honest statistics of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import gymnasium
import numpy as np
import torch
from pydantic import BeforeValidator
from scipy import stats

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.rollout import distinct, rollout

Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that may be NaN, for which null stands in JSON."""


@dataclass(frozen=True)
class PolicyResult:
    """One policy's episodes and what they amount to; returns are undiscounted."""

    label: str
    options: Mapping[str, Any]
    returns: list[float]
    lengths: list[int]
    seeds: list[int]
    mean: float
    sd: float
    """Sample standard deviation over episodes."""
    iqm: float
    """Mean of the middle half (Agarwal et al. 2021)."""
    interval: tuple[float, float]
    """95% bootstrap interval of the mean."""
    normalised: float | None
    """100 (mean - random) / (expert - random), where the reference scores belong to this environment."""


@dataclass(frozen=True)
class EvalResult:
    """One evaluation."""

    step: int
    policies: list[PolicyResult]
    metrics: dict[str, Measured] = field(default_factory=dict)
    """What evaluators measured."""
    env_id: str | None = None
    seed: int = 0
    seconds: float = 0.0
    source: str = "train"
    checkpoint: str | None = None

    @property
    def score(self) -> float | None:
        """The best policy's mean return: what `best` and patience compare by. None where nothing was played."""
        return max((policy.mean for policy in self.policies), default=None)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "score": self.score}


def evaluate(
    algo: BatchRLAlgo,
    options: Sequence[Any],
    envs: Sequence[gymnasium.Env],
    episodes: int,
    seed: int,
    ref_scores: tuple[float, float] | None = None,
) -> list[PolicyResult]:
    """Plays `episodes` episodes with each of the options.

    Args:
        algo: what to play.
        options: PolicyConfig instances; equal ones count once.
        envs: g environments for each distinct option, option by option.
        episodes: per option; episode k is reset with `seed + k` for every option.
        seed: also seeds the generator that sampled actions are drawn from.
        ref_scores: returns of a random and an expert policy in this very environment, if known.
    """
    asked = distinct(options)
    rows = [option for option in asked for _ in range(len(envs) // len(asked))]
    with forked_rng(seed), algo.evaluating():  # set once: every switch of the mode walks all modules
        policy = algo.policy(rows)
        played = rollout(policy, envs, episodes, seed, keep_observations=False)
    shown = distinct(policy.options)  # as the policy understood them: a default replaced by what it stands for
    results = []
    returns, lengths, which = played.returns(), played.lengths(), played.info["option"]
    for i, option in enumerate(shown):
        mine = which == i
        values = {k: v for k, v in asdict(option).items() if v is not None}
        results.append(
            summarise(
                values,
                returns[mine].tolist(),
                lengths[mine].tolist(),
                played.info["seed"][mine].tolist(),
                ref_scores,
            )
        )
    return results


def summarise(
    options: Mapping[str, Any],
    returns: list[float],
    lengths: list[int],
    seeds: list[int],
    ref_scores: tuple[float, float] | None,
) -> PolicyResult:
    """Statistics of one policy's episodes (at least one)."""
    values = np.asarray(returns)
    mean = float(values.mean())
    low = high = mean
    if len(values) > 1 and values.std() > 0:
        rng = np.random.default_rng(0)
        found = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=rng)
        low, high = map(float, found.confidence_interval)
    score = None
    if ref_scores is not None:
        score = 100 * (mean - ref_scores[0]) / (ref_scores[1] - ref_scores[0])
    shown = {k: v for k, v in options.items() if v is not False}
    return PolicyResult(
        label=", ".join(f"{k}={_plain(v)}" for k, v in shown.items()) or "policy",
        options=options,
        returns=[float(r) for r in returns],
        lengths=lengths,
        seeds=seeds,
        mean=mean,
        sd=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        iqm=float(stats.trim_mean(values, 0.25)),
        interval=(low, high),
        normalised=score,
    )


@contextmanager
def forked_rng(seed: int) -> Iterator[None]:
    """Seeded generators (torch, numpy, random) inside; outside, they are as if nothing had happened."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 (environments may use it)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self.start


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
