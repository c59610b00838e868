"""Loop: a trainer around a function that trains by other means, in a run like any other."""

from collections.abc import Callable
from typing import Any

from rlalgo import BatchRLAlgo, Episodes, Trainer
from rlalgo.errors import ConfigError
from rlutils.training.run import Run

Trains = Callable[[BatchRLAlgo, Episodes, Run], Any]


class Loop(Trainer):
    """Takes the place of the trainer that the settings name, of which `steps` says how many updates are made.

    The run has one checkpoint, at the end. A signal stops at once.
    """

    def __init__(self, trains: Trains, config: Any) -> None:
        self.trains, self.config = trains, config

    def fit(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:  # type: ignore[override]
        steps = self.config.steps
        if run.resumed:
            raise ConfigError([f"{run.folder}: a loop of your own cannot go on with it; begin anew with replace=True"])
        run.start(algo, steps)
        algo.train()
        try:
            run.examining = True
            self.trains(algo, episodes, run)
        finally:
            run.examining = False
        run.step = steps
        run.checkpoint(algo, steps, {})
        run.evaluate(algo, steps)
