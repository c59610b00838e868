"""Images and vectors together, and several choices at a time: from a file, in an environment, there and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.spaces import utils
from hypothesis import given
from hypothesis import strategies as st

from rlalgo import DataSpec
from rlalgo.core import stepping
from rlalgo.core.spaces import Packed, from_mapping
from rlalgo.errors import DataError, EnvironmentFault
from rlutils.data.minari_source import MinariSource
from rlutils.data.preparation import Preparation
from rlutils.data.spaces import MOST_ACTIONS, OutsideSpace, flatten_actions, leaves, stored_actions, unflatten_action
from rlutils.envs.gym import GymEnv, Prepared
from tests.rlutils.data.test_spaces import SPACES
from tests.rlutils.minari_data import ID, replace_column, stack, write_dataset

IMAGES = st.lists(st.integers(1, 4), min_size=2, max_size=3).map(
    lambda shape: spaces.Box(0, 255, tuple(shape), np.uint8)
)
MIXED = st.tuples(SPACES, IMAGES, st.booleans()).map(
    lambda drawn: spaces.Tuple(drawn[:2]) if drawn[2] else spaces.Dict(rest=drawn[0], eye=drawn[1])
)


@given(MIXED, st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_mixed_spaces_are_packed(space: Space, seed: int, n: int) -> None:
    """Each image as it is but for its channels, which come first, and everything else as Gymnasium's flat vector."""
    space.seed(seed)
    raw = [space.sample() for _ in range(n)]
    preparation = Preparation(space)
    stored = preparation.space
    assert isinstance(stored, Packed)
    rows = preparation(stack(space, raw))
    found = stored.unpack(torch.from_numpy(rows))
    for t, value in enumerate(raw):
        for name, part, wanted in leaves(space, value):
            got = found[name][t].numpy()
            if got.dtype == np.uint8:
                last = wanted.ndim == 3 and wanted.shape[2] < min(wanted.shape[:2])
                np.testing.assert_array_equal(got, wanted.transpose(2, 0, 1) if last else wanted)
            else:
                np.testing.assert_array_equal(got, np.asarray(utils.flatten(part, wanted), np.float32))
    assert preparation.record.keys() == {"flatten"}
    assert Preparation(from_mapping(preparation.record["flatten"])).space == stored


def test_two_parts_of_one_name_are_refused() -> None:
    image = spaces.Box(0, 255, (4, 4), np.uint8)
    with pytest.raises(TypeError, match=r"two parts of .* have one name"):
        Preparation(spaces.Dict([("a/b", image), ("a", spaces.Dict(b=image))]))


CHOICES = st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=6).flatmap(
        lambda sizes: st.lists(st.integers(-3, 3), min_size=len(sizes), max_size=len(sizes)).map(
            lambda start: spaces.MultiDiscrete(sizes, start=start)
        )
    ),
    st.just(spaces.MultiDiscrete([[2, 3], [4, 1]], start=[[0, -1], [5, 2]])),
    st.just(spaces.MultiDiscrete([3, 2], dtype=np.uint8)),
    st.lists(st.integers(1, 4), min_size=1, max_size=2).map(spaces.MultiBinary),
    st.integers(1, 20).map(spaces.MultiBinary),
)


@given(CHOICES, st.integers(0, 2**31 - 1))
def test_actions_there_and_back(space: Any, seed: int) -> None:
    space.seed(seed)
    raw = [space.sample() for _ in range(5)]
    stored = stored_actions(space)
    n = (
        math.prod(space.nvec.ravel().tolist())
        if isinstance(space, spaces.MultiDiscrete)
        else 2 ** math.prod(space.shape)
    )
    assert isinstance(stored, spaces.Discrete if n <= MOST_ACTIONS else spaces.MultiDiscrete)
    flat = flatten_actions(space, np.stack(raw))
    assert flat.dtype == np.int64
    for action, number in zip(raw, flat, strict=True):
        assert stored.contains(number)
        again = unflatten_action(space, number)
        assert np.array_equal(again, action)
        assert space.contains(again)
    if isinstance(stored, spaces.Discrete):  # every number is an action of its own
        everything = np.stack([unflatten_action(space, i) for i in range(int(stored.n))])
        assert flatten_actions(space, everything).tolist() == list(range(n))


def test_an_action_out_of_range_is_named_by_its_row() -> None:
    for space, actions in (
        (spaces.MultiDiscrete([2, 3]), [[1, 2], [0, 3]]),
        (spaces.MultiBinary(2), [[0, 1], [-1, 0]]),
    ):
        with pytest.raises(OutsideSpace) as caught:
            flatten_actions(space, np.array(actions))
        assert caught.value.row == 1


# --- from the file and in the environment ---

SEEN = spaces.Dict(
    [
        ("arm", spaces.Tuple([spaces.Box(-1, 1, (2, 2), np.float64), spaces.Discrete(3)])),
        ("eye", spaces.Box(0, 255, (6, 8, 3), np.uint8)),
    ]
)


class Mixed(gymnasium.Env):
    """Random observations of SEEN; the reward is what the action adds up to."""

    observation_space = SEEN

    def __init__(self, action_space: Space | None = None) -> None:
        self.action_space = action_space or spaces.MultiBinary(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), self.t == 4, False, {}


def loaded(**options: Any) -> Any:
    return MinariSource(MinariSource.Config(ID, **options)).load()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"gray": True, "resize": (3, 4)}], ids=str)
@pytest.mark.parametrize("mapped", [False, True])
def test_source_and_environment_pack_alike(root: Path, options: dict[str, Any], mapped: bool) -> None:
    actions = spaces.MultiDiscrete([3, 4], start=[-1, 2])
    buffers = write_dataset(root, observation_space=SEEN, action_space=actions, lengths=(4, 3))
    data = loaded(memory_map=mapped, **options)
    space = data.spec.observation_space
    assert isinstance(space, Packed)
    assert space.parts["eye"].shape == ((3, 4) if options else (3, 6, 8))
    assert data.spec.action_space == spaces.Discrete(12)
    env = Prepared(Mixed(actions), data.spec)
    assert (env.observation_space, env.action_space) == (space, spaces.Discrete(12))
    row = 0
    for buffer in buffers:
        for t in range(len(buffer) + 1):
            raw = {"arm": tuple(part[t] for part in buffer.observations["arm"]), "eye": buffer.observations["eye"][t]}
            np.testing.assert_array_equal(env.observation(raw), data.observations[row])
            row += 1
    flat = [env.raw_action(number) for number in data.actions.numpy()]
    np.testing.assert_array_equal(np.stack(flat), np.concatenate([buffer.actions for buffer in buffers]))
    first = env.reset(seed=3)[0]
    assert np.array_equal(first, env.reset(seed=3)[0])
    assert env.observation_space.contains(first)
    assert env.step(int(data.actions[0]))[1] == float(buffers[0].actions[0].sum())


class Broken(Mixed):
    """Its arm is nowhere after the first step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        observation, *rest = super().step(action)
        observation["arm"][0][0, 0] = np.nan
        return observation, *rest


def test_numbers_that_are_not_finite_are_told(root: Path) -> None:
    write_dataset(root, observation_space=SEEN, action_space=spaces.MultiBinary(3))
    env = Prepared(Broken(), loaded().spec)
    stepping.reset(env, 3)
    with pytest.raises(EnvironmentFault, match=r"episode of seed 3, step 0: the observation .* expected finite"):
        stepping.step(env, 5, seed=3, number=0)


@pytest.mark.parametrize("jpeg", [False, True])
def test_frames_among_vectors_may_be_stored_as_jpegs(root: Path, jpeg: bool) -> None:
    space = spaces.Dict(at=spaces.Box(-1, 1, (2,)), eye=spaces.Box(0, 255, (36, 32), np.uint8))
    write_dataset(root, observation_space=space, jpeg_encoding=jpeg)
    data = loaded()
    found = data.spec.observation_space.unpack(data.observations)
    truth = [episode.observations for episode in minari.load_dataset(ID)]
    np.testing.assert_array_equal(found["eye"], np.concatenate([part["eye"] for part in truth]))
    np.testing.assert_array_equal(found["at"], np.concatenate([part["at"] for part in truth]))


def test_more_choices_than_one_action_can_hold_stay_apart(root: Path) -> None:
    actions = spaces.MultiDiscrete([[50, 2], [9, 9]], start=[[1, 0], [0, -4]])
    (buffer,) = write_dataset(root, action_space=actions, lengths=(5,))
    data = loaded()
    assert data.spec.action_space == spaces.MultiDiscrete([50, 2, 9, 9])
    assert data.actions.tolist() == (buffer.actions - actions.start).reshape(5, 4).tolist()
    plain = spaces.MultiDiscrete([5000, 2])
    write_dataset(root, "toy/plain-v0", action_space=plain, lengths=(5,))
    spec = MinariSource(MinariSource.Config("toy/plain-v0")).load().spec
    assert spec.action_space == plain
    assert "actions" not in spec.preprocess


def test_an_action_outside_its_space_is_told_with_its_step(root: Path) -> None:
    write_dataset(root, action_space=spaces.MultiDiscrete([2, 3]), lengths=(2, 3))
    replace_column(root, "episode_1/actions", np.array([[0, 0], [1, 2], [1, 3]]))
    with pytest.raises(DataError, match=r"episode 1, step 2: actions: a value is outside MultiDiscrete\(\[2 3\]\)"):
        loaded()


def test_bytes_that_are_no_images_may_be_stored_as_they_are() -> None:
    env = Mixed(spaces.Discrete(2))
    env.observation_space = spaces.Box(0, 255, (128,), np.uint8)
    for dtype in (np.uint8, np.float32):
        space = spaces.Box(0, 255, (128,), dtype)
        first = Prepared(env, DataSpec(space, env.action_space)).reset(seed=0)[0]
        assert space.contains(first)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"flatten": {"type": "Text"}}, "flatten: no description of a space"),
        ({"images": {"size": [10**9, 2]}}, "images.size.0: Input should be less than"),
        ({"images": 3}, "images: "),
        ({"actions": []}, "actions: "),
        ({"env_kwargs": [1]}, "env_kwargs: "),
        ({"env_wrappers": {"a": 1}}, "env_wrappers: "),
        ({"env_module": 7}, "env_module: "),
    ],
)
def test_a_record_is_read_with_distrust(wrong: dict[str, Any], told: str) -> None:
    env = Mixed(spaces.Discrete(2))
    spec = DataSpec(Preparation(SEEN).space, env.action_space, env_id="CartPole-v1", preprocess=wrong)
    for use in (lambda: Prepared(env, spec), lambda: GymEnv(GymEnv.Config()).make(spec, 1)):
        with pytest.raises(DataError, match=f"preprocess of the data: {told}"):
            use()


def test_environments_that_do_not_fit_are_refused(root: Path) -> None:
    write_dataset(root, observation_space=SEEN, action_space=spaces.MultiDiscrete([3, 4]))
    spec = loaded().spec
    with pytest.raises(
        EnvironmentFault, match=r"its actions are MultiDiscrete\(\[2 6\]\), the data's are MultiDiscrete\(\[3 4"
    ):
        Prepared(Mixed(spaces.MultiDiscrete([2, 6])), spec)
    other = Mixed(spaces.MultiDiscrete([3, 4]))
    for eye in (spaces.Box(0, 255, (6, 9, 3), np.uint8), spaces.Box(0, 1, (6, 8, 3)), spaces.Box(-1, 1, (144,))):
        other.observation_space = spaces.Dict([("arm", SEEN["arm"]), ("eye", eye)])
        with pytest.raises(EnvironmentFault, match=r"observations are Dict\(arm.* the data's are Dict\(arm"):
            Prepared(other, spec)
