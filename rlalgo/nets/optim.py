"""Optimization: parameter groups, schedules and masked means."""

import functools
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True places of `mask`; both (B, K). 0 where nothing is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of which only one decays: the weights of linear maps and convolutions (DT's Atari code).

    Biases, norms, tables and free parameters are in the other, whose weight decay is 0.
    """
    products = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {id(part.weight) for part in module.modules() if isinstance(part, products)}
    decaying = [p for p in module.parameters() if id(p) in weights]
    others = [p for p in module.parameters() if id(p) not in weights]
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, final: float | Sequence[float]) -> LambdaLR:
    """Linear warmup over `warmup` updates, then a cosine down to `final` x lr at `total` (1: constant).

    `final` is one for all of the optimizer's parameter groups, or one for each.
    """

    def factor(final: float, step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    ends = final if isinstance(final, Sequence) else [final] * len(optimizer.param_groups)
    return LambdaLR(optimizer, [functools.partial(factor, end) for end in ends])
