"""Settings: what a training run is made of, as one frozen dataclass; and how YAML and overrides become one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rlalgo.config import Count, Whole, parse_into, to_mapping
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.errors import ConfigError
from rlalgo.registry import Catalogue, Choice, Kind
from rlutils.config.files import parse_yaml, read_yaml

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
    episodes: Whole = 10
    """Episodes for each policy; 0 plays none (there is no simulator, say)."""
    envs: Count | None = None
    """Environments side by side for each policy; None: one per episode, 20 at most."""
    seed: Whole = 1_000_000
    """Episode k is reset with seed + k, at every evaluation and for every policy."""
    policies: tuple[dict[str, Any], ...] = ({},)
    """What to play: options of the algorithm's policy, {target_return: 3600} for dt."""
    evaluators: tuple[Annotated[Choice, Kind("evaluator")], ...] = ()
    """Further measurements, which need no environment."""

    def __post_init__(self) -> None:
        if self.episodes and not self.policies:
            raise ValueError("policies is empty: give at least one ({} for the defaults) or set episodes to 0")
        _refuse_twice("evaluators", self.evaluators, "metrics")


@dataclass(frozen=True)
class Settings:
    source: Annotated[Choice, Kind("source")]
    """Where the data comes from."""
    algo: Annotated[Choice, Kind("algo")]
    """What learns."""
    seed: Whole = 0
    """Seed of weights, data order and everything else that is drawn."""
    holdout: Share | None = None
    """Share of the episodes kept from training, for evaluators; which ones, the seed decides. None: all are trained
    on."""
    plugins: tuple[str, ...] = ()
    """Modules (a.b) and files (./x.py, from this file's folder) to load besides what is installed."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes cuda where there is one."""
    threads: Count | None = None
    """CPU threads; None leaves it to torch."""
    trainer: Annotated[Choice, Kind("trainer")] = Choice("offline")
    """What runs the updates."""
    evaluation: Evaluation = Evaluation()
    """When and what to play."""
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


def load_mapping(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping, with the paths of plugin files made absolute."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: expected a mapping at the top level, got {type(values).__name__}"])
    given = values.get("plugins")
    if isinstance(given, list):
        values["plugins"] = [
            str((path.parent / p).resolve()) if isinstance(p, str) and p.endswith(".py") else p for p in given
        ]
    return values


def override(
    values: dict[str, Any], overrides: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`a.b=value` (value in YAML) for each override, into a copy; list items by number (`evaluation.policies.0.x=1`).

    An override may also be a YAML file (`texts_of` says how its settings are laid over those before it). Where a path
    goes through something that is not there, its default is changed: `trainer.steps=10` is about the usual trainer.

    Raises:
        ConfigError: an override without `=`, or a path through something that has no keys.
    """
    result = _copy(values)
    for text in overrides:
        if text.endswith((".yaml", ".yml")) and "=" not in text:
            result = override(result, list(texts_of(load_mapping(Path(text)))), defaults)
            continue
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ConfigError([f"override '{text}': expected key=value, such as algo.lr=3e-4, or a YAML file"])
        keys = path.strip().split(".")
        place: Any = result
        default: Any = defaults
        for i, key in enumerate(keys[:-1]):
            name = ".".join(keys[: i + 1])
            default = default.get(key) if isinstance(default, Mapping) else None
            if isinstance(place, list):
                place[_index(key, place, text)] = inner = _as_mapping(place[_index(key, place, text)])
            else:
                inner = _as_mapping(_copy(default) if place.get(key) is None else place[key])
                place[key] = inner
            if not isinstance(inner, dict | list):
                raise ConfigError([f"override '{text}': {name} is {inner!r}, which has no keys"])
            place = inner
        if isinstance(place, list):
            place[_index(keys[-1], place, text)] = parse_yaml(value, f"override '{text}'")
        else:
            place[keys[-1]] = parse_yaml(value, f"override '{text}'")
    return result


def texts_of(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Settings as overrides, `a.b=value`: a mapping is merged, one with a `name` replaces what is there."""
    for key, value in values.items():
        place = f"{path}{key}"
        if isinstance(value, Mapping) and "name" not in value:
            yield from texts_of(value, f"{place}.")
        else:
            yield f"{place}={json.dumps(value)}"


def uses(value: Any) -> Iterator[Choice]:
    """Every resolved Choice within a config, outermost first."""
    if isinstance(value, Choice):
        yield value
        yield from uses(value.config)
    elif is_dataclass(value):
        for field in fields(value):
            yield from uses(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from uses(item)


def _as_mapping(value: Any) -> Any:
    """A bare name is short for {name: ...}, and nothing for an empty mapping."""
    if isinstance(value, str):
        return {"name": value}
    return {} if value is None else value


def _index(key: str, values: list, text: str) -> int:
    if not key.isdigit() or int(key) >= len(values):
        raise ConfigError([f"override '{text}': '{key}' is not one of the {len(values)} items 0..{len(values) - 1}"])
    return int(key)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value
