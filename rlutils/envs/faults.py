"""What goes wrong with environments, in words."""

import os
import traceback

import gymnasium
from gymnasium import spaces

from rlalgo.errors import EnvironmentFault

_EXTRAS = {"ale_py": "rlalgo[atari]", "cv2": "rlalgo[atari]", "mujoco": "gymnasium[mujoco]"}
"""Package -> what to install for it, where that is not the package's own name."""

FAILURES = (
    gymnasium.error.Error,
    ImportError,
    OSError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    RuntimeError,
)
"""What an environment's own code may raise while it is made or rendered."""

GL_ADVICE = (
    "Without a screen MuJoCo draws through EGL (apt-get install libegl1, then MUJOCO_GL=egl) "
    "or OSMesa (apt-get install libosmesa6, then MUJOCO_GL=osmesa)"
)


def why(error: BaseException, name: str) -> str:
    """What went wrong and, where that is known, what to install or set."""
    cause = error.__cause__ or error  # Gymnasium answers any failed import with "MuJoCo is not installed"
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        package = cause.name.partition(".")[0]
        return f"the package {package} is missing; pip install '{_EXTRAS.get(package, package)}'"
    text = f"{type(cause).__name__}: {cause}".rstrip(".")
    if name.startswith("ALE/"):
        return f"{text} (Atari needs: pip install '{_EXTRAS['ale_py']}')"
    backend = os.environ.get("MUJOCO_GL")
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    if backend and any(frame.f_globals.get("__name__") == "mujoco" for frame in frames):
        return f"MUJOCO_GL={backend} stops MuJoCo ({text}); unset it unless you render. {GL_ADVICE}"
    return text


def misfit(env: gymnasium.Env, what: str, got: spaces.Space, expected: spaces.Space) -> EnvironmentFault:
    return EnvironmentFault(
        f"environment {env_name(env)} does not fit the data: its {what} are {got}, the data's are {expected}; "
        "choose another with env.id, or give the right env.kwargs"
    )


def env_name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
