"""DTPolicy, rollout and dt_play: what the model is shown while it plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from rlalgo import Controller, DataSpec, Episodes, WindowBatch, rollout
from rlalgo.batchrl.dt import DecisionTransformer, RtgEpDataset, dt_play
from tests.rlalgo.toy_envs import Blink, Chain, Drift

K = 4


def make(env: gymnasium.Env, frame_stack: int = 1, **config: Any) -> DecisionTransformer:
    """An untrained model whose actions depend on all that it sees, in train mode and with dropout."""
    torch.manual_seed(1)
    spec = DataSpec(env.observation_space, env.action_space, frame_stack=frame_stack, max_steps=30)
    small = {"context_length": K, "embed_dim": 16, "n_layers": 2, "n_heads": 2, "dropout": 0.3, "return_scale": 2.0}
    algo = DecisionTransformer(spec, DecisionTransformer.Config(**{**small, **config}))
    with torch.no_grad():
        for p in algo.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    algo.load_state_dict(algo.state_dict())  # weights that are loaded may play
    return algo


def targets(algo: DecisionTransformer, values: Sequence[float], **options: Any) -> list[Any]:
    return [algo.PolicyConfig(target_return=value, **options) for value in values]


class Seen:
    """Keeps what the model is given whenever the policy asks it."""

    def __init__(self, algo: DecisionTransformer) -> None:
        self.calls: list[dict[str, Tensor]] = []
        self.modes: list[bool] = []
        self.model, self.decode = algo.model, algo.model.decode
        algo.model.decode = self._keep

    def _keep(self, *inputs: Any) -> Any:
        names = ("states", "actions", "returns_to_go", "timesteps", "at")
        if inputs[-1] is not None:  # else asked for every step, as in training
            self.calls.append({name: x.clone() for name, x in zip(names, inputs, strict=True)})
            self.modes.append(self.model.training)
        return self.decode(*inputs)


class Recorder(gymnasium.Wrapper):
    """Notes every observation and reward that the environment hands out."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observations: list[np.ndarray] = []
        self.rewards: list[float] = []

    def reset(self, **options: Any) -> Any:
        observation, info = self.env.reset(**options)
        self.observations.append(np.array(observation))
        return observation, info

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        self.observations.append(np.array(observation))
        self.rewards.append(float(reward))
        return observation, reward, *rest


class History:
    """One row's episode so far, in plain lists."""

    def __init__(self, target: float) -> None:
        self.left = target
        self.observations: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.returns_to_go: list[float] = []

    def window(self, algo: DecisionTransformer) -> tuple[WindowBatch, int]:
        """The last K steps, the present one without its action, as a right-padded batch of one; and its place."""
        T = len(self.observations)
        first = max(T - K, 0)
        place = T - 1 - first
        pad = K - (T - first)
        known = [*self.actions, torch.zeros_like(self.actions[0]) if self.actions else blank(algo)]
        rows = [
            torch.stack(self.observations[first:] + [torch.zeros_like(self.observations[0])] * pad),
            torch.stack(known[first:] + [torch.zeros_like(known[0])] * pad),
            torch.zeros(K),
            torch.tensor(self.returns_to_go[first:] + [0.0] * pad, dtype=torch.float64).float(),
            torch.tensor([*range(first, T)] + [0] * pad),
            torch.arange(K) <= place,
        ]
        return WindowBatch(*(row.unsqueeze(0) for row in rows)), place


def blank(algo: DecisionTransformer) -> Tensor:
    space = algo.spec.action_space
    return torch.zeros((), dtype=torch.int64) if isinstance(space, spaces.Discrete) else torch.zeros(space.shape or ())


# One tick of play: which of the rows act, and which of them end their episode afterwards.
TICKS = st.lists(st.tuples(st.sets(st.integers(0, 2), min_size=1), st.sets(st.integers(0, 2))), min_size=1, max_size=14)


@settings(max_examples=30)
@given(TICKS, st.sampled_from([Drift, Chain]), st.booleans(), st.integers(0, 99))
def test_each_row_acts_on_exactly_its_own_last_steps(ticks: list, env: type, delayed: bool, seed: int) -> None:
    """Whatever rows act together, start anew or wait: windows and actions are those cut by hand, row by row."""
    algo = make(env(), delayed=delayed)
    torch.manual_seed(seed)
    wanted = [3.0, -1.5, 100.25]
    policy = algo.policy(targets(algo, wanted))
    policy.reset(torch.arange(3))
    history = [History(target) for target in wanted]
    seen = Seen(algo)
    for acting, ending in ticks:
        rows = sorted(acting)
        observations = torch.randn(len(rows), *algo.spec.observation_space.shape)
        for row, observation in zip(rows, observations, strict=True):
            history[row].observations.append(observation)
            history[row].returns_to_go.append(history[row].left)
        actions = policy.act(observations.double(), torch.tensor(rows))
        call = seen.calls.pop()
        assert seen.modes.pop() is False
        for i, row in enumerate(rows):
            window, place = history[row].window(algo)
            real = slice(0, place + 1)
            assert int(call["at"][i]) == place
            torch.testing.assert_close(call["states"][i, real], algo.embed(window.observations[0, real]))
            past = algo.scaler(window.actions[0, :place])
            torch.testing.assert_close(call["actions"][i, :place], past)
            assert torch.equal(call["returns_to_go"][i, real], window.returns_to_go[0, real] / 2.0)
            assert torch.equal(call["timesteps"][i, real], window.timesteps[0, real])
            expected = algo.predict(window)[0, place]
            torch.testing.assert_close(actions[i], expected, atol=1e-5, rtol=1e-5)
            history[row].actions.append(actions[i])
        rewards = torch.randn(len(rows))
        policy.observe(rewards, torch.tensor(rows))
        for row, reward in zip(rows, rewards.tolist(), strict=True):
            history[row].left -= 0.0 if delayed else reward
        over = sorted(ending)
        if over:
            policy.reset(torch.tensor(over))
            for row in over:
                history[row] = History(wanted[row])
    assert algo.training


@pytest.mark.parametrize("env", [Drift, Chain, Blink])
@pytest.mark.parametrize("stack", [1, 3])
def test_playing_shows_the_windows_that_training_would_cut_from_the_same_episodes(env: type, stack: int) -> None:
    algo = make(env(), frame_stack=stack, normalize=False)
    policy = algo.policy(targets(algo, [5.0]))
    seen = Seen(algo)
    played = rollout(policy, [env()], episodes=3, seed=0)
    data = RtgEpDataset(replace(played, spec=algo.spec), K)
    assert len(seen.calls) == len(data)
    starts = data.episodes.timesteps()
    for step, call in enumerate(seen.calls):
        first = step - min(int(starts[step]), K - 1)
        place = step - first
        cut = data.gather(torch.tensor([first]))
        real = slice(0, place + 1)
        assert int(call["at"]) == place
        torch.testing.assert_close(call["states"][:, real], algo.embed(cut.observations[:, real]))
        assert torch.equal(call["timesteps"][:, real], cut.timesteps[:, real])
        torch.testing.assert_close(call["actions"][:, :place], algo.scaler(cut.actions[:, :place]))


@pytest.mark.parametrize("env", [Drift, Chain, Blink])
def test_the_policy_is_fed_the_observation_just_returned_and_the_return_still_wanted(env: type) -> None:
    algo = make(env(), normalize=False, return_scale=1.0)
    wanted = [3.0, -2.0]
    envs = [Recorder(env()) for _ in wanted]
    seen = Seen(algo)
    played = rollout(algo.policy(targets(algo, wanted)), envs, episodes=2, seed=5)
    lengths = played.lengths().reshape(2, 2).tolist()  # (target, episode)
    at = [0, 0]  # how many observations of each environment have been used
    paid = [0, 0]
    left, number, done = list(wanted), [0, 0], [0, 0]
    active = [0, 1]
    for call in seen.calls:
        assert len(call["at"]) == len(active)
        for i, row in enumerate(active):
            place = int(call["at"][i])
            shown = torch.as_tensor(envs[row].observations[at[row]])
            shown = shown if shown.dtype == torch.uint8 else shown.float()
            torch.testing.assert_close(call["states"][i, place], algo.embed(shown))
            assert float(call["returns_to_go"][i, place]) == np.float32(left[row])
            left[row] -= float(np.float32(envs[row].rewards[paid[row]]))
            at[row], paid[row], done[row] = at[row] + 1, paid[row] + 1, done[row] + 1
            if done[row] == lengths[row][number[row]]:  # this episode is over; its last observation is never shown
                at[row], done[row], number[row], left[row] = at[row] + 1, 0, number[row] + 1, wanted[row]
        active = [row for row in (0, 1) if number[row] < 2]
    assert active == []
    assert [at[row] == len(envs[row].observations) for row in (0, 1)] == [True, True]


def equal_episodes(a: Episodes, b: Episodes) -> bool:
    names = ("observations", "actions", "rewards", "terminations", "truncations", "starts")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("env", [Chain, Blink])
def test_whole_batched_episodes_equal_single_ones(env: type) -> None:
    """With discrete actions and states, rounding in the last bit has nothing to act on."""
    algo = make(env())
    values = [3.0, 0.0, -4.0]
    rows = [value for value in values for _ in range(4)]
    together = rollout(algo.policy(targets(algo, rows)), [env() for _ in rows], episodes=6, seed=10)
    assert len(together.actions.unique()) > 1
    assert len(together.lengths().unique()) > 1 or env is Blink
    for i, value in enumerate(values):
        alone = rollout(algo.policy(targets(algo, [value])), [env()], episodes=6, seed=10)
        mine = together.select((together.info["option"] == i).nonzero().squeeze(1))
        assert equal_episodes(mine, alone)
        assert set(mine.info["target_return"].tolist()) == {value}
        assert mine.info["seed"].tolist() == list(range(10, 16))


def test_begin_forgets_the_episode_before() -> None:
    algo = make(Drift())
    used, fresh = (algo.policy(targets(algo, [2.0, 2.0])) for _ in range(2))
    both = torch.arange(2)
    used.reset(both)
    for _ in range(7):
        used.act(torch.randn(2, 3), both)
        used.observe(torch.randn(2), both)
    used.reset(both)
    fresh.reset(both)
    for _ in range(6):
        observations, rewards = torch.randn(2, 3), torch.randn(2)
        assert torch.equal(used.act(observations, both), fresh.act(observations, both))
        used.observe(rewards, both)
        fresh.observe(rewards, both)


def test_the_return_to_go_falls_by_exactly_the_rewards() -> None:
    """Ten thousand rewards of 0.1 (in float32) leave what they leave, not what float32 sums would."""
    algo = make(Drift(), normalize=False, return_scale=1.0)
    policy = algo.policy(targets(algo, [3600.0]))
    row = torch.zeros(1, dtype=torch.int64)
    policy.reset(row)
    for _ in range(10_000):
        policy.observe(torch.tensor([0.1]), row)
    seen = Seen(algo)
    policy.act(torch.zeros(1, 3), row)
    assert float(seen.calls[0]["returns_to_go"][0, 0]) == np.float32(3600 - 10_000 * float(np.float32(0.1)))


def test_delayed_keeps_asking_for_the_same_return() -> None:
    algo = make(Drift(), delayed=True, return_scale=1.0)
    seen = Seen(algo)
    rollout(algo.policy(targets(algo, [7.0])), [Drift()], episodes=2, seed=0)
    for call in seen.calls:
        assert set(call["returns_to_go"][0, : int(call["at"]) + 1].tolist()) == {7.0}


def test_without_a_target_the_best_of_the_data_is_asked_for() -> None:
    algo = make(Drift())
    played = rollout(algo.policy(targets(algo, [0.0])), [Drift()], episodes=5, seed=0)
    algo.prepare(played, 10_000)
    best = float(played.returns().max().float())  # kept in single precision, as every weight is
    assert algo.policy([algo.PolicyConfig()]).options == targets(algo, [best])


def test_different_targets_give_different_actions() -> None:
    algo = make(Drift())
    policy = algo.policy(targets(algo, [3.0, -3.0]))
    policy.reset(torch.arange(2))
    same = torch.randn(3).expand(2, 3)
    actions = policy.act(same, torch.arange(2))
    assert not torch.allclose(actions[0], actions[1])


# --- sampling ---


def test_discrete_actions_are_sampled_from_the_prediction_or_greedy() -> None:
    algo = make(Blink())
    n = 4000
    policy = algo.policy(targets(algo, [1.0] * n, sample=True) + targets(algo, [1.0] * 3))
    rows = torch.arange(n + 3)
    policy.reset(rows)
    frame = torch.from_numpy(Blink().reset(seed=0)[0])
    actions = policy.act(frame.expand(n + 3, 5, 5), rows)
    window = WindowBatch(
        frame.expand(1, K, 5, 5), torch.zeros(1, K, dtype=torch.int64), torch.zeros(1, K), torch.ones(1, K),
        torch.zeros(1, K, dtype=torch.int64), torch.ones(1, K, dtype=torch.bool),
    )  # fmt: skip
    with algo.evaluating():
        logits = algo(window.observations, window.actions, window.returns_to_go, window.timesteps).actions.logits[0, 0]
    share = logits.double().softmax(-1)
    assert share.max() < 0.9
    counts = actions[:n].bincount(minlength=5)
    assert stats.chisquare(counts.numpy(), (share * n).numpy()).pvalue > 1e-3
    assert actions[n:].tolist() == [int(logits.argmax())] * 3


def test_sampling_follows_the_seed_and_disturbs_no_other_draw() -> None:
    algo = make(Blink())
    played = []
    for _ in range(2):
        torch.manual_seed(8)
        policy = algo.policy(targets(algo, [2.0, 2.0], sample=True))
        state = torch.get_rng_state()
        played.append(rollout(policy, [Blink(), Blink()], episodes=6, seed=0))
        assert torch.equal(torch.get_rng_state(), state)
    assert equal_episodes(*played)
    torch.manual_seed(9)
    other = rollout(algo.policy(targets(algo, [2.0, 2.0], sample=True)), [Blink(), Blink()], episodes=6, seed=0)
    assert not equal_episodes(played[0], other)


# --- one environment ---


@pytest.mark.parametrize("env", [Drift, Chain, Blink])
def test_dt_play_gives_episodes(env: type) -> None:
    algo = make(env())
    played = dt_play(env(), algo, target_return=4.0, episodes=3, seed=20)
    assert isinstance(played, Episodes)
    assert len(played) == 3
    assert played.info["seed"].tolist() == [20, 21, 22]
    assert played.info["target_return"].tolist() == [4.0] * 3
    played.check("played")
    again = rollout(algo.policy(targets(algo, [4.0])), [env()], episodes=3, seed=20)
    assert equal_episodes(played, again)
    other = dt_play(env(), algo, target_return=4.0, episodes=3, seed=50)
    assert not equal_episodes(played, other)


@pytest.mark.parametrize("env", [Drift, Chain])
def test_a_controller_plays_the_same_episode(env: type) -> None:
    algo = make(env())
    played = dt_play(env(), algo, target_return=4.0, episodes=1, seed=3)
    controller = Controller(algo.policy(targets(algo, [4.0])))
    world = env()
    for _ in range(2):  # the second time after a reset
        observation, _ = world.reset(seed=3)
        controller.reset()
        over, actions = False, []
        while not over:
            action = controller.act(observation)
            assert world.action_space.contains(action)
            actions.append(np.array(action))
            observation, reward, terminated, truncated, _ = world.step(action)
            controller.observe(reward)
            over = terminated or truncated
        assert len(actions) == played.steps
        np.testing.assert_allclose(np.stack(actions), played.actions.numpy(), atol=1e-6)


def test_actions_belong_to_the_caller() -> None:
    """Who changes them, or trains on them, does not change what the policy remembers."""
    algo = make(Drift())
    policy = algo.policy(targets(algo, [1.0]))
    row = torch.zeros(1, dtype=torch.int64)
    policy.reset(row)
    action = policy.act(torch.zeros(1, 3), row)
    weight = torch.ones(2, requires_grad=True)
    (action * weight).sum().backward()
    action.zero_()
    seen = Seen(algo)
    policy.act(torch.zeros(1, 3), row)
    assert seen.calls[0]["actions"][0, 0].abs().sum() > 0
