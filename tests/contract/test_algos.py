"""What every registered algorithm must fulfil, in each action space that it supports (design, rule 12).

A new algorithm takes part by being registered. A row in CASES shrinks it and names what it must improve; without
one it runs with its defaults and must lower one of its losses.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rlutils
from rlalgo import BatchRLAlgo, Controller, DataSpec, Episodes, WindowBatch, rollout
from rlalgo.config import field_docs, resolve, to_mapping
from rlalgo.core.algo import supports
from rlalgo.registry import Choice, Kind
from rlutils.checkpoints import store as checkpoint
from rlutils.evaluation.evaluate import evaluate
from tests.rlalgo.toy_data import make_episodes
from tests.rlutils.runs import PLUGIN, equal, state, toy_config, weights
from tests.rlutils.toy_plugin import PointEnv, ToySource


@dataclass(frozen=True)
class Case:
    """How an algorithm takes part."""

    options: dict[str, Any] = field(default_factory=dict)
    """What makes it small enough to train in a second."""
    metric: str = "loss"
    """What it must improve: a key of `update`, or `action_error`, the share of the data's actions not explained."""
    below: Mapping[str, float] = field(default_factory=lambda: {"box": 0.9, "discrete": 0.9})
    """How far down, by action space: the mean of the last tenth of the updates over that of the first, or the error.
    The toy data's discrete actions are partly random, so that about two thirds cannot be explained by the state."""
    steps: int = 120


SMALL = {"width": 32, "actor_lr": 5e-3, "critic_lr": 5e-3}
CASES = {
    "bc": Case(
        {"width": 32, "dropout": 0.1, "lr": 3e-3},
        metric="action_error",
        below={"box": 0.4, "discrete": 0.8},
        steps=200,
    ),
    "dt": Case(
        {
            "context_length": 4,
            "embed_dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "lr": 3e-3,
            "warmup": 10,
            "return_scale": 10.0,
        },
        metric="action_error",
        below={"box": 0.2, "discrete": 0.65},
        steps=200,
    ),
    "td3_bc": Case({**SMALL, "alpha": 0.5}, metric="action_error", below={"box": 0.6}),
    "iql": Case({**SMALL, "beta": 0.1}, metric="action_error", below={"box": 0.5}),
    "awac": Case(SMALL, metric="action_error", below={"box": 0.4}),
    "rebrac": Case(
        {**SMALL, "layers": 2, "actor_penalty": 1.0, "normalize": True}, metric="action_error", below={"box": 0.7}
    ),
    "cql": Case({**SMALL, "samples": 4}, metric="action_error", below={"box": 0.8}),
    # Values without a penalty lead away from these data, so it is the critics that must fit.
    "edac": Case({**SMALL, "layers": 2, "critics": 4, "normalize": True}, metric="critic/loss", below={"box": 0.2}),
    "sac_n": Case({**SMALL, "layers": 2, "critics": 4, "normalize": True}, metric="critic/loss", below={"box": 0.2}),
    "dqn": Case({"width": 32, "lr": 5e-3}, metric="critic/loss", below={"discrete": 0.3}),
    "discrete_cql": Case({"width": 32, "lr": 5e-3}, metric="critic/loss", below={"discrete": 0.5}),
    "discrete_iql": Case(SMALL, metric="action_error", below={"discrete": 0.9}),
}
SPACES = {"box": spaces.Box, "discrete": spaces.Discrete}
CATALOGUE = rlutils.catalogue()


def algos() -> list[tuple[str, str]]:
    """Every registered algorithm with every kind of action space that it supports."""
    found = []
    for name in CATALOGUE.names("algo"):
        cls = CATALOGUE.get("algo", name).cls
        found += [(name, kind) for kind, space in SPACES.items() if space in cls.action_spaces]
    return found


@dataclass
class Setup:
    """One algorithm on toy data."""

    name: str
    kind: str
    case: Case
    choice: Choice
    episodes: Episodes

    def make(self, episodes: Episodes | None = None, total_steps: int = 200) -> BatchRLAlgo:
        """A fresh one, always with the same initial weights, prepared and in train mode."""
        data = self.episodes if episodes is None else episodes
        torch.manual_seed(0)
        assert self.choice.entry is not None
        algo = self.choice.entry.cls(data.spec, self.choice.config)
        algo.prepare(data, total_steps)
        return algo.train()

    def batches(self, algo: BatchRLAlgo, n: int, episodes: Episodes | None = None) -> list[Any]:
        data = algo.dataset(self.episodes if episodes is None else episodes)
        generator = torch.Generator().manual_seed(0)
        return [data.gather(data.rows(64, generator)) for _ in range(n)]

    def train(self, steps: int = 10) -> BatchRLAlgo:
        algo = self.make()
        for batch in self.batches(algo, steps):
            algo.update(batch)
        return algo

    def envs(self, n: int) -> list[PointEnv]:
        return [PointEnv(self.kind == "discrete") for _ in range(n)]


def build(name: str, kind: str, **more: Any) -> Setup:
    case = CASES.get(name, Case())
    faults: list[str] = []
    choice = resolve(Kind("algo"), {"name": name, **case.options, **more}, CATALOGUE, "algo", faults)
    assert choice is not None, faults
    return Setup(name, kind, case, choice, toy_episodes(kind == "discrete"))


@functools.cache
def toy_episodes(discrete: bool) -> Episodes:
    return ToySource(ToySource.Config(discrete=discrete)).load()


@pytest.fixture(params=algos(), ids="-".join)
def setup(request: pytest.FixtureRequest) -> Setup:
    return build(*request.param)


def only(takes: Callable[[Setup], bool]) -> pytest.MarkDecorator:
    """Runs a test for those algorithms alone that it is about, instead of skipping it for the others."""
    chosen = [pair for pair in algos() if takes(build(*pair))]
    return pytest.mark.parametrize("setup", chosen, indirect=True, ids="-".join)


def action_error(algo: BatchRLAlgo, batch: Any) -> float:
    """Squared error over the actions' variance, or the share of wrong actions over that of the commonest one."""
    mask = getattr(batch, "mask", torch.ones(len(batch.actions), dtype=torch.bool))
    got, wanted = algo.predict(batch)[mask], batch.actions[mask]
    if wanted.is_floating_point():
        return float((got - wanted).square().mean() / wanted.var(0).mean())
    return float((got != wanted).float().mean() / (1 - wanted.bincount().max() / len(wanted)))


def weights_of(algo: BatchRLAlgo) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in algo.state_dict().items()}


# --- learning ---


def test_improves_its_metric_and_stays_finite(setup: Setup) -> None:
    case, algo = setup.case, setup.make(total_steps=setup.case.steps)
    batches = setup.batches(algo, case.steps)
    before = action_error(algo, batches[0])
    history = [{key: float(value) for key, value in algo.update(batch).items()} for batch in batches]
    assert all(math.isfinite(value) for metrics in history for value in metrics.values())
    assert all(bool(torch.isfinite(value).all()) for value in algo.state_dict().values())
    tenth = max(case.steps // 10, 1)

    def ratio(key: str) -> float:
        values = [metrics[key] for metrics in history]
        return float(np.mean(values[-tenth:]) / np.mean(values[:tenth]))

    if case.metric == "action_error":
        assert before > 0.9, "an untrained algorithm explains nothing; the metric is at fault"
        assert action_error(algo, batches[0]) < case.below[setup.kind]
    elif setup.name in CASES:
        assert ratio(case.metric) < case.below[setup.kind]
    else:
        assert min(ratio(key) for key in history[0] if key.endswith("loss")) < case.below[setup.kind]


def test_update_returns_the_same_detached_numbers_every_step(setup: Setup) -> None:
    algo = setup.make()
    found = [algo.update(batch) for batch in setup.batches(algo, 5)]
    assert found[0]
    for metrics in found:
        assert list(metrics) == list(found[0])
        for key, value in metrics.items():
            assert isinstance(value, Tensor), key
            assert value.shape == (), key
            assert not value.requires_grad, key
    assert algo.training


def test_gradients_pass_the_hook_of_every_optimizer(setup: Setup) -> None:
    """What averages gradients over devices must see each optimizer's, after backward and before the step."""
    algo = setup.make()
    before = weights_of(algo)
    called = []

    def hook(name: str) -> None:
        called.append(name)
        parameters = [p for group in algo.optimizers[name].param_groups for p in group["params"]]
        assert any(p.grad is not None and p.grad.any() for p in parameters)

    algo.gradient_hook = hook
    for batch in setup.batches(algo, 4):
        algo.update(batch)
    assert set(called) == set(algo.optimizers)
    assert not equal(before, weights_of(algo))


def test_updates_are_decided_by_weights_batch_and_generator(setup: Setup) -> None:
    first, second = setup.train(), setup.train()
    assert equal(weights_of(first), weights_of(second))


# --- saving and resuming ---


def test_saves_and_loads_bit_equal(setup: Setup, tmp_path: Path) -> None:
    algo = setup.train()
    checkpoint.save(tmp_path / "checkpoints", 10, algo, setup.choice, {"step": 10})
    loaded = rlutils.load(tmp_path)
    assert type(loaded) is type(algo)
    assert to_mapping(loaded.config) == to_mapping(algo.config)
    assert loaded.spec == algo.spec
    assert not loaded.training
    assert equal(weights_of(loaded), weights_of(algo))
    (batch,) = setup.batches(algo, 1)
    assert torch.equal(loaded.predict(batch), algo.predict(batch))
    played = []
    for one in (algo, loaded):
        torch.manual_seed(5)
        played.append(rollout(one.policy([one.PolicyConfig()]), setup.envs(1), episodes=2, seed=0))
    assert torch.equal(played[0].actions, played[1].actions)


def test_resumes_bit_equal_to_a_run_never_stopped(setup: Setup, tmp_path: Path) -> None:
    config = {
        **toy_config("bc"),
        "source": {"name": "toy", "discrete": setup.kind == "discrete"},
        "algo": {"name": setup.name, **setup.case.options},
        "trainer": {"name": "offline", "steps": 24, "batch_size": 16, "check_every": 5, "block": 4},
        "evaluation": {"every": 9, "episodes": 2},
        "callbacks": [{"name": "csv", "every": 5}, {"name": "best"}],
    }
    rlutils.train(config, out=tmp_path / "whole")
    stop = {"name": "meddler", "at": 13, "how": "signal"}
    with pytest.raises(KeyboardInterrupt):
        rlutils.train({**config, "callbacks": [*config["callbacks"], stop]}, out=tmp_path / "parts")
    assert not equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    torch.rand(7)
    rlutils.resume(tmp_path / "parts", ["callbacks=[{name: csv, every: 5}, {name: best}]"], plugins=[PLUGIN])
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert equal(state(tmp_path / "parts"), state(tmp_path / "whole"))  # optimizers, schedules, generators, step


def test_evaluating_does_not_change_training(setup: Setup) -> None:
    found = []
    for watched in (False, True):
        algo = setup.make()
        for step, batch in enumerate(setup.batches(algo, 6)):
            algo.update(batch)
            if watched and step % 2:
                evaluate(algo, [algo.PolicyConfig()], setup.envs(2), episodes=3, seed=0)
                algo.predict(batch)
                assert algo.training
        found.append((weights_of(algo), torch.get_rng_state()))
    assert equal(found[0], found[1])


# --- acting ---


@pytest.mark.parametrize("n", [1, 8])
def test_acts_inside_the_action_space(setup: Setup, n: int) -> None:
    algo = setup.train()
    policy = algo.policy([algo.PolicyConfig()] * n)
    assert len(policy.options) == n
    policy.reset(torch.arange(n))
    space = setup.episodes.spec.action_space
    rows = torch.arange(n)
    for tick in range(6):
        observations = torch.randn(len(rows), 2) * 10
        actions = policy.act(observations, rows)
        assert actions.shape == (len(rows), *(space.shape or ()))
        assert actions.dtype == (torch.int64 if setup.kind == "discrete" else torch.float32)
        assert actions.device.type == "cpu"
        assert not actions.requires_grad
        for action in actions.numpy():
            assert space.contains(action)
        policy.observe(torch.randn(len(rows)), rows)
        if tick == 2 and n > 1:  # the rest goes on alone, in any order, and one starts anew
            rows = torch.tensor([6, 2, 3])
            policy.reset(torch.tensor([2]))
    assert algo.training


def test_rows_do_not_meddle_with_each_other(setup: Setup) -> None:
    """Eight rows side by side act as each would alone."""
    algo = setup.train()
    observations = torch.randn(5, 8, 2)
    rewards = torch.randn(5, 8)

    def play(columns: list[int]) -> Tensor:
        torch.manual_seed(4)
        rows = torch.arange(len(columns))
        policy = algo.policy([algo.PolicyConfig()] * len(columns))
        policy.reset(rows)
        out = []
        for seen, paid in zip(observations[:, columns], rewards[:, columns], strict=True):
            out.append(policy.act(seen, rows))
            policy.observe(paid, rows)
        return torch.stack(out, 1)

    together = play(list(range(8)))
    for i in range(8):
        torch.testing.assert_close(play([i])[0], together[i], atol=1e-5, rtol=1e-5)


def test_plays_whole_episodes(setup: Setup) -> None:
    algo = setup.train()
    played = rollout(algo.policy([algo.PolicyConfig()] * 3), setup.envs(3), episodes=5, seed=0)
    assert len(played) == 5
    played.check(setup.name)


def test_a_controller_plays_with_numpy(setup: Setup) -> None:
    algo = setup.train()
    controller = Controller(algo.policy([algo.PolicyConfig()]))
    (env,) = setup.envs(1)
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        controller.reset()
        truncated = False
        while not truncated:
            action = controller.act(observation)
            assert env.action_space.contains(action)
            observation, reward, _, truncated, _ = env.step(action)
            controller.observe(reward)


def test_predicts_in_eval_mode_and_restores_the_mode(setup: Setup) -> None:
    algo = setup.train()
    (batch,) = setup.batches(algo, 1)
    found = []
    for mode in (True, False, True):
        algo.train(mode)
        torch.manual_seed(2)
        found.append(algo.predict(batch))
        assert algo.training is mode
        assert all(module.training is mode for module in algo.modules())
    assert found[0].shape == batch.actions.shape
    assert found[0].dtype == batch.actions.dtype
    assert not found[0].requires_grad
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])


@only(lambda setup: getattr(setup.choice.config, "normalize", False))
def test_takes_raw_observations(setup: Setup) -> None:
    """Where the algorithm normalizes, data in other units teaches the same actions."""
    stretched = dataclasses.replace(setup.episodes, observations=setup.episodes.observations * 1024)
    plain, other = setup.make(), setup.make(stretched)
    torch.manual_seed(1)
    for batch in setup.batches(plain, 3):
        plain.update(batch)
    torch.manual_seed(1)
    for batch in setup.batches(other, 3, stretched):
        other.update(batch)
    got = [algo.policy([algo.PolicyConfig()] * 8) for algo in (plain, other)]
    rows, seen = torch.arange(8), torch.randn(8, 2)
    for policy in got:
        policy.reset(rows)
    torch.testing.assert_close(got[1].act(seen * 1024, rows), got[0].act(seen, rows), atol=1e-3, rtol=1e-3)
    last = setup.batches(plain, 1)[0]
    there = last._replace(observations=last.observations * 1024)
    torch.testing.assert_close(other.predict(there), plain.predict(last), atol=1e-3, rtol=1e-3)


@only(lambda setup: hasattr(setup.choice.config, "state_encoder"))
@pytest.mark.parametrize("kind", ["box", "frames"])
def test_learns_and_acts_from_stacked_observations_through_an_encoder(setup: Setup, kind: str) -> None:
    """Vectors and uint8 images, two at a time."""
    setup = build(setup.name, setup.kind, state_encoder="mlp")
    seen, acted = make_episodes(kind, (9, 7, 8)), make_episodes(setup.kind, (9, 7, 8))
    spec = DataSpec(seen.spec.observation_space, acted.spec.action_space, frame_stack=2, max_steps=10)
    episodes = dataclasses.replace(seen, actions=acted.actions, spec=spec)
    algo = setup.make(episodes)
    before = weights_of(algo)
    for batch in setup.batches(algo, 2, episodes):
        assert all(bool(torch.isfinite(value)) for value in algo.update(batch).values())
    after = weights_of(algo)
    size = 2 * seen.observations[0].numel()  # of what an encoder's first layer takes in
    assert any(p.dim() == 2 and p.shape[1] == size and not torch.equal(p, before[key]) for key, p in after.items())
    policy, rows = algo.policy([algo.PolicyConfig()] * 3), torch.arange(3)
    policy.reset(rows)
    for t in range(2):
        for action in policy.act(seen.observations[[t, t + 1, t + 2]], rows).numpy():
            assert spec.action_space.contains(action)


# --- declarations ---


def test_declares_what_it_is(setup: Setup) -> None:
    assert setup.choice.entry is not None
    cls = setup.choice.entry.cls
    assert cls.name == setup.name
    assert cls.__doc__ or sys.modules[cls.__module__].__doc__
    for config in (cls.Config, cls.PolicyConfig):
        fields = {f.name for f in dataclasses.fields(config)}
        assert fields <= set(field_docs(config)), "every field has its docstring beneath it"
    assert set(cls.action_spaces) <= set(SPACES.values())
    algo = setup.make()
    assert algo.optimizers
    assert set(algo.schedulers) <= set(algo.optimizers)
    trained = {id(p) for o in algo.optimizers.values() for group in o.param_groups for p in group["params"]}
    for name, p in algo.named_parameters():
        assert id(p) in trained or not p.requires_grad, f"{name} is trained by no optimizer"


@pytest.mark.parametrize("name", CATALOGUE.names("algo"))
def test_refuses_other_action_spaces(name: str) -> None:
    cls = CATALOGUE.get("algo", name).cls
    seen = spaces.Box(-1, 1, (2,), np.float32)
    for space in (spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(5)):
        if not supports(cls, space):
            with pytest.raises(TypeError, match=f"{name} needs a"):
                cls(DataSpec(seen, space), cls.Config())


# --- sequences: no look into the future ---


sees_sequences = only(lambda setup: isinstance(setup.batches(setup.make(), 1)[0], WindowBatch))


@pytest.fixture
def sequence(setup: Setup) -> tuple[BatchRLAlgo, WindowBatch]:
    """A sequence algorithm with weights that make much of all it sees, and windows full and padded."""
    algo = setup.make()
    data = algo.dataset(setup.episodes)
    batch = data.gather(torch.arange(len(data)))
    assert isinstance(batch, WindowBatch)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in algo.parameters():
            p.add_(2 * torch.randn_like(p) / math.sqrt(p.shape[-1]))
    assert batch.mask.all(1).any()
    assert not batch.mask.all()
    return algo, batch


def reached(algo: BatchRLAlgo, batch: WindowBatch, name: str, step: int) -> Tensor:
    """(B, K) bool: the actions that change when one column changes at one step, in several ways."""
    column, before = getattr(batch, name), algo.predict(batch)
    moved = torch.zeros_like(batch.mask)
    torch.manual_seed(3)
    for size in (1, 5, 25):
        changed = column.clone()
        x = column[:, step]
        if x.is_floating_point():
            changed[:, step] = x + torch.randn_like(x).sign() * (1 + torch.rand_like(x)) * size * column.std()
        else:
            n = int(algo.spec.action_space.n)  # type: ignore[attr-defined]
            changed[:, step] = (x + torch.randint(1, n, x.shape)) % n
        assert not torch.equal(changed[:, step], x)
        after = algo.predict(batch._replace(**{name: changed}))
        moved |= (after - before).abs().reshape(*moved.shape, -1).amax(-1) > 1e-6
    return moved & batch.mask


FIRST_ACTION_CHANGED = {"observations": 0, "returns_to_go": 0, "actions": 1, "rewards": 1}
"""How many steps after a changed one an action may change first: what is done now has seen the present state and
return-to-go, but neither itself nor its reward."""


@sees_sequences
@pytest.mark.parametrize("name", FIRST_ACTION_CHANGED)
def test_no_future_changes_a_present_action(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1]):
        first = step + FIRST_ACTION_CHANGED[name]
        assert not reached(algo, batch, name, step)[:, :first].any(), f"{name} at step {step}"


@sees_sequences
@pytest.mark.parametrize("name", ["observations", "returns_to_go"])
def test_the_present_state_and_return_do_change_the_action(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1]):
        assert reached(algo, batch, name, step)[:, step].any(), step


@sees_sequences
@pytest.mark.parametrize("name", ["observations", "actions", "returns_to_go"])
def test_the_past_is_remembered(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1] - 1):
        assert reached(algo, batch, name, step)[:, step + 1 :].any(), step


@sees_sequences
def test_what_stands_in_padding_changes_nothing(sequence: tuple, setup: Setup) -> None:
    algo, batch = sequence
    pad = ~batch.mask
    torch.manual_seed(6)
    n = int(getattr(setup.episodes.spec.action_space, "n", 5))
    noisy = {}
    for name in ("observations", "actions", "rewards", "returns_to_go", "timesteps"):
        x = getattr(batch, name).clone()
        x[pad] = torch.randn_like(x[pad]) * 10 if x.is_floating_point() else torch.randint_like(x[pad], n)
        noisy[name] = x
    other = batch._replace(**noisy)
    torch.testing.assert_close(algo.predict(other)[batch.mask], algo.predict(batch)[batch.mask], atol=1e-6, rtol=0)
    losses = []
    for data in (batch, other):
        twin = setup.make()
        twin.load_state_dict(algo.state_dict())
        torch.manual_seed(0)
        losses.append((twin.update(data), weights_of(twin)))
    (metrics, learnt), (other_metrics, other_learnt) = losses
    for key, value in metrics.items():
        torch.testing.assert_close(other_metrics[key], value, atol=1e-6, rtol=1e-5)
    for key, value in learnt.items():
        torch.testing.assert_close(other_learnt[key], value, atol=1e-5, rtol=1e-4)
