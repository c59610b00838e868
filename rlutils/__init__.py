"""rlutils: what touches the world. The Python API is as short as the command line:

run = rlutils.train("configs/dt_hopper.yaml", seed=1)      # a finished Run
algo = rlutils.load(run.folder)                            # the trained algorithm
controller = Controller(algo.policy([algo.PolicyConfig(target_return=3600.0)]))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlutils.config import BUILTINS

if TYPE_CHECKING:
    from rlalgo.core.policy import Controller
    from rlutils.app import evaluate, resume, train
    from rlutils.checkpoints.loading import load
    from rlutils.config.catalogue import catalogue
    from rlutils.envs.gym import prepare
    from rlutils.training.run import Run

__all__ = ["Controller", "Run", "catalogue", "evaluate", "load", "prepare", "resume", "train"]

BUILTINS.append("rlutils.builtin")

_HOME = {
    "Controller": "rlalgo.core.policy",
    "Run": "rlutils.training.run",
    "catalogue": "rlutils.config.catalogue",
    "load": "rlutils.checkpoints.loading",
    "prepare": "rlutils.envs.gym",
}


def __getattr__(name: str) -> Any:
    """Everything is imported when it is first used: torch takes a second, which the least commands need not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "rlutils.app")), name)
