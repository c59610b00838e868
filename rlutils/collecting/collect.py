"""Collecting: a behavior plays, and what it did becomes a Minari dataset, complete or not at all."""

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from rlalgo import plugins as core_plugins
from rlalgo.config import parse
from rlalgo.core.rollout import Trace, episode
from rlalgo.errors import ConfigError, DataError, EnvironmentFault, blaming
from rlutils.collecting.behavior import Progress
from rlutils.collecting.minari_writer import Recorded, new_dataset, write_recorded
from rlutils.collecting.settings import CollectResult, CollectSettings
from rlutils.config.catalogue import catalogue
from rlutils.config.modules import own_modules
from rlutils.config.overrides import load_mapping, override, plugins_of
from rlutils.data.spaces import stored_actions
from rlutils.envs.gym import make_env
from rlutils.machine import Stopwatch, host_memory, size


def collect_file(
    path: Path, overrides: Sequence[str], replace: bool, plugins: Sequence[str], console: Console
) -> CollectResult:
    """`collect` as a YAML file says, with a progress bar, or without a terminal a line for each phase."""
    values = override(load_mapping(path), overrides)
    values["plugins"] = [*plugins_of(values, str(path)), *plugins]
    values["plugins"] += own_modules(values, path.parent, Path())
    settings = parse(CollectSettings, values, catalogue(values["plugins"]), str(path))
    columns = TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn()
    with ProgressBar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        phases: set[str] = set()

        def show(phase: str, done: float) -> None:
            bar.update(task, description=phase, completed=done)
            name = phase.partition(":")[0]
            if not console.is_terminal and name not in phases:
                phases.add(name)
                console.print(phase)

        return collect(settings, replace, show)


def collect(
    settings: CollectSettings, replace: bool = False, progress: Progress = lambda phase, done: None
) -> CollectResult:
    """Records a dataset under MINARI_DATASETS_PATH.

    It is written in a hidden folder beside the others and moved into place when complete: whatever goes wrong before,
    nothing half-made is left under its name, and an existing dataset stays as it is.

    Args:
        settings: what to record.
        replace: put the new dataset in the place of one of the same id.
        progress: called with what goes on.

    Raises:
        ConfigError: so many steps do not fit into the memory.
        DataError: the dataset exists and is not to be replaced, the folder cannot be written, or the behavior
            played too little, or what may not be stored.
        EnvironmentFault: the environment cannot be made, or does not suit the behavior.
    """
    watch = Stopwatch()
    with (
        new_dataset(settings.id, replace) as write,
        contextlib.closing(make_env(settings.env.id, settings.env.kwargs)) as env,
    ):
        if not isinstance(stored_actions(env.action_space), spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
            expected = "Box, Discrete, MultiDiscrete or MultiBinary"
            raise EnvironmentFault(f"env: {settings.env.id} acts in {env.action_space}; expected {expected}")
        _refuse_too_many(settings.steps, env.observation_space)
        how = "register it by a text, entry_point='module:Class', and give it plain kwargs"
        with blaming(EnvironmentFault, f"env: {settings.env.id} cannot be stored with what is recorded; {how}"):
            assert env.spec is not None
            env.spec.to_json()  # as the writer will
        recorded = _record(settings, env, progress)
        progress("writing", 0.0)
        path = write(partial(write_recorded, settings, env, recorded))
    returns = [trace.ret for trace, _ in recorded]
    steps = sum(len(trace.rewards) for trace, _ in recorded)
    return CollectResult(settings.id, path, len(recorded), steps, returns, watch())


def _record(settings: CollectSettings, env: gymnasium.Env, progress: Progress) -> list[Recorded]:
    """Whole episodes until there are enough steps."""
    name = f"behavior '{settings.behavior.name}'"
    recorded: list[Recorded] = []
    steps = 0
    for policy, facts in core_plugins.make("behavior", settings.behavior).policies(env, settings.seed, progress):
        trace = episode(policy, env, facts.get("seed", settings.seed + len(recorded)))
        _refuse_bad(trace, env.action_space, f"{name}, episode {len(recorded)}")
        recorded.append((trace, facts))
        steps += len(trace.rewards)
        progress(f"recording: {steps:,} steps, {len(recorded)} episodes", min(steps / settings.steps, 1.0))
        if steps >= settings.steps:
            return recorded
    raise DataError(f"{name} ended after {steps:,} of {settings.steps:,} steps; lower `steps`")


def _refuse_too_many(steps: int, space: spaces.Space) -> None:
    """What is recorded stays in memory until all of it is written; a step takes some 100 bytes besides what is seen."""
    seen = math.prod(space.shape or ()) * (0 if space.dtype is None else space.dtype.itemsize)
    if (need := steps * (100 + seen)) > (there := host_memory()):
        raise ConfigError([f"steps: {steps:,} take {size(need)} and there are {size(there)}; record smaller datasets"])


def _refuse_bad(trace: Trace, space: spaces.Space, where: str) -> None:
    """The actions have to fit into their space before they are written."""
    outside = [action for action in np.asarray(trace.actions, space.dtype) if not space.contains(action)]
    if outside:
        raise DataError(f"{where}: the action {outside[0]} is outside {space}")
