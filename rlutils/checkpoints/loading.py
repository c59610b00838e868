"""Run and checkpoint folders to algorithms and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rlalgo import BatchRLAlgo, Choice, Kind
from rlalgo.config import parse
from rlalgo.core.algo import misfit as cannot_act
from rlalgo.errors import CheckpointError, RlalgoError, told
from rlalgo.plugins import make
from rlalgo.registry import Catalogue
from rlutils.budget import shadow
from rlutils.checkpoints.description import (
    CURE,
    by_version,
    provided,
    read_description,
    refuse_missing,
    version_of,
)
from rlutils.checkpoints.fitting import misfit
from rlutils.checkpoints.index import Index, read_index, write_index
from rlutils.checkpoints.store import REMOTE, find, wanted
from rlutils.checkpoints.tensors import read_shapes, read_tensors
from rlutils.checkpoints.training_state import TrainingState, apply, load_trainer_state
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.modules import own_modules
from rlutils.config.overrides import load_mapping, override
from rlutils.config.settings import DEFAULTS, Settings
from rlutils.data.hub import fetched
from rlutils.machine import pick_device

PLAYED = ["*.yaml", "checkpoints/index.json", "checkpoints/*model.safetensors", "config.json"]
"""Files of a run that playing needs, and one that tells what is none; a star stands for slashes, too."""
NO_SOURCE = {"name": "minari", "id": "not/recorded-v0"}
"""Stands in the configuration of what came without its data."""


@dataclass(frozen=True)
class _Chosen:
    algo: Annotated[Choice, Kind("algo")]


def load(path: str | Path, checkpoint: str = "last", plugins: Sequence[str] = (), device: str = "cpu") -> BatchRLAlgo:
    """The algorithm of a run folder (or of one checkpoint folder), in eval mode, ready for `policy`.

    Args:
        path: a run folder, a checkpoint folder within or copied out of one, or `hf://OWNER/NAME[@revision]`.
        checkpoint: `last`, `best` or `step_000001000`.
        plugins: modules and files that provide what it was made of; they are never loaded by themselves.
        device: where to put it.

    Raises:
        CheckpointError: there is none, or it is incomplete, truncated or foreign, or a plugin is missing.
    """
    algo, _ = load_algo(find(local(path), checkpoint), catalogue(plugins))
    return algo.to(pick_device(device))


def local(path: str | Path) -> Path:
    """Where a run lies: one of the hub, hf://OWNER/NAME[@revision], is fetched to its cache, to be read only.

    Raises:
        RlalgoError: see `rlutils.data.hub.fetched`; or it is no run.
    """
    if (repo_id := str(path)).startswith(REMOTE):  # a Path has one slash there
        repo_id, _, revision = repo_id.removeprefix(REMOTE).lstrip("/").partition("@")
        folder = fetched(repo_id, revision or None, PLAYED)
        refuse_model(folder, repo_id)
        return folder
    return Path(path)


def refuse_model(folder: Path, repo_id: str) -> None:
    """CheckpointError for a repository that is a model, as of transformers, and no run."""
    if (folder / "config.json").exists() and not (folder / "config.yaml").exists():
        cure = f"of a Decision Transformer of transformers `rlalgo import-hf {repo_id} --out RUN` makes one"
        raise CheckpointError(f"{repo_id}: is no run of rlalgo (it has config.json and no config.yaml); {cure}")


def load_algo(path: Path, catalogue: Catalogue) -> tuple[BatchRLAlgo, Choice]:
    """The algorithm of a checkpoint folder, with its weights, in eval mode; and its checked choice.

    Raises:
        CheckpointError: something is missing, truncated, foreign, or needs a plugin that is not here.
    """
    made = read_description(path)
    refuse_missing(made.plugins, catalogue, str(path))
    with by_version(file := path / "algo.yaml", made.rlalgo):
        choice = parse(_Chosen, {"algo": made.algo}, catalogue, str(file)).algo
    assert choice.entry is not None
    if message := cannot_act(choice.entry.cls, made.spec.action_space, choice.name, "its spec"):
        raise CheckpointError(f"{file}: {message}; {CURE}")
    if twin := shadow(choice, made.spec):
        refuse_other_weights(path, twin)  # before memory is asked for
    try:
        algo = make("algo", choice, made.spec)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {told(error)}; {CURE}") from error
    load_weights(path, algo)
    return algo.eval(), choice


def load_weights(path: Path, algo: BatchRLAlgo) -> None:
    """model.safetensors into an algorithm of the same shape.

    Raises:
        CheckpointError: see `refuse_other_weights`.
    """
    refuse_other_weights(path, algo)
    algo.load_state_dict(read_tensors(path / "model.safetensors", CURE)[0])


def refuse_other_weights(path: Path, algo: BatchRLAlgo) -> None:
    """Reads no more of model.safetensors than names, types and shapes; `algo` may be the shadow of one.

    Raises:
        CheckpointError: the file is broken, or not of this algorithm as it is configured.
    """
    file = path / "model.safetensors"
    if message := misfit(read_shapes(file, CURE), algo.state_dict(), "weights"):
        raise CheckpointError(f"{file}: does not fit {algo.name} as configured: {message}; {CURE}")


def restore(path: Path, algo: BatchRLAlgo, settings: Settings) -> TrainingState:
    """Everything that was saved, for training to go on: weights, optimizers, schedules and random states are put back.

    All of it is compared with what it is loaded into before any of it is.

    Raises:
        CheckpointError: it cannot be read, is of another run, or another version of the algorithm wrote it.
    """
    state, made = load_trainer_state(path), read_description(path)
    index = read_index(path.parent)
    runs, steps = (state.run, made.run, index.run if index else state.run), (state.step, made.step)
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


def run_settings(
    folder: Path, plugins: Sequence[str] = (), overrides: Sequence[str] = (), block: Sequence[str] = ()
) -> tuple[Settings, Catalogue]:
    """The configuration that a run was trained with, overridden, and the catalogue it was checked against.

    Raises:
        RlalgoError: it is no run folder.
        CheckpointError: a plugin is missing.
        ConfigError: an override is at fault.
    """
    values = run_config(folder)
    plugins = [*plugins, *typed_modules(values, overrides)]
    refuse_missing(provided(folder), catalogue(plugins, block), str(folder))
    with by_version(folder / "config.yaml", version_of(folder)):
        return read_settings(values, overrides, plugins, block, recorded=True)


def dataless(values: Mapping[str, Any]) -> bool:
    """Whether a configuration says nothing of what is learnt from."""
    source = values.get("source")
    return isinstance(source, Mapping) and source.get("id") == NO_SOURCE["id"]


def typed_modules(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """The module in the working folder that an override names with `env.id=my_env:My-v0`; a run's own config does not.

    Args:
        values: what the run's config.yaml says.
        overrides: what was typed.
    """
    named = override({**values, "env": None}, overrides, DEFAULTS)
    return own_modules(named, Path())


def run_folder(path: Path) -> Path:
    """The run that a path names: the one that a checkpoint lies in, else the folder itself."""
    run = path.absolute().parent.parent
    return run if (path / "algo.yaml").exists() and (run / "config.yaml").exists() else path


def run_config(folder: Path) -> dict[str, Any]:
    """What config.yaml says, but for the plugins: those that a folder names are never loaded by themselves.

    A checkpoint that was copied out of its run knows its algorithm; the rest is as usual, and the data is nowhere.
    """
    path = folder / "config.yaml"
    if not path.exists() and (folder / "algo.yaml").exists():
        return {"source": NO_SOURCE, "algo": read_description(folder).algo}
    if not path.exists():
        raise RlalgoError(f"{folder} is not a run folder (it has no config.yaml); {wanted(folder)}")
    return {**load_mapping(path), "plugins": []}
