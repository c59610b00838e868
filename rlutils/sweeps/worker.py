"""One run of a sweep, in a process of its own: `python -m rlutils.sweeps.worker`, told what to do through its input."""

import contextlib
import json
import os
import signal
import sys
import threading

from rlalgo.errors import RlalgoError
from rlutils import app

FAULT = 2
"""The exit status of an error that a person has to mend, so that trying again is no use; a crash has 1."""


def main() -> None:
    """Reads a line of JSON (settings, folder, command, resume), does that, and exits as `rlalgo train` does.

    The input stays open for as long as the sweep lives. When it ends, this run writes a checkpoint and stops too,
    so that no run is left behind even by a sweep that was killed.
    """
    source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 (it stays open)
    request = json.loads(source.readline())
    threading.Thread(target=_follow, daemon=True).start()
    settings, folder = request["settings"], request["folder"]
    try:
        if request["resume"]:
            app.resume(folder, [f"threads={settings['threads']}"], settings["plugins"])
        else:
            app.train(settings, folder, replace=True, command=request["command"])
    except RlalgoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAULT)
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        sys.exit(130)


def _follow() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
