"""Checkpoints: a folder with weights (safetensors), what they are (YAML) and the trainer's state.

A checkpoint is written under a temporary name and renamed when complete; `last` and `best` are relative links beside
it. Nothing is ever unpickled: trainer.pt is read with weights_only=True.
"""

import io
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from rlalgo import BatchRLAlgo, Choice, DataSpec
from rlalgo.config import parse, to_mapping
from rlalgo.errors import CheckpointError, ConfigError, DataError
from rlalgo.plugins import make
from rlalgo.registry import Catalogue
from rlalgo.version import __version__
from rlutils.config.files import read_yaml, write_atomic, write_yaml
from rlutils.config.settings import uses
from rlutils.randomness import rng_state, set_rng_state


def save(folder: Path, step: int, algo: BatchRLAlgo, choice: Choice, state: Mapping[str, Any]) -> Path:
    """Writes `folder/step_N` and points `folder/last` at it.

    Args:
        folder: of a run's checkpoints.
        step: updates done.
        algo: its weights, optimizers and schedules are saved, and with them every random state.
        choice: what it was made by.
        state: what else is needed to go on.

    Raises:
        CheckpointError: it could not be written; the last complete one is untouched.
    """
    path = folder / f"step_{step:09d}"
    temporary = folder / f".{path.name}.tmp"
    weights = {key: value.detach().cpu().contiguous() for key, value in algo.state_dict().items()}
    everything = {
        "step": step,
        "optimizers": {name: item.state_dict() for name, item in algo.optimizers.items()},
        "schedulers": {name: item.state_dict() for name, item in algo.schedulers.items()},
        "rng": rng_state(),
        **state,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_atomic(temporary / "model.safetensors", safetensors.torch.save(weights))
        buffer = io.BytesIO()
        torch.save(everything, buffer)
        write_atomic(temporary / "trainer.pt", buffer.getvalue())
        write_yaml(temporary / "algo.yaml", _description(algo, choice, step))
        shutil.rmtree(path, ignore_errors=True)  # the same step again, after a resume
        os.replace(temporary, path)
        link(folder, "last", path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = last_of(folder.parent)
        left = f"the last complete checkpoint is {kept.resolve().name}" if kept else "there is no complete one"
        raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror or error}; {left}") from error
    return path


def link(folder: Path, name: str, target: Path) -> None:
    """Points `folder/name` at a checkpoint, in one step."""
    temporary = folder / f".{name}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, folder / name)


def find(path: Path, which: str = "last") -> Path:
    """The folder of a checkpoint: of a run folder's `last` or `best` or `step_N`, or the path itself if it is one.

    Raises:
        CheckpointError: there is none, or it is incomplete; with what is there.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such folder")
    found = path
    if not (path / "algo.yaml").exists():
        folder = path / "checkpoints"
        found = folder / which
        if not found.exists():
            there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
            listed = ", ".join(there) or "none; has it trained long enough to write one?"
            raise CheckpointError(f"{path}: no checkpoint '{which}'. Found: {listed}")
    for name in ("model.safetensors", "algo.yaml"):
        if not (found / name).is_file():
            raise CheckpointError(f"{found}: {name} is missing, so this is not a complete checkpoint")
    return found


def last_of(folder: Path) -> Path | None:
    """A run folder's last checkpoint; None where there is no complete one."""
    try:
        return find(folder)
    except CheckpointError:
        return None


def step_of(path: Path) -> int:
    """The updates that a checkpoint has behind it."""
    return int(read_yaml(path / "algo.yaml")["step"])


def _description(algo: BatchRLAlgo, choice: Choice, step: int) -> dict[str, Any]:
    """algo.yaml: enough to build the algorithm again, and who provided its parts."""
    return {
        "rlalgo": __version__,
        "step": step,
        "algo": to_mapping(choice),
        "spec": algo.spec.to_mapping(),
        "plugins": owners(choice),
    }


def owners(value: Any) -> list[dict[str, Any]]:
    """Every named thing within a config, and the plugin it comes from."""
    rows = []
    for choice in uses(value):
        assert choice.entry is not None
        row = {"kind": choice.entry.kind, "name": choice.name, **asdict(choice.entry.owner)}
        if row not in rows:
            rows.append(row)
    return rows


def refuse_missing(recorded: Sequence[dict[str, Any]], catalogue: Catalogue, where: str) -> None:
    """CheckpointError that names the plugin to install or to pass for the first name that nobody provides here."""
    for row in recorded:
        if row["name"] in catalogue.names(row["kind"]):
            continue
        if row["distribution"] and row["distribution"] != "rlalgo":
            cure = f"install it: pip install '{row['distribution']}' (it was {row['version']})"
        else:
            cure = f"pass it: --plugin {row['location']} (plugins=[...] from Python); it is never loaded by itself"
        raise CheckpointError(
            f"{where}: the {row['kind']} '{row['name']}' came from plugin '{row['plugin']}', "
            f"which is not loaded here; {cure}"
        )


def refuse_other_data(path: Path, spec: DataSpec, label: str) -> None:
    """CheckpointError if a checkpoint learnt from observations or actions of another kind than the data now has."""
    learnt = DataSpec.from_mapping(read_yaml(path / "algo.yaml")["spec"])
    for name in ("observation_space", "action_space", "frame_stack"):
        was, now = getattr(learnt, name), getattr(spec, name)
        if was != now:
            message = f"{path}: learnt with the {name} {was}, and {label} has {now} now; train anew"
            raise CheckpointError(f"{message}, or give data of that kind")


def load_algo(path: Path, catalogue: Catalogue) -> tuple[BatchRLAlgo, Choice]:
    """The algorithm of a checkpoint folder, with its weights, in eval mode; and its checked choice.

    Raises:
        CheckpointError: something is missing, truncated, foreign, or needs a plugin that is not here.
    """
    try:
        facts = read_yaml(path / "algo.yaml")
        recorded, spec_values, algo_values = facts["plugins"], facts["spec"], dict(facts["algo"])
        spec = DataSpec.from_mapping(spec_values)
        name = algo_values.pop("name")
    except (ConfigError, DataError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'algo.yaml'} is not a checkpoint's description: {error}") from error
    refuse_missing(recorded, catalogue, str(path))
    entry = catalogue.get("algo", name)
    config = parse(entry.Config, algo_values, catalogue, str(path / "algo.yaml"))
    choice = Choice(name, algo_values, entry, config)
    algo = make("algo", choice, spec)
    load_weights(path, algo)
    return algo.eval(), choice


def load_weights(path: Path, algo: BatchRLAlgo) -> None:
    """model.safetensors into an algorithm of the same shape."""
    file = path / "model.safetensors"
    try:
        weights = safetensors.torch.load(file.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be read as safetensors ({error}); it is truncated or of another program. "
            "Use another checkpoint of the run (--checkpoint best, last or step_N)"
        ) from error
    try:
        algo.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: the weights do not fit {algo.name} as configured: {error}") from error


def restore(path: Path, algo: BatchRLAlgo) -> dict[str, Any]:
    """Everything that was saved, for training to go on: weights, optimizers, schedules and random states are put back.

    Returns:
        What `save` was given as state, and `step`.

    Raises:
        CheckpointError: it cannot be read, or another version of the algorithm wrote it.
    """
    state = load_trainer_state(path)
    load_weights(path, algo)
    try:
        for name, item in algo.optimizers.items():
            item.load_state_dict(state["optimizers"][name])
        for name, schedule in algo.schedulers.items():
            schedule.load_state_dict(state["schedulers"][name])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: another version of {algo.name} wrote this, with optimizers or schedules that differ from the "
            f"present ones ({error}); it can be evaluated and played, but not trained further: train it anew"
        ) from error
    set_rng_state(state["rng"])
    return state


def load_trainer_state(path: Path) -> dict[str, Any]:
    """trainer.pt, by the loader that runs no code."""
    file = path / "trainer.pt"
    try:
        state = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{file}: cannot be read ({first}); it is missing, truncated or of another program. "
            "Training cannot be resumed from it; evaluating and playing need only the other two files"
        ) from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{file}: holds no training state of rlalgo")
    return state


def prune(folder: Path) -> None:
    """Removes the checkpoints that neither `last` nor `best` names, and what a kill left half-written."""
    kept = {(folder / name).resolve().name for name in ("last", "best") if (folder / name).exists()}
    for path in folder.glob("step_*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
