"""Environments that give what the data holds: made by Gymnasium id and prepared as the data's record says."""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import utils as gymnasium_utils

from rlalgo import DataSpec
from rlalgo.core.spaces import same_actions, same_observations
from rlalgo.core.stepping import env_name
from rlalgo.errors import EnvironmentFault, near
from rlutils.config.modules import installed
from rlutils.data.preparation import Preparation, read_record
from rlutils.data.spaces import stored_space, time_first, unflatten_action
from rlutils.envs.faults import FAILURES, misfit, missing, why
from rlutils.envs.limits import limited
from rlutils.envs.rendering import try_rendering

_MODULES = {"ALE": "ale_py"}
"""Namespace of an id -> the package that registers its environments."""


class GymEnv:
    """Gymnasium environments: the one that the data was recorded in, or another that fits the data."""

    name: ClassVar[str] = "gym"

    @dataclass(frozen=True)
    class Config:
        id: str | None = None
        """Gymnasium id, such as Hopper-v5 or module:Name-v0; null: the data's own. In your own YAML or command the
        module may be a file beside the YAML or in the working folder, else it has to be installed."""
        kwargs: Mapping[str, Any] = field(default_factory=dict)
        """Arguments of the environment; they take precedence over those that the data was recorded with."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def make(self, spec: DataSpec, n: int, render_mode: str | None = None) -> list[gymnasium.Env]:
        """n environments whose observations and actions are as in the data.

        Args:
            spec: what the data is made of; its `preprocess` is applied.
            n: how many.
            render_mode: `rgb_array` for frames without a screen. A first frame is drawn at once to try it.

        Raises:
            EnvironmentFault: there is no such environment, it cannot be made or rendered here, or it does not
                fit the data.
        """
        name = self.config.id or spec.env_id
        if name is None:
            raise EnvironmentFault(
                "the data does not say which environment it comes from: "
                "set `env: {name: gym, id: ...}`, or do without evaluation (evaluation.episodes: 0)"
            )
        # Arguments and wrappers belong to the environment that the data was recorded in, not to another one.
        record = read_record(spec.preprocess if name == spec.env_id else {})
        mode = {} if render_mode is None else {"render_mode": render_mode}
        kwargs = {**record.env_kwargs, **self.config.kwargs, **mode}
        envs: list[gymnasium.Env] = []
        with contextlib.ExitStack() as opened:  # closes them if one of them fails
            for number in range(n):
                with _warned_once(number > 0):
                    env = make_env(name, kwargs, record.env_module, record.env_wrappers)
                opened.enter_context(contextlib.closing(env))
                envs.append(prepare(env, spec))
            if render_mode == "rgb_array" and envs:
                try_rendering(envs[0])
            opened.pop_all()
        return envs


def make_env(
    name: str, kwargs: Mapping[str, Any], module: str | None = None, wrappers: Sequence[Mapping[str, Any]] = ()
) -> gymnasium.Env:
    """An environment by its Gymnasium id.

    Args:
        name: the id; ALE's are found without importing anything.
        kwargs: its arguments.
        module: the package that registers it, where that is not known otherwise. Modules are only imported if they
            are installed (or loaded already, as a plugin).
        wrappers: records of wrappers, innermost first (`preprocess_record` in rlutils.data.minari_source).

    Raises:
        EnvironmentFault: there is no such environment (with near names), or what to install for it.
    """
    _import_modules(name, module)
    if ale := sys.modules.get("ale_py"):
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # else it prints a banner
    try:
        env = gymnasium.make(name, disable_env_checker=True, **kwargs)
        for wrapper in wrappers:
            env = _wrap(env, wrapper)
    except gymnasium.error.UnregisteredEnv as error:
        known = near(name, gymnasium.registry) or f" {error}"
        raise EnvironmentFault(f"there is no environment '{name}'.{known}") from error
    except FAILURES as error:
        given = {key: value for key, value in kwargs.items() if key != "render_mode"}
        how = f"made with {given}" if given else "made without arguments"
        raise EnvironmentFault(f"environment {name}, {how}: {why(error, name)}") from error
    return env


def prepare(env: gymnasium.Env, spec: DataSpec) -> gymnasium.Env:
    """Any environment of the data's kind as its policies play it: observations are done to as the data's were.

    One without a time limit is cut after the data's longest episode.

    Raises:
        EnvironmentFault: the environment does not fit the data.
    """
    return Prepared(limited(env, spec.max_steps), spec)


class Prepared(gymnasium.ObservationWrapper):
    """An environment whose observations and actions are of the data's shape and type: flattened, or packed."""

    def __init__(self, env: gymnasium.Env, spec: DataSpec) -> None:
        """Raises EnvironmentFault if the environment does not fit the spec."""
        super().__init__(env)
        own, expected, record = env.observation_space, spec.observation_space, read_record(spec.preprocess)
        raw = own if record.flatten is None else record.flatten
        try:
            self.preparation = Preparation(raw, record.images)
        except TypeError as error:
            raise EnvironmentFault(f"environment {env_name(env)}: observations: {error}") from error
        stored = expected if self.preparation.casts and own == expected else self.preparation.space
        if not same_observations(stored, expected) or not _same_parts(raw, own):
            raise misfit(env, "observations", own, expected if record.flatten is None else raw)
        self.original = record.actions
        """The space of actions, where the data's were flattened."""
        acts = spec.action_space if self.original is None else self.original
        if not same_actions(env.action_space, acts):
            raise misfit(env, "actions", env.action_space, acts)
        if self.original is not None:
            self.action_space = spec.action_space
        self.observation_space = expected

    def step(self, action: Any) -> Any:
        """As the environment's."""
        return super().step(self.raw_action(action))

    def raw_action(self, action: Any) -> Any:
        """An action as the data has them -> as the environment takes them."""
        return action if self.original is None else unflatten_action(self.original, action)

    def observation(self, observation: Any) -> np.ndarray:
        """(*S) prepared as the data and in its type; a copy, since environments may reuse their arrays."""
        raw = self.preparation.raw
        if self.preparation.flattens:
            observation = gymnasium_utils.flatten(raw, observation)  # as ours does, but soon for one
        elif not self.preparation.casts:
            observation = self.preparation(time_first(raw, [observation]))[0]
        return np.array(observation, self.observation_space.dtype)


def _import_modules(name: str, recorded: str | None) -> None:
    """Imports what registers an environment, if it is known and not gymnasium itself."""
    own, colon, ident = name.rpartition(":")
    if colon:  # gymnasium.make imports it in any case
        _import_installed(own, f"environment {name}")
    elif name not in gymnasium.registry and (package := recorded or _MODULES.get(ident.rpartition("/")[0])):
        _import_installed(package, f"environment {name}")


def _import_installed(module: str, where: str) -> ModuleType:
    """A module that a file names: loaded already, or of an installed distribution; else EnvironmentFault.

    A dataset, a run folder or a checkpoint may come from anybody, and whatever lies in the working folder too.
    """
    if (loaded := sys.modules.get(module)) is not None:
        return loaded
    if not installed(module):
        raise EnvironmentFault(f"{where}: {missing(module)}")
    try:
        return importlib.import_module(module)
    except FAILURES as error:
        raise EnvironmentFault(f"{where}: {why(error, where)}") from error


def _wrap(env: gymnasium.Env, record: Mapping[str, Any]) -> gymnasium.Env:
    """`env` in a wrapper that the data was recorded with."""
    entry = str(record["entry_point"])
    module, _, attribute = entry.partition(":")
    where = f"environment {env_name(env)}: the data was recorded with the wrapper {entry}"
    wrapper: Any = getattr(_import_installed(module, where), attribute, None)
    if wrapper is None:
        raise EnvironmentFault(
            f"{where}, and the {module} that is installed here has no {attribute}; install the version that the data "
            "was recorded with, or choose another environment with env.id"
        )
    if not isinstance(wrapper, type) or not issubclass(wrapper, gymnasium.Wrapper):
        raise TypeError(f"the data was recorded with {entry}, which is no gymnasium.Wrapper")
    if record.get("kwargs") is None:
        raise ValueError(f"the wrapper {record['name']} did not record its arguments, so it cannot be made again")
    return wrapper(env, **record["kwargs"])


def _same_parts(a: spaces.Space, b: spaces.Space) -> bool:
    """Whether two observation spaces flatten alike."""
    if isinstance(a, spaces.Dict):
        return isinstance(b, spaces.Dict) and set(a) == set(b) and all(_same_parts(a[key], b[key]) for key in a)
    if isinstance(a, spaces.Tuple):
        same_length = isinstance(b, spaces.Tuple) and len(a) == len(b)
        return same_length and all(_same_parts(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]
    return type(a) is type(b) and same_observations(stored_space(a), stored_space(b))


@contextlib.contextmanager
def _warned_once(quiet: bool) -> Iterator[None]:
    """MuJoCo repeats what it has to say of a model for every copy of it: with `quiet` it keeps silent."""
    mujoco = sys.modules.get("mujoco") if quiet else None
    if mujoco is None:
        yield
        return
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
