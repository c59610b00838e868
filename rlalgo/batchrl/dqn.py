"""DQN on fixed data, with double Q-learning and dueling networks as options: the plain offline baseline.

    minimize  E [ huber(r + gamma Q'(s', argmax_b Q(s', b)) - Q(s, a)) ]

Mnih et al. 2015; double: van Hasselt et al. 2016, equation 4; dueling: Wang et al. 2016, equation 9. Nothing keeps it
from valuing actions that the data does not hold: discrete_cql is the same with the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rlalgo.config import Count, Fraction, Positive
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import TransitionBatch, Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import features
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import ActorPolicy, DiscreteCritics, Normalizer, Target
from rlalgo.registry import Choice, Kind


class DQN(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "dqn"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete,)

    @dataclass(frozen=True)
    class Config:
        width: Count = 256
        """Units of every hidden layer."""
        layers: Count = 2
        """Hidden layers."""
        lr: Positive = 3e-4
        """Adam's learning rate."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target network moves to the trained one at each update; 1 does without one."""
        double: bool = True
        """Let the trained network choose the action that the target network values."""
        dueling: bool = False
        """State value and advantages in streams of their own."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width = spec.encoder_space(), config.width
        assert isinstance(spec.action_space, spaces.Discrete)
        self.normalizer = Normalizer(seen.shape)
        inputs = features(config.state_encoder, seen, width)
        self.critic = DiscreteCritics(*inputs, int(spec.action_space.n), 1, width, config.layers, config.dueling)
        self.target_critic = Target(self.critic)
        self.optimizers["critic"] = torch.optim.Adam(self.critic.parameters(), config.lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, n) action values."""
        return self.critic(self.normalizer(observations))[0]

    def targets(self, batch: TransitionBatch) -> Tensor:
        """(B,) r + gamma times the value of the best next action, without it where s' is terminal."""
        after = self.normalizer(batch.next_observations)
        with torch.no_grad():
            values = self.target_critic(after)[0]  # (B, n)
            best = (self.critic(after)[0] if self.config.double else values).argmax(-1, keepdim=True)  # (B, 1)
            value = values.gather(1, best).squeeze(1)  # (B,)
        return batch.rewards + self.config.gamma * (1 - batch.terminals) * value

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        values = self(batch.observations)  # (B, n)
        q = values.gather(1, batch.actions.unsqueeze(1)).squeeze(1)  # (B,)
        loss = F.huber_loss(q, self.targets(batch))
        self.minimize("critic", loss)
        self.target_critic.follow(self.config.tau)
        return {"critic/loss": loss.detach(), "critic/q_mean": q.detach().mean()}

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B,) greedy actions."""
        with self.evaluating():
            return self.critic.actions(self(batch.observations))

    def policy(self, options: Sequence[Any]) -> Policy:
        return ActorPolicy(self, self, self.critic, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(DQN)
