"""Every registered algorithm on toy data, in each action space that it supports: what the contract suites test.

A new algorithm takes part by being registered. A row in CASES shrinks it and names what it must improve; without
one it runs with its defaults and must lower one of its losses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import rlutils
from rlalgo import BatchRLAlgo, Choice, Episodes
from rlalgo.config import parse
from rlalgo.plugins import make
from tests.rlutils.toy_plugin import PointEnv, ToySource


@dataclass(frozen=True)
class Case:
    """How an algorithm takes part."""

    options: dict[str, Any] = field(default_factory=dict)
    """What makes it small enough to train in a second."""
    metric: str = "loss"
    """What it must improve: a key of `update`, or `action_error`, the share of the data's actions not explained."""
    below: Mapping[str, float] = field(default_factory=lambda: {"box": 0.9, "discrete": 0.9, "multi": 0.9})
    """How far down, by action space: the mean of the last tenth of the updates over that of the first, or the error.
    The toy data's discrete actions are partly random, so that about two thirds cannot be explained by the state."""
    steps: int = 120


TINY = {"hidden_dims": [32, 32]}
SMALL = {**TINY, "actor_lr": 5e-3, "critic_lr": 5e-3}
DT = {"context_length": 4, "embed_dim": 32, "n_layers": 2, "n_heads": 2, "warmup": 10, "return_scale": 10.0}
FEW = {**SMALL, "n_critics": 4, "normalize": True}
CASES = {
    "bc": Case(
        {**TINY, "dropout": 0.1, "lr": 3e-3},
        metric="action_error",
        below={"box": 0.4, "discrete": 0.8, "multi": 0.8},
        steps=200,
    ),
    "dt": Case(
        {**DT, "lr": 3e-3}, metric="action_error", below={"box": 0.2, "discrete": 0.65, "multi": 0.65}, steps=200
    ),
    "td3_bc": Case({**SMALL, "alpha": 0.5}, metric="action_error", below={"box": 0.6}),
    "iql": Case({**SMALL, "beta": 0.1}, metric="action_error", below={"box": 0.5, "discrete": 0.9}),
    "discrete_iql": Case(SMALL, metric="action_error", below={"box": 0.5, "discrete": 0.9}),
    "awac": Case(SMALL, metric="action_error", below={"box": 0.4}),
    "rebrac": Case({**SMALL, "actor_penalty": 1.0, "normalize": True}, metric="action_error", below={"box": 0.7}),
    "cql": Case({**SMALL, "n_action_samples": 4}, metric="action_error", below={"box": 0.8}),
    # Values without a penalty lead away from these data, so it is the critics that must fit.
    "edac": Case(FEW, metric="critic/loss", below={"box": 0.2}),
    "sac_n": Case(FEW, metric="critic/loss", below={"box": 0.2}),
    "dqn": Case({**TINY, "lr": 5e-3}, metric="critic/loss", below={"discrete": 0.3}),
    "discrete_cql": Case({**TINY, "lr": 5e-3}, metric="critic/loss", below={"discrete": 0.5}),
}
SPACES = {"box": spaces.Box, "discrete": spaces.Discrete, "multi": spaces.MultiDiscrete}
CATALOGUE = rlutils.catalogue()


def algos() -> list[tuple[str, str]]:
    """Every registered algorithm with every kind of action space that it supports."""
    found = []
    for name in CATALOGUE.names("algo"):
        cls = CATALOGUE.get("algo", name).cls
        found += [(name, kind) for kind, space in SPACES.items() if space in cls.action_spaces]
    return found


@dataclass
class Setup:
    """One algorithm on toy data."""

    name: str
    kind: str
    case: Case
    choice: Choice
    episodes: Episodes

    def untrained(self, episodes: Episodes | None = None) -> BatchRLAlgo:
        """A fresh one, always with the same initial weights, that has seen no data."""
        torch.manual_seed(0)
        return make("algo", self.choice, (self.episodes if episodes is None else episodes).spec)

    def make(self, episodes: Episodes | None = None, total_steps: int = 200) -> BatchRLAlgo:
        """A fresh one, prepared and in train mode."""
        algo = self.untrained(episodes)
        algo.prepare(self.episodes if episodes is None else episodes, total_steps)
        return algo.train()

    def batches(self, algo: BatchRLAlgo, n: int, episodes: Episodes | None = None) -> list[Any]:
        data = algo.dataset(self.episodes if episodes is None else episodes)
        generator = torch.Generator().manual_seed(0)
        return [data.gather(data.rows(64, generator)) for _ in range(n)]

    def updates(self, algo: BatchRLAlgo, n: int, episodes: Episodes | None = None) -> list[dict[str, Tensor]]:
        """The metrics of so many updates."""
        return [algo.update(batch, step) for step, batch in enumerate(self.batches(algo, n, episodes), 1)]

    def train(self, steps: int = 10) -> BatchRLAlgo:
        algo = self.make()
        self.updates(algo, steps)
        return algo

    def envs(self, n: int) -> list[PointEnv]:
        return [PointEnv(self.kind == "discrete", multi=self.kind == "multi") for _ in range(n)]


def build(name: str, kind: str, **more: Any) -> Setup:
    case = CASES.get(name, Case())
    entry, options = CATALOGUE.get("algo", name), {**case.options, **more}
    choice = Choice(name, options, entry, parse(entry.Config, options, CATALOGUE, name))
    return Setup(name, kind, case, choice, toy_episodes(kind))


@functools.cache
def toy_episodes(kind: str) -> Episodes:
    return ToySource(ToySource.Config(discrete=kind == "discrete", multi=kind == "multi")).load()


def only(takes: Callable[[Setup], bool]) -> pytest.MarkDecorator:
    """Runs a test for those algorithms alone that it is about, instead of skipping it for the others."""
    chosen = [pair for pair in algos() if takes(build(*pair))]
    return pytest.mark.parametrize("setup", chosen, indirect=True, ids="-".join)


def has_option(name: str) -> pytest.MarkDecorator:
    """For algorithms with this option."""
    return only(lambda setup: hasattr(setup.choice.config, name))


def weights_of(algo: BatchRLAlgo) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in algo.state_dict().items()}
