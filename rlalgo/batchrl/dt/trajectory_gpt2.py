"""TrajectoryGPT2: a causal GPT-2 trunk without position embedding (Chen et al. 2021, section 3).

Pre-norm blocks as in GPT-2 (Radford et al. 2019). Sequences are right-padded, so the causal mask alone keeps
real tokens from seeing padding; no attention bias is ever needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": torch.relu_, "gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}

Tokens = tuple[slice | Tensor, slice | Tensor]
"""Index into (B, T) that picks tokens (B, t): the same places in every sequence, or each one's own."""


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, inner: int, activation: str, dropout: float, eps: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.activation = ACTIVATIONS[activation]
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.fc = nn.Linear(width, inner)
        self.mlp_out = nn.Linear(inner, width)

    def forward(self, x: Tensor, keep: Tokens | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W), or (B, t, W): the tokens to keep, which still attend to all before them."""
        y = self._attend(self.ln_1(x), keep)
        x = self._add(x if keep is None else x[keep], y)
        h = self.ln_2(x).flatten(0, 1)  # (B t, W) two dimensions, so that ReLU need not work on a view
        return self._add(x, self.mlp_out(self.activation(self.fc(h))).view_as(x))

    def _attend(self, h: Tensor, keep: Tokens | None) -> Tensor:
        """Normed tokens (B, T, W) -> what attention adds to them, (B, T, W) or (B, t, W)."""
        W, asking = h.shape[-1], h if keep is None else h[keep]
        weight, bias, out = self.qkv.weight, self.qkv.bias, self.attn_out
        if self.heads == 1 and h.numel() > 2 * W * W:
            # One head: (h Wq + bq) . (h' Wk + bk) = (h Wq Wk^T + bq Wk^T) . h' + what is the same for every key,
            # and values may pass the output's map before they are mixed. Two large products instead of four.
            (wq, wk, wv), (bq, _, bv) = weight.chunk(3), bias.chunk(3)
            q = F.linear(asking, wk.T @ wq, bq @ wk)
            v = F.linear(h, out.weight @ wv, out.weight @ bv)
            return self._mix(q, h, v, keep) + out.bias
        if keep is None:
            q, k, v = self.qkv(h).chunk(3, -1)
        else:
            q = F.linear(asking, weight[:W], bias[:W])
            k, v = F.linear(h, weight[W:], bias[W:]).chunk(2, -1)
        return out(self._mix(q, k, v, keep))

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, keep: Tokens | None) -> Tensor:
        """Causal attention: queries (B, t, W), keys and values (B, T, W) -> (B, t, W)."""
        B, T, W = k.shape
        places = torch.arange(T, device=k.device)
        asking = places if keep is None else places[keep[1]]
        seen = (places <= asking.unsqueeze(-1)).unsqueeze(-3)  # (1, t, T) or (B, 1, t, T)
        q, k, v = (y.view(B, -1, self.heads, W // self.heads).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D)
        p = self.dropout if self.training else 0.0
        if p and q.is_cpu:  # where the fused kernel knows no dropout, nothing is lost by going step by step
            scores = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).masked_fill(~seen, -torch.inf)
            share = scores.softmax(-1)
            y = share * dropout_mask(share, p) @ v
        else:
            causal = keep is None
            y = F.scaled_dot_product_attention(q, k, v, None if causal else seen, p, is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + dropout(y), both (B, t, W)."""
        return torch.addcmul(x, y, dropout_mask(y, self.dropout)) if self.training and self.dropout else x + y


class TrajectoryGPT2(nn.Module):
    """Token embeddings in, hidden states out; GPT-2's initialization.

    Args:
        width: W, size of a token.
        layers: number of blocks.
        heads: attention heads; must divide width.
        inner: hidden size of each block's MLP, 4 W if None.
        activation: `relu` (the paper's gym setting), `gelu`, or `gelu_new` (GPT-2's tanh approximation).
        dropout: on embeddings, attention and residuals.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        inner: int | None = None,
        activation: str = "relu",
        dropout: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation '{activation}': expected one of {', '.join(ACTIVATIONS)}")
        self.dropout = dropout
        self.blocks = nn.ModuleList(
            Block(width, heads, inner or 4 * width, activation, dropout, eps) for _ in range(layers)
        )
        self.ln_f = nn.LayerNorm(width, eps=eps)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif ".ln_" not in name and "ln_f" not in name:
                # GPT-2 scales what is added to the residual stream by the number of additions.
                added = name.endswith("_out.weight")
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if added else 0.02)

    def forward(self, x: Tensor, keep: Tokens | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W); with `keep`, the last block gives those tokens only, (B, t, W)."""
        if self.training and self.dropout:
            x = x * dropout_mask(x, self.dropout)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.ln_f(self.blocks[-1](x, keep))


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
