"""rlutils: what touches the world. The Python API is as short as the command line:

run = rlutils.train("configs/dt_hopper.yaml", seed=1)      # a finished Run
algo = rlutils.load(run.folder)                            # the trained algorithm
controller = Controller(algo.policy([algo.PolicyConfig(target_return=3600.0)]))
"""

from rlalgo.core.policy import Controller
from rlutils.app import evaluate, resume, train
from rlutils.checkpoints.loading import load
from rlutils.config.catalogue import catalogue
from rlutils.training.run import Run

__all__ = ["Controller", "Run", "catalogue", "evaluate", "load", "resume", "train"]
