"""Checkpoints: a folder with weights (safetensors), what they are (YAML) and the trainer's state (`training_state`).

A checkpoint is written under a temporary name and renamed when complete; then the index lists it (`index`).
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from rlalgo import BatchRLAlgo, Choice, DataSpec
from rlalgo.config import parse, to_mapping
from rlalgo.errors import CheckpointError, ConfigError, DataError
from rlalgo.plugins import make
from rlalgo.registry import Catalogue
from rlalgo.version import __version__
from rlutils.checkpoints.index import (
    FILES,
    NEEDED,
    PATTERN,
    Index,
    look,
    new_index,
    read_index,
    write_index,
)
from rlutils.checkpoints.plain import separate
from rlutils.checkpoints.training_state import TrainingState, apply, capture, load_trainer_state, write_trainer_state
from rlutils.config.files import read_yaml, write_atomic, write_yaml
from rlutils.config.settings import Settings, uses


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
    path = folder / f"step_{step:09d}"
    temporary = folder / f".{path.name}.tmp"
    index = read_index(folder) or new_index()
    if path.exists() and path.name not in index.complete and _run_of(path) != index.run:
        raise CheckpointError(f"{path} is in the way, and this run did not write it; move it elsewhere")
    everything = capture(step, index.run, algo, settings, **state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_atomic(temporary / "model.safetensors", safetensors.torch.save(separate(algo.state_dict())))
        write_trainer_state(temporary, everything)
        write_yaml(temporary / "algo.yaml", _description(algo, settings.algo, step, index.run))
        _remove(path)  # the same step again, after a resume
        os.replace(temporary, path)
        complete = [*(name for name in index.complete if name != path.name), path.name]
        write_index(folder, replace(index, last=path.name, complete=complete))
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
        write_index(path.parent, replace(index, best=path.name))
    except OSError as error:
        raise CheckpointError(f"{path.parent / 'index.json'}: cannot be written: {error.strerror or error}") from error


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


def last_of(folder: Path) -> Path | None:
    """A run folder's last checkpoint; None where there is no complete one."""
    try:
        return find(folder)
    except CheckpointError:
        return None


def step_of(path: Path) -> int:
    """The updates that a checkpoint has behind it.

    Raises:
        CheckpointError: its algo.yaml does not say so.
    """
    step = _fact(path, "step")
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{path / 'algo.yaml'}: step: expected a number of updates, got {step!r}")
    return step


def _run_of(path: Path) -> str | None:
    """The run that wrote a checkpoint; None where it does not say so."""
    try:
        return _fact(path, "run")
    except CheckpointError:
        return None


def _fact(path: Path, name: str) -> Any:
    """One value of algo.yaml, None where it is absent."""
    try:
        facts = read_yaml(path / "algo.yaml")
    except ConfigError as error:
        raise CheckpointError(f"{path}: is not a checkpoint: {error}") from error
    return facts.get(name) if isinstance(facts, dict) else None


def _description(algo: BatchRLAlgo, choice: Choice, step: int, run: str) -> dict[str, Any]:
    """algo.yaml: enough to build the algorithm again, and who provided its parts."""
    return {
        "rlalgo": __version__,
        "run": run,
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


def restore(path: Path, algo: BatchRLAlgo, settings: Settings) -> TrainingState:
    """Everything that was saved, for training to go on: weights, optimizers, schedules and random states are put back.

    All of it is compared with what it is loaded into before any of it is.

    Raises:
        CheckpointError: it cannot be read, is of another run, or another version of the algorithm wrote it.
    """
    state = load_trainer_state(path)
    index = read_index(path.parent)
    runs, steps = (state.run, _run_of(path), index.run if index else state.run), (state.step, step_of(path))
    if len(set(runs)) > 1:
        raise CheckpointError(f"{path}: its files are of different runs ({', '.join(map(str, runs))}); train anew")
    if len(set(steps)) > 1:
        raise CheckpointError(f"{path}: trainer.json is of step {steps[0]}, and algo.yaml of step {steps[1]}")
    apply(state, algo, settings, path, lambda: load_weights(path, algo))
    if index is None:
        try:
            write_index(path.parent, Index(state.run, path.name, None, [path.name]))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path.parent / 'index.json'}: cannot be written: {error}") from error
    return state


def prune(folder: Path) -> None:
    """Removes the listed checkpoints that are neither `last` nor `best`, and what a kill left half-written.

    Of a checkpoint only the files that `save` writes are removed: what else lies there stays, and its folder.

    Raises:
        CheckpointError: the index cannot be read or written, or a file cannot be removed.
    """
    index = read_index(folder)
    if index is None:
        return
    kept = [name for name in index.complete if name in (index.last, index.best)]
    try:
        for name in index.complete:
            if name not in kept:
                _remove(folder / name)
        if kept != index.complete:
            write_index(folder, replace(index, complete=kept))
    except OSError as error:
        message = f"{folder}: old checkpoints cannot be removed: {error.strerror or error}"
        raise CheckpointError(f"{message}; the last complete one is {index.last}") from error
    for path in folder.glob(".step_*.tmp"):
        if PATTERN.fullmatch(path.name[1:-4]) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """The files of a checkpoint, and its folder if nothing else is in it."""
    if path.is_symlink() or not path.is_dir():
        return
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()
