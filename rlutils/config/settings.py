"""Settings: what a training run is made of, as one frozen dataclass; and how YAML and overrides become one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from rlalgo import BatchRLAlgo, Choice, Kind
from rlalgo.config import Count, Few, Seed, Whole, parse_into, to_mapping
from rlalgo.errors import ConfigError
from rlalgo.registry import Catalogue

MOST_ENVS = 10_000
"""Environments of one evaluation, all side by side."""
Share = Annotated[float, Field(gt=0, lt=1)]


def _refuse_twice(path: str, choices: Sequence[Choice], what: str) -> None:
    """ValueError for two of one name, of which one would take the other's place."""
    names = [choice.name for choice in choices]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: '{name}' stands here twice, and both would have the same {what}; keep one")


@dataclass(frozen=True)
class Evaluation:
    every: Whole = 5_000
    """Updates between evaluations; 0 evaluates at the end only."""
    episodes: Annotated[Whole, Field(le=10**6)] = 10
    """Episodes for each policy; 0 plays none (there is no simulator, say)."""
    envs: Few | None = None
    """Environments side by side for each policy; None: one per episode, 20 at most."""
    seed: Seed = 1_000_000
    """Episode k is reset with seed + k, at every evaluation and for every policy."""
    policies: Annotated[tuple[dict[str, Any], ...], Field(max_length=1000)] = ({},)
    """What to play: options of the algorithm's policy, {target_return: 3600} for dt."""
    info: tuple[str, ...] = ()
    """Numbers to keep, besides `success`, of what the last step of an episode gives as its info."""
    evaluators: tuple[Annotated[Choice, Kind("evaluator")], ...] = ()
    """Further measurements, which need no environment."""

    def __post_init__(self) -> None:
        if self.episodes and not self.policies:
            raise ValueError("policies is empty: give at least one ({} for the defaults) or set episodes to 0")
        if (envs := min(self.envs or 20, self.episodes) * len(self.policies)) > MOST_ENVS:
            raise ValueError(f"envs: {envs:,} for all policies together, and {MOST_ENVS:,} are the most; set it lower")
        _refuse_twice("evaluators", self.evaluators, "metrics")


@dataclass(frozen=True)
class Checkpoints:
    keep: Literal["last_and_best", "all"] | Count = "last_and_best"
    """Which are kept besides the last and the best: none, all, or so many of the newest."""


@dataclass(frozen=True)
class Settings:
    source: Annotated[Choice, Kind("source")]
    """Where the data comes from."""
    algo: Annotated[Choice, Kind("algo")]
    """What learns."""
    seed: Seed = 0
    """Seed of weights, data order and everything else that is drawn."""
    holdout: Share | None = None
    """Share of the episodes kept from training, for evaluators; which ones, the seed decides. None: all are trained
    on."""
    plugins: tuple[str, ...] = ()
    """Modules (a.b) and files (./x.py, from this file's folder) to load besides what is installed."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes cuda where there is one."""
    threads: Few | None = None
    """CPU threads; None leaves it to torch."""
    trainer: Annotated[Choice, Kind("trainer")] = Choice("offline")
    """What runs the updates."""
    evaluation: Evaluation = Evaluation()
    """When and what to play."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept to go on from and to play."""
    env: Annotated[Choice, Kind("env")] = Choice("gym")
    """What makes the environments to play in."""
    callbacks: tuple[Annotated[Choice, Kind("callback")], ...] = (
        Choice("console"),
        Choice("csv"),
        Choice("tensorboard"),
        Choice("best"),
    )
    """What watches the run: loggers and the keeper of the best checkpoint."""

    def __post_init__(self) -> None:
        _refuse_twice("callbacks", self.callbacks, "state and files")
        if getattr(self.trainer.config, "patience", None) is not None and not self.evaluation.episodes:
            raise ValueError(
                "trainer.patience: compares the returns of evaluations, and evaluation.episodes is 0; "
                "play some episodes, or set trainer.patience to null"
            )


DEFAULTS = {field.name: to_mapping(field.default) for field in fields(Settings) if field.default is not MISSING}
"""What a YAML file need not say, as it would say it."""


def to_settings(values: Any, catalogue: Catalogue, where: str = "") -> Settings:
    """Checks everything, the policies' options included.

    Raises:
        ConfigError: listing every fault with its dotted path.
    """
    faults: list[str] = []
    settings = parse_into(Settings, values, catalogue, "", faults)
    if isinstance(values, Mapping):
        # The policies' options belong to the algorithm; they are checked even where something else is at fault.
        algo, evaluation = values.get("algo"), values.get("evaluation")
        name = algo.get("name") if isinstance(algo, Mapping) else getattr(algo, "name", algo)
        policies = evaluation.get("policies") if isinstance(evaluation, Mapping) else None
        if name in catalogue.names("algo") and isinstance(policies, list | tuple):
            policy_options(catalogue.get("algo", name).cls, policies, catalogue, faults)
    if faults:
        raise ConfigError(faults, where)
    return settings


def policy_options(
    algo: type[BatchRLAlgo], policies: Sequence[Any], catalogue: Catalogue, faults: list[str]
) -> list[Any]:
    """Mappings -> instances of the algorithm's PolicyConfig; faults are added to the list."""
    path = "evaluation.policies"
    return [parse_into(algo.PolicyConfig, p, catalogue, f"{path}[{i}]", faults) for i, p in enumerate(policies)]


def laid_over(values: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each of the options over what all policies of a configuration have in common, such as `sample: true`."""
    evaluation = values.get("evaluation")
    policies = evaluation.get("policies") if isinstance(evaluation, Mapping) else None
    first, *others = policies if isinstance(policies, list | tuple) and policies else ({},)
    if not all(isinstance(policy, Mapping) for policy in (first, *others)):
        first = {}  # whoever checks the configuration will tell
    common = {key: value for key, value in first.items() if all((key, value) in other.items() for other in others)}
    return [{**common, **option} for option in options]


def uses(value: Any) -> Iterator[Choice]:
    """Every resolved Choice within a config, outermost first."""
    if isinstance(value, Choice):
        yield value
        yield from uses(value.config)
    elif is_dataclass(value):
        for field in fields(value):
            yield from uses(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from uses(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from uses(item)
