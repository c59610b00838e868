"""rlalgo: contracts and algorithms of offline (batch) reinforcement learning.

The names below are the public ones. What touches files, environments and terminals is in `rlutils`.
"""

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import Dataset, TransitionBatch, Transitions, WindowBatch
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Controller, Policy
from rlalgo.core.rollout import rollout
from rlalgo.core.spec import DataSpec
from rlalgo.core.trainer import Run, StopTraining, Trainer
from rlalgo.hookspecs import hookimpl
from rlalgo.registry import Choice, Kind
from rlalgo.version import __version__

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
