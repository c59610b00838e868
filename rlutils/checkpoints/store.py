"""Checkpoints: a folder with weights (safetensors), what they are (YAML) and the trainer's state.

A checkpoint is written under a temporary name and renamed when complete; `last` and `best` are relative links beside
it. Nothing is ever unpickled: trainer.pt is read with weights_only=True.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from rlalgo.config import parse, to_mapping
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.spec import DataSpec
from rlalgo.errors import CheckpointError, ConfigError, DataError
from rlalgo.registry import Catalogue, Choice
from rlalgo.version import __version__
from rlutils.config.files import read_yaml, write_atomic, write_yaml
from rlutils.config.settings import uses

NAMES = ("model.safetensors", "algo.yaml", "trainer.pt")


def save(folder: Path, step: int, algo: BatchRLAlgo, choice: Choice, state: dict[str, Any]) -> Path:
    """Writes `folder/step_N` and points `folder/last` at it.

    Raises:
        CheckpointError: it could not be written; the last complete one is untouched.
    """
    path = folder / f"step_{step:09d}"
    temporary = folder / f".{path.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        weights = {key: value.detach().cpu().contiguous() for key, value in algo.state_dict().items()}
        write_atomic(temporary / "model.safetensors", safetensors.torch.save(weights))
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(temporary / "trainer.pt", buffer.getvalue())
        write_yaml(temporary / "algo.yaml", description(algo, choice, step))
        shutil.rmtree(path, ignore_errors=True)  # the same step again, after a resume
        os.replace(temporary, path)
        link(folder, "last", path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = find(folder.parent, "last", or_none=True)
        left = f"the last complete checkpoint is {kept.resolve().name}" if kept else "there is no complete one"
        raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror or error}; {left}") from error
    return path


def link(folder: Path, name: str, target: Path) -> None:
    """Points `folder/name` at a checkpoint, in one step."""
    temporary = folder / f".{name}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, folder / name)


def find(path: Path, which: str = "last", or_none: bool = False) -> Path:
    """The folder of a checkpoint: of a run folder's `last` or `best` or `step_N`, or the path itself if it is one.

    Raises:
        CheckpointError: there is none, or it is incomplete; with what is there.
    """
    if not path.exists():
        return _missing(f"{path}: there is no such folder", or_none)
    if (path / "algo.yaml").exists():
        found = path
    else:
        folder = path / "checkpoints"
        found = folder / which
        there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
        if not found.exists():
            listed = ", ".join(there) or "none; has it trained long enough to write one?"
            return _missing(f"{path}: no checkpoint '{which}'. Found: {listed}", or_none)
    for name in NAMES[:2]:
        if not (found / name).is_file():
            return _missing(f"{found}: {name} is missing, so this is not a complete checkpoint", or_none)
    return found


def description(algo: BatchRLAlgo, choice: Choice, step: int) -> dict[str, Any]:
    """What algo.yaml says: enough to build the algorithm again, and who provided its parts."""
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
        owner = choice.entry.owner
        row = {
            "kind": choice.entry.kind,
            "name": choice.name,
            "plugin": owner.plugin,
            "distribution": owner.distribution,
            "version": owner.version,
            "location": owner.location,
        }
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
    algo = entry.cls(spec, config)
    load_weights(path, algo)
    return algo.eval(), Choice(name, algo_values, entry, config)


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


def _missing(message: str, or_none: bool) -> Any:
    if or_none:
        return None
    raise CheckpointError(message)
