"""What rlutils offers, through the same hooks as any plugin."""

from typing import Any

from rlalgo import hookimpl
from rlutils.collecting.behaviors.ars import ARS
from rlutils.collecting.behaviors.random import Random
from rlutils.collecting.behaviors.trained import RunPolicy
from rlutils.data.d4rl_source import D4rlSource
from rlutils.data.hf_source import HfSource
from rlutils.data.lerobot_source import LerobotSource
from rlutils.data.minari_source import MinariSource
from rlutils.data.npz_source import NpzSource
from rlutils.data.robomimic_source import RobomimicSource
from rlutils.data.table_source import TableSource
from rlutils.data.trajectories_source import TrajectoriesSource
from rlutils.envs.gym import GymEnv
from rlutils.evaluation.evaluators.action_error import ActionError
from rlutils.evaluation.evaluators.fqe import FQE
from rlutils.evaluation.evaluators.return_calibration import ReturnCalibration
from rlutils.training.callbacks.best import Best
from rlutils.training.callbacks.console import Console
from rlutils.training.callbacks.csv import Csv
from rlutils.training.callbacks.tensorboard import TensorBoard
from rlutils.training.trainer import OfflineTrainer


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(MinariSource)
    register(NpzSource)
    register(D4rlSource)
    register(TrajectoriesSource)
    register(RobomimicSource)
    register(TableSource)
    register(HfSource)
    register(LerobotSource)


@hookimpl
def rlalgo_register_envs(register: Any) -> None:
    register(GymEnv)


@hookimpl
def rlalgo_register_behaviors(register: Any) -> None:
    register(ARS)
    register(Random)
    register(RunPolicy)


@hookimpl
def rlalgo_register_trainers(register: Any) -> None:
    register(OfflineTrainer)


@hookimpl
def rlalgo_register_callbacks(register: Any) -> None:
    register(Console)
    register(Csv)
    register(TensorBoard)
    register(Best)


@hookimpl
def rlalgo_register_evaluators(register: Any) -> None:
    register(FQE)
    register(ActionError)
    register(ReturnCalibration)
