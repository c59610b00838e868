"""The command line. What needs torch or draws is imported by the command that uses it: help is there at once."""

import json
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlalgo.errors import ConfigError
from rlalgo.hookspecs import CATALOGUE_HOOKS
from rlalgo.version import __version__
from rlutils.commands import Commands
from rlutils.config.files import write_json
from rlutils.data_commands import Plugin, data
from rlutils.export_command import Checkpoint, Option, TargetReturn, export, policy_options
from rlutils.inventory import SCHEMAS, about, inventory, print_inventory
from rlutils.machine import amount, end_with_parent
from rlutils.outcome import complain, on_interrupt, reported
from rlutils.terminal import Terminal

app = typer.Typer(
    cls=Commands,
    help="Offline reinforcement learning from YAML: train, evaluate, play, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data, name="data")
out = Terminal()

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as algo.lr=3e-4; or a YAML file to lay over.")]
NoPlugin = Annotated[list[str] | None, typer.Option("--no-plugin", help="Name of a plugin to leave out.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder that train wrote.")]


def main() -> None:
    """The command line: errors that a person can act on are printed without a traceback."""
    signal.signal(signal.SIGINT, on_interrupt)  # `rlutils.__main__` took it away while this was imported
    app()


@app.command()
@reported
def train(
    config: Annotated[Path | None, typer.Argument(help="YAML file; none with --resume.")] = None,
    overrides: Overrides = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Run folder to write.")] = None,
    replace: Annotated[bool, typer.Option(help="Delete a run that is in the way.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Begin the run in --out, or go on with it.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done.")] = False,
    plugin: Plugin = None,
    no_plugin: NoPlugin = None,
) -> None:
    """Train as a YAML file says, or go on with a run that was stopped."""
    end_with_parent()
    from rlutils import app as application
    from rlutils.training.rehearsal import rehearsal

    texts = list(overrides or [])
    if resume is not None:
        if out_folder or replace or go_on:
            raise ConfigError(["--resume RUN goes on in RUN; leave out --out, --replace and --continue"])
        if config is not None:
            texts.insert(0, str(config))  # the first word after --resume RUN is an override as well
        run = application.resume(resume, texts, plugin or (), no_plugin or (), dry_run=dry_run)
    elif config is None:
        raise ConfigError(["give a YAML file, or --resume RUN"])
    else:
        command = shlex.join(["rlalgo", *sys.argv[1:]])
        wish: dict[str, Any] = {"replace": replace, "resume": go_on, "dry_run": dry_run, "command": command}
        run = application.train(config, out_folder, texts, plugins=plugin or (), block=no_plugin or (), **wish)
    done = "" if run.started else " is finished already"
    _print_facts(rehearsal(run) if dry_run else {"run folder": f"{run.folder}{done}"})


@app.command()
@reported
def sweep(
    suite: Annotated[Path, typer.Argument(help="YAML file, such as configs/suites/results.yaml.")],
    only: Annotated[list[str] | None, typer.Option(help="Only runs like 'td3_bc' or '*/s0'; may be repeated.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Runs at a time; else one for each core.")] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder of all runs.")] = None,
    replace: Annotated[bool, typer.Option(help="Start runs anew whose settings have changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and their state, and do nothing.")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="Print a line for each run, and run nothing.")] = False,
    plugin: Plugin = None,
) -> None:
    """Train a whole suite: algorithms by datasets by seeds. Goes on where it was stopped."""
    from rlutils.sweeps import sweep as sweeping

    if commands:
        print(*sweeping.commands(suite, only or (), out_folder, plugin or ()), sep="\n")
        return
    if dry_run:
        for job in sweeping.plan(suite, only or (), out_folder, plugin or ())[0]:
            out.print(f"{job.name}: {job.state}{job.note and f', {job.note}'}", soft_wrap=True)
        return
    jobs = sweeping.sweep(suite, only or (), processes, out_folder, replace, plugin or (), out)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        twice = " twice" if job.tries > 1 else ""
        complain(f"{job.name} failed{twice}: {job.note}; its whole output: {job.log}")
    out.print(f"{len(jobs) - len(failed)} of {len(jobs)} runs finished; rlalgo report {jobs[0].out}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
@reported
def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    checkpoint: Checkpoint = "last",
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes for each policy.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first episode.")] = None,
    target_return: Annotated[list[float] | None, typer.Option(help="Target to play; may be repeated.")] = None,
    plugin: Plugin = None,
) -> None:
    """Play a trained run again and write the result beside its evaluations."""
    from rlutils.app import evaluate as evaluate_run
    from rlutils.reports.result_view import print_result

    texts = [*(overrides or [])]
    texts += [
        f"evaluation.{key}={value}" for key, value in (("episodes", episodes), ("seed", seed)) if value is not None
    ]
    policies = [{"target_return": target} for target in target_return] if target_return else None
    print_result(evaluate_run(run, checkpoint, policies, texts, plugin or ()), out)


@app.command()
@reported
def targets(
    run: RunFolder,
    targets: Annotated[str | None, typer.Option(help="Targets to play, as 0,500,1000.")] = None,
    points: Annotated[int, typer.Option(min=2, help="How many, from the data's lowest return to 1.1 x its best.")] = 12,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes for each target.")] = 10,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first episode.")] = None,
    checkpoint: Checkpoint = "last",
    out_file: Annotated[Path | None, typer.Option("--out", help="PNG file; its numbers go beside it.")] = None,
    plugin: Plugin = None,
) -> None:
    """Play a grid of target returns, show what each achieves, and recommend one."""
    from rlutils.evaluation.targets import play_targets
    from rlutils.reports.targets_view import show_targets

    try:
        chosen = None if targets is None else [float(target) for target in targets.split(",")]
    except ValueError as error:
        raise ConfigError([f"--targets {targets}: expected numbers, as 0,500,1000"]) from error
    if out_file and out_file.suffix != ".png":
        raise ConfigError([f"--out {out_file}: the name of a figure must end in .png"])
    found = play_targets(run, checkpoint, chosen, points, episodes, seed, plugin or ())
    show_targets(found, run, out_file, out)


@app.command()
@reported
def play(
    run: Annotated[Path, typer.Argument(help="Run folder that train wrote, or hf://OWNER/NAME[@REVISION].")],
    target_return: TargetReturn = None,
    option: Option = None,
    checkpoint: Checkpoint = "last",
    episodes: Annotated[int, typer.Option(min=1, max=10**6)] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the first episode.")] = 0,
    video: Annotated[Path | None, typer.Option(help="MP4 or GIF file to write.")] = None,
    plugin: Plugin = None,
) -> None:
    """Play a trained policy, and film it."""
    from rlutils.evaluation.play import play as play_run

    options = policy_options(target_return, option or ())
    for played in play_run(run, options, checkpoint, episodes, seed, video, plugin or ()):
        said = "".join(f", {name} {amount(value)}" for name, value in played.info.items())
        out.print(f"seed {played.seed}: return {amount(played.ret)} in {len(played.rewards):,} steps{said}")
    if video is not None:
        out.print(f"video: {video}", soft_wrap=True)


app.command()(export)


@app.command()
@reported
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or one suite's folder.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="HTML file; report.html in a single folder.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write algorithms by datasets here.")] = None,
) -> None:
    """Write a self-contained HTML page about runs or a suite, and print their results."""
    from rlutils.reports.report import report as write

    write(runs, out_file, markdown_file, out)


@app.command()
@reported
def collect(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/collect/hopper.yaml.")],
    overrides: Overrides = None,
    replace: Annotated[bool, typer.Option(help="Replace a dataset of this name.")] = False,
    plugin: Plugin = None,
) -> None:
    """Record a dataset with a behavior policy."""
    from rlutils.collecting.collect import collect_file

    result = collect_file(config, list(overrides or []), replace, plugin or (), out)
    returns = result.returns
    out.print(
        f"{result.id}: {result.episodes:,} episodes, {result.steps:,} steps, returns {amount(min(returns))} to "
        f"{amount(max(returns))}, in {result.seconds:.1f} s, at {result.path}",
        soft_wrap=True,
    )


@app.command()
@reported
def plugins(
    name: Annotated[str | None, typer.Argument(help="Show only what has this name or is of this kind.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Leave out the options.")] = False,
    plugin: Plugin = None,
    no_plugin: NoPlugin = None,
) -> None:
    """What is there: of which kind, from which distribution, with which options."""
    print_inventory(inventory(plugin or (), no_plugin or ()), name, short, out)


@app.command("new-plugin")
@reported
def new_plugin(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(CATALOGUE_HOOKS)}.")],
    name: Annotated[str, typer.Argument(help="What YAML files are to call it; the distribution is rlalgo-NAME.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write the new folder into.")] = Path(),
) -> None:
    """Write a plugin to start from: a distribution with a small working example of its kind, and tests."""
    from rlutils.config.catalogue import catalogue
    from rlutils.scaffold.new_plugin import new_plugin as write

    written = write(kind, name, out_folder, catalogue())
    out.print(f"{written.folder}: {', '.join(written.files)}\nGo on with", soft_wrap=True)
    for command in written.commands:
        out.print(f"  {command}", soft_wrap=True)


@app.command("schema")
@reported
def print_schema(
    what: Annotated[str, typer.Argument(help="Which YAML files: train, collect or suite.")] = "train",
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; else it is printed.")] = None,
    plugin: Plugin = None,
) -> None:
    """JSON schema of the YAML files, for editors; it knows every installed plugin."""
    if what not in SCHEMAS:
        raise ConfigError([f"no schema of '{what}'; there are {', '.join(SCHEMAS)}"])
    schema = inventory(plugin or ()).schemas[what]
    write_json(out_file, schema) if out_file else print(json.dumps(schema, indent=1))


@app.command()
@reported
def info(plugin: Plugin = None, no_plugin: NoPlugin = None) -> None:
    """Versions, plugins, devices and folders, to paste into a report of a fault."""
    _print_facts(about(plugin or (), no_plugin or ()))


def _print_facts(facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        out.print(f"{name}: {value}", soft_wrap=True)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


if __name__ == "__main__":
    main()
