"""Run and checkpoint folders to algorithms and settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlalgo import BatchRLAlgo
from rlalgo.errors import CheckpointError, RlalgoError
from rlalgo.registry import Catalogue
from rlutils.checkpoints import store as checkpoints
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.files import read_yaml
from rlutils.config.modules import own_modules
from rlutils.config.overrides import load_mapping, override
from rlutils.config.settings import DEFAULTS, Settings
from rlutils.machine import pick_device


def load(path: str | Path, checkpoint: str = "last", plugins: Sequence[str] = (), device: str = "cpu") -> BatchRLAlgo:
    """The algorithm of a run folder (or of one checkpoint folder), in eval mode, ready for `policy`.

    Args:
        path: a run folder, or a checkpoint folder within or copied out of one.
        checkpoint: `last`, `best` or `step_000001000`.
        plugins: modules and files that provide what it was made of; they are never loaded by themselves.
        device: where to put it.

    Raises:
        CheckpointError: there is none, or it is incomplete, truncated or foreign, or a plugin is missing.
    """
    algo, _ = checkpoints.load_algo(checkpoints.find(Path(path), checkpoint), catalogue(plugins))
    return algo.to(pick_device(device))


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
    recorded = folder / "plugins.yaml"
    plugins = [*plugins, *typed_modules(values, overrides)]
    if recorded.exists():
        checkpoints.refuse_missing(read_yaml(recorded), catalogue(plugins, block), str(folder))
    return read_settings(values, overrides, plugins, block, recorded=True)


def typed_modules(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """The module in the working folder that an override names with `env.id=my_env:My-v0`; a run's own config does not.

    Args:
        values: what the run's config.yaml says.
        overrides: what was typed.
    """
    named = override({**values, "env": None}, overrides, DEFAULTS)
    return own_modules(named, Path())


def run_folder(path: Path) -> Path:
    """The run that a path names: the folder itself, or the one that a checkpoint lies in.

    Raises:
        CheckpointError: it is a checkpoint that was copied out of its run.
    """
    if (path / "config.yaml").exists() or not (path / "algo.yaml").exists():
        return path
    run = path.absolute().parents[1]
    if not (run / "config.yaml").exists():
        raise CheckpointError(
            f"{path} lies in no run folder, so nothing says how to play it; load it with rlutils.load, or give the run"
        )
    return run


def run_config(folder: Path) -> dict[str, Any]:
    """What config.yaml says, but for the plugins: those that a folder names are never loaded by themselves."""
    path = folder / "config.yaml"
    if not path.exists():
        raise RlalgoError(f"{folder} is not a run folder (it has no config.yaml); give the folder that train wrote")
    return {**load_mapping(path), "plugins": []}
