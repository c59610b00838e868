"""GymEnv: what it makes is what the data was recorded in, and what it cannot make it explains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import utils
from gymnasium.wrappers import RescaleAction, TimeAwareObservation
from minari.data_collector import EpisodeBuffer

from rlalgo.config import parse
from rlalgo.core.spec import DataSpec
from rlalgo.errors import EnvironmentFault
from rlalgo.registry import Catalogue
from rlutils.config.yaml_text import dump_yaml, parse_yaml
from rlutils.data.minari_source import MinariSource
from rlutils.envs import rendering
from rlutils.envs.gym import GymEnv
from tests.rlutils.minari_data import ID, stack, write_dataset

ROOM = "tests/Room-v0"


class Room(gymnasium.Env):
    """A walk among three doors, seen as a Dict; `closed` counts the environments that were closed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    closed = 0
    made = 0

    def __init__(self, size: float = 1.0, frame: Any = "image", render_mode: str | None = None) -> None:
        Room.made += 1
        if size == 13:
            raise RuntimeError("no room of this size")
        self.size, self.frame, self.render_mode = size, frame, render_mode
        self.observation_space = spaces.Dict(
            [("door", spaces.Discrete(3)), ("at", spaces.Box(-np.inf, np.inf, (2,), np.float64))]
        )
        self.action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.np_random.normal(size=2) * self.size
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = self.at + self.size * np.asarray(action, np.float64)
        return self._seen(), float(self.at.sum()), False, False, {}

    def _seen(self) -> dict[str, Any]:
        return {"at": self.at.copy(), "door": int(abs(self.at[0]) * 10) % 3}

    def render(self) -> Any:
        if isinstance(self.frame, str):
            return np.zeros((4, 6, 3), np.uint8) if self.frame == "image" else self.frame
        raise self.frame

    def close(self) -> None:
        Room.closed += 1


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """The toy environment, registered as an installed package's would be."""
    gymnasium.register(ROOM, "tests.rlutils.envs.test_gym:Room", max_episode_steps=20)
    yield
    del gymnasium.registry[ROOM]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def make(spec: DataSpec, n: int = 1, render_mode: str | None = None, **options: Any) -> list[gymnasium.Env]:
    return GymEnv(parse(GymEnv.Config, options, Catalogue())).make(spec, n, render_mode)


def record(env: gymnasium.Env, seeds: list[int], steps: int = 20) -> list[EpisodeBuffer]:
    """Random episodes of an environment, one for each seed."""
    buffers = []
    for seed in seeds:
        env.action_space.seed(seed)
        observation, _ = env.reset(seed=seed)
        seen, actions, rewards, ends = [observation], [], [], []
        for _ in range(steps):
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(float(reward))
            ends.append((terminated, truncated))
        buffers.append(
            EpisodeBuffer(
                seed=seed,
                observations=stack(env.observation_space, seen),
                actions=stack(env.action_space, actions),
                rewards=rewards,
                terminations=[end[0] for end in ends],
                truncations=[end[1] for end in ends],
            )
        )
    return buffers


RECORDED: dict[str, Callable[[], gymnasium.Env]] = {
    "flattened": lambda: gymnasium.make(ROOM),
    "with arguments": lambda: gymnasium.make(ROOM, size=2.5),
    "with a limit of its own": lambda: gymnasium.make(ROOM, max_episode_steps=30),
    "in a wrapper": lambda: TimeAwareObservation(gymnasium.make("Pendulum-v1", g=5.0)),
    "in two wrappers": lambda: RescaleAction(
        TimeAwareObservation(gymnasium.make("Pendulum-v1")), min_action=-1.0, max_action=1.0
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_data_replayed_in_the_environment_is_the_data(root: Path, name: str) -> None:
    """Same seeds and actions give the very same observations and rewards, through Minari, Episodes and YAML."""
    recorded = RECORDED[name]()
    spaces_of = {"observation_space": recorded.observation_space, "action_space": recorded.action_space}
    write_dataset(root, buffers=record(recorded, [3, 4]), env=recorded, eval_env=recorded, **spaces_of)
    data = MinariSource(MinariSource.Config(id=ID)).load()
    spec = DataSpec.from_mapping(parse_yaml(dump_yaml(data.spec.to_mapping())))
    env = make(spec)[0]
    for i in range(2):
        seen, rewards = [env.reset(seed=int(data.info["seed"][i]))[0]], []
        first, end = int(data.starts[i]), int(data.starts[i + 1])
        for action in data.actions[first:end].numpy():
            observation, reward, terminated, truncated, _ = env.step(action)
            seen.append(observation)
            rewards.append(reward)
        assert {x.dtype for x in seen} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(np.stack(seen), data.observations[first + i : end + i + 1].numpy())
        np.testing.assert_array_equal(np.array(rewards, np.float32), data.rewards[first:end].numpy())
        assert (terminated, truncated) == (bool(data.terminations[end - 1]), bool(data.truncations[end - 1]))
    limit = {"with a limit of its own": 30, "flattened": 20, "with arguments": 20}.get(name, 200)
    assert env.spec is not None
    assert env.spec.max_episode_steps == spec.max_steps == limit


def room_spec(**changes: Any) -> DataSpec:
    flat = {
        "type": "Dict",
        "subspaces": {
            "door": {"type": "Discrete", "n": 3, "start": 0},
            "at": {"type": "Box", "low": -np.inf, "high": np.inf, "shape": [2], "dtype": "float64"},
        },
    }
    values: dict[str, Any] = {
        "observation_space": spaces.Box(-np.inf, np.inf, (5,)),
        "action_space": spaces.Box(-1, 1, (2,)),
        "env_id": ROOM,
        "preprocess": {"flatten": flat},
    }
    return DataSpec(**{**values, **changes})


def test_n_environments_that_do_not_share_their_state() -> None:
    made = make(room_spec(), 3)
    assert len(made) == 3
    first = [env.reset(seed=seed)[0] for env, seed in zip(made, (1, 1, 2), strict=True)]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    made[0].step(np.ones(2, np.float32))
    again = made[1].step(np.zeros(2, np.float32))[0]
    np.testing.assert_array_equal(again, first[1])
    raw = gymnasium.make(ROOM)
    expected = utils.flatten(raw.observation_space, raw.reset(seed=1)[0]).astype(np.float32)
    np.testing.assert_array_equal(first[0], expected)
    assert first[0] in made[0].observation_space


def test_parts_come_in_the_order_of_the_data() -> None:
    flat = room_spec().preprocess["flatten"]
    turned = {**flat, "subspaces": dict(reversed(flat["subspaces"].items()))}
    ours, theirs = make(room_spec())[0], make(room_spec(preprocess={"flatten": turned}))[0]
    door_first, at_first = ours.reset(seed=0)[0], theirs.reset(seed=0)[0]
    np.testing.assert_array_equal(np.concatenate([door_first[3:], door_first[:3]]), at_first)


def test_observations_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that reuses its array does not change what was seen before."""
    memory = np.zeros(3, np.float32)
    monkeypatch.setattr("gymnasium.envs.classic_control.pendulum.PendulumEnv._get_obs", lambda self: memory)
    spec = DataSpec(spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,)), env_id="Pendulum-v1")
    seen, _ = make(spec)[0].reset()
    memory += 1
    assert seen.tolist() == [0, 0, 0]


def test_arguments_of_the_data_are_overruled_and_stay_with_its_environment() -> None:
    spec = room_spec(preprocess={**room_spec().preprocess, "env_kwargs": {"size": 2.0, "frame": "a"}})
    env = make(spec, kwargs={"size": 3.0})[0].unwrapped
    assert (env.size, env.frame) == (3.0, "a")  # type: ignore[attr-defined]
    other = "tests/OtherRoom-v0"
    gymnasium.register(other, "tests.rlutils.envs.test_gym:Room")
    try:
        env = make(spec, id=other)[0].unwrapped
        assert (env.size, env.frame) == (1.0, "image")  # type: ignore[attr-defined]
    finally:
        del gymnasium.registry[other]


BOX5, BOX2 = spaces.Box(-np.inf, np.inf, (5,)), spaces.Box(-1, 1, (2,))
FRAMES = spaces.Box(0, 255, (5, 5), np.uint8)
WRAPPER = {"name": "W", "entry_point": "gymnasium.wrappers:NormalizeObservation", "kwargs": None}
MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown": ({}, {"id": "tests/Roam-v0"}, "there is no environment 'tests/Roam-v0'. Did you mean 'tests/Room-v0'"),
    "unknown namespace": ({}, {"id": "nowhere/x-v0"}, "there is no environment 'nowhere/x-v0'"),
    "malformed": ({}, {"id": "a b"}, "a b.*Malformed environment ID"),
    "none": ({"env_id": None}, {}, r"does not say .* set `env: {name: gym, id: ...}`.*evaluation.episodes: 0"),
    "package": ({}, {"id": "no_such_thing:X-v0"}, "the module no_such_thing is not installed here"),
    "recorded package": ({"env_id": "x/Y-v0", "preprocess": {"env_module": "no_such_thing"}}, {}, "no_such_thing"),
    "atari": ({}, {"id": "ALE/Breakout-v5"}, r"pip install 'rlalgo\[atari\]'"),
    "argument": ({}, {"kwargs": {"color": 1}}, r"made with {'color': 1}: TypeError.*color"),
    "refusal": ({}, {"kwargs": {"size": 13}}, "RuntimeError: no room of this size"),
    "observations": ({"observation_space": spaces.Box(-1, 1, (4,))}, {}, r"observations are Dict.*the data's are Dict"),
    "plain data": ({"preprocess": {}, "observation_space": spaces.Box(-1, 1, (4,))}, {}, "are Dict.* are Box of 4 "),
    "no dict": ({}, {"id": "Pendulum-v1"}, "observations are Box of 3 .*the data's are Dict"),
    "images": (
        {"preprocess": {}, "observation_space": FRAMES, "env_id": "CartPole-v1"}, {}, "are Box.*the data's are Box"
    ),
    "number of actions": ({"action_space": spaces.Box(-1, 1, (3,))}, {}, "actions are Box of 2 .* are Box of 3 "),
    "range of actions": ({"action_space": spaces.Box(-2, 2, (2,))}, {}, "actions are .*, -1 to 1.* are .*, -2 to 2"),
    "kind of actions": ({"action_space": spaces.Discrete(2)}, {}, r"actions are Box.*the data's are Discrete\(2\)"),
    "wrapper": (
        {"preprocess": {"env_wrappers": [{"name": "W", "entry_point": "os:getcwd", "kwargs": {}}]}}, {},
        "os:getcwd, which is no gymnasium.Wrapper",
    ),
    "wrapper's arguments": ({"preprocess": {"env_wrappers": [WRAPPER]}}, {}, "W did not record its arguments"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_cannot_be_made_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)  # as if it were not installed
    monkeypatch.delitem(gymnasium.registry, "ALE/Breakout-v5", raising=False)
    changes, options, message = MISFITS[name]
    with pytest.raises(EnvironmentFault, match=f"(?s){message}"):
        make(room_spec(**changes), 2, **options)


def test_every_environment_is_closed_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "closed", 0)
    monkeypatch.setattr(Room, "made", 0)
    whole = Room.__init__

    def third_time(self: Room, **kwargs: Any) -> None:
        whole(self, **{**kwargs, "size": 13 if Room.made == 2 else 1.0})

    monkeypatch.setattr(Room, "__init__", third_time)
    with pytest.raises(EnvironmentFault, match="no room"):
        make(room_spec(), 5)
    assert (Room.made, Room.closed) == (3, 2)
    monkeypatch.setattr(Room, "__init__", whole)
    with pytest.raises(EnvironmentFault, match="does not fit"):
        make(room_spec(action_space=spaces.Discrete(2)), 5)
    assert Room.closed == 3


def test_rendering_is_tried_at_once() -> None:
    assert make(room_spec(), 1, "rgb_array")[0].render().shape == (4, 6, 3)  # type: ignore[union-attr]
    make(room_spec(preprocess={**room_spec().preprocess, "env_kwargs": {"frame": "nothing"}}))
    for frame, message in (
        ("nothing", r"tests/Room-v0 renders str, expected an array \(H, W, 3\)"),
        (gymnasium.error.DependencyNotInstalled("pip install pygame"), "cannot be rendered: .*pip install pygame"),
        (RuntimeError("no colors."), "cannot be rendered: RuntimeError: no colors$"),
    ):
        kwargs = {**room_spec().preprocess, "env_kwargs": {"frame": frame}}
        with pytest.raises(EnvironmentFault, match=message):
            make(room_spec(preprocess=kwargs), 1, "rgb_array")


HOPPER = DataSpec(spaces.Box(-np.inf, np.inf, (11,)), spaces.Box(-1, 1, (3,)), env_id="Hopper-v5")


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    if not sys.platform.startswith("linux"):
        pytest.skip("elsewhere MuJoCo finds the system's own renderer")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_mujoco_without_a_library_to_draw_with(headless: pytest.MonkeyPatch) -> None:
    headless.setattr(rendering, "_loads", lambda library: False)
    assert make(HOPPER)[0].reset(seed=0)[0].dtype == np.float32  # to play needs none
    with pytest.raises(EnvironmentFault, match=r"libEGL.so.1 is not installed. .*apt-get install libegl1.*MUJOCO_GL="):
        make(HOPPER, 1, "rgb_array")


def test_mujoco_told_to_open_a_window(headless: pytest.MonkeyPatch) -> None:
    make(HOPPER)  # imports MuJoCo before the variable is set, which it would read
    headless.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(EnvironmentFault, match=r"MUJOCO_GL=glfw needs a screen.*apt-get"):
        make(HOPPER, 1, "rgb_array")


def test_mujoco_whose_driver_fails(headless: pytest.MonkeyPatch) -> None:
    """The library is there but there is no device: what it raises then is passed on with advice."""

    class Context:
        def __init__(self, width: int, height: int) -> None:
            raise ImportError("Cannot initialize a EGL device display.")

    headless.setattr(rendering, "_loads", lambda library: True)
    headless.setitem(sys.modules, "mujoco.egl", type("module", (), {"GLContext": Context}))
    with pytest.raises(EnvironmentFault, match=r"Cannot initialize a EGL device display\. Without .*MUJOCO_GL=osmesa"):
        make(HOPPER, 1, "rgb_array")


def test_a_variable_that_stops_mujoco_is_named() -> None:
    """In a process of its own: MuJoCo reads the variable once, when it is imported."""
    code = "from tests.rlutils.envs.test_gym import HOPPER, make; make(HOPPER)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MUJOCO_GL": "crayons"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "EnvironmentFault" in done.stderr
    assert "MUJOCO_GL=crayons stops MuJoCo" in done.stderr
    assert "unset it unless you render" in done.stderr


def test_mujoco_draws(headless: pytest.MonkeyPatch) -> None:
    if not rendering._loads("libEGL.so.1"):
        pytest.skip("there is no EGL here")
    headless.setenv("MUJOCO_GL", "")  # so that what is set in its place is undone
    try:
        env = make(HOPPER, 1, "rgb_array")[0]
    except EnvironmentFault as fault:
        pytest.skip(f"EGL is here but does not work: {fault}")
    renderer: Any = env.unwrapped.mujoco_renderer  # type: ignore[attr-defined]
    assert renderer.model.camera(renderer.camera_id).name == "track"  # or the hopper soon leaves the picture
    first = env.render()
    for _ in range(30):
        env.step(np.ones(3, np.float32))
    assert isinstance(first, np.ndarray)
    assert first.std() > 10  # something is drawn, and it moves
    assert (first != env.render()).any()
    env.close()


def test_mujoco_says_a_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it stands
    cheetah = DataSpec(spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1, 1, (6,)), env_id="HalfCheetah-v5")
    make(cheetah, 4)
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("WARNING") <= 1
