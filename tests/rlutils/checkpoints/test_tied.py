"""Two modules that share one parameter: safetensors refuses shared memory, and a run must not notice."""

from pathlib import Path

import pytest
import torch

import rlutils
from tests.rlutils.runs import PLUGIN, equal, state, toy_config, weights

TIED = """
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from rlalgo import BatchRLAlgo, Transitions, hookimpl
from rlalgo.nets import ActorPolicy
from rlalgo.nets.heads import action_head


class Tied(BatchRLAlgo):
    name: ClassVar[str] = "tied"

    @dataclass(frozen=True)
    class Config:
        dropout: float = 0.1

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.there, self.back = nn.Linear(2, 2), nn.Linear(2, 2)
        self.back.weight = self.there.weight
        self.drop = nn.Dropout(config.dropout)
        self.head = action_head(2, spec.action_space, True)
        self.optimizers["actor"] = torch.optim.AdamW(self.parameters(), 1e-2)

    def dataset(self, episodes):
        return Transitions(episodes)

    def forward(self, observations):
        return self.head(self.back(self.drop(self.there(observations)).tanh()))

    def update(self, batch, step):
        loss = -self(batch.observations).log_prob(self.scaler(batch.actions)).mean()
        self.minimize("actor", loss)
        return {"actor/loss": loss.detach()}

    def policy(self, options):
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register):
    register(Tied)
"""


def test_tied_weights_are_saved_loaded_and_resumed(tmp_path: Path) -> None:
    own = str(tmp_path / "tied.py")
    Path(own).write_text(TIED)
    config = {**toy_config("bc"), "algo": {"name": "tied"}, "plugins": [PLUGIN, own]}
    rlutils.train(config, out=tmp_path / "whole")
    signal = {"name": "meddler", "at": 33, "how": "signal"}
    with pytest.raises(KeyboardInterrupt, match="after step 33"):
        rlutils.train({**config, "callbacks": [*config["callbacks"], signal]}, out=tmp_path / "parts")
    rlutils.resume(tmp_path / "parts", ["callbacks=[{name: csv, every: 10}, {name: best}]"], plugins=[PLUGIN, own])
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert equal(state(tmp_path / "whole"), state(tmp_path / "parts"))
    loaded = rlutils.load(tmp_path / "whole", plugins=[PLUGIN, own])
    assert loaded.there.weight is loaded.back.weight
    assert equal(dict(loaded.state_dict()), weights(tmp_path / "whole"))
    assert torch.equal(weights(tmp_path / "whole")["there.weight"], weights(tmp_path / "whole")["back.weight"])
