"""Hugging Face's hub, through `huggingface_hub`: files that are what the hub says they are, or one line why not."""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects

from rlalgo.errors import RlalgoError, RlalgoWarning, clipped
from rlutils.data.hub import is_repo, server, unreachable

_PATIENCE = 15.0
"""Seconds that the hub may be silent, of up to six tries. By itself, its client waits for ever, or a minute each."""

_FORM = "its name looks like OWNER/NAME"
_WHY = {
    GatedRepoError: "ask for access on its page, then log in with `hf auth login`",
    RepositoryNotFoundError: "there is no such repository, or it is private: log in with `hf auth login`",
    RevisionNotFoundError: "it has no such revision",
    HFValidationError: _FORM,
}
_TRANSPORT: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""The errors of whatever HTTP client is in use, and OSError."""


class HubError(RlalgoError):
    """The hub cannot be reached, refuses, or does not give what was asked for."""


@contextlib.contextmanager
def speaking(what: str, cure: str) -> Iterator[HfApi]:
    """A client of the hub that does not wait for ever.

    Args:
        what: is spoken about, as `OWNER/NAME@revision`.
        cure: what to do without the hub.

    Raises:
        HubError: whatever went wrong within, in one line.
    """
    hooks = get_session().event_hooks["request"]
    hooks.append(_impatient)
    try:
        yield HfApi(endpoint=server())
    except RlalgoError:
        raise
    except Exception as error:  # somebody else's code, on whatever somebody's server said
        raise HubError(f"{what}: {server()}: {_why(error)}; {cure}") from error
    finally:
        hooks.remove(_impatient)


def _impatient(request: Any) -> None:
    """A commit is asked for once, and may take its time."""
    most = _PATIENCE * (4 if "/commit/" in request.url.path else 1)
    said = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        key: min(said.get(key) or most, most) for key in ("connect", "read", "write", "pool")
    }


def _why(error: BaseException) -> str:
    """Of an error, or of the one behind it that tells more."""
    for kind, why in _WHY.items():
        if isinstance(error, kind):
            return why
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code == 401:
            return "it does not know who asks; log in with `hf auth login`, or set HF_TOKEN"
        return _short(f"{error.response.status_code} {error.response.reason_phrase}: {error.server_message or ''}")
    if error.__cause__ is not None and isinstance(error, LocalEntryNotFoundError | RuntimeError):
        return _why(error.__cause__)
    text = f"{type(error).__name__}: {error}"
    if "/xet-" in text:
        return f"it does not speak xet: set HF_HUB_DISABLE_XET=1 ({_short(text)})"
    return _short(text if isinstance(error, _TRANSPORT) else f"does not answer as a hub does: {text}")


def _short(text: str) -> str:
    return clipped(text, 300).rstrip(": ")


def snapshot(
    repo_id: str, revision: str | None = None, patterns: list[str] | None = None, repo_type: str = "model"
) -> Path:
    """Files of a repository, in the hub's own cache (below `HF_HOME`): they are shared, and to be read only.

    Each file is compared with the checksum that the hub gives for it. Where the hub cannot be reached, files that were
    fetched before are taken, with a warning.

    Args:
        repo_id: OWNER/NAME.
        revision: a branch, a tag or a commit; the main branch by default.
        patterns: which files, as `checkpoints/*`, in which `*` stands for slashes too; all of them by default.
        repo_type: `model` or `dataset`.

    Raises:
        HubError: the hub cannot be reached and the cache has no such files, or the hub refuses, has none that match, or
            gives others than it says; with how to use a local folder.
    """
    what = named(repo_id, revision)
    kind = "" if repo_type == "model" else f"--repo-type {repo_type} "
    at = f" --revision {revision}" if revision else ""
    cure = f"to use a local folder: `hf download {kind}{repo_id}{at} --local-dir FOLDER` where it can be reached"
    wish: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision}
    if why := unreachable(server()):
        absent = f"{server()} cannot be reached ({why})"
        try:
            folder = Path(HfApi().snapshot_download(**wish, allow_patterns=patterns, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise HubError(f"{what}: {absent}, nor was it fetched before; {cure}") from error
        warnings.warn(f"{what}: {absent}; the cache is used", RlalgoWarning, stacklevel=2)
        return folder
    with speaking(what, cure) as api:
        commit = api.repo_info(**wish).sha  # what is refused is not to be answered from the cache
        files = listed(api, repo_id, commit, repo_type)
        if not (chosen := list(filter_repo_objects(files, allow_patterns=patterns))):
            there = ", ".join(sorted(files)[:5]) + (", ..." if len(files) > 5 else "")
            raise HubError(f"{what}: has no {' or '.join(patterns or ['files'])}; it has {there}")
        folder = Path(api.snapshot_download(**wish, allow_patterns=patterns))
        if folder.name != commit:
            raise HubError(f"{what}: {server()}: somebody has changed it meanwhile; try again")
        if wrong := [path for path in chosen if not same(files[path], folder / path)]:
            for file in (folder / path for path in wrong):
                file.resolve().unlink(missing_ok=True)  # in the cache it is a link
                file.unlink(missing_ok=True)
            raise HubError(f"{what}: {server()}: the checksum of {', '.join(wrong[:3])} is another one; try again")
    return folder


def named(repo_id: str, revision: str | None) -> str:
    """What messages call it.

    Raises:
        HubError: it is no OWNER/NAME; the hub would take a NAME alone for a new repository of whoever asks.
    """
    what = f"{repo_id}@{revision}" if revision else repo_id
    if not is_repo(repo_id):
        raise HubError(f"{what}: is no repository of the hub: {_FORM}")
    return what


def listed(api: HfApi, repo_id: str, revision: str | None, repo_type: str = "model") -> dict[str, RepoFile]:
    """The files of a revision by their paths."""
    found: Iterable = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=repo_type)
    return {file.path: file for file in found if isinstance(file, RepoFile)}


def same(file: RepoFile, content: Path | bytes) -> bool:
    """Whether the hub has these very bytes: it knows the SHA-256 of large files, and git's SHA-1 of small ones."""
    if file.lfs is None:
        data = content.read_bytes() if isinstance(content, Path) else content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == file.blob_id
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.lfs.sha256
