"""What rlutils offers, through the same hooks as any plugin."""

from __future__ import annotations

from typing import Any

from rlalgo.hookspecs import hookimpl
from rlutils.behaviours.ars import ARS
from rlutils.behaviours.random import Random
from rlutils.behaviours.run import RunPolicy
from rlutils.callbacks.best import Best
from rlutils.callbacks.console import Console
from rlutils.callbacks.csv import Csv
from rlutils.callbacks.tensorboard import TensorBoard
from rlutils.envs import GymEnv
from rlutils.evaluators.action_error import ActionError
from rlutils.evaluators.fqe import FQE
from rlutils.evaluators.return_calibration import ReturnCalibration
from rlutils.sources.minari import MinariSource
from rlutils.trainer import OfflineTrainer


@hookimpl
def rlalgo_register_sources(register: Any) -> None:
    register(MinariSource)


@hookimpl
def rlalgo_register_envs(register: Any) -> None:
    register(GymEnv)


@hookimpl
def rlalgo_register_behaviours(register: Any) -> None:
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
