"""One step of an environment, whose answer is not trusted: what is odd is named with the episode and the step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from torch import Tensor

from rlalgo.core.policy import Policy
from rlalgo.core.spaces import Packed, described, same_actions, same_observations
from rlalgo.errors import EnvironmentFault, RlalgoError, blaming, shown, told

_LARGEST = float(np.finfo(np.float32).max)
"""Rewards are kept as float32."""


def refuse_misfit(policy: Policy, envs: Iterable[gymnasium.Env]) -> None:
    """EnvironmentFault unless the environments' observations and actions are of the kind that the policy's data has."""
    for env in envs if policy.spec is not None else ():
        for what, same in (("observation", same_observations), ("action", same_actions)):
            own, expected = getattr(env, f"{what}_space"), getattr(policy.spec, f"{what}_space")
            if not same(own, expected):
                raise EnvironmentFault(
                    f"environment {env_name(env)}: its {what}s are {described(own)}; the policy's are "
                    f"{described(expected)}: play in rlutils.prepare(env, algo.spec), which does what was done to the "
                    "data, or in another one"
                )


def reset(env: gymnasium.Env, seed: int) -> Any:
    """The first observation.

    Raises:
        EnvironmentFault: the environment raised, or gave something else.
    """
    where = f"environment {env_name(env)}, episode of seed {seed}, reset"
    with blaming(EnvironmentFault, where):
        answer = env.reset(seed=seed)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise EnvironmentFault(f"{where}: gave {_shown(answer)}; expected (observation, info)")
    if not isinstance(answer[1], Mapping):
        raise EnvironmentFault(f"{where}: the info is {_shown(answer[1])}; expected a dict")
    if why := _odd(answer[0], env.observation_space):
        raise EnvironmentFault(f"{where}: {why}")
    return answer[0]


def step(env: gymnasium.Env, action: Any, seed: int, number: int) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """Observation, reward, terminated, truncated and info.

    Args:
        env: what to step.
        action: of the environment's own kind.
        seed: what the episode was reset with.
        number: of the step in its episode, from 0.

    Raises:
        EnvironmentFault: the environment raised, or gave something else.
    """
    try:
        answer = env.step(action)
    except RlalgoError:
        raise
    except Exception as error:
        raise _fault(env, seed, number, told(error)) from error
    if not isinstance(answer, tuple) or len(answer) != 5:
        expected = "(observation, reward, terminated, truncated, info)"
        raise _fault(env, seed, number, f"gave {_shown(answer)}; expected {expected}")
    observation, reward, terminated, truncated, info = answer
    if not _numeric(reward) or not abs(float(reward)) <= _LARGEST:  # NaN is not smaller either
        raise _fault(env, seed, number, f"the reward is {_shown(reward)}; expected a finite number")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) is not bool and not (_numeric(flag) and float(flag) in (0, 1)):
            raise _fault(env, seed, number, f"{name} is {_shown(flag)}; expected True or False")
    if why := _odd(observation, env.observation_space):
        raise _fault(env, seed, number, why)
    if not isinstance(info, Mapping):
        raise _fault(env, seed, number, f"the info is {_shown(info)}; expected a dict")
    return observation, float(reward), bool(terminated), bool(truncated), info


def facts(
    env: gymnasium.Env, info: Mapping[str, Any], names: Iterable[str], seed: int, number: int
) -> dict[str, float]:
    """What the info of an episode's last step says of `success`, or else `is_success`, and of further names.

    What is not there, None or not finite is left out.

    Raises:
        EnvironmentFault: something else than a number stands there.
    """
    found = {}
    for name in dict.fromkeys(("success", *names)):
        value = info.get(name, info.get("is_success") if name == "success" else None)
        if value is not None and not _numeric(value):
            raise _fault(env, seed, number, f"the info's {name} is {_shown(value)}; expected a number")
        if value is not None and math.isfinite(float(value)):
            found[name] = float(value)
    return found


def _fault(env: gymnasium.Env, seed: int, number: int, why: str) -> EnvironmentFault:
    return EnvironmentFault(f"environment {env_name(env)}, episode of seed {seed}, step {number}: {why}")


def _odd(observation: Any, space: Any) -> str | None:
    """What is wrong with an observation; of other spaces than Box the policy has to judge."""
    if not isinstance(space, spaces.Box):
        return None
    try:
        found = np.asarray(observation)
    except ValueError:  # rows of unequal length
        found = np.empty((), object)
    if found.shape != space.shape or found.dtype.kind not in "biuf":
        return f"the observation is {_shown(observation)}; expected numbers of shape {space.shape}"
    numbers = space.floats(found) if isinstance(space, Packed) else found
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        return f"the observation is {_shown(observation, whole=True)}; expected finite numbers"
    return None


def _numeric(value: Any) -> bool:
    """Whether it is one number, or an array or tensor of one."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return True
    if isinstance(value, np.ndarray):
        return value.size == 1 and value.dtype.kind in "biuf"
    return isinstance(value, Tensor) and math.prod(value.shape) == 1


def env_name(env: gymnasium.Env) -> str:
    """The id that an environment was made by, else its class."""
    made_by = getattr(env, "spec", None)
    return made_by.id if made_by else type(getattr(env, "unwrapped", env)).__name__


def _shown(value: Any, whole: bool = False) -> str:
    """What was got, on one short line."""
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, np.ndarray) and value.size != 1 and not whole:
        return f"of shape {value.shape}, {value.dtype}"
    return shown(value)
