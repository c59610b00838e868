"""DTModel: its tokens, and what is read from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlalgo.batchrl.dt import DTModel, TrajectoryGPT2, fast
from rlalgo.batchrl.dt.dt_model import RETURN_SPACE
from rlalgo.encoders import Linear
from rlalgo.nets import DeterministicHead
from tests.rlalgo.batchrl.dt.loud import louder

S, A, K, W = 5, 3, 6, 128


def make_model(
    context_length: int | None = None, dropout: float = 0.0, run_trunk: fast.RunTrunk = fast.forward
) -> DTModel:
    box, linear = spaces.Box(-1, 1, (A,), np.float32), Linear.Config()
    model = DTModel(
        W,
        embed_state=Linear(spaces.Box(-np.inf, np.inf, (S,), np.float32), W, linear),
        embed_action=Linear(box, W, linear),
        embed_return=Linear(RETURN_SPACE, W, linear),
        embed_timestep=Linear(spaces.Discrete(20), W, linear),
        head=DeterministicHead(W, box),
        trunk=TrajectoryGPT2(W, n_layers=2, n_heads=2, dropout=dropout),
        context_length=context_length,
        run_trunk=run_trunk,
    )
    return louder(model)


def windows() -> list[Tensor]:
    """Observations, actions, returns-to-go and timesteps of eight windows."""
    torch.manual_seed(1)
    first = torch.tensor([0, 0, 0, 0, 0, 0, 4, 13])  # t < K, then t >= K
    return [
        torch.randn(8, K, S),
        torch.rand(8, K, A) * 2 - 1,
        torch.randn(8, K),
        first[:, None] + torch.arange(K),
    ]


def test_token_positions_embed_place_and_the_first_timestep_alone() -> None:
    """Chen et al. 2021, Atari: each token has its place, and all share the window's first timestep."""
    model = make_model(context_length=K)
    observations, actions, returns_to_go, timesteps = windows()
    got = model(observations, actions, returns_to_go, timesteps).actions.mode()
    for b in range(len(got)):  # one by one and token by token
        tokens: list[Tensor] = []
        for t in range(K):
            for embed, x in (
                (model.embed_return, returns_to_go[b, t].view(1)),
                (model.embed_state, observations[b, t]),
                (model.embed_action, actions[b, t]),
            ):
                tokens.append(embed(x) + model.embed_timestep(timesteps[b, 0]) + model.place[len(tokens)])
        hidden = model.trunk(model.embed_ln(torch.stack(tokens)).unsqueeze(0))[0]
        expected = torch.stack([model.head(hidden[3 * t + 1]).mode() for t in range(K)])
        torch.testing.assert_close(got[b], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("run", [fast.forward, fast.plain])
def test_acting_at_one_step_is_the_prediction_there(run: fast.RunTrunk) -> None:
    model = make_model(run_trunk=run)
    observations, *rest = windows()
    at = torch.tensor([0, 1, 2, 3, 4, 5, 5, 2])
    everywhere = model(observations, *rest).actions.mode()
    there = model.decode(model.embed_state(observations), *rest, at).actions.mode()
    torch.testing.assert_close(there, everywhere[torch.arange(len(at)), at], atol=1e-5, rtol=1e-5)


def test_dropout_only_in_training() -> None:
    model, inputs = make_model(dropout=0.2), windows()

    def predict() -> Tensor:
        return model(*inputs).actions.mode()

    assert torch.equal(model.eval() and predict(), predict())
    assert not torch.equal(model.train() and predict(), predict())
    model = make_model(dropout=0.0).train()
    assert torch.equal(predict(), predict())
