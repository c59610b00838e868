"""Collecting: a behavior plays, and what it did becomes a Minari dataset, complete or not at all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import gymnasium
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlalgo import plugins as core_plugins
from rlalgo.config import parse
from rlalgo.errors import DataError, EnvironmentFault
from rlutils.collecting.minari_writer import _install, _refuse_occupied, _temporary, _write
from rlutils.collecting.recording import Recorded, Say, _refuse_bad
from rlutils.collecting.settings import CollectResult, CollectSettings
from rlutils.data import minari_disk
from rlutils.envs.gym import make_env


def collect_file(
    path: Path, overrides: Sequence[str], replace: bool, plugins: Sequence[str], console: Console
) -> CollectResult:
    """`collect` as a YAML file says, with a progress bar."""
    from rlutils.config.catalogue import catalogue
    from rlutils.config.overrides import load_mapping, override

    values = override(load_mapping(path), overrides)
    values["plugins"] = [*(values.get("plugins") or []), *plugins]
    settings = parse(CollectSettings, values, catalogue(values["plugins"]), str(path))
    columns = TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        said = ""

        def say(phase: str, done: float) -> None:
            nonlocal said
            bar.update(task, description=phase, completed=done)
            if not console.is_terminal and phase.split(":")[0] != said:
                said = phase.split(":")[0]
                console.print(phase, markup=False)

        return collect(settings, replace, say)


def collect(settings: CollectSettings, replace: bool = False, say: Say | None = None) -> CollectResult:
    """Records a dataset under MINARI_DATASETS_PATH.

    It is written in a hidden folder beside the others and moved into place when complete: whatever goes wrong before,
    nothing half-made is left under its name, and an existing dataset stays as it is.

    Args:
        settings: what to record.
        replace: put the new dataset in the place of one of the same id.
        say: told of the progress.

    Raises:
        DataError: the dataset exists and is not to be replaced, the folder cannot be written, or the behavior
            recorded nothing.
        EnvironmentFault: the environment cannot be made, or does not suit the behavior.
    """
    watch = time.perf_counter()
    say = say or (lambda phase, done: None)
    root = minari_disk.root()
    _refuse_occupied(root, settings.id, replace)
    with _temporary(root) as temporary, contextlib.ExitStack() as opened:

        def open_env() -> gymnasium.Env:
            return opened.enter_context(contextlib.closing(make_env(settings.env.id, settings.env.kwargs)))

        env = open_env()
        if not isinstance(env.action_space, spaces.Box | spaces.Discrete):
            raise EnvironmentFault(f"env: {settings.env.id} acts in {env.action_space}; expected Box or Discrete")
        name = settings.behavior.name
        behavior = core_plugins.make("behavior", settings.behavior)
        episodes: list[Recorded] = []
        steps = 0
        for episode in behavior.episodes(open_env, settings.steps, settings.seed, say):
            _refuse_bad(episode, env, f"behavior '{name}', episode {len(episodes)}")
            episodes.append(episode)
            steps += len(episode.rewards)
            say(f"recording: {steps:,} steps, {len(episodes)} episodes", min(steps / settings.steps, 1.0))
            if steps >= settings.steps:
                break
        if not episodes:
            raise DataError(f"behavior '{name}' recorded no episode; there is nothing to write")
        if steps < settings.steps:
            raise DataError(f"behavior '{name}' ended after {steps:,} of {settings.steps:,} steps; lower `steps`")
        say("writing", 0.0)
        try:
            _write(settings, env, episodes, temporary)
            _install(temporary, root, settings.id)
        except OSError as error:
            why = f"cannot write {settings.id} under {root}: {error.strerror or error}"
            raise DataError(f"{why}; nothing was changed") from error
    returns = [episode.ret for episode in episodes]
    return CollectResult(settings.id, root / settings.id, len(episodes), steps, returns, time.perf_counter() - watch)
