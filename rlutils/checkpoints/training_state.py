"""What training needs to go on, besides the weights: trainer.json (plain values) and trainer.safetensors (tensors)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import safetensors.torch
import torch
from pydantic import Field, TypeAdapter, ValidationError

from rlalgo import BatchRLAlgo
from rlalgo.config import to_mapping
from rlalgo.errors import CheckpointError, ConfigError, first_fault
from rlutils.checkpoints.fitting import OF_THE_DEVICE, misfit, optimizers_misfit
from rlutils.checkpoints.plain import pack, unpack
from rlutils.checkpoints.tensors import read_tensors
from rlutils.config.files import read_json, write_atomic
from rlutils.config.settings import Settings
from rlutils.randomness import refuse_bad_state, rng_state, set_rng_state

CURE = "training cannot go on from it; evaluating and playing need only model.safetensors and algo.yaml"
States = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainingState:
    step: Annotated[int, Field(strict=True, ge=0)]
    """Updates done."""
    run: Annotated[str, Field(strict=True)]
    """The run's name in its index."""
    settings: dict[str, Any]
    """What a run keeps for all its life: algo, seed, holdout."""
    optimizers: States
    schedulers: States
    rng: dict[str, Any]
    trainer: dict[str, Any]
    """The trainer's own."""
    callbacks: States
    seconds: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
    """Of training."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


def capture(step: int, run: str, algo: BatchRLAlgo, settings: Settings, **state: Any) -> TrainingState:
    """All that is there at this moment; `state` is what `trainer`, `callbacks` and `seconds` say."""
    optimizers = {name: item.state_dict() for name, item in algo.optimizers.items()}
    schedulers = {name: item.state_dict() for name, item in algo.schedulers.items()}
    return TrainingState(step, run, _kept(settings), optimizers, schedulers, rng_state(), **state)


def write_trainer_state(path: Path, state: TrainingState) -> None:
    """trainer.json and trainer.safetensors into a checkpoint's folder.

    Raises:
        CheckpointError: something in it cannot be stored.
        OSError: a file cannot be written.
    """
    try:
        values, tensors = pack(dict(vars(state)))
    except ValueError as error:
        raise CheckpointError(f"the state of training cannot be saved: {error}") from error
    belongs = {"run": state.run, "step": str(state.step)}
    write_atomic(path / "trainer.safetensors", safetensors.torch.save(tensors, belongs))
    write_atomic(path / "trainer.json", json.dumps(values, allow_nan=False) + "\n")


def load_trainer_state(path: Path) -> TrainingState:
    """What `write_trainer_state` wrote into this folder.

    Raises:
        CheckpointError: a file is missing, truncated, of another program, or the two do not belong together.
    """
    try:
        values = read_json(path / "trainer.json")
    except ConfigError as error:
        raise CheckpointError(f"{error.faults[0]}; {CURE}") from error
    tensors, belongs = read_tensors(path / "trainer.safetensors", CURE)
    if not isinstance(values, dict) or belongs != {key: str(values.get(key)) for key in ("run", "step")}:
        raise CheckpointError(f"{path}: trainer.safetensors and trainer.json are of different checkpoints; train anew")
    try:
        return TypeAdapter(TrainingState).validate_python(unpack(values, tensors))
    except ValueError as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"{path / 'trainer.json'}: {why}; {CURE}") from error


def apply(
    state: TrainingState, algo: BatchRLAlgo, settings: Settings, path: Path, load_weights: Callable[[], None]
) -> None:
    """Puts everything back into an algorithm, its weights too, and into the random generators.

    Raises:
        CheckpointError: it does not fit; optimizers and generators are as they were then.
    """
    _refuse_other_settings(state.settings, _kept(settings), path)
    schedules = {name: item.state_dict() for name, item in algo.schedulers.items()}
    if message := optimizers_misfit(state.optimizers, algo) or misfit(state.schedulers, schedules, "schedulers"):
        raise CheckpointError(
            f"{path}: another version of {algo.name} or of torch wrote this: {message}; it can be evaluated and "
            "played, but not trained further: train it anew"
        )
    for name, schedule in state.schedulers.items():
        for key in ("last_epoch", "_step_count"):
            if schedule.get(key, 0) < 0:
                raise CheckpointError(f"{path}: scheduler {name}: {key}: got {schedule[key]}, expected at least 0")
    try:
        refuse_bad_state(state.rng)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; training cannot go on from it") from error
    load_weights()
    for name, item in algo.optimizers.items():
        saved = state.optimizers[name]
        groups = [
            {**group, **{key: present[key] for key in OF_THE_DEVICE if key in present}}
            for group, present in zip(saved["param_groups"], item.param_groups, strict=True)
        ]
        item.load_state_dict({**saved, "param_groups": groups})
        for parameter, values in item.state.items():  # files know no strides, and the order of sums depends on them
            for key, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    for name, own in algo.schedulers.items():
        own.load_state_dict(state.schedulers[name])
    set_rng_state(state.rng)


def _kept(settings: Settings) -> dict[str, Any]:
    """What a resume cannot change; where the data lies and what it is, others say."""
    return {key: to_mapping(getattr(settings, key)) for key in ("algo", "seed", "holdout")}


def _refuse_other_settings(was: Any, now: Any, path: Path, where: str = "") -> None:
    """CheckpointError for the first setting that was another one; an option that is new since then is none."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key, value in was.items():
            _refuse_other_settings(value, now.get(key), path, f"{where}.{key}" if where else str(key))
    elif list(was) != list(now) if isinstance(was, list | tuple) and isinstance(now, list | tuple) else was != now:
        raise CheckpointError(
            f"{path}: was trained with {where}: {was}, and the run's config.yaml says {now}; put it back, or train anew"
        )
