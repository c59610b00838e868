"""DTModel and its trunk: the same function as Hugging Face's model, and what that model does not have."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from rlalgo.batchrl.dt import DTModel, TrajectoryGPT2, from_hugging_face
from rlalgo.batchrl.dt.dt_model import RETURN_SPACE
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError
from rlalgo.nets import BoxHead

S, A, K, W = 5, 3, 6, 32

VARIANTS = [
    {"n_head": 1, "activation_function": "relu", "action_tanh": True},
    {"n_head": 2, "activation_function": "gelu_new", "action_tanh": False},
    {"n_head": 4, "activation_function": "gelu", "action_tanh": True, "n_inner": 48, "n_layer": 1},
]


def hugging_face(seed: int = 0, **config: Any) -> DecisionTransformerModel:
    """Their model in eval mode, with weights so large that every part matters."""
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
                p.normal_(std=1 / math.sqrt(W))
            else:
                p.normal_(mean=1.0 if ".ln_" in name or "embed_ln.weight" in name else 0.0, std=0.3)
    return model


def windows(seed: int = 1) -> dict[str, Tensor]:
    """A window of every length from 1 to K, and full ones late in an episode; right-padded with noise."""
    torch.manual_seed(seed)
    lengths = torch.tensor([*range(1, K + 1), K, K])
    B = len(lengths)
    first = torch.tensor([0] * K + [4, 13])  # t < K, then t >= K
    return {
        "observations": torch.randn(B, K, S),
        "actions": torch.rand(B, K, A) * 2 - 1,
        "returns_to_go": torch.randn(B, K),
        "timesteps": first[:, None] + torch.arange(K),
        "mask": torch.arange(K) < lengths[:, None],
    }


def theirs(model: DecisionTransformerModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K, A), (B, K, S), (B, K) of their model, which pads on the left; back in our order, 0 at padding."""
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
    return [None if x is None else x * mask.view(*mask.shape, *(1,) * (x.dim() - 2)) for x in out]


def without_extra_heads(model: DTModel) -> DTModel:
    model.predict_state = model.predict_return = None
    return model


def partner(name: str) -> tuple[str, bool]:
    """Their parameter's name -> ours, and whether it lies transposed."""
    for pattern, replacement in (
        (r"encoder\.h\.(\d+)\.attn\.c_attn", r"trunk.blocks.\1.qkv"),
        (r"encoder\.h\.(\d+)\.attn\.c_proj", r"trunk.blocks.\1.attn_out"),
        (r"encoder\.h\.(\d+)\.mlp\.c_fc", r"trunk.blocks.\1.fc"),
        (r"encoder\.h\.(\d+)\.mlp\.c_proj", r"trunk.blocks.\1.mlp_out"),
    ):
        found, count = re.subn(pattern, replacement, name)
        if count:
            return found, name.endswith("weight")
    name = name.replace("predict_action.0", "head.out").replace("encoder.h", "trunk.blocks")
    name = name.replace("encoder.ln_f", "trunk.ln_f").replace("encoder.wpe.weight", "embed_ln.bias")
    return re.sub(r"^(embed_(state|action|return|timestep))\.", r"\1.map.", name), False


@pytest.mark.parametrize("config", VARIANTS)
def test_predicts_what_hugging_face_predicts_on_every_real_token(config: dict[str, Any]) -> None:
    model, batch = hugging_face(**config), windows()
    mine = from_hugging_face(model.config.to_dict(), model.state_dict()).eval()
    with torch.no_grad():
        expected, got = theirs(model, batch), ours(mine, batch)
    for a, b in zip(got, expected, strict=True):
        assert b.abs().max() > 0.3  # the weights are not so small that anything would pass
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        fast = ours(without_extra_heads(mine), batch)
    assert fast[1] is None
    assert fast[2] is None
    torch.testing.assert_close(fast[0], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", ["all", "action"])
@pytest.mark.parametrize("config", VARIANTS)
def test_gradients_are_those_of_hugging_face(config: dict[str, Any], heads: str) -> None:
    model, batch = hugging_face(**config), windows()
    mine = from_hugging_face(model.config.to_dict(), model.state_dict()).eval()
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True is not supported"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True is not supported"),
        ({"activation_function": "swish"}, "swish"),
        ({"n_head": 3}, "not a multiple of heads 3"),
        ({"n_layer": 1}, "weights do not fit"),
        ({"n_layer": 3}, "weights do not fit"),
        ({"max_ep_len": 7}, "weights do not fit"),
        ({"hidden_size": None}, "config"),
        ({"hidden_size": "wide"}, "config"),
    ],
)
def test_a_config_that_is_not_supported_or_does_not_fit_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    model = hugging_face()
    with pytest.raises(CheckpointError, match=words):
        from_hugging_face({**model.config.to_dict(), **changes}, model.state_dict())


def test_a_foreign_config_or_foreign_weights_are_refused() -> None:
    model = hugging_face()
    config, weights = model.config.to_dict(), model.state_dict()
    with pytest.raises(CheckpointError, match="state_dim.*DecisionTransformerConfig"):
        from_hugging_face({"hidden_size": 8, "n_layer": 2}, weights)
    with pytest.raises(CheckpointError, match=r"encoder\.ln_f\.weight.*DecisionTransformerModel"):
        from_hugging_face(config, {k: v for k, v in weights.items() if "ln_f" not in k})
    with pytest.raises(CheckpointError, match=r"encoder\.h\.1\.mlp\.c_fc\.bias"):
        from_hugging_face(config, {k: v for k, v in weights.items() if k != "encoder.h.1.mlp.c_fc.bias"})
    with pytest.raises(CheckpointError, match="is missing"):
        from_hugging_face(config, {"encoder.h.zero": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is missing"):
        from_hugging_face(config, nn.Linear(2, 2).state_dict())


def make_model(context: int | None = None, **trunk: Any) -> DTModel:
    options = {"layers": 2, "heads": 2, "dropout": 0.0, **trunk}
    box, linear = spaces.Box(-1, 1, (A,), np.float32), Linear.Config()
    return DTModel(
        W,
        embed_state=Linear(spaces.Box(-np.inf, np.inf, (S,), np.float32), W, linear),
        embed_action=Linear(box, W, linear),
        embed_return=Linear(RETURN_SPACE, W, linear),
        embed_timestep=Linear(spaces.Discrete(20), W, linear),
        head=BoxHead(W, box),
        trunk=TrajectoryGPT2(W, **options),
        context=context,
    )


def louder(model: nn.Module) -> nn.Module:
    """Weights of ordinary size instead of GPT-2's tiny ones."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / math.sqrt(W))
    return model


def test_token_positions_embed_place_and_the_first_timestep_alone() -> None:
    """Chen et al. 2021, Atari: every token has its place in the window, and all share the window's first timestep."""
    model = louder(make_model(context=K))
    assert isinstance(model, DTModel)
    batch = windows()
    got = model(batch["observations"], batch["actions"], batch["returns_to_go"], batch["timesteps"]).actions
    for b in range(len(got)):  # one by one and token by token
        tokens = []
        for t in range(K):
            for embed, x in (
                (model.embed_return, batch["returns_to_go"][b, t].view(1)),
                (model.embed_state, batch["observations"][b, t]),
                (model.embed_action, batch["actions"][b, t]),
            ):
                tokens.append(
                    embed(x) + model.embed_timestep(batch["timesteps"][b, 0]) + model.place[len(tokens)]
                )
        hidden = model.trunk(model.embed_ln(torch.stack(tokens)).unsqueeze(0))[0]
        expected = torch.stack([model.head(hidden[3 * t + 1]) for t in range(K)])
        torch.testing.assert_close(got[b], expected, atol=1e-5, rtol=1e-5)


def test_the_trunk_keeps_the_tokens_asked_for() -> None:
    trunk = louder(TrajectoryGPT2(W, layers=2, heads=2, dropout=0.0))
    x = torch.randn(4, 11, W)
    torch.testing.assert_close(trunk(x, keep=slice(1, None, 3)), trunk(x)[:, 1::3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keep", [None, slice(1, None, 3)])
@pytest.mark.parametrize("heads", [1, 2])
def test_the_trunk_is_causal(heads: int, keep: slice | None) -> None:
    trunk = louder(TrajectoryGPT2(W, layers=2, heads=heads, dropout=0.0))
    x = torch.randn(2, 9, W)
    seen = range(9)[keep] if keep else range(9)
    before = trunk(x, keep)
    for place in range(9):
        changed = x.clone()
        changed[:, place] += 1
        moved = (trunk(changed, keep) - before).abs().amax((0, 2))
        for at, difference in zip(seen, moved.tolist(), strict=True):
            assert (difference > 1e-3) == (at >= place), (place, at)


def test_initialisation_is_that_of_gpt_2() -> None:
    """Normal(0, 0.02), biases 0, norms 1, and what is added to the residual stream scaled by 1 / sqrt(2 layers)."""
    torch.manual_seed(0)
    trunk = TrajectoryGPT2(64, layers=8, heads=1)
    for name, p in trunk.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.dim() == 1:
            assert (p == 1).all(), name
        else:
            std = 0.02 / 4 if name.endswith("_out.weight") else 0.02
            assert abs(p.std().item() / std - 1) < 0.06, name


def test_dropout_only_in_training_and_of_the_right_mean() -> None:
    model = louder(make_model(dropout=0.2))
    x = windows()
    inputs = (x["observations"], x["actions"], x["returns_to_go"], x["timesteps"])
    clean = model.eval()(*inputs).actions
    assert torch.equal(clean, model(*inputs).actions)
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.stack([model(*inputs).actions for _ in range(300)])
    assert not torch.equal(drawn[0], drawn[1])
    assert (drawn.mean(0) - clean).abs().mean() < 0.3 * drawn.std(
        0
    ).mean()  # noisy, but around the clean value
    silent = louder(make_model(dropout=0.0)).train()
    assert torch.equal(silent(*inputs).actions, silent(*inputs).actions)


@pytest.mark.parametrize("place", ["embedding", "attention", "residual"])
def test_dropout_acts_at_each_of_the_three_places(place: str) -> None:
    """With the other two places neutralised by the weights, the output still varies from draw to draw."""
    torch.manual_seed(0)
    trunk = TrajectoryGPT2(W, layers=1, heads=1, dropout=0.5).train()
    block = trunk.blocks[0]
    nn.init.eye_(block.attn_out.weight)
    x = torch.randn(1, 4, W).expand(2000, 4, W)
    seen: dict[str, Tensor] = {}
    hooks: dict[str, Callable] = {
        "embedding": lambda: trunk.drop.register_forward_hook(lambda m, i, o: seen.update(out=o)),
        "attention": lambda: block.attn_out.register_forward_hook(lambda m, i, o: seen.update(out=i[0])),
        "residual": lambda: block.ln_2.register_forward_hook(lambda m, i, o: seen.update(out=i[0])),
    }
    if place != "embedding":
        trunk.drop.p = 0.0
    hook = hooks[place]()
    trunk(x)
    hook.remove()
    if place == "attention":  # the first token attends to itself alone: its value is doubled or dropped
        value = block.qkv(block.ln_1(x[0, 0]))[2 * W :]
        ratio = (seen["out"][:, 0] / value).round(decimals=3)
        assert set(ratio.unique().tolist()) == {0.0, 2.0}
        assert 0.4 < (ratio == 0).float().mean() < 0.6
    elif place == "embedding":
        ratio = (seen["out"] / x).round(decimals=3)
        assert set(ratio.unique().tolist()) == {0.0, 2.0}
        assert 0.48 < (ratio == 0).float().mean() < 0.52
    else:
        untouched = (
            (seen["out"] == x).float().mean()
        )  # what attention adds is dropped half the time, number by number
        assert 0.48 < untouched < 0.56


@pytest.mark.parametrize(
    ("options", "words"), [({"heads": 3}, "multiple of heads"), ({"activation": "swish"}, "swish.*relu")]
)
def test_impossible_trunks_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model(**options)
