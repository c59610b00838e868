"""Fetching a Minari dataset that is not on this machine, or saying plainly why that cannot be done."""

import os
import re
import sys
import tempfile
from pathlib import Path

from rlalgo.errors import DataError, near
from rlutils.data.hub import server, unreachable
from rlutils.data.minari_disk import ROOT_VARIABLE, local_ids, root

_ID = re.compile(r"(?:[-\w]+/)+[-\w]+-v\d+")
"""Of the datasets that the server has; one made here needs no namespace."""


def require(ident: str, download: bool) -> None:
    """Makes sure that the dataset is on this machine, and downloads it if need be.

    Raises:
        DataError: it is not here and may not or cannot be downloaded; with every way to get it.
    """
    if ident in local_ids():
        return
    if not _ID.fullmatch(ident):
        raise DataError(_absent(ident, "an id looks like namespace/name-v0"))
    if not download:
        raise DataError(_absent(ident, "downloading is off"))
    why = unreachable(_server())
    if why is not None:
        raise DataError(_absent(ident, f"{_server()} cannot be reached ({why})"))
    try:
        root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root()) as temporary:
            _fetch(ident, Path(temporary))
    except OSError as error:
        raise DataError(_absent(ident, f"{root()} cannot be written: {error}")) from error


def _fetch(ident: str, temporary: Path) -> None:
    """Downloads beside the other datasets and renames: a broken connection leaves nothing half-done."""
    try:
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
        from minari.storage.remotes import get_cloud_storage

        remote = get_cloud_storage()
    except ImportError as error:
        needed = f'downloading needs another package ({error}): pip install "minari[hf]"'
        raise DataError(_absent(ident, needed)) from error
    # The bases of this one are the errors of whatever HTTP client is in use.
    failures: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
    print(f"downloading minari:{ident} from {_server()} to {root() / ident}", file=sys.stderr, flush=True)
    try:
        remote.download_dataset(ident, temporary)  # shows progress bars of its own
        if not (temporary / ident / "data" / "metadata.json").is_file():
            known = near(ident, remote.list_datasets(prefix=ident.split("/")[0]))
            raise DataError(_absent(ident, f"the server has no such dataset.{known}".rstrip(".")))
    except RepositoryNotFoundError as error:
        raise DataError(_absent(ident, f"the server has nothing of {ident.split('/')[0]}")) from error
    except failures as error:
        raise DataError(_absent(ident, f"the download failed: {_first_line(error)}")) from error
    (root() / ident).parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary / ident, root() / ident)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _server() -> str:
    if os.environ.get("MINARI_REMOTE", "hf://").startswith("gcp://"):
        return "https://storage.googleapis.com"
    return server()


def _absent(ident: str, why: str) -> str:
    variable = os.environ.get(ROOT_VARIABLE)
    setting = f"{ROOT_VARIABLE}={variable}" if variable else f"{ROOT_VARIABLE} is not set"
    here = local_ids()
    listed = f" ({len(here)} there)" if here else " (none there)"
    copying = (
        f"  to copy it in: run `minari download {ident}` where there is a network, "
        f"then copy its folder to {root() / ident}"
    )
    return "\n".join(
        [
            f"minari:{ident} is not on this machine: {why}.{near(ident, here)}",
            f"  looked in: {root()}; {setting}",
            *([copying] if _ID.fullmatch(ident) else []),
            "  to make one here: rlalgo collect configs/collect/hopper.yaml",
            f"  to see what is here: rlalgo data list{listed}",
        ]
    )
