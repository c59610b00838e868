"""DTModel: returns-to-go, states and actions as one sequence of tokens (Chen et al. 2021, section 3).

    R_1 s_1 a_1 R_2 s_2 a_2 ...      3K tokens, interleaved; each modality has its own embedding,
                                     and all three tokens of a step share one timestep embedding

The action is read from the state's token, which has seen its own return and state and nothing later. The
optional next-state and next-return heads read the action's token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt.trajectory_gpt2 import Tokens, TrajectoryGPT2
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError
from rlalgo.nets import BoxHead, DiscreteHead

RETURN_SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)

# DecisionTransformerConfig's defaults for what a config may leave out, and what must have one value.
HUGGING_FACE_DEFAULTS = {
    "n_layer": 3,
    "n_head": 1,
    "n_inner": None,
    "activation_function": "relu",
    "layer_norm_epsilon": 1e-5,
    "action_tanh": True,
    "resid_pdrop": 0.1,
}
HUGGING_FACE_FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


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
            observations: (B, K, *S) normalised.
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


def from_hugging_face(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> DTModel:
    """The same function as transformers' `DecisionTransformerModel` with these weights.

    That model adds position embedding 0 to every token after its layer norm; the constant is folded into the
    norm's bias, which is exact. States, actions and returns are taken as that model takes them: normalised and
    scaled by the caller.

    Args:
        config: `DecisionTransformerConfig.to_dict()` or the `config.json` of a published model.
        state_dict: its weights.

    Raises:
        CheckpointError: the config asks for what is not supported, or weights are missing or do not fit.
    """
    get = {**HUGGING_FACE_DEFAULTS, **config}
    for key, expected in HUGGING_FACE_FIXED.items():
        if get.get(key, expected) != expected:
            raise CheckpointError(f"config: {key}={get[key]!r} is not supported, only {expected}")

    def count(key: str) -> int:
        value = get.get(key)
        if not isinstance(value, int) or value < 1:
            expected = "a whole number of at least 1 (is it a DecisionTransformerConfig?)"
            raise CheckpointError(f"config: {key}={value!r}, expected {expected}")
        return value

    width, states, actions = count("hidden_size"), count("state_dim"), count("act_dim")
    linear, box = Linear.Config(), spaces.Box(-1, 1, (actions,), np.float32)
    inner = None if get["n_inner"] is None else count("n_inner")
    activation, dropout, eps = get["activation_function"], get["resid_pdrop"], get["layer_norm_epsilon"]
    try:
        trunk = TrajectoryGPT2(width, count("n_layer"), count("n_head"), inner, activation, dropout, eps)
    except ValueError as error:
        raise CheckpointError(f"config: {error}") from error
    model = DTModel(
        width,
        embed_state=Linear(spaces.Box(-np.inf, np.inf, (states,), np.float32), width, linear),
        embed_action=Linear(box, width, linear),
        embed_return=Linear(RETURN_SPACE, width, linear),
        embed_timestep=Linear(spaces.Discrete(count("max_ep_len")), width, linear),
        head=BoxHead(width, box, tanh=bool(get["action_tanh"])),
        trunk=trunk,
        predict_state=nn.Linear(width, states),
        predict_return=nn.Linear(width, 1),
    )
    try:
        model.load_state_dict(_renamed(state_dict))
    except KeyError as error:
        message = f"weights: {error} is missing; are they a DecisionTransformerModel's?"
        raise CheckpointError(message) from error
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the config: {error}") from error
    return model


def _renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's names and layouts -> ours. Their Conv1D keeps (in, out), a Linear (out, in)."""
    ours: dict[str, Tensor] = {}
    pairs = {"attn.c_attn": "qkv", "attn.c_proj": "attn_out", "mlp.c_fc": "fc", "mlp.c_proj": "mlp_out"}
    for i in sorted({name.split(".")[2] for name in theirs if name.startswith("encoder.h.")}):
        for a, b in pairs.items():
            ours[f"trunk.blocks.{i}.{b}.weight"] = theirs[f"encoder.h.{i}.{a}.weight"].T
            ours[f"trunk.blocks.{i}.{b}.bias"] = theirs[f"encoder.h.{i}.{a}.bias"]
        for norm in ("ln_1", "ln_2"):
            for part in ("weight", "bias"):
                ours[f"trunk.blocks.{i}.{norm}.{part}"] = theirs[f"encoder.h.{i}.{norm}.{part}"]
    same = {
        "encoder.ln_f": "trunk.ln_f",
        "embed_state": "embed_state.map",
        "embed_action": "embed_action.map",
        "embed_return": "embed_return.map",
        "embed_ln": "embed_ln",
        "predict_action.0": "head.out",
        "predict_state": "predict_state",
        "predict_return": "predict_return",
    }
    for a, b in same.items():
        for part in ("weight", "bias"):
            ours[f"{b}.{part}"] = theirs[f"{a}.{part}"]
    ours["embed_timestep.map.weight"] = theirs["embed_timestep.weight"]
    ours["embed_ln.bias"] = theirs["embed_ln.bias"] + theirs["encoder.wpe.weight"][0]
    return ours
