"""Evaluation: all policies through one batched rollout, every episode kept, and honest statistics of them."""

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
import torch

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Run, plugins, rollout
from rlalgo.core.rollout import distinct
from rlalgo.core.stepping import refuse_misfit
from rlalgo.errors import ConfigError, EnvironmentFault, EvaluatorFault, RlalgoWarning, blaming, shown, told
from rlalgo.registry import Catalogue
from rlutils.config.settings import Settings, policy_options
from rlutils.evaluation.data_facts import warn_unsupported
from rlutils.evaluation.statistics import EvalResult, PolicyResult, summarize
from rlutils.machine import Stopwatch
from rlutils.randomness import forked_rng


class NotFiniteWarning(RlalgoWarning):
    """An evaluator measured NaN or infinity. Not an error: training is worth more than that."""


class NotClosedWarning(RlalgoWarning):
    """An environment raised while it was closed."""


def evaluate(
    algo: BatchRLAlgo,
    options: Sequence[Any],
    envs: Sequence[gymnasium.Env],
    episodes: int,
    seed: int,
    ref_scores: tuple[float, float] | None = None,
    info: Sequence[str] = (),
) -> list[PolicyResult]:
    """Plays `episodes` episodes with each of the options.

    Args:
        algo: what to play.
        options: PolicyConfig instances; equal ones count once.
        envs: g environments for each distinct option, option by option.
        episodes: per option; episode k is reset with `seed + k` for every option.
        seed: also seeds the generator that sampled actions are drawn from.
        ref_scores: returns of a random and an expert policy in this very environment, if known.
        info: numbers to keep, besides `success`, of what an episode's last step gives as its info.
    """
    requested = distinct(options)
    rows = [option for option in requested for _ in range(len(envs) // len(requested))]
    with forked_rng(seed), algo.evaluating():  # set once: every switch of the mode walks all modules
        policy = algo.policy(rows)
        played = rollout(policy, envs, episodes, seed, keep_observations=False, info=info)
    returns, lengths, seeds = played.returns(), played.lengths(), played.info["seed"]
    results = []
    for i, option in enumerate(distinct(policy.options)):  # with defaults replaced by what they stand for
        own = played.info["option"] == i
        values = {key: value for key, value in asdict(option).items() if value is not None}
        statistics = returns[own].tolist(), lengths[own].tolist(), seeds[own].tolist()
        said = {name: played.info[name][own].tolist() for name in ("success", *info) if name in played.info}
        results.append(summarize(values, *statistics, ref_scores, said))
    return results


class Examiner:
    """Plays and measures an algorithm as the settings say, in environments made when first needed and kept."""

    def __init__(self, settings: Settings, spec: DataSpec, catalogue: Catalogue) -> None:
        assert settings.algo.entry is not None
        self.settings, self.spec = settings, spec
        self.config = settings.evaluation
        self.options = policy_options(settings.algo.entry.cls, self.config.policies, catalogue, [])
        self.evaluators = {choice.name: plugins.make("evaluator", choice) for choice in self.config.evaluators}
        self._envs: list[gymnasium.Env] = []
        self._unsaid: set[str] = set()
        self._warned = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to play and nothing to measure."""
        return not self.config.episodes and not self.evaluators

    def check(self, algo: BatchRLAlgo, run: Run) -> None:
        """Refuses what cannot be played or measured, now and not after hours: environment, policies, evaluators.

        Raises:
            ConfigError, EnvironmentFault: see their texts.
        """
        if self.config.episodes:
            envs = self.envs(1)
            try:
                with forked_rng(run.seed):
                    refuse_misfit(algo.policy(self.options), envs)
            except ValueError as error:
                raise ConfigError([f"evaluation.policies: {error}"]) from error
        for name, evaluator in self.evaluators.items():
            if hasattr(evaluator, "check"):
                with blaming(EvaluatorFault, f"evaluator '{name}'"):
                    evaluator.check(algo, _measured_on(run), run)

    def examine(self, algo: BatchRLAlgo, step: int, run: Run) -> EvalResult:
        """Every policy's episodes, then every evaluator's numbers.

        Raises:
            EnvironmentFault: an environment broke; with the seed of the episode and the step.
            EvaluatorFault: an evaluator raised, or gave what is no number.
        """
        config, watch = self.config, Stopwatch()
        played = []
        if config.episodes:
            if not self._warned:
                self._warned = True
                warn_unsupported(run.folder, self.options)
            played = self.play(algo)
            self._tell_unsaid({name for policy in played for name in policy.info})
        metrics: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            with forked_rng(config.seed), blaming(EvaluatorFault, f"evaluator '{name}'"):
                values = evaluator.evaluate(algo, _measured_on(run), run)
            metrics |= _finite(name, _numbers(name, values), step)
        return EvalResult(step, played, metrics, self.env_id, config.seed, watch(), checkpoint=f"step_{step:09d}")

    def play(self, algo: BatchRLAlgo) -> list[PolicyResult]:
        """Every policy's episodes, in one rollout.

        Raises:
            EnvironmentFault: see `examine`.
        """
        config = self.config
        each = min(config.envs or 20, config.episodes)
        envs = self.envs(each * len(distinct(self.options)))
        return evaluate(algo, self.options, envs, config.episodes, config.seed, self.ref_scores, config.info)

    def envs(self, n: int) -> list[gymnasium.Env]:
        """n environments.

        Raises:
            EnvironmentFault: they cannot be made.
        """
        lacking = n - len(self._envs)
        if lacking > 0:
            where = f"env '{self.settings.env.name}'"
            with blaming(EnvironmentFault, where):
                made = list(plugins.make("env", self.settings.env).make(self.spec, lacking))
            if len(made) != lacking:
                raise EnvironmentFault(f"{where}: made {len(made)} environments; expected {lacking}")
            self._envs += made
        return self._envs[:n]

    def _tell_unsaid(self, said: set[str]) -> None:
        """Warns, once for each, of names that no episode's last info had a number for."""
        for name in [name for name in self.config.info if name not in said | self._unsaid]:
            self._unsaid.add(name)
            text = f"evaluation.info: no episode's last info has a number '{name}'; see what env.step gives at the end"
            warnings.warn(text, RlalgoWarning, stacklevel=2)

    @property
    def env_id(self) -> str | None:
        """The environment that is played in: the configured one, or the data's own."""
        return getattr(self.settings.env.config, "id", None) or self.spec.env_id

    @property
    def ref_scores(self) -> tuple[float, float] | None:
        """Reference scores, unless another environment is played in than the one they belong to."""
        own = self.env_id == self.spec.env_id and not getattr(self.settings.env.config, "kwargs", None)
        return self.spec.ref_scores if own else None

    def close(self) -> None:
        """Closes the environments; they are made again when needed."""
        for env in self._envs:
            try:
                env.close()
            except Exception as error:  # noqa: BLE001 (nothing is lost by what is over)
                text = f"an environment could not be closed: {told(error)}"
                warnings.warn(text, NotClosedWarning, stacklevel=2)
        self._envs = []


def _numbers(name: str, values: Any) -> dict[str, float]:
    """An evaluator's answer, checked."""
    if not isinstance(values, Mapping):
        raise EvaluatorFault(f"evaluator '{name}': gave {shown(values)}; expected a mapping from names to numbers")
    for key, value in values.items():
        if not isinstance(key, str):
            raise EvaluatorFault(f"evaluator '{name}': gave the name {shown(key)}; expected a text")
        alone = isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0
        if not isinstance(value, numbers.Real | np.bool_) and not alone:
            raise EvaluatorFault(f"evaluator '{name}': {key} is {shown(value)}; expected a number")
    with blaming(EvaluatorFault, f"evaluator '{name}'"):  # 0-d arrays of texts, integers beyond the largest float
        return {key: float(value) for key, value in values.items()}


def _measured_on(run: Run) -> Episodes:
    """The episodes that evaluators measure on."""
    return run.episodes if run.held_out is None else run.held_out


def _finite(name: str, values: Mapping[str, float], step: int) -> dict[str, float]:
    """An evaluator's numbers under its name. What is not finite becomes NaN, with a warning: training can go on."""
    bad = ", ".join(f"{key} = {value:g}" for key, value in values.items() if not math.isfinite(value))
    if bad:
        message = f"step {step}: the evaluator {name} gave {bad}; try other options of it (a lower lr, say)"
        warnings.warn(message, NotFiniteWarning, stacklevel=2)
    return {f"{name}/{key}": value if math.isfinite(value) else math.nan for key, value in values.items()}
