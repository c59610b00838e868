"""Statistics of returns, each once."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter

from rlalgo.config import Whole
from rlalgo.core.spec import normalized_score
from rlutils.config.files import read_as

Measured = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None),
]
"""A number that may be NaN, for which null stands in JSON."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class PolicyResult:
    """One policy's episodes and what they amount to; returns are undiscounted."""

    label: str
    options: Mapping[str, Any]
    returns: Annotated[list[Finite], Field(min_length=1)]
    lengths: list[Whole]
    seeds: list[Whole]
    mean: Finite
    sd: Finite
    """Sample standard deviation over episodes."""
    iqm: Finite
    """Mean of the middle half (Agarwal et al. 2021)."""
    interval: tuple[Finite, Finite]
    """95% bootstrap interval of the mean."""
    normalized: Finite | None
    """100 (mean - random) / (expert - random), where the reference scores belong to this environment."""
    info: Mapping[str, list[Measured]] = field(default_factory=dict)
    """Of every episode what its last step's info says: `success` and what `evaluation.info` names; NaN for nothing."""
    means: Mapping[str, Finite] = field(default_factory=dict)
    """Of `info`, over the episodes that say it."""


@dataclass(frozen=True)
class EvalResult:
    """One evaluation."""

    step: Whole
    policies: list[PolicyResult]
    metrics: dict[str, Measured] = field(default_factory=dict)
    """What evaluators measured."""
    env_id: str | None = None
    seed: Whole = 0
    seconds: Finite = 0.0
    source: str = "train"
    checkpoint: str | None = None

    @property
    def score(self) -> float | None:
        """The best policy's mean return: what `best` and patience compare by. None where nothing was played."""
        return max((policy.mean for policy in self.policies), default=None)

    @property
    def numbers(self) -> dict[str, float]:
        """What evaluators measured, and the means of its infos for the policy with the best mean return."""
        best = max(self.policies, key=lambda policy: policy.mean, default=None)
        return {**(best.means if best else {}), **self.metrics}

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN: what is not finite is None."""
        return {**TypeAdapter(EvalResult).dump_python(self), "score": self.score}


def read_result(path: Path) -> EvalResult:
    """What `to_mapping` wrote as JSON.

    Raises:
        CheckpointError: there is no such file, or another thing in it.
    """
    return read_as(EvalResult, path)


def summarize(
    options: Mapping[str, Any],
    returns: Sequence[float],
    lengths: list[int],
    seeds: list[int],
    ref_scores: tuple[float, float] | None,
    info: Mapping[str, list[float]] | None = None,
) -> PolicyResult:
    """Statistics of one policy's episodes (at least one)."""
    said = {name: numbers for name, numbers in (info or {}).items() if not np.isnan(numbers).all()}
    values = np.asarray(returns, dtype=np.float64)
    mean = float(values.mean())
    texts = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items() if v is not False]
    return PolicyResult(
        label=", ".join(texts) or "policy",
        options=options,
        returns=values.tolist(),
        lengths=lengths,
        seeds=seeds,
        mean=mean,
        sd=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        iqm=float(iqm(values)),
        interval=interval(values),
        normalized=None if ref_scores is None else normalized_score(mean, ref_scores),
        info=said,
        means={name: float(np.nanmean(numbers)) for name, numbers in said.items()},
    )


def iqm(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half."""
    ordered = np.sort(values, axis=axis)
    n = ordered.shape[axis]
    return ordered.take(range(n // 4, n - n // 4), axis=axis).mean(axis)


def interval(values: np.ndarray, statistic: Callable[..., Any] = np.mean, draws: int = 2000) -> tuple[float, float]:
    """95% bootstrap interval of a statistic of values (n,), which it takes over an `axis`."""
    if len(np.unique(values)) < 2:
        return float(statistic(values)), float(statistic(values))
    rng = np.random.default_rng(0)
    resamples = values[rng.integers(len(values), size=(draws, len(values)))]  # (D, n)
    return _middle(statistic(resamples, axis=-1))


def seed_interval(groups: Sequence[np.ndarray], draws: int = 2000) -> tuple[float, float]:
    """95% percentile interval of the IQM: groups are drawn with replacement, and values within each drawn one.

    A group is drawn from as often as the largest has values, so that unequal ones weigh the same.
    """
    lengths = np.array([len(group) for group in groups])  # (G,)
    values = np.zeros((len(groups), lengths.max()))
    for row, group in zip(values, groups, strict=True):
        row[: len(group)] = group
    rng = np.random.default_rng(0)
    which = rng.integers(len(groups), size=(draws, len(groups)))  # (D, G)
    places = (rng.random((*which.shape, values.shape[1])) * lengths[which][..., None]).astype(int)  # (D, G, E)
    return _middle(iqm(values[which[..., None], places].reshape(draws, -1)))


def spearman(targets: np.ndarray, returns: np.ndarray) -> float | None:
    """Rank correlation of targets (n,) and returns (n,); None where one of the two is constant."""
    if len(np.unique(targets)) < 2 or len(np.unique(returns)) < 2:
        return None
    from scipy import stats  # slow to import, and only this needs it

    return float(stats.spearmanr(targets, returns).statistic)


def _middle(draws: np.ndarray) -> tuple[float, float]:
    """Where the middle 95% of the draws (D,) lie."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
