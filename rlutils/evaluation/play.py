"""Playing a trained policy, with or without a video."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlalgo import plugins as core_plugins
from rlalgo.config import parse
from rlalgo.core.rollout import Trace, traces
from rlutils.checkpoints.loading import load_algo, local, run_config, run_folder, run_settings
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue
from rlutils.config.settings import laid_over
from rlutils.evaluation.data_facts import warn_unsupported
from rlutils.evaluation.video import write_video
from rlutils.machine import pick_device
from rlutils.randomness import forked_rng


def play(
    folder: str | Path,
    options: Mapping[str, Any],
    checkpoint: str = "last",
    episodes: int = 1,
    seed: int = 0,
    video: str | Path | None = None,
    plugins: Sequence[str] = (),
) -> list[Trace]:
    """Plays a trained run in one environment, one episode after the other.

    Args:
        folder: the run folder, one of its checkpoints, or `hf://OWNER/NAME[@revision]`.
        options: of the policy, {"target_return": 3600.0} for dt; over what the run's own policies have in common.
        checkpoint: `last`, `best` or `step_N`.
        episodes: how many.
        seed: episode k is reset with `seed + k`.
        video: an .mp4 or .gif to write; needs a renderer (MUJOCO_GL=egl or osmesa where there is no screen).
        plugins: modules and files that the run was trained with.

    Returns:
        The episodes, with their last observation only.

    Raises:
        EnvironmentFault: the environment cannot be made, or nothing here can render it.
        CheckpointError, ConfigError: see their texts.
    """
    folder = local(folder)
    found = find(folder, checkpoint)
    known = catalogue(plugins)
    algo, _ = load_algo(found, known)
    run = run_folder(folder)
    settings, _ = run_settings(run, plugins, ["callbacks=[]"])  # whose packages need not be here
    algo.to(pick_device(settings.device))
    [values] = laid_over(run_config(run), [options])
    option: Any = parse(type(algo).PolicyConfig, values, known, f"options of {algo.name}'s policy")
    warn_unsupported(run, [option])
    maker = core_plugins.make("env", settings.env)
    env = maker.make(algo.spec, 1, render_mode="rgb_array" if video else None)[0]
    played: list[Trace] = []

    def frames() -> Iterator[np.ndarray]:
        """Plays; a frame (H, W, 3) uint8 for every observation that is acted on, if there is a video."""
        seeds = range(seed, seed + episodes)
        for trace in traces(algo.policy([option]), [env], [seeds], keep_observations=False):
            if trace.over:
                played.append(trace)
            elif video is not None:
                yield np.asarray(env.render())

    with contextlib.closing(env), forked_rng(seed):
        if video is None:
            for _ in frames():
                pass
        else:
            write_video(frames(), Path(video), fps=int(env.metadata.get("render_fps") or 30))
    return played
