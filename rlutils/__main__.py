"""The console script, and `python -m rlutils`. Ctrl-C ends it without a traceback from the first moment."""

import signal


def main() -> None:
    """While the command line is imported, SIGINT ends the process at once, as it does any program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rlutils.cli import main as run

    run()


if __name__ == "__main__":
    main()
