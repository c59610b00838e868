"""policy.json: what lies beside an exported graph, for whoever runs it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class File:
    size: int
    sha256: str


@dataclass(frozen=True)
class Observation:
    """A part of the raw observation, which is all of it unless the environment gives a Dict or Tuple."""

    name: str
    """Among the inputs."""
    path: list[str | int]
    """Keys of Dicts and places in Tuples that lead to it."""
    dtype: str
    """uint8 for images, int64 for choices, float32 for other numbers."""
    shape: list[int | None]
    """null where any size does."""
    low: Any = None
    high: Any = None
    """Of choices: the first and the last one."""


@dataclass(frozen=True)
class Action:
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Memory:
    """What is given back at the next step; zeros at an episode's start."""

    name: str
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Exported:
    version: Literal[1]
    """Of this format."""
    format: Literal["onnx", "torchscript", "torch"]
    files: dict[str, File]
    """All that the graph consists of."""
    inputs: list[str]
    """Of the graph, in order: the observation's parts, step (int64), return_to_go (float32), the memory."""
    outputs: list[str]
    """action, then the memory for the next step."""
    observations: list[Observation]
    action: Action
    memory: list[Memory]
    target_return: float | None
    """The return asked for unless another is; null where the policy takes none."""
    sees_rewards: bool
    """Whether return_to_go falls with each reward."""
    context_length: int | None
    """Steps that the policy looks back on; null for none but stacked frames."""
    frame_stack: int
    max_steps: int
    """Of the longest episode in the data."""
    algorithm: str
    step: int | None
    """Updates that the checkpoint had."""
    options: dict[str, Any]
    """Of the policy."""
    env_id: str | None
    env_kwargs: dict[str, Any]
    """Arguments that the data's environment was made with."""
    env_wrappers: list[dict[str, Any]]
    """Wrappers that it was recorded with, innermost first: they are not in the graph."""
    observation_space: dict[str, Any]
    """As the data has it, prepared."""
    action_space: dict[str, Any]
    rlalgo: str
    """Version that wrote it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
