"""A trained policy plays in environments of its data's kind; others are refused, and `rlutils.prepare` mends them."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
from rlalgo import BatchRLAlgo, Controller, DataSpec, Policy, rollout
from rlalgo.batchrl.dt import DecisionTransformer, dt_play
from rlalgo.core.policy import FrameStack
from rlalgo.core.spaces import to_mapping
from rlalgo.errors import DataError, EnvironmentFault
from rlutils.data.images import Images
from rlutils.data.preparation import Preparation
from tests.rlutils.runs import PLUGIN, toy_config


class Drawn(gymnasium.Env):
    """Observations drawn from its space; ends after 4 steps."""

    def __init__(self, observed: spaces.Space, acted: spaces.Space | None = None) -> None:
        self.observation_space, self.action_space = observed, acted or spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.observation_space.seed(seed)
        self.left = 4
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.left -= 1
        return self.observation_space.sample(), 1.0, False, self.left == 0, {}


COLOR = spaces.Box(0, 255, (12, 10, 3), np.uint8)
VECTORS = spaces.Dict(place=spaces.Box(-1, 1, (2,), np.float64), kind=spaces.Discrete(3), flags=spaces.MultiBinary(2))
KINDS: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "channels last": (COLOR, {}),
    "gray": (COLOR, {"gray": True}),
    "smaller": (COLOR, {"size": (6, 6)}),
    "dict": (VECTORS, {}),
    "tuple": (spaces.Tuple(VECTORS.values()), {}),
    "discrete": (spaces.Discrete(4, start=-1), {}),
    "number": (spaces.Box(-1, 1, (), np.float32), {}),
    "bytes": (spaces.Box(0, 255, (7,), np.uint8), {}),
}


def spec_of(raw: spaces.Space, gray: bool = False, size: tuple[int, int] | None = None, stack: int = 1) -> DataSpec:
    """What a source makes of it."""
    done = Preparation(raw, Images(gray=gray, size=size))
    return DataSpec(done.space, spaces.Discrete(3), stack, max_steps=9, preprocess=done.record)


def dt(spec: DataSpec) -> BatchRLAlgo:
    """As if it were trained."""
    torch.manual_seed(0)
    algo = DecisionTransformer(spec, DecisionTransformer.Config(context_length=2, embed_dim=8, n_layers=1))
    algo.load_state_dict(algo.state_dict())
    return algo


REFUSED = r"environment Drawn: its observations are .*; the policy's are .*: play in rlutils\.prepare\(env,"


@pytest.mark.filterwarnings("error")  # an end of its own is no cut
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("what", KINDS)
def test_raw_environments_are_refused_and_prepared_ones_play(what: str, stack: int) -> None:
    raw, options = KINDS[what]
    algo = dt(spec_of(raw, stack=stack, **options))
    prepared, policy = rlutils.prepare(Drawn(raw), algo.spec), algo.policy([algo.PolicyConfig(target_return=1.0)] * 2)
    with pytest.raises(EnvironmentFault, match=REFUSED) as caught:
        dt_play(Drawn(raw), algo, 1.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(EnvironmentFault, match=REFUSED):  # whichever of them it is
        rollout(policy, [prepared, Drawn(raw)], 2, 0)
    played = dt_play(prepared, algo, 1.0, episodes=2)
    assert played.lengths().tolist() == [4, 4]
    assert played.observations.shape[1:] == algo.spec.observation_space.shape


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", KINDS)
def test_a_controller_refuses_raw_observations(what: str) -> None:
    raw, options = KINDS[what]
    algo = dt(spec_of(raw, **options))
    controller = Controller(algo.policy([algo.PolicyConfig(target_return=1.0)]))
    controller.reset()
    seen, _ = Drawn(raw).reset(seed=0)
    with pytest.raises(
        DataError, match=r"the policy got observations .*; its data's are of shape .*rlutils\.prepare\("
    ):
        controller.act(seen)
    prepared = rlutils.prepare(Drawn(raw), algo.spec)
    controller.act(prepared.reset(seed=0)[0])  # and has not been disturbed
    assert dt_play(prepared, algo, 1.0, episodes=1, seed=0).actions[0] == first(algo, prepared, np.float64)


def first(algo: BatchRLAlgo, prepared: gymnasium.Env, kind: Any) -> int:
    """The first action where vectors come in another precision."""
    controller = Controller(algo.policy([algo.PolicyConfig(target_return=1.0)]))
    controller.reset()
    seen = prepared.reset(seed=0)[0]
    return controller.act(seen if seen.dtype == np.uint8 else seen.astype(kind))


class Seeing(Policy):
    """Of data that no encoder here takes."""

    def __init__(self, spec: DataSpec) -> None:
        self.options, self.spec = [None], spec
        self.stack = FrameStack(spec, 1, torch.device("cpu"))

    def act(self, observations: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        assert self.stack.push(observations, rows).dtype == torch.uint8
        return torch.zeros(len(rows), dtype=torch.int64)


def test_images_and_vectors_together_are_packed() -> None:
    raw = spaces.Dict(eye=COLOR, place=spaces.Box(-1, 1, (2,), np.float64))
    policy = Seeing(spec_of(raw))
    with pytest.raises(
        EnvironmentFault, match=r"its observations are Dict.*; the policy's are Dict.*: play in rlutils\.prep"
    ):
        rollout(policy, [Drawn(raw)], 1, 0)
    with pytest.raises(DataError, match=r"the policy got observations .*prepare"):
        Controller(policy).act(Drawn(raw).reset(seed=0)[0])  # type: ignore[arg-type]
    assert len(rollout(policy, [rlutils.prepare(Drawn(raw), policy.spec)], 2, 0)) == 2


def test_frames_of_the_right_shape_have_to_be_bytes() -> None:
    algo = dt(spec_of(COLOR, gray=True))
    shape = algo.spec.observation_space.shape
    with pytest.raises(
        DataError, match=r"of shape \(12, 10\), torch.float32; its data's are of shape \(12, 10\), torch"
    ):
        Controller(algo.policy([algo.PolicyConfig()])).act(np.zeros(shape, np.float32))
    with pytest.raises(
        EnvironmentFault, match="its observations are Box of 12x10 float32, 0 to 1; the policy's are Box"
    ):
        dt_play(Drawn(spaces.Box(0, 1, shape, np.float32)), algo, 1.0)


UNIT = spaces.Box(-1, 1, (2,), np.float32)


def test_so_are_raw_ones_where_the_datas_were_flattened() -> None:
    raw = spaces.MultiDiscrete([2, 3])
    algo = dt(DataSpec(UNIT, spaces.Discrete(6), max_steps=9, preprocess={"actions": to_mapping(raw)}))
    with pytest.raises(
        EnvironmentFault, match=r"its actions are MultiDiscrete\(\[2 3\]\); the policy's are Discrete\(6\)"
    ):
        dt_play(Drawn(UNIT, raw), algo, 1.0)
    assert len(dt_play(rlutils.prepare(Drawn(UNIT, raw), algo.spec), algo, 1.0, episodes=2)) == 2


@pytest.mark.parametrize(
    "other",
    [spaces.Discrete(2), spaces.Box(-1, 1, (3,)), spaces.Box(0, 1, (2,)), spaces.Box(-np.inf, np.inf, (2,))],
)
def test_other_actions_are_refused(other: spaces.Space) -> None:
    algo = dt(DataSpec(UNIT, UNIT, max_steps=9))
    with pytest.raises(
        EnvironmentFault, match=r"its actions are .*; the policy's are Box of 2 float32, -1 to 1: play in"
    ):
        dt_play(Drawn(UNIT, other), algo, 1.0)
    precise = spaces.Box(-1, 1, (2,), np.float64)
    assert len(dt_play(Drawn(precise, precise), algo, 1.0, episodes=2)) == 2


def test_prepared_environments_end_where_the_data_does() -> None:
    algo = dt(DataSpec(UNIT, UNIT, max_steps=3))
    with pytest.warns(UserWarning, match="has no time limit"):
        assert dt_play(rlutils.prepare(Drawn(UNIT, UNIT), algo.spec), algo, 1.0, episodes=1).lengths().tolist() == [3]


def test_a_maker_of_raw_environments_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = rlutils.catalogue([PLUGIN]).get("env", "toy").cls
    monkeypatch.setattr(toy, "make", lambda self, spec, n: [Drawn(COLOR, spec.action_space) for _ in range(n)])
    with pytest.raises(EnvironmentFault, match=r"^environment Drawn: its observations are Box of 12x10x3 uint8"):
        rlutils.train(toy_config("bc"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
