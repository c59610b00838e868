"""TrajectoryGPT2: a causal GPT-2 trunk without position embedding (Chen et al. 2021, section 3).

Pre-norm blocks as in GPT-2 (Radford et al. 2019). Sequences are right-padded, so the causal mask alone keeps
real tokens from seeing padding; no attention bias is ever needed. `fast.py` computes the same function sooner.
"""

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU(inplace=True), "gelu": nn.GELU(), "gelu_new": nn.GELU("tanh")}


class Attention(nn.Module):
    """Causal self-attention: every token looks at itself and at those before it."""

    def __init__(self, embed_dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, W)
        B, T, W = x.shape
        q, k, v = (y.view(B, T, self.n_heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))  # (B, H, T, D)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, W))


class Block(nn.Module):
    """Attention and MLP, each normed before and added to what came in."""

    def __init__(self, embed_dim: int, n_heads: int, inner: int, activation: str, dropout: float, eps: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, eps)
        self.attn = Attention(embed_dim, n_heads, dropout)
        self.ln_2 = nn.LayerNorm(embed_dim, eps)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, inner), ACTIVATIONS[activation], nn.Linear(inner, embed_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, W)
        x = x + self.dropout(self.attn(self.ln_1(x)))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class TrajectoryGPT2(nn.Module):
    """Token embeddings in, hidden states out; GPT-2's initialization.

    Args:
        embed_dim: W, size of a token.
        n_layers: number of blocks.
        n_heads: H, attention heads; must divide embed_dim.
        inner: hidden size of each block's MLP, 4 W if None.
        activation: `relu` (the paper's gym setting), `gelu`, or `gelu_new` (GPT-2's tanh approximation).
        dropout: on embeddings, attention and residuals.
        eps: of the layer norms.

    Raises:
        ValueError: n_heads does not divide embed_dim, or there is no such activation.
    """

    def __init__(
        self,
        embed_dim: int,
        n_layers: int,
        n_heads: int,
        inner: int | None = None,
        activation: str = "relu",
        dropout: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if embed_dim % n_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of n_heads {n_heads}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation '{activation}': expected one of {', '.join(ACTIVATIONS)}")
        self.dropout = nn.Dropout(dropout)
        options = embed_dim, n_heads, inner or 4 * embed_dim, activation, dropout, eps
        self.blocks = nn.ModuleList(Block(*options) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(embed_dim, eps)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("attn.out.weight", "mlp.2.weight")):  # smaller, the more is added to the residuals
                nn.init.normal_(parameter, std=0.02 / (2 * n_layers) ** 0.5)
            elif "ln_" not in name:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)
