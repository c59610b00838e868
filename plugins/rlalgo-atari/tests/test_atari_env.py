"""The environment maker `atari` against Gymnasium's own wrappers put together by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import rlutils
import torch
from dopamine_buffer import Buffer, Step, assert_same, expected
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from rlalgo import DataSpec
from rlalgo.core.policy import FrameStack
from rlalgo.errors import EnvironmentFault
from rlutils.envs.gym import GymEnv

from rlalgo_atari import Atari, DQNReplay, preprocessing

WRAPPER = "gymnasium.wrappers.atari_preprocessing:AtariPreprocessing"


def spec(shape: tuple[int, ...] = (84, 84), actions: int = 4, **options: Any) -> DataSpec:
    return DataSpec(spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(actions), **options)


def one(wanted: DataSpec | None = None, **options: Any) -> gymnasium.Env:
    options = {"id": "Breakout", **options}
    (env,) = Atari(Atari.Config(**options)).make(wanted or spec(), 1)
    return env


def by_hand(sticky: float = 0.25, noop_max: int = 0, frame_skip: int = 4, **options: Any) -> gymnasium.Env:
    env = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=sticky)
    return AtariPreprocessing(env, noop_max=noop_max, frame_skip=frame_skip, **options)


def play(env: gymnasium.Env, actions: list[int], seed: int = 3) -> tuple[list[np.ndarray], list[float]]:
    """All frames (one more than actions, at most) and rewards."""
    frames, rewards = [np.array(env.reset(seed=seed)[0])], []
    for action in actions:
        frame, reward, terminated, truncated, _ = env.step(action)
        frames.append(np.array(frame))
        rewards.append(float(reward))
        if terminated or truncated:
            break
    return frames, rewards


def how(env: gymnasium.Env) -> tuple[float, int, int, int]:
    """(sticky, noop_max, frame_skip, max_frames) of an environment, which is closed."""
    wrapper: Any = env
    while not isinstance(wrapper, AtariPreprocessing):
        wrapper = wrapper.env
    ale = wrapper.ale
    env.close()
    sticky = round(ale.getFloat("repeat_action_probability"), 6)
    return sticky, wrapper.noop_max, wrapper.frame_skip, ale.getInt("max_num_frames_per_episode")


def same(a: tuple[list, list], b: tuple[list, list]) -> bool:
    return a[1] == b[1] and len(a[0]) == len(b[0]) and all(map(np.array_equal, a[0], b[0]))


ACTIONS = [1, *np.random.default_rng(0).integers(4, size=90).tolist()]


@pytest.mark.parametrize(
    "options",
    [{}, {"sticky": 0.0, "noop_max": 30}, {"frame_skip": 1, "sticky": 0.5}],
)
def test_plays_as_the_wrappers_put_together_by_hand(options: dict[str, Any]) -> None:
    frames, rewards = play(one(**options), ACTIONS)
    assert frames[0].dtype == np.uint8
    assert any(not np.array_equal(a, b) for a, b in pairwise(frames)), "something moves"
    assert same((frames, rewards), play(by_hand(**options), ACTIONS))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((96, 80), {"screen_size": (80, 96)}),
        ((84, 84, 1), {"grayscale_newaxis": True}),
        ((84, 84, 3), {"grayscale_obs": False}),
    ],
)
def test_frames_have_the_shape_of_the_datas(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    frames = play(one(spec(shape)), ACTIONS[:20])
    assert frames[0][0].shape == shape
    assert same(frames, play(by_hand(**options), ACTIONS[:20]))


def test_sticky_actions_are_random_and_can_be_switched_off() -> None:
    for sticky, alike in ((0.0, True), (None, False)):
        env = one(sticky=sticky)
        assert same(play(env, ACTIONS, seed=0), play(env, ACTIONS, seed=1)) == alike


def test_options_reach_the_game() -> None:
    env = one(frame_skip=3, max_frames=30)
    env.reset(seed=0)
    counted, truncated = [], False
    while not truncated:
        _, _, _, truncated, info = env.step(0)
        counted.append(info["episode_frame_number"])
    env.close()
    assert counted == list(range(3, 31, 3))
    full = one(spec(actions=18), full_action_space=True)
    assert full.action_space == spaces.Discrete(18)
    full.close()


def test_the_datas_own_record_counts_unless_it_is_overridden() -> None:
    assert how(one()) == (0.25, 0, 4, 108_000)
    recorded = preprocessing(sticky=0.0, noop_max=30, frame_skip=3, max_frames=5000)
    own = spec(env_id="ALE/Breakout-v5", preprocess=recorded)
    assert how(one(own, id=None)) == (0.0, 30, 3, 5000)
    assert how(one(own, id=None, sticky=0.5, frame_skip=2)) == (0.5, 30, 2, 5000)
    assert how(one(own, noop_max=0, max_frames=99)) == (0.0, 0, 3, 99)
    another = replace(
        own, env_id="ALE/Pong-v5", preprocess={**recorded, "env_kwargs": {"game": "pong", "frameskip": 1}}
    )
    assert how(one(another))[1:3] == (30, 3), "another game is played as this one was recorded"
    assert one(another).unwrapped.spec.id == "ALE/Breakout-v5"
    prepared = replace(own, preprocess={"images": {"channels_last": True, "gray": True, "size": [84, 84]}})
    with pytest.raises(EnvironmentFault, match=r"prepared by the source: leave `env` out"):
        one(prepared)
    bare = replace(own, preprocess={"env_kwargs": {"frameskip": 4}, "env_module": "ale_py"})
    assert how(one(bare)) == (0.25, 0, 4, 108_000), "nor one without the usual preprocessing"
    assert recorded == preprocessing(sticky=0.0, noop_max=30, frame_skip=3, max_frames=5000), "it stays as it was"


def test_the_gym_maker_reads_the_record_too() -> None:
    own = spec(env_id="ALE/Breakout-v5", preprocess=preprocessing(sticky=0.5, noop_max=7, frame_skip=2, max_frames=99))
    (env,) = GymEnv(GymEnv.Config()).make(own, 1)
    assert how(env) == (0.5, 7, 2, 99)


def test_evaluation_is_over_full_episodes_with_raw_rewards() -> None:
    """Whatever the data was recorded with: it ends at the last life, and points are points."""
    recorded = preprocessing()
    recorded["env_wrappers"][0]["kwargs"]["terminal_on_life_loss"] = True
    clip = {"name": "ClipReward", "entry_point": "gymnasium.wrappers:ClipReward", "kwargs": {"max_reward": 1.0}}
    recorded["env_wrappers"].append(clip)
    own = spec(actions=6, env_id="ALE/SpaceInvaders-v5", preprocess=recorded)
    env = one(own, id=None)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    lives, rewards, ended = [], [], False
    while not ended:
        _, reward, ended, truncated, info = env.step(int(rng.integers(6)))
        assert not truncated
        lives.append(info["lives"])
        rewards.append(reward)
    env.close()
    assert sorted(set(lives)) == [0, 1, 2, 3]
    assert max(rewards) >= 5, "an invader is worth 5 points or more"


def test_frames_are_single_and_stacked_by_the_policy() -> None:
    stacked = spec(frame_stack=4)
    env, reference = one(stacked), FrameStackObservation(by_hand(), 4, padding_type="reset")
    assert env.observation_space.shape == (84, 84)
    stack, row = FrameStack(stacked, 1, torch.device("cpu")), torch.zeros(1, dtype=torch.int64)
    for seed in (0, 1):  # the second episode must not see the first
        stack.reset(row)
        observation, wanted = env.reset(seed=seed)[0], reference.reset(seed=seed)[0]
        for action in ACTIONS[:30]:
            seen = stack.push(torch.from_numpy(observation)[None], row)
            assert seen.shape[1:] == stacked.encoder_space().shape == reference.observation_space.shape
            assert np.array_equal(seen[0].numpy(), wanted)
            observation, wanted = env.step(action)[0], reference.step(action)[0]
    env.close()
    reference.close()


def test_an_episode_survives_the_way_through_the_files(tmp_path: Path) -> None:
    env, buffer, rng = one(max_frames=600), Buffer(230, (84, 84)), np.random.default_rng(0)
    for episode in range(2):
        frame, t, ended = env.reset(seed=episode)[0], 0, False
        while not ended:
            action = int(rng.integers(4)) if t else 1
            after, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            buffer.add(Step(episode, frame, action, float(np.sign(reward)), ended, t == 0))
            frame, t = after, t + 1
    env.close()
    assert buffer.count > 230, "the buffer has wrapped"
    window = buffer.save(tmp_path, 0)
    wanted = expected(buffer.history, [window])
    assert len(wanted) == 2
    assert any(step.reward for step in wanted[1])
    assert_same(DQNReplay(DQNReplay.Config(path=tmp_path, game="Breakout")).load(), wanted)


def test_several_are_made_and_one_can_be_filmed() -> None:
    envs = Atari(Atari.Config(id="Pong")).make(spec(actions=6), 2, render_mode="rgb_array")
    assert len(envs) == 2
    for env in envs:
        env.reset(seed=0)
        assert env.render().shape == (210, 160, 3)
        env.close()


def test_faults_are_told() -> None:
    def fault(message: str, wanted: DataSpec, **options: Any) -> None:
        with pytest.raises(EnvironmentFault, match=message):
            Atari(Atari.Config(**options)).make(wanted, 1)

    fault("does not say which game .*env: {name: atari, id: Breakout}", spec())
    fault("no environment 'ALE/Brekout-v5'. Did you mean 'ALE/Breakout-v5'", spec(), id="Brekout")
    fault(r"shape \(4, 84, 84\), which Atari's preprocessing cannot give", spec((4, 84, 84)), id="Breakout")
    fault(r"its actions are Discrete\(6\), the data's are Discrete\(4\)", spec(), id="Pong")
    fault(r"its actions are Discrete\(18\)", spec(), id="Breakout", full_action_space=True)


def test_a_full_id_is_taken_as_it_is() -> None:
    env = one(id="BreakoutNoFrameskip-v4")
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.25, "the default, not the id's"
    env.close()


def test_the_catalogue_has_both() -> None:
    known = rlutils.catalogue(plugins=("rlalgo_atari",))
    for kind, name, cls in (("env", "atari", Atari), ("source", "dqn_replay", DQNReplay)):
        entry = known.get(kind, name)
        assert entry.cls is cls
        assert entry.owner.plugin == "rlalgo_atari"


def test_a_run_by_name_from_files_to_evaluation(tmp_path: Path) -> None:
    env, buffer, rng = one(), Buffer(120, (84, 84)), np.random.default_rng(0)
    frame = env.reset(seed=0)[0]
    for t in range(100):
        action = int(rng.integers(4))
        after, reward, *_ = env.step(action)
        buffer.add(Step(0, frame, action, float(reward), t == 99, t == 0))
        frame = after
    env.close()
    buffer.save(tmp_path / "logs", 0)
    config = {
        "source": {"name": "dqn_replay", "path": str(tmp_path / "logs"), "game": "Breakout"},
        "algo": {"name": "bc", "hidden_dims": [8]},
        "trainer": {"name": "offline", "steps": 2, "batch_size": 4},
        "env": {"name": "atari", "max_frames": 80},
        "evaluation": {"every": 2, "episodes": 1},
        "callbacks": [],
    }
    run = rlutils.train(config, tmp_path / "run", plugins=("rlalgo_atari",))
    assert rlutils.load(run.folder, plugins=("rlalgo_atari",)).spec.frame_stack == 4
    result = rlutils.evaluate(run.folder, plugins=("rlalgo_atari",))
    assert result.policies[0].lengths == [20], "80 frames, of which each step takes 4"


def test_a_games_name_is_its_full_id() -> None:
    assert Atari.Config("Breakout") == Atari.Config("ALE/Breakout-v5")
    assert Atari.Config("BreakoutNoFrameskip-v4").id == "BreakoutNoFrameskip-v4"
    assert Atari.Config().id is None
