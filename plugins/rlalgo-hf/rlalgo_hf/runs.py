"""Whole runs, to the hub and back: each push is one commit, and a pulled run appears at once or not at all."""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from rlalgo.errors import CheckpointError, RlalgoError, RlalgoWarning
from rlalgo_hf.card import model_card
from rlalgo_hf.folders import refuse_taken
from rlalgo_hf.hub import HubError, listed, named, same, snapshot, speaking
from rlutils.checkpoints.description import read_description
from rlutils.checkpoints.index import FILES, NEEDED, is_complete, look
from rlutils.checkpoints.loading import PLAYED, refuse_model, run_config
from rlutils.checkpoints.store import find
from rlutils.config.claim import refuse_claimed
from rlutils.config.files import whole_folder
from rlutils.data.hub import server, unreachable
from rlutils.training.folder import is_run

_OWN = re.compile(
    r"(config|plugins|spec|run)\.yaml|data\.json|metrics\.csv|evaluations/[^/]+\.json|checkpoints/index\.json"
    r"|targets/step_\d+\.(json|png)"
    rf"|checkpoints/(?P<checkpoint>step_\d+)/({'|'.join(map(re.escape, FILES))})|[^/]+\.(mp4|gif)"
)
"""What is carried. README.md is made for the hub; TensorBoard's files repeat the rest, and name the machine."""

_PATTERNS = [*PLAYED, "data.json", "metrics.csv", "evaluations/*.json", "targets/*", "checkpoints/*", "*.mp4", "*.gif"]

_PATH = re.compile(r"(?<![\w/.])(?:~/|/(?!/)[\w.-]+/|[A-Za-z]:\\)[\w./\\-]+")
"""In a text, of a machine's own files."""


@dataclass(frozen=True)
class Pushed:
    url: str
    """Of the commit."""
    files: list[str]
    left_out: list[str]
    """What else lies in the run's folder."""


def push_run(
    run: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    all_checkpoints: bool = False,
    create: bool = True,
) -> Pushed:
    """A run to a repository of the hub, in one commit: what one reads there is the old run or the new one.

    What an earlier push left there and this run does not have goes (its history keeps it); other files stay.

    Args:
        run: its folder.
        repo_id: OWNER/NAME.
        private: only for those who may see it; of a repository that is made by this.
        revision: the branch, made if need be; the main one by default.
        message: of the commit.
        all_checkpoints: rather than the last and the best one.
        create: make the repository if there is none.

    Raises:
        RlalgoError: it is no run with a complete checkpoint, or a process is at work in it.
        HubError: nothing answers, or the hub refuses, or has other bytes afterwards.
    """
    run, branch = Path(run), revision or "main"
    what, cure = named(repo_id, revision), f"{run} is as it was: push it again, or copy its folder"
    try:
        files, left_out = _gathered(run, repo_id, all_checkpoints)
    except OSError as error:
        raise CheckpointError(f"{error.filename or run} cannot be read: {error.strerror or error}") from error
    if why := unreachable(server()):
        raise HubError(f"{what}: {server()} cannot be reached ({why}); {cure}")
    with speaking(what, cure) as api:
        if create:
            api.create_repo(repo_id, private=private or None, exist_ok=True)
        if branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        info = api.repo_info(repo_id, revision=branch)
        if private and not info.private:
            raise HubError(f"{what}: is there already, and public; make it private on its page, or push without that")
        stale = [path for path in listed(api, repo_id, info.sha) if _OWN.fullmatch(path) and path not in files]
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path, content) for path, content in files.items()),
                *map(CommitOperationDelete, stale),
            ],
            commit_message=message or f"rlalgo push: step {read_description(find(run)).step}",
            revision=branch,
            parent_commit=info.sha,
        )
        there = listed(api, repo_id, commit.oid)
        if wrong := [path for path in files if path not in there or not same(there[path], files[path])]:
            why = f"does not have what was sent as {', '.join(wrong[:3])} (has it a .gitignore?)"
            raise HubError(f"{what}: {server()}: {why}; {cure}")
    return Pushed(commit.commit_url, sorted(files), left_out)


def pull_run(repo_id: str, out: str | Path, revision: str | None = None, *, replace: bool = False) -> None:
    """A run from a repository of the hub into a folder, which appears when all of it is there.

    It is somebody else's: no code is brought along or loaded, and its files are read as those of any run.

    Args:
        repo_id: OWNER/NAME.
        out: the run folder to make.
        revision: a branch, a tag or a commit; the main branch by default.
        replace: delete a run that is in the way.

    Raises:
        ConfigError, ClaimError: something is in the way.
        HubError, CheckpointError: see `snapshot`; or it is no whole run.
    """
    out = Path(out)
    refuse_taken(out, replace)
    folder = snapshot(repo_id, revision, _PATTERNS)
    refuse_model(folder, repo_id)
    try:
        with whole_folder(out) as new:
            for path in filter(_OWN.fullmatch, _files(folder)):
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, new / path)
            _refuse_torn(new, named(repo_id, revision))
    except OSError as error:
        raise HubError(f"{out} cannot be written: {error.strerror or error}; choose another --out") from error


def _refuse_torn(run: Path, what: str) -> None:
    """HubError if what was fetched is no run, or not all of one."""
    try:
        run_config(run)
        find(run)
        index = look(run / "checkpoints")
        for name in index.complete:
            if not is_complete(path := run / "checkpoints" / name):
                raise CheckpointError(f"{path} is not all there")
            if (made := read_description(path)).run != index.run:
                raise CheckpointError(f"{path} is of the run {made.run!r}, not {index.run!r}")
    except RlalgoError as error:
        why = " ".join(str(error).replace(f"{run}/", "").replace(str(run), "it").split())
        raise HubError(f"{what}: is no whole run that `rlalgo push` brought there: {why}") from error


def _gathered(run: Path, repo_id: str, all_checkpoints: bool) -> tuple[dict[str, Path | bytes], list[str]]:
    """Path in the repository -> content, of what is carried; and what is not. Small files are read here and now."""
    if not is_run(run):
        raise RlalgoError(f"{run} is not a run folder (it has no config.yaml); give the folder that train wrote")
    refuse_claimed(run)
    find(run)
    index = look(run / "checkpoints")
    if not all_checkpoints:
        index = replace(index, complete=[name for name in index.complete if name in (index.last, index.best)])
    files: dict[str, Path | bytes] = {}
    left_out = []
    for path in _files(run):
        own, file = _OWN.fullmatch(path), run / path
        if own is None or own["checkpoint"] not in (None, *index.complete) or file.is_symlink() or not file.is_file():
            left_out.append(path)
        else:
            files[path] = file if file.suffix in (".safetensors", ".mp4", ".gif") else file.read_bytes()
    for name in index.complete:
        if any(f"checkpoints/{name}/{needed}" not in files for needed in NEEDED):
            raise CheckpointError(f"{run / 'checkpoints' / name}: is incomplete, or a link, which is not followed")
    files["README.md"] = model_card(run, repo=repo_id).encode()
    files["checkpoints/index.json"] = f"{json.dumps(asdict(index), indent=1)}\n".encode()
    if found := [f"{name}: {path}" for name, path in _paths_of_this_machine(files)]:
        what = "; ".join(found[:3]) + (" and more" if len(found) > 3 else "")
        warnings.warn(f"{run}: names files that others do not have ({what})", RlalgoWarning, stacklevel=3)
    return files, sorted({"/".join(path.split("/")[:2]) for path in left_out})


def _files(folder: Path) -> Iterator[str]:
    """Paths of what is no folder in it; links are not followed."""
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            yield (Path(at) / name).relative_to(folder).as_posix()


def _paths_of_this_machine(files: Mapping[str, Path | bytes]) -> Iterator[tuple[str, str]]:
    for name, content in files.items():
        if isinstance(content, bytes) and name.endswith((".yaml", "data.json")):
            yield from ((name, path) for path in dict.fromkeys(_PATH.findall(content.decode(errors="replace"))))
