"""Masked means and schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from rlalgo.nets import masked_mean, warmup_cosine


def test_masked_mean_does_not_count_padding() -> None:
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, mask).item() == 2.0
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0.0


@pytest.mark.parametrize(("warmup", "total", "final"), [(0, 10, 1.0), (4, 20, 1.0), (4, 20, 0.1), (5, 3, 0.5)])
def test_schedule(warmup: int, total: int, final: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = warmup_cosine(optimizer, warmup, total, final)
    for step in range(30):
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            share = min(1.0, (step - warmup) / max(total - warmup, 1))
            expected = final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * expected)
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * final)


def test_a_schedule_for_each_group() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    schedule = warmup_cosine(optimizer, 0, 8, [0.0, 1.0])
    for step in range(9):
        fading, constant = (group["lr"] for group in optimizer.param_groups)
        assert fading == pytest.approx(1 + math.cos(math.pi * step / 8), abs=1e-12)
        assert constant == 2.0
        optimizer.step()
        schedule.step()


def test_a_loaded_schedule_keeps_its_total() -> None:
    """As torch's own schedules do: training that goes on for longer must not raise rates that have fallen."""

    def make(total: int) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        return optimizer, warmup_cosine(optimizer, 2, total, 0.1)

    first, schedule = make(10)
    for _ in range(10):
        first.step()
        schedule.step()
    second, longer = make(100)
    second.load_state_dict(first.state_dict())
    longer.load_state_dict(schedule.state_dict())
    for _ in range(5):
        second.step()
        longer.step()
        assert second.param_groups[0]["lr"] == pytest.approx(0.2)
