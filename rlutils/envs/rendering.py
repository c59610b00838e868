"""Rendering without a screen."""

import ctypes
import importlib
import os
import sys
from typing import Any

import gymnasium
import numpy as np

from rlalgo.core.stepping import env_name
from rlalgo.errors import EnvironmentFault
from rlutils.envs.faults import FAILURES, GL_ADVICE, why


def try_rendering(env: gymnasium.Env) -> np.ndarray:
    """One frame (H, W, 3) uint8 of an environment made with render_mode="rgb_array"; it is reset for that.

    Raises:
        EnvironmentFault: nothing here can render it; says what to install or set.
    """
    failures: tuple[type[Exception], ...] = FAILURES
    advice = ""
    if hasattr(env.unwrapped, "mujoco_renderer"):
        failures = (*FAILURES, sys.modules["mujoco"].FatalError)
        advice = GL_ADVICE
    try:
        if advice:
            _choose_gl()
            _follow(env)
        env.reset(seed=0)
        frame = env.render()
    except failures as error:
        message = f"environment {env_name(env)} cannot be rendered: {why(error, env_name(env))}"
        raise EnvironmentFault(f"{message}. {advice}".rstrip(". ")) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        got = f"shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise EnvironmentFault(f"environment {env_name(env)} renders {got}, expected an array (H, W, 3)")
    return frame


def _choose_gl() -> None:
    """Sets MUJOCO_GL where it is not set and there is no screen, and tries whether its backend works.

    Gymnasium itself would take GLFW then, which seems to start and fails at the first frame.
    """
    if sys.platform != "linux":
        return
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    backend = os.environ.get("MUJOCO_GL", "").lower()
    if not backend and not screen:
        backend = "osmesa" if _loads("libOSMesa.so.8") and not _loads("libEGL.so.1") else "egl"
    if backend == "glfw" and not screen:
        raise RuntimeError("MUJOCO_GL=glfw needs a screen, and DISPLAY is not set")
    if backend == "egl" and not _loads("libEGL.so.1"):
        raise RuntimeError("libEGL.so.1 is not installed")
    if backend in ("egl", "osmesa"):
        context = importlib.import_module(f"mujoco.{backend}").GLContext(16, 16)
        context.make_current()
        context.free()
        os.environ["MUJOCO_GL"] = backend


def _follow(env: gymnasium.Env) -> None:
    """Films with the model's tracking camera, if it has one; Gymnasium's free camera is soon left behind."""
    renderer: Any = getattr(env.unwrapped, "mujoco_renderer")  # noqa: B009 (not part of gymnasium.Env)
    mujoco = sys.modules["mujoco"]
    camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if renderer.camera_id in (None, -1) and camera >= 0:
        renderer.camera_id = camera


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
