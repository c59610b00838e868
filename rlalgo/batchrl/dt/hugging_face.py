"""Hugging Face's Decision Transformer weights as a DTModel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt.dt_model import RETURN_SPACE, DTModel
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError
from rlalgo.nets import DeterministicHead

# What a config must not say otherwise.
FIXED = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}

# Parts of our parameters' names and what stands there in theirs.
NAMES = {
    "trunk.ln_f": "encoder.ln_f",
    "trunk.blocks": "encoder.h",
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "mlp.0": "mlp.c_fc",
    "mlp.2": "mlp.c_proj",
    "head.out": "predict_action.0",
    ".map.": ".",
}


def from_hugging_face(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> DTModel:
    """The same function as transformers' `DecisionTransformerModel` with these weights.

    That model adds position embedding 0 to every token after its layer norm; the constant is folded into the
    norm's bias, which is exact. States, actions and returns are taken as that model takes them: normalized and
    scaled by the caller.

    Args:
        config: `DecisionTransformerConfig.to_dict()` or the `config.json` of a published model; what it leaves out is
            as that library has it.
        state_dict: its weights.

    Raises:
        CheckpointError: the config asks for what is not supported, or weights are missing or do not fit.
    """
    for key, expected in FIXED.items():
        if config.get(key, expected) != expected:
            raise CheckpointError(f"config: {key}={config[key]!r} is not supported, only {expected}")

    def count(key: str, default: int | None = None) -> int:
        value = config.get(key, default)
        if not isinstance(value, int) or value < 1:
            expected = "a whole number of at least 1 (is it a DecisionTransformerConfig?)"
            raise CheckpointError(f"config: {key}={value!r}, expected {expected}")
        return value

    W, S, A, n_layers = count("hidden_size"), count("state_dim"), count("act_dim"), count("n_layer", 3)
    linear, box = Linear.Config(), spaces.Box(-1, 1, (A,), np.float32)
    try:
        trunk = TrajectoryGPT2(
            W,
            n_layers,
            count("n_head", 1),
            inner=None if config.get("n_inner") is None else count("n_inner"),
            activation=config.get("activation_function", "relu"),
            dropout=config.get("resid_pdrop", 0.1),
            eps=config.get("layer_norm_epsilon", 1e-5),
        )
    except ValueError as error:
        raise CheckpointError(f"config: {error}") from error
    model = DTModel(
        W,
        embed_state=Linear(spaces.Box(-np.inf, np.inf, (S,), np.float32), W, linear),
        embed_action=Linear(box, W, linear),
        embed_return=Linear(RETURN_SPACE, W, linear),
        embed_timestep=Linear(spaces.Discrete(count("max_ep_len")), W, linear),
        head=DeterministicHead(W, box, tanh=bool(config.get("action_tanh", True))),
        trunk=trunk,
        predict_state=nn.Linear(W, S),
        predict_return=nn.Linear(W, 1),
    )
    try:
        weights = {name: _weight(name, state_dict) for name in model.state_dict()}
        weights["embed_ln.bias"] = weights["embed_ln.bias"] + state_dict["encoder.wpe.weight"][0]
    except KeyError as error:
        message = f"weights: {error} is missing; are they a DecisionTransformerModel's, and is n_layer {n_layers}?"
        raise CheckpointError(message) from error
    if any(name.startswith(f"encoder.h.{n_layers}.") for name in state_dict):
        raise CheckpointError(f"weights do not fit the config: they have more blocks than n_layer={n_layers}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the config: {error}") from error
    return model


def _weight(name: str, state_dict: Mapping[str, Tensor]) -> Tensor:
    """Their weight that is called `name` here. Their Conv1D keeps (in, out), a Linear (out, in)."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return state_dict[name].T if ".c_" in name and name.endswith("weight") else state_dict[name]
