"""Policy: n rows that play side by side. Controller: one row, numpy in and out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlalgo.core.spaces import stack_frames
from rlalgo.core.spec import DataSpec
from rlalgo.errors import DataError, shown


class Acting(nn.Module, ABC):
    """One step of a policy as a pure function of tensors, the same for any number of rows: what can be exported.

    It takes the likeliest actions; nothing is drawn.
    """

    memory: Mapping[str, Tensor]
    """What a row keeps from step to step, by name: its value at an episode's start, without the row's dimension."""
    target_return: float | None = None
    """The return that is asked for unless another is; None where it takes none."""
    sees_rewards: bool = True
    """Whether the return that is left falls with the rewards."""

    def __init__(self, algo: nn.Module, memory: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.algo: Any = algo
        self.memory = memory

    @abstractmethod
    def forward(
        self, observations: Tensor, step: Tensor, left: Tensor, memory: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Raw actions of one step, and the memory after it.

        Args:
            observations: (m, *encoder shape); packed ones as a dict of their parts.
            step: (m,) int64 steps done in the episode.
            left: (m,) return that is left to reach; means nothing where there is no target return.
            memory: (m, ...) each.
        """


class Policy(ABC):
    """Acts for n rows at once; row i plays with `options[i]` (an instance of the algorithm's PolicyConfig).

    Raw observations in, raw actions inside the action space out. Tensors may come from any device and are
    returned on the CPU.
    """

    options: Sequence[Any]
    spec: DataSpec | None = None
    """Of the data that it was trained on: other environments are refused. None plays in any."""

    def reset(self, rows: Tensor) -> None:  # noqa: B027 (a memoryless policy has nothing to do)
        """rows (m,) int64 start a new episode."""

    @abstractmethod
    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """observations (m, *S) of rows (m,), as environments give them -> actions (m, A) float32 or (m,) int64."""

    def observe(self, rewards: Tensor, rows: Tensor) -> None:  # noqa: B027
        """rewards (m,) that the rows (m,) received for their last action."""

    def acting(self) -> Acting | None:
        """Row 0 as a function that `rlalgo export` makes a graph of; None: this kind of policy is not exported."""
        return None


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
        """(*S) -> (A,) float32, or a Python int for Discrete actions.

        Raises:
            DataError: a trained policy gets observations of another kind than its data's.
        """
        action = self.policy.act(batch([observation]), self.row)[0]
        return int(action) if action.dim() == 0 else action.numpy()

    def observe(self, reward: float) -> None:
        """The reward that the last action brought."""
        self.policy.observe(torch.tensor([reward], dtype=torch.float32), self.row)


def batch(observations: Sequence[Any]) -> Any:
    """m observations (*S) -> (m, *S); what is no array stays a list. (np.stack takes five times as long.)"""
    return torch.from_numpy(np.array(observations)) if isinstance(observations[0], np.ndarray) else observations


class FrameStack:
    """The last k observations of n rows; before an episode's start its first one repeats."""

    def __init__(self, spec: DataSpec, n: int, device: torch.device) -> None:
        self.k = spec.frame_stack
        self.fresh = torch.ones(n, dtype=torch.bool)
        self.shape = tuple(spec.observation_space.shape or ())
        self.dtype = torch.from_numpy(np.empty(0, spec.observation_space.dtype)).dtype
        self.device = device
        self.frames: Tensor | None = None  # (n, k, *S), made when the first observation shows its type

    def reset(self, rows: Tensor) -> None:
        """rows (m,) start a new episode."""
        self.fresh[rows] = True

    def push(self, observations: Tensor, rows: Tensor) -> Tensor:
        """observations (m, *S) of rows (m,) -> what encoders see (m, *encoder shape), on the device.

        Numbers are cast to the data's type (MuJoCo gives float64), but bytes are images, and nothing else is.

        Raises:
            DataError: these are none of the data's observations.
        """
        kind = getattr(observations, "dtype", None)
        if kind is None or observations.shape[1:] != self.shape or (kind == torch.uint8) != (self.dtype == torch.uint8):
            got = f"of shape {tuple(observations.shape[1:])}, {kind}" if kind else shown(observations[0])
            raise DataError(
                f"the policy got observations {got}; its data's are of shape {self.shape}, {self.dtype}: prepare "
                "them as the data was, which rlutils.prepare(env, algo.spec) does for an environment"
            )
        observations = observations.to(self.device, self.dtype)
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
