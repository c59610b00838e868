"""Atari environments as they are evaluated: full episodes, raw rewards, and the data's own preprocessing.

The preprocessing is a record (`DataSpec.preprocess`), which rlutils applies; so what a source says of its data
and what an environment does cannot drift apart. Frames are stacked by datasets and policies, never here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import ale_py  # registers the games with Gymnasium
import gymnasium
from rlalgo import DataSpec
from rlalgo.config import Count, Few, Probability, Whole
from rlalgo.errors import EnvironmentFault
from rlutils.envs.gym import GymEnv

gymnasium.register_envs(ale_py)

MAX_FRAMES = 108_000
"""Half an hour at 60 frames a second, where an episode is cut (Machado et al. 2018, section 4.1)."""

_ENV_OPTIONS = {
    "sticky": "repeat_action_probability",
    "full_action_space": "full_action_space",
    "max_frames": "max_num_frames_per_episode",
}
"""Option here -> argument of the ALE's environment; the other options are arguments of AtariPreprocessing."""
_OF_THE_GAME = ("game", "mode", "difficulty")
"""Arguments that another game does not share."""
_REWARD_WRAPPERS = ("ClipReward", "NormalizeReward", "TransformReward")


class Atari:
    """Atari games through the ALE: full episodes with raw rewards, prepared as the data was recorded."""

    name: ClassVar[str] = "atari"

    @dataclass(frozen=True)
    class Config:
        id: str | None = None
        """Gymnasium id, or a game's name such as Breakout for ALE/Breakout-v5; null: the data's own."""
        frame_skip: Few | None = None
        """Frames that an action lasts; null: as the data's record says, else 4."""
        sticky: Probability | None = None
        """Probability that a frame repeats the action of the last one; null: as the record says, else 0.25."""
        noop_max: Whole | None = None
        """Most idle frames at the start of an episode; null: as the record says, else 0."""
        full_action_space: bool | None = None
        """All 18 actions rather than the game's own; null: as the record says, else false."""
        max_frames: Count | None = None
        """Frames after which an episode is cut; null: as the record says, else 108000."""

        def __post_init__(self) -> None:
            if self.id is not None:  # in full, so that a run knows whether it plays the data's own game
                object.__setattr__(self, "id", env_id(self.id))

    def __init__(self, config: Config) -> None:
        self.config = config

    def make(self, spec: DataSpec, n: int, render_mode: str | None = None) -> list[gymnasium.Env]:
        """n environments whose frames and actions are as in the data.

        Args:
            spec: what the data is made of; its `preprocess` counts where the data was recorded through
                AtariPreprocessing.
            n: how many.
            render_mode: `rgb_array` for the game's own screen.

        Raises:
            EnvironmentFault: there is no such game, it does not fit the data, or the data was prepared otherwise.
        """
        options = asdict(self.config)
        name = options.pop("id") or spec.env_id
        if name is None:
            raise EnvironmentFault(
                "the data does not say which game it comes from: set `env: {name: atari, id: Breakout}`, "
                "or do without evaluation (evaluation.episodes: 0)"
            )
        record = dict(spec.preprocess)
        if not any(map(_prepares, record.get("env_wrappers", ()))):
            if "images" in record:
                raise EnvironmentFault(
                    "the data was not recorded through AtariPreprocessing, and its images were prepared by the source: "
                    "leave `env` out (or set `env: {name: gym}`), which plays the game as it was recorded"
                )
            record = preprocessing(spec.observation_space.shape or ())
        elif name != spec.env_id:  # another game, recorded alike
            kwargs = record.get("env_kwargs", {})
            record["env_kwargs"] = {key: value for key, value in kwargs.items() if key not in _OF_THE_GAME}
        record = _for_evaluation(record, {key: value for key, value in options.items() if value is not None})
        return GymEnv(GymEnv.Config(name)).make(replace(spec, env_id=name, preprocess=record), n, render_mode)


def env_id(game: str) -> str:
    """`Breakout` -> `ALE/Breakout-v5`; a full id stays as it is."""
    return game if "/" in game or re.search(r"-v\d+$", game) else f"ALE/{game}-v5"


def preprocessing(
    shape: Sequence[int] = (84, 84),
    *,
    frame_skip: int = 4,
    sticky: float = 0.25,
    noop_max: int = 0,
    full_action_space: bool = False,
    max_frames: int = MAX_FRAMES,
) -> dict[str, Any]:
    """The record (`DataSpec.preprocess`) of the usual preprocessing; its defaults are those of the DQN-replay data.

    Args:
        shape: of a frame: (H, W) or (H, W, 1) for gray, (H, W, 3) for colors.
        frame_skip: frames that an action lasts; the last two are pooled by their maximum.
        sticky: probability that a frame repeats the action of the last one.
        noop_max: most idle frames at the start of an episode.
        full_action_space: all 18 actions rather than the game's own.
        max_frames: frames after which an episode is cut.

    Raises:
        EnvironmentFault: AtariPreprocessing cannot give frames of that shape.
    """
    if len(shape) not in (2, 3) or tuple(shape[2:]) not in ((), (1,), (3,)):
        raise EnvironmentFault(
            f"the data's observations have shape {tuple(shape)}, which Atari's preprocessing cannot give: "
            "(H, W), (H, W, 1) or (H, W, 3); if the data holds stacked frames, record single ones, "
            "or use `env: {name: gym}` where the data says how it was made"
        )
    height, width = shape[:2]
    return {
        "env_module": "ale_py",
        "env_kwargs": {
            "frameskip": 1,  # the wrapper skips, so that it can pool
            "repeat_action_probability": sticky,
            "full_action_space": full_action_space,
            "max_num_frames_per_episode": max_frames,
        },
        "env_wrappers": [
            {
                "name": "AtariPreprocessing",
                "entry_point": "gymnasium.wrappers.atari_preprocessing:AtariPreprocessing",
                "kwargs": {
                    "noop_max": noop_max,
                    "frame_skip": frame_skip,
                    "screen_size": height if height == width else [width, height],
                    "terminal_on_life_loss": False,
                    "grayscale_obs": tuple(shape[2:]) != (3,),
                    "grayscale_newaxis": tuple(shape[2:]) == (1,),
                    "scale_obs": False,
                },
            }
        ],
    }


def _for_evaluation(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A record with these options in it, that never ends an episode at a lost life nor changes rewards."""
    env_kwargs = {_ENV_OPTIONS[key]: value for key, value in options.items() if key in _ENV_OPTIONS}
    inner = {key: value for key, value in options.items() if key not in _ENV_OPTIONS}
    wrappers = []
    for wrapper in record["env_wrappers"]:
        if _prepares(wrapper):
            kwargs = {**wrapper["kwargs"], **inner, "terminal_on_life_loss": False}
            if isinstance(kwargs.get("screen_size"), list):  # YAML has no tuples, and Gymnasium wants one
                kwargs["screen_size"] = tuple(kwargs["screen_size"])
            wrappers.append({**wrapper, "kwargs": kwargs})
        elif _class_name(wrapper) not in _REWARD_WRAPPERS:
            wrappers.append(wrapper)
    return {**record, "env_kwargs": {**record.get("env_kwargs", {}), **env_kwargs}, "env_wrappers": wrappers}


def _prepares(wrapper: Mapping[str, Any]) -> bool:
    return _class_name(wrapper) == "AtariPreprocessing" and bool(wrapper.get("kwargs"))


def _class_name(wrapper: Mapping[str, Any]) -> str:
    return str(wrapper["entry_point"]).rpartition(":")[2]
