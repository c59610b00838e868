"""algo.yaml: what a checkpoint is, enough to build its algorithm again, and who provided its parts."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from rlalgo import BatchRLAlgo, Choice, DataSpec
from rlalgo.config import Whole, to_mapping
from rlalgo.errors import CheckpointError, ConfigError, PluginError
from rlalgo.registry import Catalogue, Owner
from rlalgo.version import __version__
from rlutils.config.files import read_as, write_yaml
from rlutils.config.settings import uses

CURE = "use another checkpoint of the run (--checkpoint best, last or step_N)"
"""What to do about a broken one."""


@dataclass(frozen=True, kw_only=True)
class Provided(Owner):
    """A named thing and the plugin that it came from: a row of plugins.yaml and of algo.yaml's `plugins`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Description:
    """algo.yaml."""

    algo: dict[str, Any]
    """Its name and options."""
    spec: Annotated[DataSpec, PlainValidator(DataSpec.from_mapping)]
    step: Whole
    """Updates that it has behind it."""
    run: str = ""
    """The run's name in its index."""
    plugins: list[Provided] = field(default_factory=list)
    rlalgo: str = ""
    """The version that wrote it."""


def read_description(path: Path) -> Description:
    """Of a checkpoint's folder.

    Raises:
        CheckpointError: it has none, or it is not what `write_description` writes; with file and key.
    """
    return read_as(Description, path / "algo.yaml", CURE)


def write_description(path: Path, algo: BatchRLAlgo, choice: Choice, step: int, run: str) -> None:
    """algo.yaml into a checkpoint's folder.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "rlalgo": __version__,
        "run": run,
        "step": step,
        "algo": to_mapping(choice),
        "spec": algo.spec.to_mapping(),
        "plugins": owners(choice),
    }
    write_yaml(path / "algo.yaml", values)


def provided(folder: Path) -> list[Provided]:
    """As `read_plugins`, but nothing where that fails: a missing plugin is told by the name it provides, then."""
    try:
        return read_plugins(folder)
    except CheckpointError:
        return []


def read_plugins(folder: Path) -> list[Provided]:
    """plugins.yaml of a run's folder.

    Raises:
        CheckpointError: there is none, or it is broken.
    """
    return read_as(list[Provided], folder / "plugins.yaml")


def step_of(path: Path) -> int:
    """The updates that a checkpoint has behind it.

    Raises:
        CheckpointError: see `read_description`.
    """
    return read_description(path).step


def run_of(path: Path) -> str | None:
    """The run that wrote a checkpoint; None where it does not say so."""
    try:
        return read_description(path).run
    except CheckpointError:
        return None


def owners(value: Any) -> list[dict[str, Any]]:
    """Every named thing within a config, and the plugin it comes from; each is a `Provided` in plain values."""
    rows = []
    for choice in uses(value):
        assert choice.entry is not None
        row = {"kind": choice.entry.kind, "name": choice.name, **asdict(choice.entry.owner)}
        if row not in rows:
            rows.append(row)
    return rows


def version_of(folder: Path) -> str:
    """The version of rlalgo that a run was trained with; '' where its plugins.yaml does not say so."""
    return next((row.version or "" for row in provided(folder) if row.distribution == "rlalgo"), "")


@contextlib.contextmanager
def by_version(file: Path, version: str) -> Iterator[None]:
    """What is not understood within, of a file that a newer version wrote, becomes a CheckpointError that says so."""
    try:
        yield
    except (ConfigError, PluginError) as error:
        if _numbers(version) <= _numbers(__version__):
            raise
        why = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{file}: rlalgo {version} wrote this, and here is {__version__}, which does not understand all of it "
            f"({why}); upgrade: pip install -U rlalgo"
        ) from error


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", version)[:3]]


def refuse_missing(recorded: Sequence[Provided], catalogue: Catalogue, where: str) -> None:
    """CheckpointError that names the plugin to install or to pass for the first name that nobody provides here."""
    for row in recorded:
        if row.name in catalogue.names(row.kind):
            continue
        if row.distribution == "rlalgo":
            cure = f"it was in rlalgo {row.version}, and here is {__version__}; install that version"
        elif row.distribution:
            cure = f"install it: pip install '{row.distribution}' (it was {row.version})"
        else:
            cure = f"pass it: --plugin {row.location} (plugins=[...] from Python); it is never loaded by itself"
        raise CheckpointError(
            f"{where}: the {row.kind} '{row.name}' came from plugin '{row.plugin}', which is not loaded here; {cure}"
        )


def refuse_other_data(path: Path, learnt: DataSpec, spec: DataSpec, label: str) -> None:
    """CheckpointError if a checkpoint learnt from observations or actions of another kind than the data now has."""
    for name in ("observation_space", "action_space", "frame_stack"):
        was, now = getattr(learnt, name), getattr(spec, name)
        if was != now:
            message = f"{path}: learnt with the {name} {was}, and {label} has {now} now; train anew"
            raise CheckpointError(f"{message}, or give data of that kind")
