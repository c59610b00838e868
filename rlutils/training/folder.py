"""A run's folder: where it may lie, and the files in it that say what the run is and how far it has come.

config.yaml and plugins.yaml: how it is trained, and who provided what that names. spec.yaml and data.json: on what.
run.yaml: its state, and how to repeat it. Callbacks and `rlutils.checkpoints` write the rest.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rlalgo import Episodes
from rlalgo.config import to_mapping
from rlalgo.errors import CheckpointError, ConfigError
from rlutils.checkpoints.description import owners
from rlutils.checkpoints.index import look
from rlutils.checkpoints.store import last_of
from rlutils.config.claim import NAME, Claim, claimed
from rlutils.config.files import write_json, write_yaml
from rlutils.config.settings import Settings
from rlutils.machine import versions
from rlutils.training.facts import run_facts

_LEFT = re.compile(
    rf"\{NAME}(-[0-9a-f]{{16}})?|\.((config|plugins|spec|run)\.yaml|(data|index|step_\d+)\.json|metrics\.csv)\.\w{{8}}\.tmp"
    r"|\.(checkpoints|step_\d+)\.tmp"
)
"""Names of what a killed process may leave: its claim, and what it was about to write or to delete."""


def new_folder(stem: str, seed: int) -> Path:
    """A free name under `runs/` from the configuration's, the seed and the time."""
    base = Path("runs") / f"{stem}-s{seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


Stage = Literal["free", "begun", "stopped", "finished"]
"""Of a folder: there is nothing of a run in it; a run that has no checkpoint yet; one to go on with; one at its end."""


def stage(folder: Path) -> Stage:
    """How far a run has come in a folder; what killed processes left half-written is nothing.

    Raises:
        ConfigError: something else lies there, which is never touched.
    """
    if not is_run(folder):
        if folder.exists() and not folder.is_dir():
            raise ConfigError([f"{folder} is a file, and a run needs a folder; choose another --out"])
        if folder.exists() and not all(_LEFT.fullmatch(path.name) for path in folder.iterdir()):
            raise ConfigError([f"{folder} exists, is not empty and is not a run; choose another --out"])
        return "free"
    if run_facts(folder).state == "finished":
        return "finished"
    try:
        return "stopped" if look(folder / "checkpoints").last else "begun"
    except CheckpointError:  # whoever goes on will be told
        return "stopped"


def is_run(folder: Path) -> bool:
    """Whether a run has begun in it: its settings are there."""
    return (folder / "config.yaml").exists()


def refuse_taken(folder: Path) -> None:
    """ConfigError for the folder of a run, which is neither deleted nor gone on with unless that is asked for."""
    if stage(folder) != "free":
        cure = "go on with --continue, start it anew with --replace, or choose another --out"
        raise ConfigError([f"{folder} holds a run already; {cure}"])


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[Claim]:
    """As `claimed`; what killed processes left half-written goes.

    Raises:
        ClaimError: see `claimed`.
        CheckpointError: what could not be written within, and what is there to go on from.
    """
    with claimed(folder) as claim, writing(folder):
        for place in (folder, folder / "checkpoints", folder / "evaluations"):
            for path in place.iterdir() if place.is_dir() else ():
                if _LEFT.fullmatch(path.name) and not path.name.startswith(NAME):
                    _delete(path)
        yield claim


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """An OSError within becomes a CheckpointError that says what is there to go on from."""
    try:
        yield
    except OSError as error:
        last = last_of(folder)
        left = f"{last.name} is whole: mend it and go on with --continue" if last else "there is no checkpoint yet"
        raise CheckpointError(f"{error.filename or folder}: {error.strerror or error}; {left}") from error


def clear(folder: Path) -> None:
    """Takes away what is in a run's folder, the checkpoints first and at once, but for config.yaml: until the next run
    has written its own, this remains a run, of which nothing is left."""
    if (folder / "checkpoints").exists():
        (folder / "checkpoints").rename(folder / ".checkpoints.tmp")
    for path in folder.iterdir():
        if path.name != "config.yaml" and not path.name.startswith(NAME):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_settings(folder: Path, settings: Settings) -> None:
    """config.yaml, by which a folder is a run from then on; then plugins.yaml."""
    write_yaml(folder / "config.yaml", to_mapping(settings))
    write_yaml(folder / "plugins.yaml", owners(settings))


def write_beginning(
    folder: Path,
    settings: Settings,
    label: str,
    fingerprint: str,
    episodes: Episodes,
    held_out: Episodes | None,
    command: str,
) -> None:
    """All that can be said of a run before its first update; `fingerprint` is that of all its data."""
    write_settings(folder, settings)
    for name in ("evaluations", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    write_yaml(folder / "spec.yaml", episodes.spec.to_mapping())
    data = {
        "name": label,
        "fingerprint": fingerprint,
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
    write_yaml(folder / "run.yaml", {**asdict(run_facts(folder)), **facts})
