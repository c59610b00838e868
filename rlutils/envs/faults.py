"""What goes wrong with environments, in words."""

import os
import traceback

import gymnasium
from gymnasium import spaces

from rlalgo.core.spaces import described
from rlalgo.core.stepping import env_name
from rlalgo.errors import EnvironmentFault

_PACKAGES = {
    "ale_py": "rlalgo[atari]",
    "cv2": "rlalgo[atari]",
    "mujoco": "gymnasium[mujoco]",
    "Box2D": "gymnasium[box2d]",
    "pygame": "gymnasium[classic-control]",
    "gymnasium_robotics": "gymnasium-robotics",
    "minigrid": "minigrid",
    "rlalgo_paper": "rlalgo-paper",
}
"""Module -> what to install for it. Others are never advised: anybody may own the name that a file asks for."""

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
        return missing(cause.name)
    text = f"{type(cause).__name__}: {cause}".rstrip(".")
    if name.startswith("ALE/"):
        return f"{text} (Atari needs: pip install '{_PACKAGES['ale_py']}')"
    backend = os.environ.get("MUJOCO_GL")
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    if backend and any(frame.f_globals.get("__name__") == "mujoco" for frame in frames):
        return f"MUJOCO_GL={backend} stops MuJoCo ({text}); unset it unless you render. {GL_ADVICE}"
    return text


def missing(module: str) -> str:
    """That a module is not installed, and what to do."""
    package = module.partition(".")[0]
    if advice := _PACKAGES.get(package):
        return f"the package {package} is missing; pip install '{advice}'"
    return (
        f"the module {package} is not installed here, and files of that name are not imported for it; install the "
        f"distribution that has it, or if it is your own, pass it: --plugin {package}.py (plugins=[...] from Python)"
    )


def misfit(env: gymnasium.Env, what: str, got: spaces.Space, expected: spaces.Space) -> EnvironmentFault:
    return EnvironmentFault(
        f"environment {env_name(env)} does not fit the data: its {what} are {described(got)}, the data's are "
        f"{described(expected)}; choose another with env.id, or give the right env.kwargs"
    )
