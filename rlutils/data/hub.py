"""Hugging Face's hub, as far as the core goes: whether it answers, and who fetches from it (the plugin rlalgo-hf)."""

import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path

from rlalgo.errors import RlalgoError

_WAIT = 8.0
"""Seconds within which the server must answer; the hub's own client tries for half a minute, or for ever."""


def server() -> str:
    """The address of the hub, or of the mirror that stands in for it."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def unreachable(url: str) -> str | None:
    """Why nothing answers at this address (through the proxies in the environment), or None."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if url == server() and os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name} is set"
    answer: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_WAIT).close()
            answer.append(None)
        except urllib.error.HTTPError:  # it answers, if with a refusal
            answer.append(None)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)  # the client brings certificates of its own
            answer.append(None if isinstance(reason, ssl.SSLError) else str(reason))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    thread.start()
    thread.join(_WAIT)
    return answer[0] if answer else f"no answer within {_WAIT:.0f} s"


def is_repo(name: object) -> bool:
    """Whether this is OWNER/NAME, as repositories of the hub are called."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name)) is not None


def fetched(repo_id: str, revision: str | None, patterns: list[str], repo_type: str = "model") -> Path:
    """See `rlalgo_hf.hub.snapshot`.

    Raises:
        RlalgoError: rlalgo-hf is not installed, or the hub does not give what was asked for.
    """
    try:
        from rlalgo_hf.hub import snapshot
    except ImportError as error:
        what = f"{repo_id} is on the hub, which needs another package ({error})"
        raise RlalgoError(f"{what}: pip install rlalgo-hf") from error
    return snapshot(repo_id, revision, patterns, repo_type)
