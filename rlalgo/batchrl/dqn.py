"""DQN on fixed data, and conservative Q-learning for discrete actions, which is the same with a remedy.

    minimize  E [ huber(r + gamma Q'(s', argmax_b Q(s', b)) - Q(s, a)) ]
              + conservative_weight E_s [ log sum_b exp Q(s, b) - Q(s, a) ]

`dqn` is the plain offline baseline (Mnih et al. 2015; double: van Hasselt et al. 2016, equation 4; dueling: Wang et al.
2016, equation 9): nothing keeps it from valuing actions that the data does not hold. `discrete_cql` adds the second
term (Kumar et al. 2020, equation 4), whose sum is exact here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Fraction, HiddenDims, NonNegative, Positive, StateEncoder
from rlalgo.nets import ActorPolicy, Categorical, DiscreteCritics, Normalizer, Target


class DQN(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "dqn"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete,)

    @dataclass(frozen=True)
    class Config:
        conservative_weight: NonNegative = 0.0
        """Weight of the conservative term (1 or 4 for Atari in CQL's appendix F); 0 leaves it out."""
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer."""
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
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        assert isinstance(spec.action_space, spaces.Discrete)
        space, n = spec.encoder_space(), int(spec.action_space.n)
        self.normalizer = Normalizer(space)
        self.critic = DiscreteCritics(space, config.state_encoder, config.hidden_dims, n, 1, config.dueling)
        self.target_critic = Target(self.critic)
        self.optimizers["critic"] = torch.optim.Adam(self.critic.parameters(), config.lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def values(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, n), the value of every action."""
        return self.critic(self.normalizer(observations))[0]

    def forward(self, observations: Tensor) -> Categorical:
        """Raw (B, *S) -> the policy, whose likeliest action is the one of the largest value."""
        return Categorical(self.values(observations))

    def targets(self, batch: TransitionBatch) -> Tensor:
        """(B,) r + gamma times the value of the best next action, without it where s' is terminal."""
        after = self.normalizer(batch.next_observations)
        with torch.no_grad():
            values = self.target_critic(after)[0]  # (B, n)
            best = (self.critic(after)[0] if self.config.double else values).argmax(-1, keepdim=True)  # (B, 1)
            value = values.gather(1, best).squeeze(1)  # (B,)
        return batch.rewards + self.config.gamma * (1 - batch.terminals) * value

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        values = self.values(batch.observations)  # (B, n)
        q = values.gather(1, self.scaler(batch.actions).unsqueeze(1)).squeeze(1)  # (B,)
        loss = error = F.huber_loss(q, self.targets(batch))
        metrics = {"critic/loss": error.detach(), "critic/q_mean": q.detach().mean()}
        if self.config.conservative_weight:
            gap = (values.logsumexp(-1) - q).mean()
            loss = error + self.config.conservative_weight * gap
            metrics["critic/gap"] = gap.detach()
        self.minimize("critic", loss)
        self.target_critic.follow(self.config.tau)
        return metrics

    def policy(self, options: Sequence[Any]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(DQN)
    register(DQN, "discrete_cql", conservative_weight=1.0)
