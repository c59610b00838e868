"""rlalgo: contracts and algorithms of offline (batch) reinforcement learning.

The names below are the public ones. What touches files, environments and terminals is in `rlutils`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlalgo.hookspecs import hookimpl
from rlalgo.registry import Choice, Kind
from rlalgo.version import __version__

if TYPE_CHECKING:
    from rlalgo.core.algo import BatchRLAlgo
    from rlalgo.core.dataset import Dataset, TransitionBatch, Transitions, WindowBatch
    from rlalgo.core.episodes import Episodes
    from rlalgo.core.policy import Controller, Policy
    from rlalgo.core.rollout import rollout
    from rlalgo.core.spec import DataSpec
    from rlalgo.core.trainer import Run, StopTraining, Trainer

__all__ = [
    "BatchRLAlgo",
    "Choice",
    "Controller",
    "DataSpec",
    "Dataset",
    "Episodes",
    "Kind",
    "Policy",
    "Run",
    "StopTraining",
    "Trainer",
    "TransitionBatch",
    "Transitions",
    "WindowBatch",
    "__version__",
    "hookimpl",
    "rollout",
]

_HOMES = ("algo", "dataset", "episodes", "policy", "rollout", "spec", "trainer")


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is first used, so that names, errors and configs are there at once."""
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"rlalgo.core.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
