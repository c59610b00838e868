"""Optimization: parameter groups, schedules and masked means."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


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


@dataclass
class WarmupCosine:
    """The share of lr at a step. An object, not a function, so that torch saves and loads it with the schedule."""

    warmup: int
    total: int
    final: float

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min((step - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int, final: float | Sequence[float]) -> LambdaLR:
    """Linear warmup over `warmup` updates, then a cosine down to `final` x lr at `total` (1: constant).

    `final` is one for all of the optimizer's parameter groups, or one for each. A schedule that is loaded keeps the
    total that it began with: training that goes on for longer stays at the end's rate.
    """
    ends = final if isinstance(final, Sequence) else [final] * len(optimizer.param_groups)
    return LambdaLR(optimizer, [WarmupCosine(warmup, total, end) for end in ends])


def shares_of(schedules: Iterable[LRScheduler]) -> list[WarmupCosine]:
    """What those schedules go by that `warmup_cosine` made."""
    shares = [share for schedule in schedules for share in getattr(schedule, "lr_lambdas", ())]
    return [share for share in shares if isinstance(share, WarmupCosine)]
