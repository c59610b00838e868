"""DTModel and its trunk: the same function as Hugging Face's model, and what that model does not have."""

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

from rlalgo.batchrl.dt import DTModel, TrajectoryGPT2, from_hugging_face
from rlalgo.batchrl.dt.dt_model import RETURN_SPACE
from rlalgo.batchrl.dt.trajectory_gpt2 import dropout_mask
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError
from rlalgo.nets import BoxHead

S, A, K, W = 5, 3, 6, 128

FEW_AND_MANY = [1, 4]
"""Batches of 8 and 32 windows: few and many tokens take different ways through attention."""

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


@pytest.mark.parametrize("times", FEW_AND_MANY)
@pytest.mark.parametrize("config", VARIANTS)
def test_predicts_what_hugging_face_predicts_on_every_real_token(config: dict[str, Any], times: int) -> None:
    model, batch = hugging_face(**config), windows(times)
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
@pytest.mark.parametrize("times", FEW_AND_MANY)
@pytest.mark.parametrize("config", VARIANTS)
def test_gradients_are_those_of_hugging_face(config: dict[str, Any], times: int, heads: str) -> None:
    model, batch = hugging_face(**config), windows(times)
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
        ({"hidden_size": None}, "hidden_size=None, expected a whole number"),
        ({"n_layer": "many"}, "n_layer='many'"),
        ({"act_dim": 0}, "act_dim=0"),
        ({"n_inner": 1.5}, "n_inner=1.5"),
    ],
)
def test_a_config_that_is_not_supported_or_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    model = hugging_face()
    with pytest.raises(CheckpointError, match=words):
        from_hugging_face({**model.config.to_dict(), **changes}, model.state_dict())


def test_a_foreign_config_or_foreign_weights_are_refused() -> None:
    model = hugging_face()
    config, weights = model.config.to_dict(), model.state_dict()
    with pytest.raises(CheckpointError, match=r"state_dim=None.*DecisionTransformerConfig"):
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
    """Chen et al. 2021, Atari: each token has its place, and all share the window's first timestep."""
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
                tokens.append(embed(x) + model.embed_timestep(batch["timesteps"][b, 0]) + model.place[len(tokens)])
        hidden = model.trunk(model.embed_ln(torch.stack(tokens)).unsqueeze(0))[0]
        expected = torch.stack([model.head(hidden[3 * t + 1]) for t in range(K)])
        torch.testing.assert_close(got[b], expected, atol=1e-5, rtol=1e-5)


STATES = (slice(None), slice(1, None, 3))
ONE_EACH = (torch.tensor([[0], [1]]), torch.tensor([[4], [7]]))


@pytest.mark.parametrize("batch", [2, 40])  # few tokens and many
@pytest.mark.parametrize("heads", [1, 2])
def test_the_trunk_keeps_the_tokens_asked_for(heads: int, batch: int) -> None:
    trunk = louder(TrajectoryGPT2(W, layers=2, heads=heads, dropout=0.0))
    x = torch.randn(batch, 11, W)
    torch.testing.assert_close(trunk(x, STATES), trunk(x)[:, 1::3], atol=1e-5, rtol=1e-5)
    each = torch.arange(batch).unsqueeze(1), torch.randint(11, (batch, 1))
    torch.testing.assert_close(trunk(x, each), trunk(x)[each], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keep", [None, STATES, ONE_EACH])
@pytest.mark.parametrize("heads", [1, 2])
def test_the_trunk_is_causal(heads: int, keep: tuple | None) -> None:
    trunk = louder(TrajectoryGPT2(W, layers=2, heads=heads, dropout=0.0))
    x = torch.randn(2, 9, W)
    places = torch.arange(9).expand(2, 9)
    asking = places if keep is None else places[keep]  # (2, t) where each kept token stands
    before = trunk(x, keep)
    for place in range(9):
        changed = x.clone()
        changed[:, place] = torch.randn(2, W)
        moved = (trunk(changed, keep) - before).abs().amax(-1) > 1e-4
        assert torch.equal(moved, asking >= place), place


def test_acting_at_one_step_is_the_prediction_there() -> None:
    model, batch = louder(make_model()), windows()
    inputs = [batch[key] for key in ("observations", "actions", "returns_to_go", "timesteps")]
    at = batch["mask"].sum(1) - 1
    everywhere = model(*inputs).actions
    states = model.embed_state(inputs[0])
    there = model.decode(states, *inputs[1:], at).actions
    torch.testing.assert_close(there, everywhere[torch.arange(len(at)), at].unsqueeze(1), atol=1e-5, rtol=1e-5)


def test_initialization_is_that_of_gpt_2() -> None:
    """Normal(0, 0.02), biases 0, norms 1; what is added to the residual scaled by 1 / sqrt(2 layers)."""
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


def test_dropout_only_in_training() -> None:
    model, batch = louder(make_model(dropout=0.2)), windows()
    inputs = [batch[key] for key in ("observations", "actions", "returns_to_go", "timesteps")]
    assert torch.equal(model.eval()(*inputs).actions, model(*inputs).actions)
    assert not torch.equal(model.train()(*inputs).actions, model(*inputs).actions)
    silent = louder(make_model(dropout=0.0)).train()
    assert torch.equal(silent(*inputs).actions, silent(*inputs).actions)


@pytest.mark.parametrize("batch", [2, 40])  # few tokens and many
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("keep", [None, STATES])
def test_with_hardly_any_dropout_training_computes_the_same_function(
    keep: tuple | None, heads: int, batch: int
) -> None:
    """Attention with dropout goes its own way; here the chance is so small that nothing is ever dropped."""
    trunk = louder(TrajectoryGPT2(W, layers=2, heads=heads, dropout=1e-9))
    x = torch.randn(batch, 11, W)
    torch.testing.assert_close(trunk.train()(x, keep), trunk.eval()(x, keep), atol=1e-5, rtol=1e-5)


def test_dropout_multiplies_by_0_or_the_inverse_of_what_is_kept() -> None:
    for shape, p in (((3, 5, 7), 0.5), ((101, 1001), 0.1), ((64, 999), 0.9)):
        torch.manual_seed(0)
        mask = dropout_mask(torch.zeros(shape), p)
        assert mask.shape == shape
        assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
        n = mask.numel()
        sd = math.sqrt(p * (1 - p) / n)
        assert abs((mask == 0).float().mean() - p) < 4 * sd
        if n > 1000:  # neighbors and rows are drawn independently
            dropped = (mask == 0).float() - p
            for a, b in (
                (dropped[:, 1:], dropped[:, :-1]),
                (dropped[1:], dropped[:-1]),
                (dropped[:, 4:], dropped[:, :-4]),
            ):
                assert abs((a * b).mean()) < 4 * p * (1 - p) / math.sqrt(a.numel())
        torch.manual_seed(0)
        assert torch.equal(mask, dropout_mask(torch.zeros(shape), p))  # from the default generator, which is saved
    assert dropout_mask(torch.zeros(8), 0.0).tolist() == [1.0] * 8


@pytest.mark.parametrize("batch", [100, 1000])  # on both ways through attention
def test_dropout_acts_on_embeddings_attention_and_both_residuals(batch: int) -> None:
    """How often a number survives tells at how many places it may be dropped."""
    p, n = 0.3, 8000 // batch
    x = torch.randn(batch, 2, W)

    def kept(trunk: TrajectoryGPT2) -> float:
        """Share of draws in which the first token's first number is not 0."""
        with torch.no_grad():
            return float(torch.stack([(trunk(x)[:, 0, 0]) for _ in range(n)]).ne(0).float().mean())

    def bare() -> TrajectoryGPT2:
        """All weights zero, no last norm: what comes out is the input, as far as it is not dropped."""
        torch.manual_seed(0)
        trunk = TrajectoryGPT2(W, layers=1, heads=1, dropout=p).train()
        with torch.no_grad():
            for weight in trunk.parameters():
                weight.zero_()
        trunk.ln_f = nn.Identity()
        return trunk

    embedding = bare()  # nothing is added: the input alone is dropped
    assert abs(kept(embedding) - (1 - p)) < 0.02
    residual = bare()
    residual.blocks[0].attn_out.bias.data.fill_(1.0)
    assert abs(kept(residual) - (1 - p * p)) < 0.02  # gone only if input and addition are both dropped
    mlp = bare()
    mlp.blocks[0].mlp_out.bias.data.fill_(1.0)
    assert abs(kept(mlp) - (1 - p * p)) < 0.02
    attention = bare()  # the first token attends to itself alone, so that weight is kept or dropped
    attention.dropout = 0.0
    block = attention.blocks[0]
    x = torch.zeros(batch, 2, W)
    block.qkv.bias.data[2 * W :] = 1.0
    nn.init.eye_(block.attn_out.weight)
    assert abs(kept(attention) - (1 - p) ** 2) < 0.02  # by its own dropout and by the residual's


@pytest.mark.parametrize(
    ("options", "words"), [({"heads": 3}, "multiple of heads"), ({"activation": "swish"}, "swish.*relu")]
)
def test_impossible_trunks_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model(**options)
