"""Playing a trained policy, with or without a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rlalgo import plugins as core_plugins
from rlalgo.config import parse
from rlalgo.core.policy import Controller
from rlutils.checkpoints import store as checkpoints
from rlutils.checkpoints.loading import run_settings
from rlutils.config.catalogue import catalogue
from rlutils.evaluation.video import write_video
from rlutils.machine import pick_device
from rlutils.randomness import forked_rng


@dataclass(frozen=True)
class Played:
    """One episode."""

    seed: int
    ret: float
    """Undiscounted return."""
    steps: int


def play(
    folder: str | Path,
    options: Mapping[str, Any],
    checkpoint: str = "last",
    episodes: int = 1,
    seed: int = 0,
    video: str | Path | None = None,
    plugins: Sequence[str] = (),
) -> list[Played]:
    """Plays a trained run in one environment, one episode after the other.

    Args:
        folder: the run folder.
        options: of the policy, {"target_return": 3600.0} for dt.
        checkpoint: `last`, `best` or `step_N`.
        episodes: how many.
        seed: episode k is reset with `seed + k`.
        video: an .mp4 or .gif to write; needs a renderer (MUJOCO_GL=egl or osmesa where there is no screen).
        plugins: modules and files that the run was trained with.

    Raises:
        EnvironmentFault: the environment cannot be made, or nothing here can render it.
        CheckpointError, ConfigError: see their texts.
    """
    folder = Path(folder)
    found = checkpoints.find(folder, checkpoint)
    known = catalogue(plugins)
    algo, _ = checkpoints.load_algo(found, known)
    settings, _ = run_settings(folder, plugins)
    algo.to(pick_device(settings.device))
    option: Any = parse(type(algo).PolicyConfig, dict(options), known, f"options of {algo.name}'s policy")
    maker = core_plugins.make("env", settings.env)
    env = maker.make(algo.spec, 1, render_mode="rgb_array" if video else None)[0]
    played: list[Played] = []
    try:
        with forked_rng(seed):
            controller = Controller(algo.policy([option]))
            frames = _episodes(env, controller, episodes, seed, played, render=video is not None)
            if video is not None:
                write_video(frames, Path(video), fps=int(env.metadata.get("render_fps") or 30))
            else:
                for _ in frames:
                    pass
    finally:
        env.close()
    return played


def _episodes(
    env: gymnasium.Env, controller: Controller, episodes: int, seed: int, played: list[Played], render: bool
) -> Iterator[np.ndarray]:
    """Plays; yields a frame (H, W, 3) uint8 for every observation if asked to render."""
    for number in range(episodes):
        observation, _ = env.reset(seed=seed + number)
        controller.reset()
        total, steps, over = 0.0, 0, False
        while not over:
            if render:
                yield np.asarray(env.render())
            observation, reward, terminated, truncated, _ = env.step(controller.act(observation))
            controller.observe(float(reward))
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        played.append(Played(seed + number, total, steps))
