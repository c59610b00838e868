"""A run's folder: where it may lie, and the files in it that say what the run is and how far it has come.

config.yaml and plugins.yaml: how it is trained, and who provided what that names. spec.yaml and data.json: on what.
run.yaml: its state, and how to repeat it. Callbacks and `rlutils.checkpoints` write the rest.
"""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from rlalgo import Episodes
from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError
from rlutils.checkpoints.store import owners
from rlutils.config.files import read_yaml, write_json, write_yaml
from rlutils.config.settings import Settings
from rlutils.machine import versions


def new_folder(stem: str, seed: int) -> Path:
    """A free name under `runs/` from the configuration's, the seed and the time."""
    base = Path("runs") / f"{stem}-s{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def refuse_taken(folder: Path, replace: bool) -> None:
    """ConfigError for a folder in use: a run is only deleted when that is asked for, and other things never."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError([f"{folder} is a file, and a run needs a folder; choose another --out"])
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "config.yaml").exists():
            raise ConfigError([f"{folder} exists, is not empty and is not a run; choose another --out"])
        if not replace:
            cure = f"go on with --resume {folder}, start it anew with --replace, or choose another --out"
            raise ConfigError([f"{folder} holds a run already; {cure}"])


def claim(folder: Path, replace: bool) -> None:
    """Makes the run's folder, anew where a run is to be replaced."""
    refuse_taken(folder, replace)  # once more: another process may have begun a run meanwhile
    try:
        if (folder / "config.yaml").exists():
            shutil.rmtree(folder)
        for name in ("evaluations", "checkpoints"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{folder} cannot be written: {error.strerror}; choose another --out"]) from error


def write_settings(folder: Path, settings: Settings) -> None:
    """config.yaml and plugins.yaml."""
    write_yaml(folder / "config.yaml", to_mapping(settings))
    write_yaml(folder / "plugins.yaml", owners(settings))


def write_beginning(
    folder: Path, settings: Settings, label: str, episodes: Episodes, held_out: Episodes | None, command: str
) -> None:
    """All that can be said of a run before its first update."""
    write_settings(folder, settings)
    write_yaml(folder / "spec.yaml", episodes.spec.to_mapping())
    data = {
        "name": label,
        "episodes": len(episodes),
        "held_out": [] if held_out is None else held_out.info["episode"].tolist(),
        "steps": episodes.steps,
        "returns": episodes.info.get("unclipped_return", episodes.returns()).tolist(),
        "lengths": episodes.lengths().tolist(),
        "ref_scores": episodes.spec.ref_scores,
        "env_id": episodes.spec.env_id,
    }
    write_json(folder / "data.json", data)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    write_state(folder, command=command, started=started, versions=versions())


def write_state(folder: Path, **facts: Any) -> None:
    """run.yaml with these facts; the others stay as they are."""
    path = folder / "run.yaml"
    write_yaml(path, {**(read_yaml(path) if path.exists() else {}), **facts})
