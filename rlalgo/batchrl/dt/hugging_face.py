"""The Decision Transformer of Hugging Face's transformers, and ours: the same function with either's weights.

That model adds position embedding 0 to every token after its layer norm. The constant is folded into the norm's bias,
which is exact; what goes back has zeros there.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlalgo.batchrl.dt.dt_model import RETURN_SPACE, DTModel
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.config import Few, Positive, Probability, Size
from rlalgo.encoders import Linear
from rlalgo.errors import CheckpointError, first_fault, shown
from rlalgo.nets import DeterministicHead
from rlalgo.registry import to_mapping

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
PLACES = "encoder.wpe.weight"
"""Their position embedding, of which only the first row is used."""


class HuggingFaceConfig(BaseModel):
    """What says of a `DecisionTransformerConfig` which function the model is; what it leaves out is as theirs."""

    model_config: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)
    model_type: Literal["decision_transformer"] = "decision_transformer"
    state_dim: Size
    act_dim: Size
    hidden_size: Size
    max_ep_len: Size
    n_layer: Annotated[Few, Field(le=256)] = 3
    n_head: Size = 1
    n_inner: Size | None = None
    activation_function: Literal["relu", "gelu", "gelu_new"] = "relu"
    resid_pdrop: Probability = 0.1
    layer_norm_epsilon: Positive = 1e-5
    action_tanh: bool = True
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden_size % self.n_head:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of n_head {self.n_head}")
        return self


def from_hugging_face(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> DTModel:
    """The same function as transformers' `DecisionTransformerModel` with these weights.

    States, actions and returns are taken as that model takes them: normalized and scaled by the caller.

    Args:
        config: `DecisionTransformerConfig.to_dict()` or the `config.json` of a published model.
        state_dict: its weights.

    Raises:
        CheckpointError: the config asks for what is not supported, or weights are missing or do not fit.
    """
    try:
        c = HuggingFaceConfig.model_validate(dict(config))
    except ValidationError as error:
        got = {key: value for key, value in config.items() if key in error.errors()[0]["loc"]}
        text = f"config: {first_fault(error)}, got {shown(got)}; is it a DecisionTransformerConfig?"
        raise CheckpointError(text) from error
    W, linear, box = c.hidden_size, Linear.Config(), spaces.Box(-1, 1, (c.act_dim,), np.float32)

    def make() -> DTModel:
        return DTModel(
            W,
            embed_state=Linear(spaces.Box(-np.inf, np.inf, (c.state_dim,), np.float32), W, linear),
            embed_action=Linear(box, W, linear),
            embed_return=Linear(RETURN_SPACE, W, linear),
            embed_timestep=Linear(spaces.Discrete(c.max_ep_len), W, linear),
            head=DeterministicHead(W, box, tanh=c.action_tanh),
            trunk=TrajectoryGPT2(
                W, c.n_layer, c.n_head, c.n_inner, c.activation_function, c.resid_pdrop, c.layer_norm_epsilon
            ),
            predict_state=nn.Linear(W, c.state_dim),
            predict_return=nn.Linear(W, 1),
        )

    with torch.device("meta"):  # before memory is asked for
        shapes = make().state_dict()
    weights, model = our_weights(shapes, state_dict), make()
    model.load_state_dict(weights)
    return model


def our_weights(shapes: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under the names of a `DTModel`, position 0 folded.

    Args:
        shapes: the model's `state_dict()`; its values are not looked at, and may be on torch's meta device.
        state_dict: theirs; what the model has no place for (their heads for states and returns, say) is left.

    Raises:
        CheckpointError: one is missing, of another shape, or not of finite numbers; or there are more blocks.
    """

    def take(theirs: str, shape: tuple[int, ...]) -> Tensor:
        weight = state_dict.get(theirs)
        if weight is None:
            why = "are they a DecisionTransformerModel's, of this n_layer?"
            raise CheckpointError(f"weights: {theirs} is missing; {why}")
        weight = weight.detach()[:1] if theirs == PLACES and weight.ndim else weight.detach()
        if weight.shape != shape:
            raise CheckpointError(f"weights do not fit the config: {theirs} is {tuple(weight.shape)}, expected {shape}")
        if not weight.is_floating_point() or not weight.isfinite().all():
            raise CheckpointError(f"weights: {theirs} is not of finite numbers")
        return weight.float()

    weights = {}
    for name, tensor in shapes.items():
        theirs, shape = _their_name(name), tuple(tensor.shape)
        weights[name] = take(theirs, shape[::-1]).T if _transposed(theirs) else take(theirs, shape)
    n_layers = sum(name.endswith("attn.qkv.bias") for name in shapes)
    if any(name.startswith(f"encoder.h.{n_layers}.") for name in state_dict):
        raise CheckpointError(f"weights do not fit the config: they have more blocks than n_layer={n_layers}")
    weights["embed_ln.bias"] = weights["embed_ln.bias"] + take(PLACES, (1, *weights["embed_ln.bias"].shape))[0]
    return weights


def to_hugging_face(algo: DecisionTransformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights of the `DecisionTransformerModel` that is the same function.

    It takes and gives what `DTModel` does: states are normalized, actions and returns scaled by the caller. Heads for
    states and returns that the algorithm does without are zeros.

    Raises:
        CheckpointError: that model cannot be it; says why.
    """
    c, spec = algo.config, algo.spec
    space, actions, W = spec.encoder_space(), spec.action_space, c.embed_dim
    why = []
    for role in ("state", "action", "return", "timestep"):
        embed = getattr(algo.model, f"embed_{role}")
        if type(embed) is not Linear or not isinstance(embed.squash, nn.Identity):
            why.append(f"{role}_encoder is {to_mapping(getattr(c, f'{role}_encoder'))}")
    why += ["positions are tokens'"] if c.positions == "token" else []
    why += [] if isinstance(actions, spaces.Box) else [f"actions are {actions}"]
    why += [] if len(space.shape) == 1 and space.dtype == np.float32 else [f"observations are {space}"]
    if why:
        needs = "it has vectors, a linear map for each, every step's timestep and continuous actions"
        raise CheckpointError(f"transformers' DecisionTransformerModel cannot be this: {'; '.join(why)}; {needs}")
    (S,), A, n_positions = space.shape, (actions.shape or (0,))[0], max(1024, 3 * c.context_length)
    config = {
        "architectures": ["DecisionTransformerModel"],
        "model_type": "decision_transformer",
        "state_dim": S,
        "act_dim": A,
        "hidden_size": W,
        "max_ep_len": algo.max_timestep,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_inner": None,
        "n_positions": n_positions,
        "vocab_size": 1,
        "activation_function": c.activation,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), c.dropout),
        "layer_norm_epsilon": algo.model.trunk.ln_f.eps,
        "action_tanh": c.tanh,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    weights = {"encoder.wte.weight": torch.zeros(1, W), PLACES: torch.zeros(n_positions, W)}
    for head, size in (("predict_state", S), ("predict_return", 1)):
        weights |= {f"{head}.weight": torch.zeros(size, W), f"{head}.bias": torch.zeros(size)}
    for name, weight in algo.model.state_dict().items():
        theirs = _their_name(name)
        weights[theirs] = (weight.T if _transposed(theirs) else weight).cpu().contiguous()
    return config, weights


def _their_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _transposed(theirs: str) -> bool:
    """Their Conv1D keeps (in, out), a Linear (out, in)."""
    return ".c_" in theirs and theirs.endswith("weight")
