"""`rlalgo data`: looking at datasets, and writing them in another format."""

from pathlib import Path
from typing import Annotated

import typer

from rlalgo.errors import ConfigError
from rlutils.outcome import reported
from rlutils.terminal import Terminal

data = typer.Typer(help="Look at datasets, and convert them.", no_args_is_help=True)
out = Terminal()

Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="Module or file to load as a plugin.")]
Source = Annotated[list[str], typer.Argument(help="A Minari id, a YAML file or a source's name; then key=value.")]


@data.command("list")
@reported
def data_list() -> None:
    """Datasets on this machine."""
    from rlutils.reports.data_view import print_list

    print_list(out)


@data.command("inspect")
@reported
def data_inspect(
    source: Source,
    plot: Annotated[Path | None, typer.Option(help="PNG file for the histogram of returns.")] = None,
    plugin: Plugin = None,
) -> None:
    """What is in a dataset: spaces, episodes, steps, returns, reference scores."""
    from rlutils.data.inspect import inspect_source
    from rlutils.data.named import find_source
    from rlutils.reports.data_view import plot_returns, print_inspection

    found = inspect_source(find_source(source, plugin or ()))
    print_inspection(found, out)
    if plot is not None:
        plot_returns(found, plot)
        out.print(f"plot: {plot}", soft_wrap=True)


@data.command("convert")
@reported
def data_convert(
    source: Source,
    to: Annotated[str, typer.Option(help="minari, npz, or hf: Parquet with one row an episode, as on the hub.")],
    out_name: Annotated[str, typer.Option("--out", help="File to write, or the id of the Minari dataset to make.")],
    replace: Annotated[bool, typer.Option(help="Replace what is there under that name.")] = False,
    plugin: Plugin = None,
) -> None:
    """Write the data of any source as another source reads it."""
    from rlutils.collecting.convert import FORMATS, convert
    from rlutils.data.named import find_source, load_source

    if to not in FORMATS:
        raise ConfigError([f"--to {to}: expected {', '.join(FORMATS)}"])
    episodes, label = load_source(find_source(source, plugin or ()))
    path = convert(episodes, label, to, out_name, replace)
    out.print(f"{label}: {len(episodes):,} episodes, {episodes.steps:,} steps, at {path}", soft_wrap=True)
