"""`rlalgo push` and `rlalgo pull`; what speaks to the hub is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from rlutils.terminal import Terminal

_Repo = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the hub.")]


def push(
    run: Annotated[Path, typer.Argument(help="Run folder that train wrote.")],
    repo: _Repo,
    private: Annotated[bool, typer.Option("--private", help="Only those who may are to see it.")] = False,
    branch: Annotated[str | None, typer.Option(help="Branch, made if need be; else the main one.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    all_checkpoints: Annotated[bool, typer.Option("--all", help="Not the last and best checkpoint alone.")] = False,
    no_create: Annotated[bool, typer.Option("--no-create", help="Fail if there is no such repository.")] = False,
) -> None:
    """Bring a run to the hub, with a model card, in one commit."""
    from rlalgo_hf.runs import push_run

    options = {"private": private, "all_checkpoints": all_checkpoints, "create": not no_create}
    pushed = push_run(run, repo, revision=branch, message=message, **options)
    left = f"; left out: {', '.join(pushed.left_out)}" if pushed.left_out else ""
    Terminal().print(f"{run}: {len(pushed.files)} files at {pushed.url}{left}", soft_wrap=True)


def pull(
    repo: _Repo,
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to make.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; else the main branch.")] = None,
    replace: Annotated[bool, typer.Option(help="Delete a run that is in the way.")] = False,
) -> None:
    """Fetch a run from the hub, to play, evaluate, report or go on with."""
    from rlalgo_hf.runs import pull_run

    pull_run(repo, out_folder, revision, replace=replace)
    Terminal().print(f"run folder: {out_folder}", soft_wrap=True)
