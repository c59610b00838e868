"""DTModel: returns-to-go, states and actions as one sequence of tokens (Chen et al. 2021, section 3).

    R_1 s_1 a_1 R_2 s_2 a_2 ...      3K tokens, interleaved; each modality has its own embedding,
                                     and all three tokens of a step share one timestep embedding

The action is read from the state's token, which has seen its own return and state and nothing later. The
optional next-state and next-return heads read the action's token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt.trajectory_gpt2 import Tokens, TrajectoryGPT2
from rlalgo.nets import BoxHead, DiscreteHead

RETURN_SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class DTOutput(NamedTuple):
    """What DTModel predicts at each step of the windows."""

    actions: Tensor  # (B, K, A) scaled | (B, K, n) logits
    observations: Tensor | None  # (B, K, S) the next ones, if there is a head for them
    returns: Tensor | None  # (B, K) the next return-to-go, likewise


class DTModel(nn.Module):
    """Embeddings, trunk and heads; each is given, so that each can be chosen.

    Args:
        width: W, size of a token.
        embed_state, embed_action, embed_return, embed_timestep: encoders to (..., W).
        head: action head on the state's token.
        trunk: the causal transformer.
        predict_state, predict_return: optional heads on the action's token, to S numbers and to one.
        context: K, for a learned embedding of the token's place in the window besides the timestep of the
            window's first step (the paper's Atari setting); None for a timestep embedding at every step (its
            gym setting).
    """

    def __init__(
        self,
        width: int,
        embed_state: nn.Module,
        embed_action: nn.Module,
        embed_return: nn.Module,
        embed_timestep: nn.Module,
        head: BoxHead | DiscreteHead,
        trunk: TrajectoryGPT2,
        predict_state: nn.Module | None = None,
        predict_return: nn.Module | None = None,
        context: int | None = None,
    ) -> None:
        super().__init__()
        self.embed_state = embed_state
        self.embed_action = embed_action
        self.embed_return = embed_return
        self.embed_timestep = embed_timestep
        self.embed_ln = nn.LayerNorm(width)
        self.place = None if context is None else nn.Parameter(torch.zeros(3 * context, width))
        self.trunk = trunk
        self.head = head
        self.predict_state = predict_state
        self.predict_return = predict_return

    def forward(self, observations: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> DTOutput:
        """Predictions for every step.

        Args:
            observations: (B, K, *S) normalized.
            actions: (B, K, A) scaled, or (B, K) int64.
            returns_to_go: (B, K) scaled.
            timesteps: (B, K) int64.
        """
        return self.decode(self.embed_state(observations), actions, returns_to_go, timesteps)

    def decode(
        self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor, at: Tensor | None = None
    ) -> DTOutput:
        """As `forward`, from embedded states (B, K, W): while playing, each is embedded but once.

        With `at`, (B,) int64, the action at that step of each window alone: (B, 1, A) or logits (B, 1, n).
        """
        B, K = timesteps.shape
        time = self.embed_timestep(timesteps if self.place is None else timesteps[:, :1])  # (B, K | 1, W)
        embedded = (
            self.embed_return(returns_to_go.unsqueeze(-1)),
            states,
            self.embed_action(actions),
        )
        x = (torch.stack(embedded, 2) + time.unsqueeze(2)).flatten(1, 2)  # (B, K, 3, W) -> (B, 3K, W)
        if self.place is not None:
            x = x + self.place[: 3 * K]
        if at is not None or (self.predict_state is None and self.predict_return is None):
            # Only state tokens are read: the last action, seen by nobody, and most of the last block go.
            keep: Tokens = (slice(None), slice(1, None, 3))
            if at is not None:
                keep = (torch.arange(B, device=x.device).unsqueeze(1), 3 * at.unsqueeze(1) + 1)
            return DTOutput(self.head(self.trunk(self.embed_ln(x[:, :-1]), keep)), None, None)
        h = self.trunk(self.embed_ln(x)).view(B, K, 3, -1)
        after = h[:, :, 2]  # (B, K, W) the action's token
        state = self.predict_state(after) if self.predict_state is not None else None
        returns = self.predict_return(after).squeeze(-1) if self.predict_return is not None else None
        return DTOutput(self.head(h[:, :, 1]), state, returns)
