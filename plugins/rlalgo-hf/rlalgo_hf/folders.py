"""Where a run may be made."""

from pathlib import Path

from rlalgo.errors import ConfigError
from rlutils.config.claim import refuse_claimed
from rlutils.training.folder import stage


def refuse_taken(out: Path, replace: bool) -> None:
    """Where a run is to be made.

    Raises:
        ClaimError: a process is at work there.
        ConfigError: a run is there that is not to be deleted, or something else, which never is.
    """
    refuse_claimed(out)
    if stage(out) != "free" and not replace:
        raise ConfigError([f"{out} holds a run already; delete it with --replace, or choose another --out"])
