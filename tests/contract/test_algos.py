"""What every registered algorithm must fulfil: it learns, saves, resumes and says what it is (see `setups.py`)."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from rlalgo_cnn import Fusion
from torch import Tensor

import rlutils
from rlalgo import BatchRLAlgo, Choice, DataSpec, WindowBatch, rollout
from rlalgo.config import to_mapping
from rlalgo.core.algo import supports
from rlalgo.encoders import MLP
from rlalgo.nets import Target
from rlalgo.registry import Entry, Owner
from rlalgo.schema import field_docs
from rlutils.checkpoints import store as checkpoint
from rlutils.config.settings import Settings
from rlutils.evaluation.evaluate import evaluate
from tests.contract.setups import CASES, CATALOGUE, SPACES, Setup, build, has_option, only, weights_of
from tests.rlalgo.batchrl.few_rows import everything, three_ends, without_bounds
from tests.rlalgo.batchrl.tiny_conv import TinyConv
from tests.rlalgo.toy_data import make_episodes
from tests.rlutils.runs import PLUGIN, equal, state, toy_config, weights

NOTHING: dict[str, Any] = {"trainer": {}, "callbacks": {}, "seconds": 0.0}
"""State of a trainer and callbacks that have none."""


def action_error(algo: BatchRLAlgo, batch: Any) -> float:
    """Squared error over the actions' variance, or the share of wrong actions over that of the commonest one."""
    mask = getattr(batch, "mask", torch.ones(len(batch.actions), dtype=torch.bool))
    got, true = algo.predict(batch)[mask], batch.actions[mask]
    if true.is_floating_point():
        return float((got - true).square().mean() / true.var(0).mean())
    commonest = [column.unique(return_counts=True)[1].max() / len(true) for column in true.view(len(true), -1).T]
    return float((got != true).float().mean() / (1 - torch.stack(commonest).mean()))


# --- learning ---


def test_improves_its_metric_and_stays_finite(setup: Setup) -> None:
    case, algo = setup.case, setup.make(total_steps=setup.case.steps)
    (batch,) = setup.batches(algo, 1)
    before = action_error(algo, batch)
    history = setup.updates(algo, case.steps)
    assert all(math.isfinite(value) for metrics in history for value in metrics.values())
    assert all(bool(torch.isfinite(value).all()) for value in algo.state_dict().values())

    def ratio(key: str) -> float:
        values = [float(metrics[key]) for metrics in history if key in metrics]
        tenth = max(len(values) // 10, 1)
        return float(np.mean(values[-tenth:]) / np.mean(values[:tenth]))

    if case.metric == "action_error":
        assert before > 0.9, "an untrained algorithm explains nothing; the metric is at fault"
        assert action_error(algo, batch) < case.below[setup.kind]
    elif setup.name in CASES:
        assert ratio(case.metric) < case.below[setup.kind]
    else:
        keys = {key for metrics in history for key in metrics if key.endswith("loss")}
        assert min(map(ratio, keys)) < case.below[setup.kind]


def test_metrics_are_detached_numbers_that_begin_within_ten_updates(setup: Setup) -> None:
    """An update may leave some out, but a run's columns are soon known."""
    algo = setup.make()
    history = setup.updates(algo, 20)
    for metrics in history:
        for key, value in metrics.items():
            assert isinstance(value, Tensor), key
            assert value.shape == (), key
            assert not value.requires_grad, key
    early, late = (set().union(*part) for part in (history[:10], history[10:]))
    assert early
    assert late <= early
    assert "actor/loss" in early or not hasattr(algo, "actor")
    assert algo.training


def test_refuses_to_be_used_before_it_is_prepared(setup: Setup) -> None:
    """Loading weights prepares it too, as what it found in the data comes with them."""
    algo, trained = setup.untrained(), setup.train()
    (batch,) = setup.batches(trained, 1)
    before, row = weights_of(algo), torch.zeros(1, dtype=torch.int64)

    def act() -> Tensor:
        policy = algo.policy([algo.PolicyConfig()])
        policy.reset(row)
        return policy.act(torch.zeros(1, 2), row)

    for use in (lambda: algo.update(batch, 1), lambda: algo.predict(batch), act):
        with pytest.raises(RuntimeError, match=f"{setup.name} is not prepared: call prepare.* or load weights"):
            use()
    assert equal(weights_of(algo), before)
    algo.load_state_dict(trained.state_dict())
    assert torch.equal(algo.predict(batch), trained.predict(batch))
    assert act().shape[0] == 1
    assert algo.update(batch, 1)


def test_gradients_pass_the_hook_of_every_optimizer(setup: Setup) -> None:
    """What averages gradients over devices must see each optimizer's, after backward and before the step."""
    algo = setup.make()
    before = weights_of(algo)
    called = []

    def hook(name: str) -> None:
        called.append(name)
        assert any(p.grad is not None and p.grad.any() for p in algo.parameters_of(name))

    algo.gradient_hook = hook
    setup.updates(algo, 4)
    assert set(called) == set(algo.optimizers)
    assert not equal(before, weights_of(algo))


def test_clip_limits_the_gradient_of_every_optimizer(setup: Setup) -> None:
    """What the advice against exploding losses names is there in each algorithm."""
    algo = build(setup.name, setup.kind, clip=1e-4).make()
    setup.updates(algo, 4)
    for name in algo.optimizers:
        norm = torch.stack([p.grad.norm() for p in algo.parameters_of(name) if p.grad is not None]).norm()
        assert 0 < float(norm) <= 1.001e-4, name


def test_keeps_nothing_in_double_precision(setup: Setup) -> None:
    """Apple's devices have none: a run there would end at its first line."""
    algo = setup.train(2)
    states = [value for item in algo.optimizers.values() for part in item.state.values() for value in part.values()]
    assert not [key for key, value in algo.state_dict().items() if value.dtype == torch.float64]
    assert not [key for key, value in algo.named_buffers() if value.dtype == torch.float64]
    assert not [value for value in states if isinstance(value, Tensor) and value.dtype == torch.float64]


def test_updates_are_decided_by_weights_batch_and_generator(setup: Setup) -> None:
    first, second = setup.train(), setup.train()
    assert equal(weights_of(first), weights_of(second))


# --- values ---


@has_option("tau")
def test_targets_follow_by_tau(setup: Setup) -> None:
    """`target_x` is a copy of `x` that moves by tau towards what it has become, or waits."""
    algo: Any = build(setup.name, setup.kind, tau=0.3).make()
    targets = {key: part for key, part in algo.named_children() if isinstance(part, Target)}
    assert targets
    moved = set()
    for step, batch in enumerate(setup.batches(algo, 4), 1):
        before = {key: copy.deepcopy(part.copy) for key, part in targets.items()}
        algo.update(batch, step)
        for key, part in targets.items():
            source = getattr(algo, key.removeprefix("target_"))
            triples = list(zip(before[key].parameters(), part.copy.parameters(), source.parameters(), strict=True))
            if any(not torch.equal(old, new) for old, new, _ in triples):
                moved.add(key)
                for old, new, s in triples:
                    torch.testing.assert_close(new, 0.7 * old + 0.3 * s.detach(), atol=1e-6, rtol=1e-5)
    assert moved == set(targets)


@has_option("gamma")
def test_only_terminations_stop_bootstrapping(setup: Setup) -> None:
    """What comes after a terminal step changes no value; after any other step, one that is cut too, it does."""
    episodes = three_ends(setup.kind)
    batch = everything(setup.make(episodes), episodes)
    ends = batch.terminals.bool()
    assert int(ends.sum()) == int(episodes.terminations.sum()) == 2

    def loss(moved: Tensor) -> float:
        """After an update in which the observations after these rows, (B,) bool, are others."""
        algo = setup.make(episodes)
        after = batch.next_observations + 5 * moved.unsqueeze(1)
        torch.manual_seed(1)
        return float(algo.update(batch._replace(next_observations=after), 1)["critic/loss"])

    plain = loss(torch.zeros_like(ends))
    assert loss(ends) == plain
    for row in (~ends).nonzero():
        assert loss(torch.arange(len(ends)) == row) != plain


@only(lambda setup: setup.kind == "box")
def test_without_bounds_actions_stay_in_the_range_of_the_data(setup: Setup) -> None:
    episodes = without_bounds(three_ends())
    algo = setup.make(episodes)
    assert all(math.isfinite(value) for metrics in setup.updates(algo, 2, episodes) for value in metrics.values())
    with torch.no_grad():
        for p in algo.parameters():
            p.mul_(100)
    policy, rows = algo.policy([algo.PolicyConfig()] * 8), torch.arange(8)
    policy.reset(rows)
    actions = policy.act(torch.randn(8, 3), rows)
    low, high = episodes.actions.amin(0), episodes.actions.amax(0)
    assert ((low - 1e-5 <= actions) & (actions <= high + 1e-5)).all()


# --- raw data in ---


@has_option("normalize")
def test_takes_raw_observations(setup: Setup) -> None:
    """Where the algorithm normalizes, data in other units teaches the same actions."""
    normalizing = build(setup.name, setup.kind, normalize=True)
    stretched = dataclasses.replace(setup.episodes, observations=setup.episodes.observations * 1024)
    found = []
    for factor, episodes in ((1, setup.episodes), (1024, stretched)):
        algo: Any = normalizing.make(episodes)
        torch.manual_seed(1)
        normalizing.updates(algo, 3, episodes)
        (batch,) = setup.batches(algo, 1)
        policy, rows = algo.policy([algo.PolicyConfig()] * 8), torch.arange(8)
        policy.reset(rows)
        seen = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) * factor
        predicted = algo.predict(batch._replace(observations=batch.observations * factor))
        found.append((policy.act(seen, rows), predicted))
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(other, plain, atol=1e-3, rtol=1e-3)
    fitted: Any = [build(setup.name, setup.kind, normalize=value).make() for value in (True, False)]
    assert [bool(algo.normalizer.mean.any()) for algo in fitted] == [True, False]


@has_option("state_encoder")
@pytest.mark.parametrize("kind", ["box", "frames", "channels", "packed"])
def test_learns_and_acts_from_stacked_observations_through_an_encoder(setup: Setup, kind: str) -> None:
    """Vectors by an MLP, uint8 images and both together by what a plugin might bring, two at a time; as predicted."""
    setup = build(setup.name, setup.kind, state_encoder="mlp")
    if kind != "box":
        entry = Entry("encoder", "tiny_conv", TinyConv, Owner("test"))
        used = Choice("tiny_conv", {}, entry, TinyConv.Config())
        if kind == "packed":
            fusion = Fusion.Config(image_encoder=used, image_dim=8, hidden_dims=(8,))
            used = Choice("fusion", {}, Entry("encoder", "fusion", Fusion, Owner("test")), fusion)
        setup.choice = dataclasses.replace(
            setup.choice, config=dataclasses.replace(setup.choice.config, state_encoder=used)
        )
    seen, acted = make_episodes(kind, (9, 7, 8)), make_episodes(setup.kind, (9, 7, 8))
    spec = DataSpec(seen.spec.observation_space, acted.spec.action_space, frame_stack=2, max_steps=10)
    episodes = dataclasses.replace(seen, actions=acted.actions, spec=spec)
    algo = setup.make(episodes)
    before = copy.deepcopy(algo)
    assert all(bool(torch.isfinite(value)) for m in setup.updates(algo, 2, episodes) for value in m.values())
    encoders = [
        (key, part) for key, part in algo.named_modules() if isinstance(part, MLP if kind == "box" else TinyConv)
    ]
    assert encoders
    for key, encoder in encoders:  # each learns or follows
        pairs = zip(encoder.parameters(), before.get_submodule(key).parameters(), strict=True)
        assert any(not torch.equal(new, old) for new, old in pairs), key
        if isinstance(encoder, TinyConv):
            shape = (2, 4, 5) if kind == "frames" else (4, 4, 5)
            assert set(encoder.seen) <= {(torch.uint8, torch.Size(shape))}
    policy, row = algo.policy([algo.PolicyConfig()]), torch.zeros(1, dtype=torch.int64)
    policy.reset(row)
    actions = torch.cat([policy.act(frame[None], row) for frame in seen.observations[:8]])
    assert all(spec.action_space.contains(action) for action in actions.numpy())
    batch = algo.dataset(episodes).gather(torch.arange(8))
    if not isinstance(batch, WindowBatch):
        torch.testing.assert_close(actions, algo.predict(batch), atol=1e-5, rtol=1e-4)


# --- saving and resuming ---


def test_saves_and_loads_bit_equal(setup: Setup, tmp_path: Path) -> None:
    algo = setup.train()
    settings = Settings(source=Choice("toy"), algo=setup.choice)
    checkpoint.save(tmp_path / "checkpoints", 10, algo, settings, NOTHING)
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
        "source": {"name": "toy", "discrete": setup.kind == "discrete", "multi": setup.kind == "multi"},
        "algo": {"name": setup.name, **setup.case.options},
        "trainer": {"name": "offline", "steps": 24, "batch_size": 16, "check_every": 5},
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
        for step, batch in enumerate(setup.batches(algo, 6), 1):
            algo.update(batch, step)
            if watched and step % 2 == 0:
                evaluate(algo, [algo.PolicyConfig()], setup.envs(2), episodes=3, seed=0)
                algo.predict(batch)
                assert algo.training
        found.append((weights_of(algo), torch.get_rng_state()))
    assert equal(found[0], found[1])


# --- declarations ---


def test_declares_what_it_is(setup: Setup) -> None:
    algo, entry = setup.make(), setup.choice.entry
    assert entry is not None
    assert algo.name == setup.name
    assert entry.cls.__doc__ or sys.modules[entry.cls.__module__].__doc__
    for config in (entry.cls.Config, entry.Config, entry.cls.PolicyConfig):
        fields = {f.name for f in dataclasses.fields(config)}
        assert fields <= set(field_docs(config)), "every field has its docstring beneath it"
    assert set(entry.cls.action_spaces) <= set(SPACES.values())
    assert algo.optimizers
    assert set(algo.schedulers) <= set(algo.optimizers)
    trained = {id(p) for name in algo.optimizers for p in algo.parameters_of(name)}
    for name, p in algo.named_parameters():
        assert id(p) in trained or not p.requires_grad, f"{name} is trained by no optimizer"


@pytest.mark.parametrize("name", CATALOGUE.names("algo"))
def test_refuses_other_action_spaces(name: str) -> None:
    entry = CATALOGUE.get("algo", name)
    seen = spaces.Box(-1, 1, (2,), np.float32)
    for space in (seen, spaces.Discrete(5)):
        if not supports(entry.cls, space):
            with pytest.raises(TypeError, match=rf"needs a \w+ action space.* {re.escape(str(space))}"):
                entry.cls(DataSpec(seen, space), entry.Config())
