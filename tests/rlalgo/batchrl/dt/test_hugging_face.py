"""from_hugging_face and to_hugging_face: the same function as Hugging Face's model, outputs and gradients."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from rlalgo import Choice, DataSpec
from rlalgo.batchrl.dt import DecisionTransformer, DTModel, fast, from_hugging_face, to_hugging_face
from rlalgo.errors import CheckpointError

S, A, K, W = 5, 3, 6, 128

FEW_AND_MANY = [1, 4]
"""Batches of 8 and 32 windows: few and many tokens take different ways through attention."""

VARIANTS = [
    {"n_head": 1, "activation_function": "relu", "action_tanh": True},
    {"n_head": 2, "activation_function": "gelu_new", "action_tanh": False},
    {"n_head": 4, "activation_function": "gelu", "action_tanh": True, "n_inner": 48, "n_layer": 1},
]


def hugging_face(seed: int = 0, **config: Any) -> DecisionTransformerModel:
    """Their model in eval mode, with weights so large that every part matters, the position-0 embedding among them."""
    torch.manual_seed(seed)
    settings = {
        "state_dim": S,
        "act_dim": A,
        "hidden_size": W,
        "max_ep_len": 20,
        "n_layer": 2,
        "n_positions": 64,
    }
    model = DecisionTransformerModel(DecisionTransformerConfig(**{**settings, **config})).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                p.normal_(std=1 / math.sqrt(model.hidden_size))
            else:
                p.normal_(mean=1.0 if ".ln_" in name or "embed_ln.weight" in name else 0.0, std=0.3)
    return model


def windows(times: int = 1) -> dict[str, Tensor]:
    """Windows of every length from 1 to K, and full ones late in an episode; right-padded with noise."""
    torch.manual_seed(1)
    lengths = torch.tensor([*range(1, K + 1), K, K] * times)
    B = len(lengths)
    first = torch.tensor(([0] * K + [4, 13]) * times)  # t < K, then t >= K
    return {
        "observations": torch.randn(B, K, S),
        "actions": torch.rand(B, K, A) * 2 - 1,
        "returns_to_go": torch.randn(B, K),
        "timesteps": first[:, None] + torch.arange(K),
        "mask": torch.arange(K) < lengths[:, None],
    }


def theirs(model: DecisionTransformerModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K, A), (B, K, S), (B, K) of their model, which pads on the left; in our order, 0 at padding."""
    lengths = batch["mask"].sum(1).tolist()

    def left(x: Tensor, value: float = 0.0) -> Tensor:
        rows = [torch.cat([torch.full_like(x[b, n:], value), x[b, :n]]) for b, n in enumerate(lengths)]
        return torch.stack(rows)

    def back(x: Tensor) -> Tensor:
        rows = [torch.cat([x[b, K - n :], torch.zeros_like(x[b, : K - n])]) for b, n in enumerate(lengths)]
        return torch.stack(rows)

    out = model(
        states=left(batch["observations"]),
        actions=left(batch["actions"], -10.0),  # what the authors pad with
        rewards=None,
        returns_to_go=left(batch["returns_to_go"]).unsqueeze(-1),
        timesteps=left(batch["timesteps"]),
        attention_mask=left(batch["mask"]).long(),
    )
    return back(out.action_preds), back(out.state_preds), back(out.return_preds).squeeze(-1)


def ours(model: DTModel, batch: dict[str, Tensor]) -> list[Tensor | None]:
    out = model(*(batch[key] for key in ("observations", "actions", "returns_to_go", "timesteps")))
    mask = batch["mask"]
    predictions = out.actions.mode(), out.observations, out.returns
    return [None if x is None else x * mask.view(*mask.shape, *(1,) * (x.dim() - 2)) for x in predictions]


def without_extra_heads(model: DTModel) -> DTModel:
    model.predict_state = model.predict_return = None
    return model


def partner(name: str) -> tuple[str, bool]:
    """Their parameter's name -> ours, and whether it lies transposed."""
    for pattern, replacement in (
        (r"encoder\.h\.(\d+)\.attn\.c_attn", r"trunk.blocks.\1.attn.qkv"),
        (r"encoder\.h\.(\d+)\.attn\.c_proj", r"trunk.blocks.\1.attn.out"),
        (r"encoder\.h\.(\d+)\.mlp\.c_fc", r"trunk.blocks.\1.mlp.0"),
        (r"encoder\.h\.(\d+)\.mlp\.c_proj", r"trunk.blocks.\1.mlp.2"),
    ):
        found, count = re.subn(pattern, replacement, name)
        if count:
            return found, name.endswith("weight")
    name = name.replace("predict_action.0", "head.out").replace("encoder.h", "trunk.blocks")
    name = name.replace("encoder.ln_f", "trunk.ln_f").replace("encoder.wpe.weight", "embed_ln.bias")
    return re.sub(r"^(embed_(state|action|return|timestep))\.", r"\1.map.", name), False


RUNS = [fast.forward, fast.plain]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("times", FEW_AND_MANY)
@pytest.mark.parametrize("config", VARIANTS)
def test_predicts_what_hugging_face_predicts_on_every_real_token(
    config: dict[str, Any], times: int, run: fast.RunTrunk
) -> None:
    model, batch = hugging_face(**config), windows(times)
    mine = from_hugging_face(model.config.to_dict(), model.state_dict()).eval()
    mine.run_trunk = run
    with torch.no_grad():
        expected, got = theirs(model, batch), ours(mine, batch)
    for a, b in zip(got, expected, strict=True):
        assert b.abs().max() > 0.3  # the weights are not so small that anything would pass
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        lean = ours(without_extra_heads(mine), batch)
    assert lean[1] is None
    assert lean[2] is None
    torch.testing.assert_close(lean[0], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("heads", ["all", "action"])
@pytest.mark.parametrize("times", FEW_AND_MANY)
@pytest.mark.parametrize("config", VARIANTS)
def test_gradients_are_those_of_hugging_face(
    config: dict[str, Any], times: int, heads: str, run: fast.RunTrunk
) -> None:
    model, batch = hugging_face(**config), windows(times)
    mine = from_hugging_face(model.config.to_dict(), model.state_dict()).eval()
    mine.run_trunk = run
    if heads == "action":
        mine = without_extra_heads(mine)
    torch.manual_seed(2)
    expected, got = theirs(model, batch), ours(mine, batch)
    for a, b in zip(got, expected, strict=True):
        if a is not None:
            weights = torch.randn_like(a)
            (a * weights).sum().backward(retain_graph=True)
            (b * weights).sum().backward(retain_graph=True)
    parameters = dict(mine.named_parameters())
    met = set()
    for name, p in model.named_parameters():
        if p.grad is None:  # the word table, and the heads left out
            assert "wte" in name or heads == "action"
            continue
        twin, transposed = partner(name)
        a, b = parameters[twin].grad, p.grad.T if transposed else p.grad
        if name == "encoder.wpe.weight":  # position 0 of every token: the constant that was folded
            assert not b[1:].any()
            b = b[0]
        assert a is not None
        assert b.norm() > 0
        assert (a - b).norm() <= 1e-5 * b.norm(), name
        met.add(twin)
    assert met == set(parameters)


def test_takes_the_config_of_a_published_model() -> None:
    """config.json names only some settings; the rest have the library's defaults."""
    model, batch = hugging_face(n_layer=3), windows()
    short = {
        "hidden_size": W,
        "state_dim": S,
        "act_dim": A,
        "max_ep_len": 20,
        "model_type": "decision_transformer",
    }
    with torch.no_grad():
        expected, got = theirs(model, batch), ours(from_hugging_face(short, model.state_dict()).eval(), batch)
    torch.testing.assert_close(got[0], expected[0], atol=1e-5, rtol=1e-5)


def algorithm(**options: Any) -> DecisionTransformer:
    """Ours in eval mode, with weights so large that every part matters."""
    torch.manual_seed(0)
    spec = DataSpec(spaces.Box(-np.inf, np.inf, (S,)), spaces.Box(-2, 2, (A,)), max_steps=20)
    algo = DecisionTransformer(spec, DecisionTransformer.Config(embed_dim=W, context_length=K, **options))
    for p in algo.model.parameters():
        nn.init.normal_(p, std=0.3 if p.dim() == 1 else 1 / math.sqrt(W))
    return algo.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_heads": 2, "n_layers": 1, "activation": "gelu_new", "tanh": False, "max_timestep": 99},
        {"activation": "gelu", "state_loss": 1.0, "return_loss": 1.0},
    ],
)
def test_hugging_face_predicts_what_ours_does(options: dict[str, Any]) -> None:
    """Strictly loaded: every weight of theirs is given. Heads that ours is without are zeros."""
    algo, batch = algorithm(**options), windows()
    config, weights = to_hugging_face(algo)
    model = DecisionTransformerModel(DecisionTransformerConfig(**config)).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        expected, got = ours(algo.model, batch), theirs(model, batch)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-5, rtol=1e-5)
    back = from_hugging_face(config, weights).state_dict()
    assert all(torch.equal(back[name], weight) for name, weight in algo.model.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({"action_space": spaces.Discrete(3)}, {}, r"actions are Discrete\(3\)"),
        ({"observation_space": spaces.Box(0, 255, (4, 4), np.uint8)}, {}, "observations are Box"),
        ({}, {"positions": "token"}, "positions are tokens'"),
        ({}, {"action_encoder": Choice("mlp")}, "action_encoder is .*mlp"),
        ({}, {"return_encoder": Choice("linear", {"tanh": True})}, "return_encoder is .*tanh.*True"),
    ],
)
def test_what_hugging_face_cannot_be_is_told(spec: dict[str, Any], options: dict[str, Any], words: str) -> None:
    usual = {"observation_space": spaces.Box(-1, 1, (S,)), "action_space": spaces.Box(-1, 1, (A,))}
    algo = DecisionTransformer(DataSpec(**{**usual, **spec}), DecisionTransformer.Config(embed_dim=8, **options))
    with pytest.raises(CheckpointError, match=f"cannot be this: {words}"):
        to_hugging_face(algo)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx.*False.*True"),
        ({"scale_attn_weights": False}, "scale_attn_weights.*True.*False"),
        ({"add_cross_attention": True}, "add_cross_attention.*False.*True"),
        ({"activation_function": "swish"}, "swish"),
        ({"n_head": 3}, "not a multiple of n_head 3"),
        ({"n_layer": 1}, "weights do not fit the config: they have more blocks than n_layer=1"),
        ({"n_layer": 3}, r"encoder\.h\.2\..* is missing.* n_layer"),
        ({"max_ep_len": 7}, "weights do not fit"),
        ({"hidden_size": None}, "hidden_size: .*valid integer.*None"),
        ({"n_layer": "many"}, "n_layer: .*valid integer.*many"),
        ({"act_dim": 0}, "act_dim: .*greater than or equal to 1.*0"),
        ({"n_inner": 1.5}, "n_inner: .*valid integer.*1.5"),
    ],
)
def test_a_config_that_is_not_supported_or_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    model = hugging_face()
    with pytest.raises(CheckpointError, match=words):
        from_hugging_face({**model.config.to_dict(), **changes}, model.state_dict())


def test_a_foreign_config_or_foreign_weights_are_refused() -> None:
    model = hugging_face()
    config, weights = model.config.to_dict(), model.state_dict()
    with pytest.raises(CheckpointError, match=r"state_dim: Field required.*DecisionTransformerConfig"):
        from_hugging_face({"hidden_size": 8, "n_layer": 2}, weights)
    with pytest.raises(CheckpointError, match=r"encoder\.ln_f\.weight.*DecisionTransformerModel"):
        from_hugging_face(config, {k: v for k, v in weights.items() if "ln_f" not in k})
    with pytest.raises(CheckpointError, match=r"encoder\.h\.1\.mlp\.c_fc\.bias"):
        from_hugging_face(config, {k: v for k, v in weights.items() if k != "encoder.h.1.mlp.c_fc.bias"})
    with pytest.raises(CheckpointError, match="is missing"):
        from_hugging_face(config, {"encoder.h.zero": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is missing"):
        from_hugging_face(config, nn.Linear(2, 2).state_dict())
