"""TD3+BC: TD3 with a behavior-cloning term in the actor's loss (Fujimoto and Gu 2021).

maximize  E_{(s, a) in data} [ lambda Q(s, pi(s)) - (pi(s) - a)^2 ],   lambda = alpha / mean |Q(s, pi(s))|
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Count, Fraction, HiddenDims, NonNegative, Positive, StateEncoder
from rlalgo.nets import (
    ActorPolicy,
    Critics,
    Deterministic,
    DeterministicHead,
    Normalizer,
    Target,
    trunk,
)


class TD3BC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "td3_bc"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer of actor and critics."""
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
        policy_freq: Count = 2
        """Updates of the critics for each update of the actor."""
        policy_noise: NonNegative = 0.2
        """Standard deviation of the noise on target actions, in units of half the action range."""
        noise_clip: NonNegative = 0.5
        """Largest noise on target actions, in the same units."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation (section 5)."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        space, encoder, dims = spec.encoder_space(), config.state_encoder, config.hidden_dims
        actions = spec.action_space
        assert isinstance(actions, spaces.Box)
        self.normalizer = Normalizer(space)
        self.actor = nn.Sequential(trunk(space, encoder, dims), DeterministicHead(dims[-1], actions))
        self.critics = Critics(space, encoder, dims, actions.shape[0])
        self.target_actor, self.target_critics = Target(self.actor), Target(self.critics)
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Deterministic:
        """Raw (B, *S) -> scaled actions (B, A)."""
        return self.actor(self.normalizer(observations))

    def targets(self, batch: TransitionBatch) -> Tensor:
        """(B,) r + gamma min_i Q'_i(s', pi'(s') + noise), without the second term where s' is terminal."""
        config, after = self.config, self.normalizer(batch.next_observations)
        with torch.no_grad():
            action = self.target_actor(after).mode()  # (B, A)
            noise = (torch.randn_like(action) * config.policy_noise).clamp_(-config.noise_clip, config.noise_clip)
            value = self.target_critics(after, (action + noise).clamp_(-1, 1)).amin(0)  # (B,)
        return batch.rewards + config.gamma * (1 - batch.terminals) * value

    def actor_loss(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized (B, *S) and scaled (B, A) -> the loss and the squared error in it."""
        chosen = self.actor(states).mode()  # (B, A)
        value = self.critics(states, chosen, first=1)[0]  # (B,)
        error = (chosen - actions).square().mean()
        return error - self.config.alpha * value.mean() / value.detach().abs().mean().clamp(min=1e-6), error

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - self.targets(batch)).square().mean(1).sum()
        self.minimize("critic", critic_loss)
        metrics = {"critic/loss": critic_loss.detach(), "critic/q_mean": q.detach().mean()}
        if step % self.config.policy_freq == 0:
            loss, error = self.actor_loss(states, actions)
            self.minimize("actor", loss)
            self.target_actor.follow(self.config.tau)
            self.target_critics.follow(self.config.tau)
            metrics |= {"actor/loss": loss.detach(), "actor/error": error.detach()}
        return metrics

    def policy(self, options: Sequence[Any]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(TD3BC)
