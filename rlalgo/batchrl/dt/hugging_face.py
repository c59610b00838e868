"""Hugging Face's Decision Transformer weights as a DTModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt.dt_model import RETURN_SPACE, DTModel
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError
from rlalgo.nets import BoxHead

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


def from_hugging_face(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> DTModel:
    """The same function as transformers' `DecisionTransformerModel` with these weights.

    That model adds position embedding 0 to every token after its layer norm; the constant is folded into the
    norm's bias, which is exact. States, actions and returns are taken as that model takes them: normalized and
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
