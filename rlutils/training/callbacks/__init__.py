"""Callbacks: what watches a run. Each is an object with run-time hookimpls, picked by name in YAML."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlalgo import Run, hookimpl
from rlalgo.config import Count


class Averager:
    """Means of metrics between two looks, summed on the device so that no update waits for it.

    Each is over the updates that had it: not every update has all of them.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """One update's metrics."""
        for key, value in metrics.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
            self.counts[key] = self.counts.get(key, 0) + 1

    def means(self) -> dict[str, float]:
        """Since the last `clear`."""
        if not self.sums:
            return {}
        sums = torch.stack([value.float() for value in self.sums.values()]).tolist()
        return {key: total / self.counts[key] for key, total in zip(self.sums, sums, strict=True)}

    def clear(self) -> None:
        self.sums, self.counts = {}, {}

    def take(self) -> dict[str, float]:
        """The means, and clears them."""
        means = self.means()
        self.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """For a resumed run to log the very numbers of an unbroken one."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        sums, counts = dict(state["sums"]), dict(state["counts"])
        if sums.keys() != counts.keys() or not all(type(count) is int and count > 0 for count in counts.values()):
            raise ValueError("the counts are not those of the sums")
        if not all(isinstance(value, Tensor) and value.shape == () for value in sums.values()):
            raise ValueError("the sums are not 0-d tensors")
        self.sums, self.counts = sums, counts


class Logger(ABC):
    """A callback that writes the means of the training metrics now and then."""

    @dataclass(frozen=True)
    class Config:
        every: Count = 100
        """Updates between two looks; what is written is the mean over them."""

    def __init__(self, config: Config) -> None:
        self.every = config.every
        self.means = Averager()

    @abstractmethod
    def write(self, run: Run, step: int, means: dict[str, float]) -> None:
        """The means since the last time, of an update number that `every` divides."""

    @hookimpl
    def rlalgo_on_step(self, run: Run, step: int, metrics: dict[str, Tensor]) -> None:
        self.means.add(metrics)
        if step % self.every == 0:
            self.write(run, step, self.means.means())
            self.means.clear()  # not before it is written: it stays in the state of a run that a full disk ends here

    def state_dict(self) -> dict[str, Any]:
        return self.means.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means.load_state_dict(state)
