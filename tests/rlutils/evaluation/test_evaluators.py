"""Evaluators without an environment: FQE against exact values, action error by plain loops, return calibration."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rlutils
from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo.batchrl.bc import BC
from rlalgo.batchrl.dt import DecisionTransformer, RtgEpDataset
from rlalgo.core.dataset import Transitions
from rlalgo.errors import ConfigError, RlalgoError
from rlutils.app import evaluate, hold_out, resume
from rlutils.evaluation.evaluators.action_error import ActionError
from rlutils.evaluation.evaluators.fqe import FQE, _Fit, bounds
from rlutils.evaluation.evaluators.return_calibration import ReturnCalibration, _swap
from tests.rlalgo.batchrl.small_problems import make_grid, make_lq
from tests.rlalgo.batchrl.tiny_conv import with_conv
from tests.rlalgo.toy_data import make_episodes
from tests.rlutils.runs import equal, state, toy_config, weights


class Known(BatchRLAlgo):
    """Not learnt: acts by a function of the batch."""

    name = "known"

    def __init__(self, spec: DataSpec, act: Any, context: int = 0) -> None:
        super().__init__(spec, None)
        self.act, self.context = act, context
        self.unused = nn.Parameter(torch.zeros(1))

    def dataset(self, episodes: Episodes) -> Any:
        return RtgEpDataset(episodes, self.context) if self.context else Transitions(episodes)

    def predict(self, batch: Any) -> Tensor:
        return self.act(batch)

    def update(self, batch: Any) -> dict[str, Tensor]:
        raise AssertionError("an evaluator does not train the algorithm")

    def policy(self, options: Any) -> Any:
        raise AssertionError("nothing is played")


def run_of(episodes: Episodes, held_out: Episodes | None = None) -> Any:
    """What evaluators look at of a run."""
    return SimpleNamespace(episodes=episodes, held_out=held_out)


def fqe(algo: BatchRLAlgo, episodes: Episodes, **config: Any) -> dict[str, float]:
    small = {"steps": 1000, "batch_size": 128, "hidden_dims": (32,), "lr": 3e-3, "gamma": 0.9, "tau": 0.05}
    return FQE(FQE.Config(**{**small, **config})).evaluate(algo, episodes, run_of(episodes))


# --- FQE ---


@pytest.mark.parametrize("policy", ["best", "worst", "mixed"])
def test_fqe_of_a_known_policy_in_the_gridworld(policy: str) -> None:
    grid = make_grid()
    best = grid.optimal()
    if policy == "mixed":
        moves = np.where(np.arange(len(best)) % 2, best.argmax(1), best.argmin(1))
    else:
        moves = best.argmax(1) if policy == "best" else best.argmin(1)
    episodes = grid.episodes()
    starts = episodes.observations[episodes.first_rows()].argmax(1).numpy()
    true = grid.value(moves)[starts].mean()
    algo = Known(episodes.spec, lambda batch: torch.from_numpy(moves)[batch.observations.argmax(1)])
    found = fqe(algo, episodes)
    assert found["value"] == pytest.approx(true, abs=0.3)  # best 6.7, worst 0, mixed 1.7; the data got 0.9
    assert 0 <= found["sd"] < 0.3


@pytest.mark.parametrize("share", [1.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_fqe_of_a_known_controller(share: float) -> None:
    lq = make_lq()
    episodes = lq.episodes()
    gain = share * lq.best_gain()
    starts = episodes.observations[episodes.first_rows()].double().numpy()
    true = -lq.costs(gain, starts).mean()
    algo = Known(episodes.spec, lambda batch: -batch.observations @ torch.from_numpy(gain).float().T)
    found = fqe(algo, episodes, steps=2000, hidden_dims=(64, 64), lr=1e-3)
    assert found["value"] == pytest.approx(true, abs=0.25)  # -1.04 and -1.20, from data that got -6.7


def test_fqe_targets_stop_at_terminations_but_not_at_cuts() -> None:
    """Against a loop over rows, with values put back into the units of rewards."""
    for kind in ("box", "discrete"):
        episodes = make_episodes(kind, (3, 2, 4), seed=1, terminated=[True, False, True])
        config = FQE.Config(hidden_dims=(8,), n_critics=3, gamma=0.9)
        torch.manual_seed(0)
        fit = _Fit(episodes.spec, config, episodes)
        for p in fit.target.parameters():
            p.copy_(p + torch.randn_like(p))
        data = Transitions(episodes)
        batch = data.gather(torch.arange(len(data)))
        after = batch.actions.roll(1, 0)
        got = fit.center + fit.scale * fit.targets(batch, after)  # (3, N)
        low, high = 10 * min(0.0, float(batch.rewards.min())), 10 * max(0.0, float(batch.rewards.max()))
        for i in range(len(data)):
            state = fit.normalizer(batch.next_observations[i : i + 1])
            if kind == "box":
                action = (after[i] - torch.tensor([0.0, 2.0])) / torch.tensor([1.0, 2.0])  # of [-1, 1] x [0, 4]
                values = fit.target.copy(state, action[None])[:, 0]
            else:
                values = fit.target.copy(state)[:, 0, after[i]]
            for member in range(3):
                value = min(max(fit.center + fit.scale * float(values[member]), low), high)
                onward = 0.0 if batch.terminals[i] else 0.9 * value
                assert float(got[member, i]) == pytest.approx(float(batch.rewards[i]) + onward, abs=1e-5)
    assert batch.terminals.sum() == 2  # the cut one is not among them


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_no_true_value_is_beyond_the_bounds_of_fqe(gamma: float) -> None:
    """Of any policy in the gridworld, costs and gains alike; and the bounds are reached where a reward never ends."""
    rng = np.random.default_rng(0)
    for shift in (-3.0, 0.0, 3.0):
        grid = make_grid(gamma=gamma)
        grid = replace(grid, rewards=grid.rewards + shift)
        low, high = bounds(grid.episodes(50).rewards + shift, gamma)
        for _ in range(50):
            values = grid.value(rng.integers(0, 4, len(grid.rewards)))[grid.cells()]
            assert low <= values.min()
            assert values.max() <= high
    assert bounds(torch.tensor([1.0, -2.0]), gamma) == pytest.approx((-2 / (1 - gamma), 1 / (1 - gamma)))
    assert bounds(torch.tensor([1.0, 2.0]), 1.0) == (0.0, math.inf)


def test_a_value_at_its_bound_is_found() -> None:
    lq = make_lq()
    episodes = lq.episodes(100)
    episodes = replace(episodes, rewards=torch.ones_like(episodes.rewards))
    gain = torch.from_numpy(lq.best_gain()).float()
    found = fqe(Known(episodes.spec, lambda batch: -batch.observations @ gain.T), episodes)
    assert found["value"] == pytest.approx(10, abs=0.1)
    assert found["value"] <= 10 + 1e-6


def test_fqe_of_a_policy_that_leaves_the_data_stays_within_the_bounds() -> None:
    lq = make_lq()
    episodes = lq.episodes(50, noise=0.02)
    noise = torch.rand(episodes.rewards.shape, generator=torch.Generator().manual_seed(0))
    episodes = replace(episodes, rewards=0.5 + noise)
    algo = Known(episodes.spec, lambda batch: torch.full((len(batch.observations), 1), 2.0))
    found = fqe(algo, episodes, gamma=0.99, lr=1e-2, tau=1.0)  # 26,000 if it is not cut
    assert 0 <= found["value"] <= float(episodes.rewards.max()) / 0.01


def test_fqe_is_the_same_again_and_leaves_the_random_numbers_alone() -> None:
    episodes = make_episodes("discrete", (5, 6, 4))
    algo = Known(episodes.spec, lambda batch: batch.observations.sum(1).gt(0).long())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = fqe(algo, episodes, steps=20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert fqe(algo, episodes, steps=20) == first
    assert fqe(algo, episodes, steps=20, seed=1) != first
    assert fqe(algo, episodes, steps=20, n_critics=1)["sd"] == 0


def test_fqe_looks_at_the_initial_states_alone_and_at_the_algorithm_in_eval_mode() -> None:
    """With one update of a vanishing rate, the value is that of the critics as they were made."""
    episodes = make_episodes("box", (3, 1, 4))
    algo = BC(episodes.spec, BC.Config(hidden_dims=(8, 8), dropout=0.5)).train()
    algo.prepare(episodes, 1)
    config = FQE.Config(steps=1, hidden_dims=(8,), lr=1e-12, n_critics=2)
    found = FQE(config).evaluate(algo, episodes, run_of(episodes))
    assert algo.training
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        fit = _Fit(episodes.spec, config, episodes)
    algo.eval()
    rows = torch.tensor([0, 4, 6])  # of 3+1, 1+1 and 4+1 observations
    states = episodes.observations[rows]
    with torch.no_grad():
        q = fit(states, algo.scaler.inverse(algo(states).mode())).mean(1) * fit.scale + fit.center
    assert found["value"] == pytest.approx(float(q.mean()), abs=1e-4)
    assert found["sd"] == pytest.approx(float(q.std()), rel=1e-3)


def test_fqe_refuses_a_policy_of_sequences_and_says_what_to_use() -> None:
    episodes = make_episodes("box")
    algo = DecisionTransformer(episodes.spec, DecisionTransformer.Config(context_length=3, embed_dim=8, n_layers=1))
    with pytest.raises(RlalgoError, match=r"fqe needs .* dt acts on a sequence\. Try action_error or"):
        fqe(algo, episodes)
    with pytest.raises(ConfigError, match=r"fqe\.held_out: no episodes are held out; set holdout"):
        fqe(BC(episodes.spec, BC.Config()), episodes, held_out=True)


def test_fqe_fits_the_training_episodes_or_if_asked_the_held_out_ones() -> None:
    episodes = make_episodes("discrete", (5, 6, 4, 3))
    training, held_out = hold_out(episodes, 0.5, seed=0)
    assert held_out is not None
    algo = Known(episodes.spec, lambda batch: batch.actions)
    run = run_of(training, held_out)

    def value(evaluator: FQE) -> float:
        return evaluator.evaluate(algo, held_out, run)["value"]

    config = FQE.Config(steps=3, hidden_dims=(8, 8))
    assert value(FQE(config)) == FQE(config).evaluate(algo, training, run_of(training))["value"]
    alone = FQE(config).evaluate(algo, held_out, run_of(held_out))["value"]
    assert value(FQE(replace(config, held_out=True))) == alone != value(FQE(config))


def test_fqe_of_images_with_an_encoder_from_a_plugin() -> None:
    episodes = make_episodes("channels", (5, 6, 4), frame_stack=2)
    algo = Known(episodes.spec, lambda batch: batch.observations[:, 0, 0, 0].long() % 3)
    config = with_conv(FQE, steps=5, hidden_dims=(8, 8))
    found = FQE(config).evaluate(algo, episodes, run_of(episodes))
    assert all(math.isfinite(value) for value in found.values())
    assert found != FQE(with_conv(FQE, steps=6, hidden_dims=(8, 8))).evaluate(algo, episodes, run_of(episodes))


# --- action error ---


def error_by_hand(got: list[Any], wanted: list[Any]) -> float:
    if isinstance(wanted[0], int):
        return sum(a != b for a, b in zip(got, wanted, strict=True)) / len(wanted)
    mean = [sum(column) / len(wanted) for column in zip(*wanted, strict=True)]
    off = sum((x - y) ** 2 for a, b in zip(got, wanted, strict=True) for x, y in zip(a, b, strict=True))
    spread = sum((y - m) ** 2 for b in wanted for y, m in zip(b, mean, strict=True))
    return off / spread


@pytest.mark.parametrize("kind", ["box", "discrete"])
@pytest.mark.parametrize("batch_size", [3, 100])
def test_action_error_of_transitions(kind: str, batch_size: int) -> None:
    episodes = make_episodes(kind, (3, 1, 4))
    algo = Known(episodes.spec, lambda batch: (batch.actions + (batch.observations[:, :1] if kind == "box" else 0))
                 if kind == "box" else batch.observations[:, 0].gt(0).long())  # fmt: skip
    data = Transitions(episodes)
    batch = data.gather(torch.arange(len(data)))
    found = ActionError(ActionError.Config(batch_size=batch_size)).evaluate(algo, episodes, run_of(episodes, episodes))
    wanted = error_by_hand(algo.predict(batch).tolist(), batch.actions.tolist())
    assert found == {"error": pytest.approx(wanted)}
    assert wanted > 0


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_action_error_of_windows_leaves_padding_out(kind: str) -> None:
    episodes = make_episodes(kind, (3, 1, 4))
    algo = Known(episodes.spec, lambda batch: torch.where(
        batch.timesteps.view(*batch.timesteps.shape, *[1] * (batch.actions.dim() - 2)) == 1,
        batch.actions + 1, batch.actions), context=3)  # fmt: skip
    got, wanted = [], []
    actions, step = episodes.actions.tolist(), 0
    for length in (3, 1, 4):
        for start in range(length):
            for t in range(start, min(start + 3, length)):
                a = actions[step + t]
                wanted.append(a)
                got.append(a if t != 1 else a + 1 if kind == "discrete" else [x + 1 for x in a])
        step += length
    found = ActionError(ActionError.Config(batch_size=2)).evaluate(algo, episodes, run_of(episodes, episodes))
    assert found["error"] == pytest.approx(error_by_hand(got, wanted))
    assert found["error"] > 0


def test_action_error_where_all_actions_are_the_same() -> None:
    episodes = make_episodes("box", (3, 4))
    episodes = replace(episodes, actions=torch.full_like(episodes.actions, 0.3))
    algo = Known(episodes.spec, lambda batch: batch.actions + 0.1)
    found = ActionError(ActionError.Config(batch_size=3)).evaluate(algo, episodes, run_of(episodes, episodes))
    assert found["error"] == pytest.approx(episodes.actions.shape[1] * 0.1**2, rel=1e-4)


def test_action_error_looks_at_as_many_items_as_it_is_told() -> None:
    episodes = make_episodes("discrete", (30, 30))
    seen: list[Tensor] = []

    def act(batch: Any) -> Tensor:
        seen.append(batch.observations)
        return batch.actions

    evaluator = ActionError(ActionError.Config(items=25, batch_size=10))
    assert evaluator.evaluate(Known(episodes.spec, act), episodes, run_of(episodes, episodes)) == {"error": 0}
    assert [len(part) for part in seen] == [10, 10, 5]
    assert len(torch.cat(seen).unique(dim=0)) == 25
    before = list(seen)
    evaluator.evaluate(Known(episodes.spec, act), episodes, run_of(episodes, episodes))
    assert all(torch.equal(a, b) for a, b in zip(before, seen[3:], strict=True))


def test_without_held_out_episodes_it_says_what_to_do() -> None:
    episodes = make_episodes("discrete")
    algo = Known(episodes.spec, lambda batch: batch.actions)
    for cls in (ActionError, ReturnCalibration):
        with pytest.raises(ConfigError, match=r"holdout: 0\.1.*allow_training_data: true"):
            cls(cls.Config()).evaluate(algo, episodes, run_of(episodes))
    allowed = ActionError(ActionError.Config(allow_training_data=True))
    assert allowed.evaluate(algo, episodes, run_of(episodes)) == {"error": 0}


# --- return calibration ---


def asked(scale: float = 0.1, bias: float = 0.0, deaf: bool = False) -> tuple[Known, Episodes]:
    """Actions of the data are `scale` times the return-to-go; the model takes it for `bias` too little, or is deaf."""
    episodes = make_episodes("box", (12,) * 30, seed=2)
    rtg = episodes.returns_to_go()
    wanted = (scale * rtg).unsqueeze(1).expand(-1, 2)
    episodes = replace(episodes, actions=wanted.clone())

    def act(batch: Any) -> Tensor:
        heard = torch.zeros_like(batch.returns_to_go) if deaf else batch.returns_to_go - bias
        return (scale * heard).unsqueeze(-1).expand(-1, -1, 2)

    return Known(episodes.spec, act, context=4), episodes


def calibration(algo: BatchRLAlgo, episodes: Episodes, **config: Any) -> dict[str, float]:
    run = run_of(episodes, episodes)
    return ReturnCalibration(ReturnCalibration.Config(**config)).evaluate(algo, episodes, run)


def test_a_model_that_hears_its_target_is_calibrated() -> None:
    found = calibration(*asked())
    assert found["error"] == pytest.approx(0, abs=1e-9)
    assert found["rtg_gain"] == pytest.approx(1, abs=1e-6)
    assert found["best_offset"] == 0
    assert set(found) == {"error", "rtg_gain", "best_offset"}


def test_a_deaf_model_gains_nothing() -> None:
    found = calibration(*asked(deaf=True))
    assert found["error"] > 0.5
    assert found["rtg_gain"] == pytest.approx(0, abs=1e-9)
    assert found["best_offset"] == 0  # all are alike; the nearest is named


@pytest.mark.parametrize("offset", [-0.5, 0.5, 1.0])
def test_a_model_that_must_be_asked_for_too_much_or_too_little(offset: float) -> None:
    episodes = asked()[1]
    unit = float(np.std(episodes.returns().numpy()))
    found = calibration(*asked(bias=offset * unit))
    assert found["best_offset"] == offset
    assert found["error"] > 0.01
    assert 0 < found["rtg_gain"] < 1


@pytest.mark.parametrize("seed", range(20))
def test_the_other_window_shares_the_timestep_where_one_does(seed: int) -> None:
    """Ragged episodes, so that some timesteps have one window only; by a plain search."""
    generator = torch.Generator().manual_seed(seed)
    lengths = tuple(
        torch.randint(1, 9, (int(torch.randint(1, 6, (), generator=generator)),), generator=generator).tolist()
    )
    data = RtgEpDataset(make_episodes("box", lengths, seed=seed), 3)
    rows = torch.randperm(len(data), generator=generator).split(4)
    windows = [w for part in rows for w in zip(*(c[:, 0].tolist() for c in (
        data.gather(part).timesteps, data.gather(part).returns_to_go)), strict=True)]  # fmt: skip
    for (at, mine), moved in zip(windows, _swap(data, rows).tolist(), strict=True):
        mates = [rtg for t, rtg in windows if t == at and rtg != mine]
        later = sorted(t for t, _ in windows if t != at)
        near = next((t for t in later if t > at), max(later, default=at))
        if not mates:
            mates = [rtg for t, rtg in windows if t == near]
        assert any(mine + moved == pytest.approx(rtg, abs=1e-5) for rtg in mates)


def test_the_other_return_is_that_of_a_window_of_the_same_timestep() -> None:
    algo, episodes = asked()
    calls: list[Any] = []
    algo.act = lambda batch: (calls.append(batch), batch.actions)[1]
    calibration(algo, episodes, offsets=(0.0,), items=360, batch_size=50)
    true, other = calls[8:16], calls[16:]  # after those of the one offset

    def firsts(batches: list[Any]) -> list[tuple[int, float]]:
        """Timestep and return-to-go that each window begins with."""
        return [
            (int(t), float(r)) for b in batches for t, r in zip(b.timesteps[:, 0], b.returns_to_go[:, 0], strict=True)
        ]

    known = firsts(true)
    same_time = [any(t == at and abs(r - have) < 1e-3 for at, have in known) for t, r in firsts(other)]
    assert len(same_time) == 360
    assert all(same_time)
    for a, b in zip(true, other, strict=True):
        moved = b.returns_to_go - a.returns_to_go  # (B, K)
        assert (moved[:, 0].abs() > 1e-3).all()
        assert moved.sub(moved[:, :1])[a.mask].abs().max() < 1e-4  # by one amount for a whole window


def test_return_calibration_refuses_algorithms_that_are_not_asked_for_returns() -> None:
    episodes = make_episodes("box")
    with pytest.raises(RlalgoError, match=r"return_calibration needs .* bc is not\. Try action_error or fqe"):
        calibration(BC(episodes.spec, BC.Config()), episodes)
    with pytest.raises(ValueError, match="offsets is empty"):
        ReturnCalibration.Config(offsets=())


def test_the_return_head_by_hand() -> None:
    episodes = make_episodes("box", (3, 1, 4))
    torch.manual_seed(0)
    config = DecisionTransformer.Config(context_length=3, embed_dim=8, n_layers=1, return_loss=1.0, return_scale=2.0)
    algo = DecisionTransformer(episodes.spec, config).train()
    algo.prepare(episodes, 10_000)
    found = calibration(algo, episodes, batch_size=3)
    got, wanted = [], []
    algo.eval()
    data = algo.dataset(episodes)
    for i in range(len(data)):
        batch = data.gather(torch.tensor([i]))
        with torch.no_grad():
            out = algo(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps).returns
        for t in range(int(batch.mask.sum()) - 1):
            got.append(2.0 * float(out[0, t]))
            wanted.append(float(batch.returns_to_go[0, t + 1]))
    off = np.array(got) - np.array(wanted)
    assert found["return_bias"] == pytest.approx(off.mean(), abs=1e-5)
    assert found["return_rmse"] == pytest.approx(math.sqrt((off**2).mean()), abs=1e-5)
    assert found["return_correlation"] == pytest.approx(np.corrcoef(got, wanted)[0, 1], abs=1e-4)


# --- in a run ---


def data_only(algo: str, evaluators: list[Any], **changes: Any) -> dict[str, Any]:
    evaluation = {"every": 20, "episodes": 0, "evaluators": evaluators}
    return toy_config(algo, evaluation=evaluation, **changes)


SMALL_FQE = {"name": "fqe", "steps": 30, "hidden_dims": [8], "batch_size": 32}


def measured(folder: Path) -> dict[int, dict[str, float]]:
    files = [json.loads(path.read_text()) for path in sorted((folder / "evaluations").glob("step_*.json"))]
    return {found["step"]: found["metrics"] for found in files}


def test_a_user_without_a_simulator_picks_by_fqe(tmp_path: Path) -> None:
    config = data_only("bc", [SMALL_FQE], callbacks=[{"name": "best", "metric": "fqe/value"}])
    run = rlutils.train(config, out=tmp_path / "run")
    values = {step: metrics["fqe/value"] for step, metrics in measured(tmp_path / "run").items()}
    assert list(values) == [20, 40, 60]
    assert len(set(values.values())) == 3
    assert run.best_step == max(values, key=values.__getitem__)
    again = evaluate(tmp_path / "run", "best", plugins=config["plugins"])
    assert again.metrics["fqe/value"] == pytest.approx(values[run.best_step])


def test_evaluating_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    evaluators = [SMALL_FQE, {"name": "action_error", "allow_training_data": True}]
    rlutils.train(data_only("bc", evaluators), out=tmp_path / "often")
    rlutils.train(toy_config("bc", evaluation={"every": 0, "episodes": 0}), out=tmp_path / "never")
    assert equal(weights(tmp_path / "often"), weights(tmp_path / "never"))
    often, never = state(tmp_path / "often"), state(tmp_path / "never")
    assert equal(often["rng"], never["rng"])


def test_held_out_episodes_are_kept_from_training_recorded_and_the_same_after_a_resume(tmp_path: Path) -> None:
    evaluators = ["action_error", "return_calibration"]
    config = data_only("dt", evaluators, holdout=0.25)
    run = rlutils.train(config, out=tmp_path / "run")
    assert run.held_out is not None
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (len(run.held_out), len(run.episodes), kept["episodes"]) == (10, 30, 30)
    assert kept["held_out"] == run.held_out.info["episode"].tolist() == sorted(set(kept["held_out"]))

    source = rlutils.train(toy_config("bc", trainer={"name": "offline", "steps": 1}), out=tmp_path / "all").episodes
    trained_on = [i for i in range(40) if i not in kept["held_out"]]
    assert torch.equal(run.held_out.rewards, source.select(torch.tensor(kept["held_out"])).rewards)
    assert torch.equal(run.episodes.observations, source.select(torch.tensor(trained_on)).observations)

    found = measured(tmp_path / "run")
    names = {"action_error/error", "return_calibration/error", "return_calibration/rtg_gain"}
    assert all(names <= set(metrics) for metrics in found.values())
    assert evaluate(tmp_path / "run", plugins=config["plugins"]).metrics == pytest.approx(found[60])
    algo, measure = rlutils.load(tmp_path / "run", plugins=config["plugins"]), ActionError(ActionError.Config())
    by_hand = [measure.evaluate(algo, part, run_of(part, part))["error"] for part in (run.held_out, run.episodes)]
    assert found[60]["action_error/error"] == pytest.approx(by_hand[0]) != pytest.approx(by_hand[1])

    longer = resume(tmp_path / "run", ["trainer.steps=80"], config["plugins"])
    assert longer.held_out is not None
    assert torch.equal(longer.held_out.info["episode"], run.held_out.info["episode"])
    assert longer.step == 80


def test_what_a_run_was_not_trained_on_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    config = data_only("bc", ["action_error"], holdout=0.25)
    rlutils.train(config, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="keeps its algo, source, seed, holdout"):
        resume(tmp_path / "run", ["holdout=0.5"], config["plugins"])
    for change in ("holdout=0.5", "holdout=null", "seed=3"):
        with pytest.raises(ConfigError, match="cannot be overridden"):
            evaluate(tmp_path / "run", overrides=[change], plugins=config["plugins"])


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_holdout_of_nothing_or_all_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holdout: .*should be (greater|less) than"):
        rlutils.train(toy_config("bc", holdout=share), out=tmp_path / "run")


def test_hold_out() -> None:
    episodes = make_episodes("box", [2] * 10)
    assert hold_out(episodes, None, 0) == (episodes, None)
    parts = [hold_out(episodes, share, seed) for share, seed in [(0.3, 0), (0.3, 0), (0.3, 1), (0.01, 0), (0.99, 0)]]
    kept = [part.info["episode"].tolist() for _, part in parts if part is not None]
    assert [len(k) for k in kept] == [3, 3, 3, 1, 9]
    assert kept[0] == kept[1] != kept[2]
    for training, held_out in parts:
        assert held_out is not None
        together = sorted([*training.info["seed"].tolist(), *held_out.info["seed"].tolist()])
        assert together == list(range(10))
        assert held_out.info["seed"].tolist() == held_out.info["episode"].tolist()
    with pytest.raises(ConfigError, match=r"holdout: the data has 1 episode"):
        hold_out(episodes.select(torch.tensor([0])), 0.5, 0)
