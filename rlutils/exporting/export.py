"""`rlalgo export`: a run's policy as a folder with a graph, what it takes and gives, and a file that runs it."""

import hashlib
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rlalgo import BatchRLAlgo, __version__
from rlalgo.config import parse, to_mapping
from rlalgo.core.policy import Acting
from rlalgo.core.spaces import ends
from rlalgo.core.spaces import to_mapping as to_space
from rlalgo.errors import CheckpointError, RlalgoError, blaming
from rlutils.checkpoints.description import read_description
from rlutils.checkpoints.loading import load_algo
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue
from rlutils.config.files import read_as, whole_folder, write_atomic, write_json
from rlutils.data.preparation import read_record
from rlutils.exporting import runtime
from rlutils.exporting.formats import FORMATS, quiet
from rlutils.exporting.graph import Graph
from rlutils.exporting.readme import readme
from rlutils.exporting.record import Action, Exported, File, Memory, Observation


class ExportError(RlalgoError):
    """A policy cannot be exported, or not to there."""


def export(
    run: str | Path,
    out: str | Path,
    format: str = "onnx",
    checkpoint: str = "last",
    options: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    replace: bool = False,
) -> Path:
    """Writes a run's policy as a folder that plays without rlalgo; complete or not at all.

    Args:
        run: the run folder, or one of its checkpoints.
        out: the folder to write.
        format: `onnx`, `torchscript` or `torch` (a program of torch.export).
        checkpoint: `last`, `best` or `step_N`.
        options: of the policy, {"target_return": 3600.0} for dt.
        plugins: modules and files that the run was trained with.
        replace: an export that is there; nothing else is ever replaced.

    Raises:
        ExportError: this policy cannot be exported, something is in the way, or a package is missing.
        CheckpointError, ConfigError: see their texts.
    """
    found, known = find(Path(run), checkpoint), catalogue(plugins)
    algo, choice = load_algo(found, known)
    option: Any = parse(type(algo).PolicyConfig, dict(options or {}), known, f"options of {algo.name}'s policy")
    return write_export(algo, option, out, format, choice.name, read_description(found).step, replace)


def write_export(
    algo: BatchRLAlgo,
    option: Any,
    out: str | Path,
    format: str = "onnx",
    name: str | None = None,
    step: int | None = None,
    replace: bool = False,
) -> Path:
    """As `export`, of an algorithm in eval mode; `option` is an instance of its PolicyConfig, `step` its updates."""
    out, name = Path(out) if Path(out).name else Path(out).absolute(), name or algo.name
    if format not in FORMATS:
        raise ExportError(f"--format {format}: expected {', '.join(FORMATS)}")
    missing = [need for need in ("onnx", "onnxscript") if format == "onnx" and importlib.util.find_spec(need) is None]
    if missing:
        raise ExportError(f"--format onnx needs {' and '.join(missing)}: pip install 'rlalgo[onnx]'")
    _refuse_others(out, replace)
    graph = Graph(_acting(algo, option, name), algo.spec).eval()
    try:
        with whole_folder(out) as folder:
            with blaming(ExportError, f"the policy of {name} cannot be exported as {format}"), quiet():
                FORMATS[format](graph, folder / runtime.NAMES[format])
            files = {path.name: _file(path) for path in sorted(folder.iterdir())}
            about = _describe(graph, algo, files, format, name, step, option)
            write_json(folder / "policy.json", asdict(about))
            write_atomic(folder / "policy.py", Path(runtime.__file__).read_bytes())
            write_atomic(folder / "README.md", readme(about))
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from error
    return out


def _acting(algo: BatchRLAlgo, option: Any, name: str) -> Acting:
    if getattr(option, "sample", False):
        raise ExportError(
            "sample: true cannot be exported: an exported policy takes the likeliest action; leave it out"
        )
    policy = algo.policy([option])
    if (found := policy.acting()) is None:
        raise ExportError(
            f"the policy of {name} ({type(policy).__name__}) cannot be exported: it has no `acting`, "
            "its step as a pure function (docs/export.md)"
        )
    return found


def _refuse_others(out: Path, replace: bool) -> None:
    """ExportError if something is in the way that is not to be replaced, or that is no export or more than one."""
    if not os.path.lexists(out):
        return
    if not replace:
        raise ExportError(f"{out} exists; choose another --out, or replace an export with --replace")
    try:
        about = read_as(Exported, out / "policy.json")
    except CheckpointError as error:
        raise ExportError(f"{out} is no export, and nothing else is replaced: {error}") from error
    others = {path.name for path in out.iterdir()} - {
        "policy.json",
        "policy.py",
        "README.md",
        "__pycache__",
        *about.files,
    }
    if out.is_symlink() or others:
        what = "is a link" if out.is_symlink() else f"also holds {min(others)}"
        raise ExportError(f"{out} {what}, so it is not replaced; choose another --out")


def _file(path: Path) -> File:
    with path.open("rb") as file:
        return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _describe(
    graph: Graph, algo: BatchRLAlgo, files: dict[str, File], format: Any, name: str, step: int | None, option: Any
) -> Exported:
    spec, acting, observations = algo.spec, graph.acting, []
    record = read_record(spec.preprocess)
    for view in graph.views:
        low = high = None
        if isinstance(view.space, spaces.Discrete | spaces.MultiDiscrete):
            low, high = (end.tolist() for end in ends(view.space))
        observations.append(Observation(graph.input(view), [*view.path], view.kind, [*view.shape], low, high))
    kind = np.float32 if isinstance(graph.action_space, spaces.Box) else graph.action_space.dtype
    return Exported(
        version=1,
        format=format,
        files=files,
        inputs=graph.inputs,
        outputs=graph.outputs,
        observations=observations,
        action=Action(np.dtype(kind).name, [*(graph.action_space.shape or ())]),
        memory=[Memory(key, str(x.dtype).removeprefix("torch."), [*x.shape]) for key, x in graph.memory.items()],
        target_return=acting.target_return,
        sees_rewards=acting.sees_rewards,
        context_length=getattr(algo.config, "context_length", None),
        frame_stack=spec.frame_stack,
        max_steps=spec.max_steps,
        algorithm=name,
        step=step,
        options=to_mapping(option),
        env_id=spec.env_id,
        env_kwargs=record.env_kwargs,
        env_wrappers=record.env_wrappers,
        observation_space=_plain(to_space(spec.observation_space)),
        action_space=_plain(to_space(graph.action_space)),
        rlalgo=__version__,
    )


def _plain(value: Any) -> Any:
    """JSON knows no infinity; as a text it is read by `rlalgo.core.spaces.from_mapping`, by numpy and by float()."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
