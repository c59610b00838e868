"""TrajectoryGPT2: a causal GPT-2 trunk without position embedding (Chen et al. 2021, section 3).

Pre-norm blocks as in GPT-2 (Radford et al. 2019). Sequences are right-padded, so the causal mask alone keeps real
tokens from seeing padding; no attention bias is ever needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}


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

    def forward(self, x: Tensor, keep: slice | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W), or only the tokens in `keep` (they still attend to all before them)."""
        h = self.ln_1(x)
        if keep is None:
            q, k, v = self.qkv(h).chunk(3, -1)  # (B, T, W) each
            mask = None
        else:
            W = x.shape[-1]
            q = F.linear(h[:, keep], self.qkv.weight[:W], self.qkv.bias[:W])  # (B, t, W)
            k, v = F.linear(h, self.qkv.weight[W:], self.qkv.bias[W:]).chunk(2, -1)
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()[keep]  # (t, T)
            x = x[:, keep]
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=mask is None)
        x = x + self._drop(self.attn_out(y.transpose(1, 2).flatten(2)))
        return x + self._drop(self.mlp_out(self.activation(self.fc(self.ln_2(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class TrajectoryGPT2(nn.Module):
    """Token embeddings in, hidden states out; GPT-2's initialisation.

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
        self.drop = nn.Dropout(dropout)
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

    def forward(self, x: Tensor, keep: slice | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W); with `keep`, the last block and the result hold those tokens only."""
        x = self.drop(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.ln_f(self.blocks[-1](x, keep))
