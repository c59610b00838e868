"""`rlalgo export`, and the options of a policy as they are typed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlalgo.errors import ConfigError
from rlutils.config.yaml_text import parse_yaml
from rlutils.data_commands import Plugin
from rlutils.outcome import reported
from rlutils.terminal import Terminal

Checkpoint = Annotated[str, typer.Option(help="last, best or step_000001000.")]
TargetReturn = Annotated[float | None, typer.Option(help="Return to ask for (dt).")]
Option = Annotated[list[str] | None, typer.Option(help="Another option of the policy, key=value.")]


@reported
def export(
    run: Annotated[Path, typer.Argument(help="Run folder that train wrote.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    format: Annotated[str, typer.Option(help="onnx, torchscript or torch.")] = "onnx",
    checkpoint: Checkpoint = "last",
    target_return: TargetReturn = None,
    option: Option = None,
    replace: Annotated[bool, typer.Option(help="Replace an export that is there.")] = False,
    plugin: Plugin = None,
) -> None:
    """Write a trained policy as a folder that plays without rlalgo."""
    from rlutils.exporting.export import export as write

    options = policy_options(target_return, option or ())
    written = write(run, out_folder, format, checkpoint, options, plugin or (), replace)
    files = ", ".join(sorted(path.name for path in written.iterdir()))
    Terminal().print(f"{written}: {files}", soft_wrap=True)


def policy_options(target_return: float | None, texts: Sequence[str]) -> dict[str, Any]:
    """`--target-return` and `--option key=value` as one mapping.

    Raises:
        ConfigError: a text has no `=`, or is no YAML after it.
    """
    options: dict[str, Any] = {} if target_return is None else {"target_return": target_return}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError([f"--option '{text}': expected key=value"])
        options[key] = parse_yaml(value, f"--option '{text}'")
    return options
