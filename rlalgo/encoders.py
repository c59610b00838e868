"""Encoders: what turns a state, an action, a return-to-go or a timestep into a vector of a model's width."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Sizes
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import inputs, mlp


class Linear(nn.Module):
    """One linear map; for a Discrete space a table with a row per value. The paper's choice for all roles."""

    name: ClassVar[str] = "linear"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state", "action", "return", "timestep"})

    @dataclass(frozen=True)
    class Config:
        tanh: bool = False
        """Squash the embedding, as the paper's Atari setting does for returns and actions."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        self.squash = nn.Tanh() if config.tanh else nn.Identity()
        if isinstance(space, spaces.Discrete):
            self.flat: nn.Module = nn.Identity()
            self.map: nn.Module = nn.Embedding(int(space.n), width)
            # As GPT-2 and Hugging Face's DT do; torch's default of 1 drowns the other embeddings of a step.
            nn.init.normal_(self.map.weight, std=0.02)
        else:
            self.flat, size = inputs(space, None, width)
            self.map = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.squash(self.map(self.flat(x)))


class MLP(nn.Module):
    """Hidden layers with ReLU between."""

    name: ClassVar[str] = "mlp"
    ROLES: ClassVar[frozenset[str]] = frozenset({"state", "action", "return"})

    @dataclass(frozen=True)
    class Config:
        hidden_dims: Sizes = (256,)
        """Units of each hidden layer."""

    def __init__(self, space: spaces.Space, width: int, config: Config) -> None:
        super().__init__()
        self.flat, size = inputs(space, None, width)
        self.net = mlp([size, *config.hidden_dims, width])

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) -> (..., width)."""
        return self.net(self.flat(x))


@hookimpl
def rlalgo_register_encoders(register: Any) -> None:
    register(Linear)
    register(MLP)
