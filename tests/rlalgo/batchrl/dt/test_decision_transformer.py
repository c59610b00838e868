"""DecisionTransformer: what it minimizes, on what data, and with which schedule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo import Choice, DataSpec, Episodes, WindowBatch
from rlalgo.batchrl.dt import DecisionTransformer
from rlalgo.errors import RlalgoWarning
from tests.rlalgo.toy_data import BOX_ACTIONS, make_episodes

SMALL: dict[str, Any] = {
    "context_length": 4,
    "embed_dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "dropout": 0.0,
    "warmup": 0,
    "return_scale": 5.0,
}


def make(episodes: Episodes, total_steps: int = 100, **config: Any) -> DecisionTransformer:
    """A small model with weights of ordinary size, prepared on these episodes."""
    torch.manual_seed(0)
    algo = DecisionTransformer(episodes.spec, DecisionTransformer.Config(**{**SMALL, **config}))
    with torch.no_grad():
        for p in algo.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    algo.prepare(episodes, total_steps)
    return algo


def everything(algo: DecisionTransformer, episodes: Episodes) -> WindowBatch:
    """All windows of the data as one batch."""
    data = algo.dataset(episodes)
    return data.gather(torch.arange(len(data)))


def predictions(algo: DecisionTransformer, batch: WindowBatch) -> Any:
    with torch.no_grad():
        return algo(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)


def noise_in_padding(batch: WindowBatch) -> WindowBatch:
    """The same real steps, and other numbers where there are none."""
    torch.manual_seed(9)
    pad = ~batch.mask

    def noisy(x: Tensor) -> Tensor:
        other = torch.randn_like(x) * 3 if x.is_floating_point() else torch.randint_like(x, 3)
        return torch.where(pad.view(*pad.shape, *(1,) * (x.dim() - 2)), other, x)

    return WindowBatch(*(noisy(x) for x in batch[:-1]), batch.mask)


# --- scales ---


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1 / 49, 49.0, 1 / 51, 51.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_return_scale_far_from_the_returns_is_told(factor: float, sign: float) -> None:
    episodes = make_episodes("box", (3, 1, 6))
    episodes = dataclasses.replace(episodes, rewards=sign * episodes.rewards.abs())
    scale = float(episodes.returns().abs().max()) * factor
    if 1 / 50 < factor < 50:
        make(episodes, return_scale=scale)
    else:
        with pytest.warns(RlalgoWarning, match=r"return_scale: .* is far from the data's returns, up to") as said:
            make(episodes, return_scale=scale)
        assert len(said) == 1
    make(episodes, return_scale=scale, return_encoder=Choice("linear", {"tanh": True}))  # the authors' on Atari
    make(dataclasses.replace(episodes, rewards=0 * episodes.rewards), return_scale=scale)  # no scale is right


# --- the loss ---


def test_loss_is_the_squared_error_over_real_steps() -> None:
    episodes = make_episodes("box", (3, 1, 6))
    algo = make(episodes)
    batch = everything(algo, episodes)
    predicted = predictions(algo, batch).actions.mode()
    errors = []
    for b in range(len(batch.mask)):
        for t in range(4):
            if batch.mask[b, t]:
                for i, (low, high) in enumerate(zip(BOX_ACTIONS.low, BOX_ACTIONS.high, strict=True)):
                    raw = float(batch.actions[b, t, i])
                    errors.append((float(predicted[b, t, i]) - (2 * (raw - low) / (high - low) - 1)) ** 2)
    assert len(errors) < batch.mask.numel() * 2  # there is padding, and it is not counted
    metrics = algo.update(batch, 1)
    assert set(metrics) == {"actor/loss"}
    assert float(metrics["actor/loss"]) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_loss_is_the_cross_entropy_over_real_steps() -> None:
    episodes = make_episodes("discrete", (3, 1, 6))
    algo = make(episodes)
    batch = everything(algo, episodes)
    logits = predictions(algo, batch).actions.logits
    errors = []
    for b in range(len(batch.mask)):
        for t in range(4):
            if batch.mask[b, t]:
                scores = [math.exp(float(x)) for x in logits[b, t]]
                errors.append(-math.log(scores[int(batch.actions[b, t])] / sum(scores)))
    assert float(algo.update(batch, 1)["actor/loss"]) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_next_state_and_return_are_predicted_where_there_is_a_next_step() -> None:
    episodes = make_episodes("box", (3, 1, 6))
    algo = make(episodes, state_loss=0.5, return_loss=2.0)
    batch = everything(algo, episodes)
    out = predictions(algo, batch)
    rows = torch.arange(episodes.steps) + episodes.episode_ids()
    seen = episodes.observations[rows].double().numpy()
    mean, std = seen.mean(0), seen.std(0) + 1e-6
    states, returns = [], []
    for b in range(len(batch.mask)):
        for t in range(3):
            if batch.mask[b, t + 1]:
                following = (batch.observations[b, t + 1].numpy() - mean) / std
                states.append(float(((out.observations[b, t].numpy() - following) ** 2).mean()))
                returns.append((float(out.returns[b, t]) - float(batch.returns_to_go[b, t + 1]) / 5.0) ** 2)
    metrics = {key: float(value) for key, value in algo.update(batch, 1).items()}
    assert metrics["state/loss"] == pytest.approx(np.mean(states), rel=1e-4)
    assert metrics["return/loss"] == pytest.approx(np.mean(returns), rel=1e-4)
    assert metrics["loss"] == pytest.approx(
        metrics["actor/loss"] + 0.5 * metrics["state/loss"] + 2.0 * metrics["return/loss"], rel=1e-5
    )


@pytest.mark.parametrize("weights", [{"state_loss": 1.0}, {"return_loss": 1.0}])
def test_each_extra_head_comes_alone_too(weights: dict[str, float]) -> None:
    episodes = make_episodes("discrete", (3, 5))
    algo = make(episodes, **weights)
    name = next(iter(weights)).replace("_", "/")
    assert set(algo.update(everything(algo, episodes), 1)) == {"loss", "actor/loss", name}


def test_extra_heads_do_not_change_what_the_actions_learn_when_their_weight_is_small() -> None:
    """Both ways through the model (state tokens alone, and all tokens) give the action loss the same gradient."""
    episodes = make_episodes("box", (3, 1, 6))
    lean, full = make(episodes), make(episodes, return_loss=1e-12)
    shared = {key: value for key, value in lean.state_dict().items() if key in full.state_dict()}
    full.load_state_dict(shared, strict=False)
    for algo in (lean, full):
        algo.update(everything(algo, episodes), 1)
    theirs = dict(full.model.named_parameters())
    for name, p in lean.model.named_parameters():
        torch.testing.assert_close(p.grad, theirs[name].grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["box", "discrete"])
@pytest.mark.parametrize("weights", [{}, {"state_loss": 0.3, "return_loss": 0.7}])
@pytest.mark.parametrize("positions", ["timestep", "token"])
def test_padding_changes_neither_loss_nor_gradient(kind: str, weights: dict[str, float], positions: str) -> None:
    episodes = make_episodes(kind, (3, 1, 6))
    found = []
    for change in (lambda batch: batch, noise_in_padding):
        algo = make(episodes, positions=positions, max_timestep=10, **weights)
        metrics = algo.update(change(everything(algo, episodes)), 1)
        found.append((metrics, {name: p.grad for name, p in algo.named_parameters()}))
    (metrics, gradients), (other_metrics, other_gradients) = found
    for name, value in metrics.items():
        assert float(value) == pytest.approx(float(other_metrics[name]), rel=1e-6), name
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, atol=1e-6, rtol=1e-5)


# --- the data ---


def test_normalizer_sees_each_step_once_and_nothing_else() -> None:
    episodes = make_episodes("box", (3, 1, 6))
    algo = make(episodes)
    seen, row = [], 0
    for length in (3, 1, 6):
        seen += episodes.observations[row : row + length].tolist()  # not the one after the last step
        row += length + 1
    np.testing.assert_allclose(algo.normalizer.mean, np.mean(seen, 0), rtol=1e-5)
    np.testing.assert_allclose(algo.normalizer.std, np.std(seen, 0) + 1e-6, rtol=1e-5)
    plain = make(episodes, normalize=False)
    assert not plain.normalizer.mean.any()
    assert (plain.normalizer.std == 1).all()


def test_statistics_are_of_all_data_and_windows_of_the_best() -> None:
    """As the authors' code does with pct_traj: states are normalized before the trajectories are chosen."""
    episodes = make_episodes("box", (5, 5, 5, 5))
    algo = make(episodes, keep_top=0.5)
    assert torch.equal(algo.normalizer.mean, make(episodes).normalizer.mean)
    best = episodes.returns().topk(2).indices.sort().values
    rewards = torch.cat([episodes.rewards[5 * e : 5 * e + 5] for e in best])
    data = algo.dataset(episodes)
    assert torch.equal(data.gather(torch.arange(len(data))).rewards[:, 0], rewards)


def test_delayed_gives_all_reward_at_the_end() -> None:
    episodes = make_episodes("box", (3, 5))
    algo = make(episodes, delayed=True)
    batch = everything(algo, episodes)
    totals = [float(episodes.rewards[:3].sum())] * 3 + [float(episodes.rewards[3:].sum())] * 5
    np.testing.assert_allclose(batch.returns_to_go[:, 0], totals, rtol=1e-5)
    np.testing.assert_allclose(batch.rewards[:, 0], [0, 0, totals[0], 0, 0, 0, 0, totals[3]], atol=1e-6)


def test_returns_are_divided_by_the_scale() -> None:
    episodes = make_episodes("box", (4, 4))
    tens, ones = make(episodes, return_scale=10.0), make(episodes, return_scale=1.0)
    batch = everything(tens, episodes)
    scaled = batch._replace(returns_to_go=batch.returns_to_go / 10)
    torch.testing.assert_close(tens.predict(batch), ones.predict(scaled))
    assert not torch.allclose(tens.predict(batch), ones.predict(batch))


def test_late_timesteps_share_the_last_row_of_the_table() -> None:
    episodes = make_episodes("box", (8,), max_steps=50)
    algo = make(episodes, max_timestep=3)
    assert algo.model.embed_timestep.map.num_embeddings == 3
    batch = everything(algo, episodes)
    torch.testing.assert_close(
        algo.predict(batch), algo.predict(batch._replace(timesteps=batch.timesteps.clamp(max=2)))
    )
    rows = [algo.predict(batch._replace(timesteps=torch.full_like(batch.timesteps, t))) for t in range(6)]
    for t in range(3):
        assert all(torch.equal(rows[t], rows[u]) == (t == min(u, 2)) for u in range(6))
    assert make(episodes).model.embed_timestep.map.num_embeddings == 50


def test_token_positions_look_at_the_first_timestep_alone() -> None:
    episodes = make_episodes("box", (4, 4), max_steps=10)
    algo = make(episodes, positions="token")
    batch = everything(algo, episodes)
    others = batch.timesteps.clone()
    others[:, 1:] = 7
    assert torch.equal(algo.predict(batch), algo.predict(batch._replace(timesteps=others)))
    others[:, 0] = 7
    assert not torch.allclose(algo.predict(batch), algo.predict(batch._replace(timesteps=others)))
    assert algo.model.place.shape == (12, 16)  # three tokens for each of the four steps
    algo.update(batch, 1)
    assert algo.model.place.grad.abs().amax(1)[:11].min() > 0  # all but the last action, which nobody reads


@pytest.mark.parametrize("kind", ["frames", "channels"])
def test_images_stay_bytes_until_the_encoder(kind: str) -> None:
    episodes = make_episodes(kind, (3, 5), frame_stack=2)
    algo = make(episodes, return_loss=1.0)
    batch = everything(algo, episodes)
    assert batch.observations.dtype == torch.uint8
    assert not algo.normalizer.mean.any()
    assert math.isfinite(float(algo.update(batch, 1)["loss"]))


# --- optimization ---


def test_learning_rate_follows_warmup_and_cosine() -> None:
    episodes = make_episodes("box", (6,))
    algo = make(episodes, total_steps=30, lr=2e-3, warmup=10, final_lr=0.1)
    batch = everything(algo, episodes)
    for step in range(35):
        if step < 10:
            share = (step + 1) / 10
        else:
            done = min((step - 10) / 20, 1)
            share = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        assert algo.optimizers["model"].param_groups[0]["lr"] == pytest.approx(2e-3 * share)
        algo.update(batch, 1)


def test_learning_rate_is_constant_after_warmup_by_default() -> None:
    episodes = make_episodes("box", (6,))
    algo = make(episodes, total_steps=30, lr=2e-3, warmup=5)
    batch = everything(algo, episodes)
    found = []
    for _ in range(10):
        found.append(algo.optimizers["model"].param_groups[0]["lr"])
        algo.update(batch, 1)
    np.testing.assert_allclose(found, [4e-4, 8e-4, 1.2e-3, 1.6e-3, 2e-3, 2e-3, 2e-3, 2e-3, 2e-3, 2e-3])


def total_norm(algo: DecisionTransformer) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in algo.parameters() if p.grad is not None))


def test_gradients_are_clipped_to_the_norm() -> None:
    episodes = make_episodes("box", (6, 3))
    free = make(episodes, clip=None)
    free.update(everything(free, episodes), 1)
    norm = total_norm(free)
    assert norm > 0.02
    clipped = make(episodes, clip=0.01)
    clipped.update(everything(clipped, episodes), 1)
    assert total_norm(clipped) == pytest.approx(0.01, rel=1e-3)
    loose = make(episodes, clip=2 * norm)
    loose.update(everything(loose, episodes), 1)
    assert total_norm(loose) == pytest.approx(norm, rel=1e-5)


def test_the_first_step_is_adamws() -> None:
    """Adam's first step has length lr in every coordinate; decay shrinks the weight by lr x weight_decay besides."""
    episodes = make_episodes("box", (6, 3))
    algo = make(episodes, lr=1e-2, weight_decay=0.3, clip=None)
    before = {name: p.detach().clone() for name, p in algo.named_parameters()}
    algo.update(everything(algo, episodes), 1)
    for name, p in algo.named_parameters():
        step = 1e-2 * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), before[name] * (1 - 1e-2 * 0.3) - step, atol=1e-6, rtol=1e-5)


def test_only_products_decay_on_atari() -> None:
    """The rule of the authors' Atari code, told by the names: weights of linear maps, and nothing else."""
    episodes = make_episodes("discrete", (6, 3))
    algo = make(episodes, lr=1e-2, weight_decay=0.3, clip=None, decay="products", positions="token")
    before = {name: p.detach().clone() for name, p in algo.named_parameters()}
    algo.update(everything(algo, episodes), 1)
    decayed = set()
    for name, p in algo.named_parameters():
        step = 1e-2 * p.grad / (p.grad.abs() + 1e-8)
        kept = name.endswith(".bias") or any(part in name for part in (".ln_", "_ln.", "place"))
        kept |= name.startswith(("model.embed_action", "model.embed_timestep"))  # tables
        decay = 1 if kept else 1 - 1e-2 * 0.3
        torch.testing.assert_close(p.detach(), before[name] * decay - step, atol=1e-6, rtol=1e-5, msg=name)
        decayed |= set() if kept else {name}
    assert {"model.head.out.weight", "model.embed_state.map.weight", "model.trunk.blocks.0.attn.qkv.weight"} <= decayed


def test_defaults_are_the_papers_gym_setting() -> None:
    """Chen et al. 2021, table 8 and the authors' code."""
    config = DecisionTransformer.Config()
    assert (config.context_length, config.embed_dim, config.n_layers, config.n_heads) == (20, 128, 3, 1)
    assert (config.activation, config.dropout, config.clip) == ("relu", 0.1, 0.25)
    assert (config.lr, config.weight_decay, config.warmup, config.final_lr) == (1e-4, 1e-4, 10_000, 1.0)
    assert (config.state_loss, config.return_loss, config.delayed, config.tanh) == (0.0, 0.0, False, True)
    assert dataclasses.is_dataclass(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0  # type: ignore[misc]


# --- action spaces ---


def constant_action(space: spaces.Box, action: list[float]) -> Episodes:
    episodes = make_episodes("box", (6, 6))
    spec = DataSpec(episodes.spec.observation_space, space)
    return dataclasses.replace(episodes, actions=torch.tensor([action] * 12), spec=spec)


@pytest.mark.parametrize(
    ("space", "action", "tanh"),
    [
        (BOX_ACTIONS, [-0.5, 3.5], True),
        (spaces.Box(-1, 1, (2,), np.float32), [0.9, -0.2], True),
        (spaces.Box(-1, 1, (2,), np.float32), [1.0, -1.0], False),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), [7.0, -3.0], True),
        (
            spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, 2.0], np.float32)),
            [4.0, -3.0],
            True,
        ),
    ],
)
def test_learns_raw_actions_of_any_box(space: spaces.Box, action: list[float], tanh: bool) -> None:
    """Boxes other than [-1, 1] are scaled for the tanh and back, by the data's range where there are no bounds."""
    episodes = constant_action(space, action)
    algo = make(episodes, lr=1e-2, tanh=tanh, clip=None)
    batch = everything(algo, episodes)
    for _ in range(150):
        algo.update(batch, 1)
    predicted = algo.predict(batch)[batch.mask]
    torch.testing.assert_close(predicted, torch.tensor(action).expand_as(predicted), atol=0.15, rtol=0)
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    assert ((predicted >= low) & (predicted <= high)).all()


def test_actions_stay_inside_the_space_however_wild_the_weights() -> None:
    for tanh in (True, False):
        episodes = make_episodes("box", (6, 6))
        algo = make(episodes, tanh=tanh)
        with torch.no_grad():
            algo.model.head.out.weight.mul_(100)
        predicted = algo.predict(everything(algo, episodes))
        low, high = torch.tensor(BOX_ACTIONS.low), torch.tensor(BOX_ACTIONS.high)
        assert ((predicted >= low) & (predicted <= high)).all()
        assert (predicted == low).any()


def test_an_input_action_means_the_same_in_every_box() -> None:
    """The same point of a differently placed box gives the same token, hence the same prediction."""
    episodes = make_episodes("box", (6, 6))
    algo = make(episodes)
    moved = spaces.Box(BOX_ACTIONS.low * 10 + 3, BOX_ACTIONS.high * 10 + 3)
    twin = DecisionTransformer(DataSpec(episodes.spec.observation_space, moved), algo.config)
    twin.load_state_dict(algo.state_dict())
    twin.scaler.fit(dataclasses.replace(episodes, actions=episodes.actions * 10 + 3))
    batch = everything(algo, episodes)
    torch.testing.assert_close(
        twin.predict(batch._replace(actions=batch.actions * 10 + 3)),
        algo.predict(batch) * 10 + 3,
        atol=1e-4,
        rtol=1e-4,
    )


def test_predicts_the_likeliest_discrete_action() -> None:
    episodes = make_episodes("discrete", (5, 4))
    algo = make(episodes)
    batch = everything(algo, episodes)
    expected = predictions(algo, batch).actions.logits.argmax(-1)
    got = algo.predict(batch)
    assert got.dtype == torch.int64
    assert torch.equal(got, expected)


def test_predict_is_in_eval_mode_and_restores_it() -> None:
    episodes = make_episodes("box", (5, 4))
    algo = make(episodes, dropout=0.5)
    batch = everything(algo, episodes)
    algo.train()
    first = algo.predict(batch)
    assert algo.training
    assert torch.equal(first, algo.predict(batch))
    assert not first.requires_grad
    algo.eval()
    algo.predict(batch)
    assert not algo.training


# --- refused ---


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim 10 is not a multiple of n_heads 4"):
        DecisionTransformer.Config(embed_dim=10, n_heads=4)
    with pytest.raises(ValueError, match="context_length must be 2 or more"):
        DecisionTransformer.Config(context_length=1, state_loss=1.0)
    with pytest.raises(TypeError, match="state_loss predicts vector observations"):
        make(make_episodes("frames", (3,)), state_loss=1.0)


def test_a_sampling_policy_needs_discrete_actions() -> None:
    algo = make(make_episodes("box", (3,)))
    with pytest.raises(ValueError, match="Discrete"):
        algo.policy([algo.PolicyConfig(target_return=1.0, sample=True)])


def test_a_context_of_one_sees_the_present_alone() -> None:
    episodes = make_episodes("box", (4, 3))
    algo = make(episodes, context_length=1)
    batch = everything(algo, episodes)
    assert batch.mask.shape == (7, 1)
    assert algo.predict(batch).shape == (7, 1, 2)
    assert math.isfinite(float(algo.update(batch, 1)["actor/loss"]))


def test_the_missions_names() -> None:
    """Two modules, a class and a function, found whatever the case."""
    from rlalgo.batchrl.dt import DT_model, dt_play, rtgEpDataset, trajectory_gpt2

    assert DT_model.__name__ == "rlalgo.batchrl.dt.dt_model"
    assert DT_model.DTModel.__name__ == "DTModel"
    assert trajectory_gpt2.__name__ == "rlalgo.batchrl.dt.trajectory_gpt2"
    assert trajectory_gpt2.TrajectoryGPT2.__name__ == "TrajectoryGPT2"
    assert rtgEpDataset.__name__ == "RtgEpDataset"
    assert dt_play.__name__ == "dt_play"
    assert callable(dt_play)
