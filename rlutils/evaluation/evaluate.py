"""Evaluation: all policies through one batched rollout, every episode kept, and honest statistics of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.rollout import distinct, rollout
from rlutils.config.files import write_json
from rlutils.evaluation.statistics import EvalResult, PolicyResult, summarize
from rlutils.randomness import forked_rng


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
            summarize(
                values,
                returns[mine].tolist(),
                lengths[mine].tolist(),
                played.info["seed"][mine].tolist(),
                ref_scores,
            )
        )
    return results


class NotFiniteWarning(UserWarning):
    """An evaluator measured NaN or infinity. Not an error: training is worth more than that."""


def _finite(name: str, found: Mapping[str, Any], step: int) -> dict[str, float]:
    """An evaluator's numbers under its name. What is not finite becomes NaN, with a warning: training can go on."""
    bad = ", ".join(f"{key} = {float(value):g}" for key, value in found.items() if not math.isfinite(value))
    if bad:
        message = f"step {step}: the evaluator {name} gave {bad}; try other options of it (a lower lr, say)"
        warnings.warn(message, NotFiniteWarning, stacklevel=2)
    return {f"{name}/{key}": float(value) if math.isfinite(value) else math.nan for key, value in found.items()}


def write_result(path: Path, result: EvalResult, **more: Any) -> None:
    """An evaluation as JSON, which has no NaN: a metric that is not finite is null."""
    metrics = {key: None if math.isnan(value) else value for key, value in result.metrics.items()}
    write_json(path, {**result.to_mapping(), "metrics": metrics, **more})
