"""Checkpoints: a folder with weights (safetensors), what they are (YAML) and the trainer's state (`training_state`).

A checkpoint is written under a temporary name and renamed when complete; then the index lists it (`index`).
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch

from rlalgo import BatchRLAlgo
from rlalgo.errors import CheckpointError
from rlutils.checkpoints.description import run_of, write_description
from rlutils.checkpoints.index import FILES, NEEDED, PATTERN, look, new_index, read_index, step_of_name, write_index
from rlutils.checkpoints.plain import separate
from rlutils.checkpoints.training_state import capture, write_trainer_state
from rlutils.config.files import persist, write_atomic
from rlutils.config.settings import Settings

REMOTE = "hf:/"
"""What the address of a run on the hub begins with; `play` and `load` alone take it."""


def save(folder: Path, step: int, algo: BatchRLAlgo, settings: Settings, state: Mapping[str, Any]) -> Path:
    """Writes `folder/step_N` and calls it `last` in the index.

    Args:
        folder: of a run's checkpoints.
        step: updates done.
        algo: its weights, optimizers and schedules are saved, and with them every random state.
        settings: what the run is made by.
        state: what else is needed to go on: of the trainer, of the callbacks, and the seconds it took.

    Raises:
        CheckpointError: it could not be written; the last complete one is untouched.
    """
    index = read_index(folder) or new_index()
    path = folder / f"step_{step:09d}"
    while path.name in index.complete:  # this step again: the index names whole ones only, also while this is written
        path = path.with_name(path.name.replace("step_", "step_0"))
    temporary = folder / f".{path.name}.tmp"
    if path.exists() and run_of(path) != index.run and not _empty(path):
        raise CheckpointError(f"{path} is in the way, and this run did not write it; move it elsewhere")
    everything = capture(step, index.run, algo, settings, **state)
    try:
        folder.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_atomic(temporary / "model.safetensors", safetensors.torch.save(separate(algo.state_dict())))
        write_trainer_state(temporary, everything)
        write_description(temporary, algo, settings.algo, step, index.run)
        _remove(path)  # whole, but of a process that was killed before it was listed
        os.replace(temporary, path)
        persist(folder)  # the index never names what a power cut may take
        write_index(folder, replace(index, last=path.name, complete=[*index.complete, path.name]))
    except OSError as error:
        kept = last_of(folder.parent)
        left = f"the last complete checkpoint is {kept.name}" if kept else "there is no complete one"
        raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror or error}; {left}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def mark_best(path: Path) -> None:
    """Calls a complete checkpoint of the index `best`, in one step.

    Raises:
        CheckpointError: the index cannot be written, or does not list it.
    """
    index = read_index(path.parent)
    if index is None or path.name not in index.complete:
        raise CheckpointError(f"{path}: the run's index does not list this checkpoint, so it cannot be called best")
    try:
        if index.best != path.name:
            write_index(path.parent, replace(index, best=path.name))
    except OSError as error:
        raise CheckpointError(f"{path.parent / 'index.json'}: cannot be written: {error.strerror or error}") from error


def find(path: Path, which: str = "last") -> Path:
    """The folder of a checkpoint: of a run folder's `last` or `best` or `step_N`, or the path itself if it is one.

    Raises:
        CheckpointError: there is none, or it is incomplete; with what is there.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such folder; {wanted(path)}")
    found = path
    if not (path / "algo.yaml").exists():
        folder = path / "checkpoints"
        index = look(folder)
        name = {"last": index.last, "best": index.best}.get(which, which)
        if name is None or not PATTERN.fullmatch(name) or not (folder / name).is_dir():
            there = sorted(p.name for p in folder.glob("step_*") if p.is_dir())
            there += [f"{word} ({one})" for word, one in (("best", index.best), ("last", index.last)) if one in there]
            listed = ", ".join(there) or "none; has it trained long enough to write one?"
            raise CheckpointError(f"{path}: no checkpoint '{which}'. Found: {listed}")
        found = folder / name
    for needed in NEEDED:
        if not (found / needed).is_file():
            raise CheckpointError(f"{found}: {needed} is missing, so this is not a complete checkpoint")
    return found


def wanted(path: Path) -> str:
    """What to give instead of a path where no run is."""
    if (text := str(path)).startswith(REMOTE):
        return f"bring it here first: `rlalgo pull {text.removeprefix(REMOTE).lstrip('/').split('@')[0]} --out RUN`"
    return "give the folder that train wrote"


def last_of(folder: Path) -> Path | None:
    """A run folder's last checkpoint; None where there is no complete one."""
    try:
        return find(folder)
    except CheckpointError:
        return None


def prune(folder: Path, keep: Literal["all", "last_and_best"] | int = "last_and_best") -> None:
    """Removes listed checkpoints that are neither `last` nor `best` nor to be kept.

    Of a checkpoint only the files that `save` writes are removed: what else lies there stays, and its folder.

    Args:
        folder: of a run's checkpoints.
        keep: how many of the newest besides.

    Raises:
        CheckpointError: the index cannot be read or written, or a file cannot be removed.
    """
    index = read_index(folder)
    if index is None:
        return
    newest = list({step_of_name(name): name for name in index.complete}.values())  # of one step the one written last
    chosen = newest if keep == "all" else [] if keep == "last_and_best" else newest[-keep:]
    kept = [name for name in index.complete if name in (index.last, index.best, *chosen)]
    if kept == index.complete:
        return
    try:
        for name in index.complete:
            if name not in kept:
                _remove(folder / name)
        write_index(folder, replace(index, complete=kept))  # afterwards: a kill before it leaves them to the next one
    except OSError as error:
        message = f"{folder}: old checkpoints cannot be removed: {error.strerror or error}"
        raise CheckpointError(f"{message}; the last complete one is {index.last}") from error


def _remove(path: Path) -> None:
    """The files of a checkpoint, and its folder if nothing else is in it. What says whose it is goes last."""
    if path.is_symlink() or not path.is_dir():
        return
    for name in sorted(FILES, key="algo.yaml".__eq__):
        (path / name).unlink(missing_ok=True)
    if _empty(path):
        path.rmdir()


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
