"""policy.py: alone with numpy and onnxruntime, through any episodes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rlalgo import BatchRLAlgo, Controller
from rlalgo.batchrl.bc import BC
from rlalgo.core.policy import Acting
from rlalgo.nets import ActorPolicy
from rlutils.data.images import Images
from rlutils.exporting.export import write_export
from rlutils.exporting.runtime import Policy, PolicyError
from tests.contract.setups import build, toy_episodes
from tests.rlutils.exporting.exports import CNN, RGB, trained

NUMBER = st.floats(-50, 50, width=32)
EPISODE = st.tuples(NUMBER, st.lists(st.tuples(st.tuples(NUMBER, NUMBER), NUMBER), min_size=1, max_size=16))


@settings(max_examples=40, deadline=None)
@given(episodes=st.lists(EPISODE, min_size=1, max_size=3))
def test_every_episode_goes_as_natively(episodes: list[Any], dt: BatchRLAlgo, dt_folder: Path) -> None:
    """Of any length: shorter than the context, longer than it and than the timestep table; one after another."""
    exported = Policy(dt_folder)
    for target, steps in episodes:
        native = Controller(dt.policy([dt.PolicyConfig(target_return=target)]))
        native.reset()
        exported.reset(target)
        reward = None
        for seen, reward_after in steps:
            observation = np.array(seen, np.float32)
            np.testing.assert_allclose(exported.act(observation, reward), native.act(observation), atol=1e-5)
            native.observe(reward_after)
            reward = reward_after


def test_rows_start_their_episodes_when_they_like(dt: BatchRLAlgo, dt_folder: Path) -> None:
    native, exported = dt.policy([dt.PolicyConfig(target_return=5.0)] * 3), Policy(dt_folder, rows=3)
    native.reset(torch.arange(3))
    rng, rewards = np.random.default_rng(0), np.zeros(3)
    for t in range(20):
        if t % 7 == 3:
            native.reset(torch.tensor([2, t % 2]))
            exported.reset(rows=[2, t % 2])
        observations = rng.normal(size=(3, 2)).astype(np.float32)
        own = native.act(torch.from_numpy(observations), torch.arange(3))
        np.testing.assert_allclose(exported.act(observations, rewards), own, atol=1e-5)
        rewards = rng.normal(size=3)
        native.observe(torch.from_numpy(rewards), torch.arange(3))
        if t % 7 == 2:
            rewards[[2, (t + 1) % 2]] = 1e9  # what was paid for an episode's last action says nothing to the next


class Counting(BC):
    """Acts by the number of its memory."""

    def policy(self, options: Any) -> Any:
        class Count(Acting):
            def forward(self, observations: Any, step: Any, left: Any, memory: Any) -> Any:
                return memory["count"] + 0 * observations, {"count": memory["count"] + 1}

        class Counted(ActorPolicy):
            def acting(self) -> Acting:
                return Count(self.algo, {"count": torch.zeros(2)})

        return Counted(self, options)


def test_memory_is_zero_when_an_episode_starts(tmp_path: Path) -> None:
    algo = Counting(toy_episodes("box").spec, BC.Config(hidden_dims=(8,)))
    algo.prepare(toy_episodes("box"), 10)
    policy = Policy(write_export(algo.eval(), algo.PolicyConfig(), tmp_path / "out", "torchscript"), rows=2)
    counts = []
    for t in range(4):
        if t == 2:
            policy.reset(rows=[1])
        counts.append(policy.act(np.zeros((2, 2)))[:, 0].tolist())
    assert counts == [[0, 0], [1, 1], [2, 0], [3, 1]]


def test_rows_are_named_as_numpy_does(dt_folder: Path) -> None:
    policy = Policy(dt_folder, rows=3)
    for rows in ((0, 2), [0, 2], np.array([0, 2]), np.array([True, False, True]), iter([0, 2])):
        policy.act(np.ones((3, 2)), 1.0)
        policy.reset(rows=rows)  # type: ignore[arg-type]
        assert policy.step.tolist()[::2] == [0, 0]
        assert policy.step[1] > 0
        policy.act(np.ones((3, 2)), [np.nan, 1.0, None])  # nothing was paid to the rows that start
    policy.reset(rows=[])
    assert policy.step.all()
    for nonsense in ([3], 1, [0.5], ["a"]):
        with pytest.raises(PolicyError, match=r"rows .*: expected a list of numbers from 0 to 2"):
            policy.reset(rows=nonsense)  # type: ignore[arg-type]


def test_what_runs_the_graph_is_asked_for_where_it_is_missing(bc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"policy\.onnx: .*; pip install onnxruntime$"):
        Policy(bc_folder)


def test_a_delayed_policy_needs_no_rewards(tmp_path: Path) -> None:
    algo = build("dt", "discrete", delayed=True).train(3).eval()
    exported = Policy(write_export(algo, algo.PolicyConfig(target_return=3.0), tmp_path / "out", "torchscript"))
    native = Controller(algo.policy([algo.PolicyConfig(target_return=3.0)]))
    native.reset()
    for t in range(9):
        seen = np.array([t / 9, -t], np.float32)
        assert exported.act(seen) == native.act(seen)
        native.observe(1.0)


ALONE = """
import sys
BLOCKED = ("torch", "rlalgo", "rlutils", "gymnasium", "onnx", "onnxscript", "pydantic", "scipy", "PIL", "yaml")
sys.modules.update(dict.fromkeys(BLOCKED))
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from policy import Policy
policy, found = Policy(sys.argv[1]), []
for t in range(9):
    found.append(policy.act(np.array([t / 9, 1.0]), reward=None if t == 0 else 0.5).tolist())
print(json.dumps(found))
"""


def test_it_plays_where_there_is_no_rlalgo_and_no_torch(dt: BatchRLAlgo, dt_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ALONE, str(dt_folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    native = Controller(dt.policy([dt.PolicyConfig(target_return=5.0)]))
    native.reset()
    for t, action in enumerate(json.loads(done.stdout)):
        np.testing.assert_allclose(action, native.act(np.array([t / 9, 1.0], np.float32)), atol=1e-5)
        native.observe(0.5)


GOOD = np.array([0.5, -0.5])


@pytest.mark.parametrize(
    ("observation", "reward", "message"),
    [
        (np.zeros(3), 0.0, r"observation: got float64 of shape \[3\]; expected float32 of shape \[2\]"),
        (np.zeros((1, 2)), 0.0, r"got float64 of shape \[1, 2\]"),
        (1.0, 0.0, r"of shape \[\]"),
        (np.array(["a", "b"]), 0.0, "got <U1"),
        (np.array([0.5, None]), 0.0, "got object"),
        ({"x": GOOD}, 0.0, "got object"),
        ([[1.0], [2.0, 3.0]], 0.0, "is not in what was given"),
        (np.array([0.5, np.nan]), 0.0, "NaN or infinity"),
        (np.array([0.5, 1e300]), 0.0, "NaN or infinity"),
        (GOOD, np.nan, "reward nan: expected a finite number"),
        (GOOD, None, "needs the reward of its last action"),
        (GOOD, [1.0, 2.0], "expected a finite number"),
        (GOOD, np.ones((3, 1)), "expected a finite number"),
        (GOOD, "high", "reward high: expected a finite number"),
        (GOOD, 1e39, r"reward 1e\+39: expected a finite number"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line_and_changes_nothing(
    observation: Any, reward: Any, message: str, dt_folder: Path
) -> None:
    policy, other = Policy(dt_folder), Policy(dt_folder)
    for player in (policy, other):
        player.act(GOOD)
    with pytest.raises(PolicyError, match=message) as caught:
        policy.act(observation, reward)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(policy.act(GOOD, 1.0), other.act(GOOD, 1.0))


def test_returns_to_ask_for(bc_folder: Path, dt_folder: Path) -> None:
    with pytest.raises(PolicyError, match="asks for no return"):
        Policy(bc_folder).reset(3.0)
    with pytest.raises(PolicyError, match="expected a finite number"):
        Policy(dt_folder).reset(float("nan"))
    with pytest.raises(PolicyError, match="target_return high: expected a finite number"):
        Policy(dt_folder).reset("high")
    with pytest.raises(PolicyError, match=r"target_return \[1, 2\]: expected a finite number for each row"):
        Policy(dt_folder, rows=3).reset([1, 2])
    assert isinstance(Policy(bc_folder).act(GOOD), int)
    assert Policy(bc_folder, rows=4).act(np.zeros((4, 2))).shape == (4,)


def test_parts_of_dicts_are_found_and_their_choices_checked(tmp_path: Path) -> None:
    raw = spaces.Dict(a=spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,), np.float32)]))
    algo = trained("bc", raw, spaces.Discrete(2), hidden_dims=[8])
    policy = Policy(write_export(algo, algo.PolicyConfig(), tmp_path / "out", "torchscript"))
    assert policy.act({"a": (np.int64(3), np.zeros(2))}) in (0, 1)
    with pytest.raises(PolicyError, match="observation/a/0: got 4, outside 1 to 3"):
        policy.act({"a": (4, np.zeros(2))})
    with pytest.raises(PolicyError, match=r"observation/a/1: is not in what was given: IndexError"):
        policy.act({"a": (np.int64(3),)})
    with pytest.raises(PolicyError, match=r"observation/a/0: got float64 of shape \[\]; expected int64"):
        policy.act({"a": (1.0, np.zeros(2))})


def test_images_are_bytes_of_any_size_where_they_are_resized(tmp_path: Path) -> None:
    algo = trained("bc", RGB, spaces.Discrete(2), Images(True, size=(9, 9)), hidden_dims=[8], state_encoder=CNN)
    policy = Policy(write_export(algo, algo.PolicyConfig(), tmp_path / "out", "torchscript"))
    assert policy.act(np.zeros((50, 33, 3), np.uint8)) in (0, 1)
    with pytest.raises(PolicyError, match=r"got float64 of shape \[9, 9, 3\]; expected uint8 of shape \[any, any, 3\]"):
        policy.act(np.zeros((9, 9, 3)))
