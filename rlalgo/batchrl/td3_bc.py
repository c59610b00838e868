"""TD3+BC: TD3 with a behavior-cloning term in the actor's loss (Fujimoto and Gu 2021).

maximize  E_{(s, a) in data} [ lambda Q(s, pi(s)) - (pi(s) - a)^2 ],   lambda = alpha / mean |Q(s, pi(s))|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Count, Fraction, NonNegative, Positive
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import TransitionBatch, Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import features
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import Actor, ActorPolicy, BoxHead, Counter, Critics, Normalizer, Target, bounded_box, trunk
from rlalgo.registry import Choice, Kind


class TD3BC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "td3_bc"
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
        """Share by which the target networks move to the trained ones, at each update of the actor."""
        alpha: Positive = 2.5
        """Weight of the value against imitation."""
        actor_every: Count = 2
        """Updates of the critics for one of the actor."""
        target_noise: NonNegative = 0.2
        """Standard deviation of the noise on target actions, in units of half the action range."""
        noise_clip: NonNegative = 0.5
        """Largest such noise."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation (section 5)."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width, layers = spec.encoder_space(), config.width, config.layers
        space = bounded_box(spec.action_space, self.name)

        def see() -> tuple[nn.Module, int]:
            return features(config.state_encoder, seen, width)

        self.normalizer = Normalizer(seen.shape)
        self.actor = Actor(trunk(*see(), width, layers), BoxHead(width, space))
        self.critics = Critics(*see(), space.shape[0], 2, width, layers)
        self.target_actor, self.target_critics = Target(self.actor), Target(self.critics)
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)
        self.updates = Counter()
        self.actor_metrics: Tensor  # (2,) of the actor's last update: loss, squared error
        self.register_buffer("actor_metrics", torch.zeros(2))

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, A) scaled actions."""
        return self.actor(self.normalizer(observations))

    def targets(self, batch: TransitionBatch) -> Tensor:
        """(B,) r + gamma min_i Q'_i(s', pi'(s') + noise), without the second term where s' is terminal."""
        config, after = self.config, self.normalizer(batch.next_observations)
        with torch.no_grad():
            action = self.target_actor(after)  # (B, A)
            noise = (torch.randn_like(action) * config.target_noise).clamp_(-config.noise_clip, config.noise_clip)
            value = self.target_critics(after, (action + noise).clamp_(-1, 1)).amin(0)  # (B,)
        return batch.rewards + config.gamma * (1 - batch.terminals) * value

    def actor_loss(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized (B, *S) and scaled (B, A) -> the loss and the squared error in it."""
        chosen = self.actor(states)  # (B, A)
        value = self.critics(states, chosen, first=1)[0]  # (B,)
        error = (chosen - actions).square().mean()
        return error - self.config.alpha * value.mean() / value.detach().abs().mean().clamp(min=1e-6), error

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        states, actions = self.normalizer(batch.observations), self.actor.head.scale(batch.actions)
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - self.targets(batch)).square().mean(1).sum()
        self.minimize("critic", critic_loss)
        if self.updates.step() % self.config.actor_every == 0:
            loss, error = self.actor_loss(states, actions)
            self.minimize("actor", loss)
            self.target_actor.follow(self.config.tau)
            self.target_critics.follow(self.config.tau)
            self.actor_metrics = torch.stack([loss.detach(), error.detach()])
        return {
            "critic/loss": critic_loss.detach(),
            "critic/q_mean": q.detach().mean(),
            "actor/loss": self.actor_metrics[0],
            "actor/error": self.actor_metrics[1],
        }

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B, A) raw actions."""
        with self.evaluating():
            return self.actor.head.actions(self(batch.observations))

    def policy(self, options: Sequence[Any]) -> Policy:
        return ActorPolicy(self, self, self.actor.head, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(TD3BC)
