"""TrajectoryGPT2 as it is written: causal, initialized as GPT-2, dropout in its places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rlalgo.batchrl.dt import TrajectoryGPT2, fast
from tests.rlalgo.batchrl.dt.loud import louder

W = 128
RUNS = [fast.forward, fast.plain]
STATES = (slice(None), slice(1, None, 3))
ONE_EACH = (torch.tensor([[0], [1]]), torch.tensor([[4], [7]]))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("keep", [None, STATES, ONE_EACH])
@pytest.mark.parametrize("n_heads", [1, 2])
def test_the_trunk_is_causal(n_heads: int, keep: fast.Tokens | None, run: fast.RunTrunk) -> None:
    trunk = louder(TrajectoryGPT2(W, n_layers=2, n_heads=n_heads, dropout=0.0))
    x = torch.randn(2, 9, W)
    places = torch.arange(9).expand(2, 9)
    kept = places if keep is None else places[keep]  # (2, t) where each kept token stands
    before = run(trunk, x, keep)
    for place in range(9):
        changed = x.clone()
        changed[:, place] = torch.randn(2, W)
        moved = (run(trunk, changed, keep) - before).abs().amax(-1) > 1e-4
        assert torch.equal(moved, kept >= place), place


def test_initialization_is_that_of_gpt_2() -> None:
    """Normal(0, 0.02), biases 0, norms 1; what is added to the residual scaled by 1 / sqrt(2 n_layers)."""
    torch.manual_seed(0)
    trunk = TrajectoryGPT2(64, n_layers=8, n_heads=1)
    added = 0
    for name, p in trunk.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif p.dim() == 1:
            assert (p == 1).all(), name
        else:
            last = name.endswith(("attn.out.weight", "mlp.2.weight"))
            added += last
            assert abs(p.std().item() / (0.02 / 4 if last else 0.02) - 1) < 0.06, name
    assert added == 16


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("batch", [100, 1000])  # few tokens and many, which `fast` treats differently
def test_dropout_acts_on_embeddings_attention_and_both_residuals(batch: int, run: fast.RunTrunk) -> None:
    """How often a number survives tells at how many places it may be dropped."""
    p, n = 0.3, 8000 // batch
    x = torch.randn(batch, 2, W)

    def kept(trunk: TrajectoryGPT2) -> float:
        """Share of draws in which the first token's first number is not 0."""
        with torch.no_grad():
            return float(torch.stack([run(trunk, x, None)[:, 0, 0] for _ in range(n)]).ne(0).float().mean())

    def bare() -> Any:
        """All weights zero, no last norm: what comes out is the input, as far as it is not dropped."""
        torch.manual_seed(0)
        trunk = TrajectoryGPT2(W, n_layers=1, n_heads=1, dropout=p).train()
        with torch.no_grad():
            for weight in trunk.parameters():
                weight.zero_()
        trunk.ln_f = nn.Identity()  # type: ignore[assignment]
        return trunk

    embedding = bare()  # nothing is added: the input alone is dropped
    assert abs(kept(embedding) - (1 - p)) < 0.02
    residual = bare()
    residual.blocks[0].attn.out.bias.data.fill_(1.0)
    assert abs(kept(residual) - (1 - p * p)) < 0.02  # gone only if input and addition are both dropped
    mlp = bare()
    mlp.blocks[0].mlp[2].bias.data.fill_(1.0)
    assert abs(kept(mlp) - (1 - p * p)) < 0.02
    attention = bare()  # the first token attends to itself alone, so that weight is kept or dropped
    attention.dropout.p = 0.0
    x = torch.zeros(batch, 2, W)
    attn = attention.blocks[0].attn
    attn.qkv.bias.data[2 * W :] = 1.0
    nn.init.eye_(attn.out.weight)
    assert abs(kept(attention) - (1 - p) ** 2) < 0.02  # by its own dropout and by the residual's


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_heads": 3}, "embed_dim 128 is not a multiple of n_heads 3"),
        ({"n_heads": 2, "activation": "swish"}, "swish.*relu"),
    ],
)
def test_impossible_trunks_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrajectoryGPT2(W, n_layers=1, **options)
