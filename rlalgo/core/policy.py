"""Policy: n rows that play side by side. Controller: one row, numpy in and out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlalgo.core.spec import DataSpec, stack_frames


class Policy(ABC):
    """Acts for n rows at once; row i plays with `options[i]` (an instance of the algorithm's PolicyConfig).

    Raw observations in, raw actions inside the action space out. Tensors may come from any device and are
    returned on the CPU.
    """

    options: Sequence[Any]

    def reset(self, rows: Tensor) -> None:  # noqa: B027 (a memoryless policy has nothing to do)
        """rows (m,) int64 start a new episode."""

    @abstractmethod
    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """observations (m, *S) of rows (m,), as environments give them -> actions (m, A) float32 or (m,) int64."""

    def observe(self, rewards: Tensor, rows: Tensor) -> None:  # noqa: B027
        """rewards (m,) that the rows (m,) received for their last action."""


class Controller:
    """One environment's view of a policy: numpy observations in, numpy actions out.

    >>> controller = Controller(algo.policy([algo.PolicyConfig()]))     # doctest: +SKIP
    >>> controller.reset(); action = controller.act(observation)        # doctest: +SKIP
    >>> controller.observe(reward)                                      # doctest: +SKIP
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.row = torch.zeros(1, dtype=torch.int64)

    def reset(self) -> None:
        """Call at the start of every episode."""
        self.policy.reset(self.row)

    def act(self, observation: np.ndarray) -> Any:
        """(*S) -> (A,) float32, or a Python int for Discrete actions."""
        action = self.policy.act(torch.as_tensor(observation).unsqueeze(0), self.row)[0]
        return int(action) if action.dim() == 0 else action.numpy()

    def observe(self, reward: float) -> None:
        """The reward that the last action brought."""
        self.policy.observe(torch.tensor([reward], dtype=torch.float32), self.row)


class FrameStack:
    """The last k observations of n rows; before an episode's start its first one repeats."""

    def __init__(self, spec: DataSpec, n: int, device: torch.device) -> None:
        self.k = spec.frame_stack
        self.fresh = torch.ones(n, dtype=torch.bool)
        self.shape = tuple(spec.observation_space.shape or ())
        self.device = device
        self.frames: Tensor | None = None  # (n, k, *S), made when the first observation shows its type

    def reset(self, rows: Tensor) -> None:
        """rows (m,) start a new episode."""
        self.fresh[rows] = True

    def push(self, observations: Tensor, rows: Tensor) -> Tensor:
        """observations (m, *S) of rows (m,) -> what encoders see (m, *encoder shape), on the device."""
        observations = observations.to(self.device)
        if observations.dtype == torch.float64:  # MuJoCo's own; the data and the weights are float32
            observations = observations.float()
        if self.k == 1:
            return observations
        if self.frames is None:
            self.frames = observations.new_zeros((len(self.fresh), self.k, *self.shape))
        fresh = self.fresh[rows].to(self.device)
        older = self.frames[rows][:, 1:]
        older[fresh] = observations[fresh].unsqueeze(1)  # repeat the first frame
        self.frames[rows] = torch.cat([older, observations.unsqueeze(1)], 1)
        self.fresh[rows] = False
        return stack_frames(self.frames[rows], self.shape)
