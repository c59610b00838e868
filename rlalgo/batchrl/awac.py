"""AWAC: advantage-weighted actor-critic (Nair et al. 2020), its offline part.

    Q:  minimize  E [ (r + gamma min_i Q'_i(s', a') - Q_i(s, a))^2 ],   a' ~ pi(s')
    pi: maximize  E_{(s, a) in data} [ exp(A(s, a) / lambda) log pi(a | s) ],   A(s, a) = Q(s, a) - E_{b ~ pi} Q(s, b)

(equation 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Count, Fraction, Positive
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import TransitionBatch, Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import features
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import Actor, ActorPolicy, Critics, GaussianHead, Normalizer, Target, trunk
from rlalgo.registry import Choice, Kind


class AWAC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "awac"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        width: Count = 256
        """Units of every hidden layer."""
        layers: Count = 2
        """Hidden layers of actor and critics."""
        actor_lr: Positive = 3e-4
        """Adam's learning rate for the actor."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate for the critics."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target critics move to the trained ones at each update."""
        lam: Positive = 1.0
        """lambda, the temperature of the advantage weights: the smaller, the greedier."""
        max_weight: Positive = 100.0
        """Largest advantage weight. (The authors' option to normalize weights over the batch is left out.)"""
        samples: Count = 1
        """Draws of the policy that estimate the value of a state."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy's Gaussian instead of taking its mean."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width, layers = spec.encoder_space(), config.width, config.layers
        assert isinstance(spec.action_space, spaces.Box)

        def see() -> tuple[nn.Module, int]:
            return features(config.state_encoder, seen, width)

        self.normalizer = Normalizer(seen.shape)
        self.actor = Actor(trunk(*see(), width, layers), GaussianHead(width, spec.action_space))
        self.critics = Critics(*see(), spec.action_space.shape[0], 2, width, layers)
        self.target_critics = Target(self.critics)
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, A) scaled mean actions."""
        return self.actor(self.normalizer(observations))

    def weights(self, states: Tensor, actions: Tensor, mean: Tensor) -> Tensor:
        """(B,) exp(advantage / lambda), at most `max_weight`.

        Args:
            states: (B, *S) normalized.
            actions: (B, A) scaled, the data's.
            mean: (B, A) the policy's.
        """
        with torch.no_grad():
            drawn = self.actor.head.sample(mean.unsqueeze(1).expand(-1, self.config.samples, -1))  # (B, n, A)
            values = self.critics(states, torch.cat([actions.unsqueeze(1), drawn], 1)).amin(0)  # (B, 1+n)
            advantage = values[:, 0] - values[:, 1:].mean(1)
            return (advantage / self.config.lam).exp().clamp(max=self.config.max_weight)

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        config, head = self.config, self.actor.head
        states, actions = self.normalizer(batch.observations), head.scale(batch.actions)
        after = self.normalizer(batch.next_observations)
        with torch.no_grad():
            value = self.target_critics(after, head.sample(self.actor(after))).amin(0)  # (B,)
            target = batch.rewards + config.gamma * (1 - batch.terminals) * value
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - target).square().mean(1).sum()
        self.minimize("critic", critic_loss)

        mean = self.actor(states)  # (B, A)
        weight = self.weights(states, actions, mean)  # (B,)
        actor_loss = (weight * head.loss(mean, batch.actions)).mean()
        self.minimize("actor", actor_loss)
        self.target_critics.follow(config.tau)
        return {
            "critic/loss": critic_loss.detach(),
            "critic/q_mean": q.detach().mean(),
            "actor/loss": actor_loss.detach(),
            "actor/weight": weight.mean(),
        }

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B, A) raw mean actions."""
        with self.evaluating():
            return self.actor.head.actions(self(batch.observations))

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, self, self.actor.head, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(AWAC)
