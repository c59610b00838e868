"""Weights that show what each part does."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def louder(model: M) -> M:
    """Weights of ordinary size instead of GPT-2's tiny ones."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) / math.sqrt(p.shape[-1]))
    return model
