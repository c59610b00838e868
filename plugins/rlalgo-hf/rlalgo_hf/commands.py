"""`rlalgo import-hf` and `rlalgo export-hf`. What needs torch is imported by the command that uses it."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rlutils.data_commands import Plugin
from rlutils.export_command import Checkpoint
from rlutils.terminal import Terminal

out = Terminal()


def import_hf(
    place: Annotated[str, typer.Argument(help="Folder of a DecisionTransformerModel, or its repository OWNER/NAME.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Of the run's settings, as env.id=Hopper-v5.")] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder to write.")] = ...,  # type: ignore[assignment]
    dataset: Annotated[str | None, typer.Option(help="To train on further: as of `data inspect`, in quotes.")] = None,
    state_mean: Annotated[str | None, typer.Option(help="'[0.1, 2]', or a .json or .npz file.")] = None,
    state_std: Annotated[str | None, typer.Option(help="Likewise; states become (x - mean) / std.")] = None,
    target_return: Annotated[list[float] | None, typer.Option(help="Target to play; may be repeated.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    replace: Annotated[bool, typer.Option(help="Delete a run that is in the way.")] = False,
    plugin: Plugin = None,
) -> None:
    """Make a run of a Decision Transformer of Hugging Face's transformers, to play, evaluate and train on."""
    from rlalgo_hf.importing import import_hf as make

    facts = make(
        place,
        out_folder,
        overrides or (),
        dataset=shlex.split(dataset or ""),
        state_mean=state_mean,
        state_std=state_std,
        target_returns=target_return or (),
        revision=revision,
        replace=replace,
        plugins=plugin or (),
        command=shlex.join(["rlalgo", *sys.argv[1:]]),
    )
    for name, value in facts.items():
        out.print(f"{name}: {value}", soft_wrap=True)


def export_hf(
    run: Annotated[Path, typer.Argument(help="Run folder that train wrote.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    checkpoint: Checkpoint = "last",
    replace: Annotated[bool, typer.Option(help="Replace a folder that this command wrote.")] = False,
    plugin: Plugin = None,
) -> None:
    """Write a Decision Transformer as a folder that transformers' DecisionTransformerModel opens, with a model card."""
    from rlalgo_hf.exporting import export_hf as write

    out.print(f"exported: {write(run, folder, checkpoint, replace, plugin or ())}", soft_wrap=True)
