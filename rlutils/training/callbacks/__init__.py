"""Callbacks: what watches a run. Each is an object with run-time hookimpls, picked by name in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Averager:
    """Means of metrics between two looks, summed on the device so that no update waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """One update's metrics."""
        for key, value in metrics.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
        self.count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        if not self.count:
            return {}
        values = (torch.stack([v.float() for v in self.sums.values()]) / self.count).tolist()
        means = dict(zip(self.sums, values, strict=True))
        self.sums, self.count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """For a resumed run to log the very numbers of an unbroken one."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.sums, self.count = dict(state["sums"]), state["count"]
