"""TrajectoryGPT2 with the same weights and the same function, sooner.

The last block computes only the tokens that are read, a single head needs two large products instead of four, and
dropout on a CPU takes 16 random bits a number. `forward` does this, `plain` does not; DTModel is given one of them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlalgo.batchrl.dt.trajectory_gpt2 import Attention, TrajectoryGPT2

Tokens = tuple[slice | Tensor, slice | Tensor]
"""Index into (B, T) that picks tokens (B, t): the same places in every sequence, or each one's own."""

RunTrunk = Callable[[TrajectoryGPT2, Tensor, Tokens | None], Tensor]


def plain(trunk: TrajectoryGPT2, x: Tensor, keep: Tokens | None = None) -> Tensor:
    """(B, T, W) -> (B, T, W); with `keep`, those tokens only, (B, t, W), each of which has seen all before it."""
    return trunk(x) if keep is None else trunk(x)[keep]


def forward(trunk: TrajectoryGPT2, x: Tensor, keep: Tokens | None = None) -> Tensor:
    """What `plain` gives, but for rounding and for the draws of dropout."""
    if trunk.training and trunk.dropout.p:
        x = x * dropout_mask(x, trunk.dropout.p)
    for left, block in enumerate(trunk.blocks, 1 - len(trunk.blocks)):
        x = _block(block, x, None if left else keep)
    return trunk.ln_f(x)


def _block(block: Any, x: Tensor, keep: Tokens | None) -> Tensor:
    def add(x: Tensor, y: Tensor) -> Tensor:
        p = block.dropout.p
        return torch.addcmul(x, y, dropout_mask(y, p)) if block.training and p else x + y

    y = _attention(block.attn, block.ln_1(x), keep)
    x = add(x if keep is None else x[keep], y)  # (B, t, W)
    h = block.ln_2(x).flatten(0, 1)  # (B t, W) two dimensions, so that ReLU need not work on a view
    return add(x, block.mlp(h).view_as(x))


def _attention(attn: Attention, h: Tensor, keep: Tokens | None) -> Tensor:
    W, kept = h.shape[-1], h if keep is None else h[keep]
    weight, bias, out = attn.qkv.weight, attn.qkv.bias, attn.out
    # (An exported graph is to take batches of any size, and cannot choose by it.)
    if attn.n_heads == 1 and not torch.compiler.is_compiling() and h.numel() > 2 * W * W:
        # One head: (h Wq + bq) . (h' Wk + bk) = (h Wq Wk^T + bq Wk^T) . h' + what is the same for every key,
        # and values may pass the output's map before they are mixed. Two large products instead of four.
        (wq, wk, wv), (bq, _, bv) = weight.chunk(3), bias.chunk(3)
        q = F.linear(kept, wk.T @ wq, bq @ wk)
        v = F.linear(h, out.weight @ wv, out.weight @ bv)
        return _mix(attn, q, h, v, keep) + out.bias
    if keep is None:
        q, k, v = attn.qkv(h).chunk(3, -1)
    else:
        q = F.linear(kept, weight[:W], bias[:W])
        k, v = F.linear(h, weight[W:], bias[W:]).chunk(2, -1)
    return out(_mix(attn, q, k, v, keep))


def _mix(attn: Attention, q: Tensor, k: Tensor, v: Tensor, keep: Tokens | None) -> Tensor:
    """Causal attention: queries (B, t, W), keys and values (B, T, W) -> (B, t, W)."""
    B, T, W = k.shape
    places = torch.arange(T, device=k.device)
    asking = places if keep is None else places[keep[1]]  # (t,) or (B, t)
    seen = (places <= asking.unsqueeze(-1)).unsqueeze(-3)  # (1, t, T) or (B, 1, t, T)
    q, k, v = (y.view(B, -1, attn.n_heads, W // attn.n_heads).transpose(1, 2) for y in (q, k, v))  # (B, H, t | T, D)
    p = attn.dropout if attn.training else 0.0
    if p and q.is_cpu:  # where the fused kernel knows no dropout, nothing is lost by going step by step
        scores = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).masked_fill(~seen, -torch.inf)
        share = scores.softmax(-1)  # (B, H, t, T)
        y = share * dropout_mask(share, p) @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, None if keep is None else seen, p, is_causal=keep is None)
    return y.transpose(1, 2).flatten(2)


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """What dropout multiplies x by: 0 with probability p, else 1 / (1 - p).

    On a CPU 16 random bits decide on each number; torch's own dropout takes about three times as long there.
    """
    if x.device.type != "cpu":
        return F.dropout(torch.ones_like(x), p)
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(x.shape)
    kept = bits.float().ge_(round(65536 * p) - 32768)  # floats throughout: bools would cost as much again
    return kept.mul_(1 / (1 - p)).to(x.dtype)
