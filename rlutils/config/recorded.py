"""What a run's config.yaml recorded, against the settings that it is asked to go on with."""

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from rlalgo import Choice
from rlalgo.config import to_mapping
from rlalgo.errors import RlalgoError
from rlalgo.schema import defaults_of
from rlutils.config.catalogue import read_settings
from rlutils.config.settings import DEFAULTS, Settings

HOW_NOT_WHAT = ("threads", "plugins", "checkpoints")
"""Settings that may change before a run goes on: they say how it runs, where code is found, and what is kept."""


def changes(recorded: Any, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """`differences` of what a run recorded and what is asked for.

    An option that the recorded configuration lacks, as it was written before there was one, had today's default.
    """
    return differences(_completed(recorded, settings), to_mapping(settings))


def completed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration with today's defaults where it says nothing, for telling whether two are the same.

    What a module or file provided is not loaded for that; such a configuration stays as it is.
    """
    try:
        settings, _ = read_settings({**recorded, "plugins": []}, recorded=True)
    except RlalgoError:
        return {**DEFAULTS, **recorded}
    return {**to_mapping(settings), "plugins": recorded.get("plugins", [])}


def differences(one: Any, two: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted path -> both values, where two configurations differ in what matters to a result."""
    pairs: dict[Any, tuple[Any, Any]]
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        pairs = {key: (one.get(key), two.get(key)) for key in {**one, **two} if path or key not in HOW_NOT_WHAT}
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = dict(enumerate(zip(one, two, strict=True)))
    else:  # JSON tells 1 from 1.0 and from true
        return {} if json.dumps(one, default=str) == json.dumps(two, default=str) else {path: (one, two)}
    nested = (differences(*pair, f"{path}.{key}" if path else str(key)) for key, pair in pairs.items())
    return {path: pair for found in nested for path, pair in found.items()}


def in_words(found: Mapping[str, tuple[Any, Any]]) -> str:
    """`seed: 0, now 1; algo.lr: 0.001, now 0.01`, the first three of them."""
    texts = [f"{path}: {json.dumps(was)}, now {json.dumps(now)}" for path, (was, now) in found.items()]
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _completed(recorded: Any, settings: Any) -> Any:
    if isinstance(settings, Choice):
        if not isinstance(recorded, Mapping) or recorded.get("name") != settings.name:
            return recorded
        settings = settings.config
    if is_dataclass(settings) and isinstance(recorded, Mapping):
        values = {**to_mapping(defaults_of(type(settings))), **recorded}
        return {key: _completed(value, getattr(settings, key, None)) for key, value in values.items()}
    if isinstance(settings, tuple) and isinstance(recorded, list) and len(settings) == len(recorded):
        return [_completed(*pair) for pair in zip(recorded, settings, strict=True)]
    return recorded
