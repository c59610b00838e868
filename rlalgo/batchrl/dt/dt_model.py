"""DTModel: returns-to-go, states and actions as one sequence of tokens (Chen et al. 2021, section 3).

    R_1 s_1 a_1 R_2 s_2 a_2 ...      3K tokens, interleaved; each modality has its own embedding,
                                     and all three tokens of a step share one timestep embedding

The action is read from the state's token, which has seen its own return and state and nothing later. The
optional next-state and next-return heads read the action's token.
"""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt import fast
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.nets.heads import Distribution, Head

RETURN_SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class DTOutput(NamedTuple):
    """What DTModel predicts at each step of the windows."""

    actions: Distribution  # over scaled actions (B, K, A) | (B, K)
    observations: Tensor | None  # (B, K, S) the next ones, if there is a head for them
    returns: Tensor | None  # (B, K) the next return-to-go, likewise


class DTModel(nn.Module):
    """Embeddings, trunk and heads; each is given, so that each can be chosen.

    Args:
        embed_dim: W, size of a token.
        embed_state, embed_action, embed_return, embed_timestep: encoders to (..., W).
        head: action head on the state's token.
        trunk: the causal transformer.
        predict_state, predict_return: optional heads on the action's token, to S numbers and to one.
        context_length: K, for a learned embedding of the token's place in the window besides the timestep of the
            window's first step (the paper's Atari setting); None for a timestep embedding at every step (its
            gym setting).
        run_trunk: how the trunk is computed; `fast.plain` gives the same as `fast.forward`, slower.
    """

    def __init__(
        self,
        embed_dim: int,
        embed_state: nn.Module,
        embed_action: nn.Module,
        embed_return: nn.Module,
        embed_timestep: nn.Module,
        head: Head,
        trunk: TrajectoryGPT2,
        predict_state: nn.Module | None = None,
        predict_return: nn.Module | None = None,
        context_length: int | None = None,
        run_trunk: fast.RunTrunk = fast.forward,
    ) -> None:
        super().__init__()
        self.embed_state = embed_state
        self.embed_action = embed_action
        self.embed_return = embed_return
        self.embed_timestep = embed_timestep
        self.embed_ln = nn.LayerNorm(embed_dim)
        self.place = None if context_length is None else nn.Parameter(torch.zeros(3 * context_length, embed_dim))
        self.trunk = trunk
        self.head = head
        self.predict_state = predict_state
        self.predict_return = predict_return
        self.run_trunk = run_trunk

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

        With `at`, (B,) int64, only the action at that step of each window, (B, A) | (B,).
        """
        B, K = timesteps.shape
        time = self.embed_timestep(timesteps if self.place is None else timesteps[:, :1])  # (B, K | 1, W)
        step = torch.stack([self.embed_return(returns_to_go.unsqueeze(-1)), states, self.embed_action(actions)], 2)
        x = (step + time.unsqueeze(2)).flatten(1, 2)  # (B, K, 3, W) -> (B, 3K, W)
        if self.place is not None:
            x = x + self.place[: 3 * K]
        # Where only state tokens are read, nobody sees the last action.
        if at is not None:
            here = torch.arange(B, device=x.device).unsqueeze(1), 3 * at.unsqueeze(1) + 1
            h = self.run_trunk(self.trunk, self.embed_ln(x[:, :-1]), here)  # (B, 1, W)
            return DTOutput(self.head(h.squeeze(1)), None, None)
        if self.predict_state is None and self.predict_return is None:
            h = self.run_trunk(self.trunk, self.embed_ln(x[:, :-1]), (slice(None), slice(1, None, 3)))  # (B, K, W)
            return DTOutput(self.head(h), None, None)
        h = self.run_trunk(self.trunk, self.embed_ln(x), None).view(B, K, 3, -1)  # (B, K, 3, W)
        after = h[:, :, 2]  # (B, K, W) the action's token
        state = None if self.predict_state is None else self.predict_state(after)
        returns = None if self.predict_return is None else self.predict_return(after).squeeze(-1)
        return DTOutput(self.head(h[:, :, 1]), state, returns)
