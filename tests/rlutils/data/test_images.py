"""Images: what a source does to frames, the environment does too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

import rlutils
from rlalgo.core.episodes import Episodes
from rlalgo.errors import DataError
from rlutils.data.images import Images
from rlutils.data.minari_source import MinariSource
from rlutils.envs.gym import GymEnv
from tests.rlutils.minari_data import write_dataset

COLOR = spaces.Box(0, 255, (6, 8, 3), np.uint8)


class Colors(gymnasium.Env):
    """Frames (6, 8, 3) of random colors, five of them; the reward is 3."""

    observation_space = COLOR
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self._look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        return self._look(), 3.0, self.time == 5, False, {}

    def _look(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape, np.uint8)


class Gray(Colors):
    """The same without colors."""

    observation_space = spaces.Box(0, 255, (6, 8), np.uint8)


gymnasium.register("test/Colors-v0", entry_point="tests.rlutils.data.test_images:Colors", max_episode_steps=50)
gymnasium.register("test/Gray-v0", entry_point="tests.rlutils.data.test_images:Gray", max_episode_steps=50)


def record(root: Path, name: str) -> list[np.ndarray]:
    """Writes toy/NAME-v0, two episodes of test/NAME-v0 (seeds 0 and 1); their frames as the environment gave them."""
    env = gymnasium.make(f"test/{name}-v0")
    buffers, frames = [], []
    for seed in range(2):
        seen = [env.reset(seed=seed)[0]] + [env.step(0)[0] for _ in range(5)]
        frames.append(np.stack(seen))
        ends = np.arange(5) == 4
        buffers.append(
            EpisodeBuffer(
                id=seed, seed=seed, observations=frames[-1], actions=np.zeros(5, np.int64), rewards=np.full(5, 3.0),
                terminations=ends, truncations=np.zeros(5, bool), infos=None,
            )
        )  # fmt: skip
    write_dataset(
        root, f"toy/{name.lower()}-v0", buffers=buffers, observation_space=env.observation_space,
        action_space=env.action_space, env=env, jpeg_encoding=False,
    )  # fmt: skip
    return frames


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def load(ident: str, **options: Any) -> Episodes:
    return MinariSource(MinariSource.Config(ident, **options)).load()


def block_mean(frame: np.ndarray) -> np.ndarray:
    """(2h, 2w) -> (h, w) mean of blocks of 2 x 2."""
    h, w = frame.shape[0] // 2, frame.shape[1] // 2
    return frame.reshape(h, 2, w, 2).mean((1, 3))


@pytest.mark.parametrize("options", [{}, {"gray": True}, {"resize": (3, 4)}, {"gray": True, "resize": (3, 4)}], ids=str)
@pytest.mark.parametrize("name", ["Colors", "Gray"])
@pytest.mark.parametrize("mapped", [False, True])
def test_source_and_environment_do_the_same(root: Path, name: str, options: dict[str, Any], mapped: bool) -> None:
    frames = record(root, name)
    data = load(f"toy/{name.lower()}-v0", memory_map=mapped, **options)
    (env,) = GymEnv(GymEnv.Config()).make(data.spec, 1)
    for seed, truth in enumerate(frames):
        seen = np.stack([env.reset(seed=seed)[0]] + [env.step(0)[0] for _ in range(5)])
        stored = data.observations[seed * 6 : (seed + 1) * 6]
        assert torch.equal(torch.from_numpy(seen), stored)
        assert (seen[0].shape, seen.dtype) == (data.spec.observation_space.shape, np.uint8)
        assert env.observation_space == data.spec.observation_space

        wanted = truth if truth.ndim == 4 else truth[..., None]  # (T, H, W, C), by hand
        if options.get("gray") and name == "Colors":
            wanted = (wanted @ np.array([0.299, 0.587, 0.114]))[..., None]
        planes = wanted.astype(float).transpose(0, 3, 1, 2)  # (T, C, H, W)
        if "resize" in options:
            planes = np.stack([[block_mean(plane) for plane in frame] for frame in planes])
        got = stored.numpy() if stored.dim() == 4 else stored.numpy()[:, None]
        assert got.shape == planes.shape
        assert np.abs(got - planes).max() <= 1.51  # rounding: for gray, for rows and for columns


def test_an_environment_of_another_layout_is_prepared_by_its_own(root: Path) -> None:
    """Data in color, made gray; played in the same game without colors."""
    record(root, "Colors")
    data = load("toy/colors-v0", gray=True, resize=(3, 4))
    (env,) = GymEnv(GymEnv.Config("test/Gray-v0")).make(data.spec, 1)
    (plain,) = GymEnv(GymEnv.Config("test/Gray-v0")).make(replace(data.spec, observation_space=Gray.observation_space,
                                                                  preprocess={}), 1)  # fmt: skip
    frame = env.reset(seed=4)[0]
    assert frame.shape == (3, 4)
    assert np.abs(frame - block_mean(plain.reset(seed=4)[0].astype(float))).max() <= 1.01


def test_rewards_are_clipped_for_training_alone(root: Path) -> None:
    record(root, "Colors")
    data = load("toy/colors-v0", clip_rewards=True)
    assert data.rewards.tolist() == [1.0] * 10
    config = {
        "source": {"name": "minari", "id": "toy/colors-v0", "clip_rewards": True, "gray": True},
        "algo": {"name": "bc", "hidden_dims": [4]},
        "trainer": {"name": "offline", "steps": 1},
        "evaluation": {"episodes": 1},
        "callbacks": [],
    }
    run = rlutils.train(config, out=root / "run")
    assert json.loads((run.folder / "data.json").read_text())["returns"] == [15.0, 15.0]  # as what is played
    assert run.last_result is not None
    assert run.last_result.policies[0].returns == [15.0]
    (env,) = GymEnv(GymEnv.Config()).make(data.spec, 1)
    env.reset(seed=0)
    assert env.step(0)[1] == 3.0


@pytest.mark.parametrize(
    ("space", "options", "told"),
    [
        (spaces.Box(-1, 1, (3,)), {"gray": True}, "are for images"),
        (spaces.Box(0, 255, (6, 8, 2), np.uint8), {"gray": True}, "has 2"),
    ],
)
def test_what_cannot_be_done_is_refused(root: Path, space: spaces.Space, options: dict, told: str) -> None:
    write_dataset(root, "toy/other-v0", observation_space=space, jpeg_encoding=False)
    with pytest.raises(DataError, match=rf"minari:toy/other-v0: observation space: .*{told}"):
        load("toy/other-v0", **options)


def test_nothing_is_recorded_where_nothing_is_done() -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert Images.needed(space, gray=False, size=None) is None
    assert Images.needed(spaces.Box(0, 255, (84, 84), np.uint8), gray=True, size=(84, 84)) is None
    for shape, last in {(84, 84, 12): True, (4, 4, 3): True, (12, 84, 84): False, (3, 4, 4): False}.items():
        found = Images.needed(spaces.Box(0, 255, shape, np.uint8), gray=False, size=None)
        assert (found is not None) is last, shape
    found = Images.needed(spaces.Box(0, 255, (84, 84, 4), np.uint8), gray=False, size=(84, 84))
    assert found == Images(channels_last=True)
