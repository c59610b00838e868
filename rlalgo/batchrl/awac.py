"""AWAC: advantage-weighted actor-critic (Nair et al. 2020), its offline part.

    Q:  minimize  E [ (r + gamma min_i Q'_i(s', a') - Q_i(s, a))^2 ],   a' ~ pi(s')
    pi: maximize  E_{(s, a) in data} [ exp(A(s, a) / lambda) log pi(a | s) ],   A(s, a) = Q(s, a) - E_{b ~ pi} Q(s, b)

(equation 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Few, Fraction, HiddenDims, Positive, StateEncoder
from rlalgo.nets import ActorPolicy, Critics, Gaussian, GaussianHead, Normalizer, Target, trunk


class AWAC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "awac"
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
        """Share by which the target critics move to the trained ones at each update."""
        lam: Positive = 1.0
        """lambda, the temperature of the advantage weights: the smaller, the greedier."""
        max_weight: Positive = 100.0
        """Largest advantage weight. (The authors' option to normalize weights over the batch is left out.)"""
        n_action_samples: Few = 1
        """Draws of the policy that estimate the value of a state."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy's Gaussian instead of taking its mean."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        assert isinstance(spec.action_space, spaces.Box)
        space, encoder, dims = spec.encoder_space(), config.state_encoder, config.hidden_dims
        self.normalizer = Normalizer(space)
        self.actor = nn.Sequential(trunk(space, encoder, dims), GaussianHead(dims[-1], spec.action_space))
        self.critics = Critics(space, encoder, dims, spec.action_space.shape[0])
        self.target_critics = Target(self.critics)
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Gaussian:
        """Raw (B, *S) -> a distribution over scaled actions (B, A)."""
        return self.actor(self.normalizer(observations))

    def weights(self, states: Tensor, actions: Tensor, policy: Gaussian) -> Tensor:
        """(B,) exp(advantage / lambda), at most `max_weight`.

        Args:
            states: (B, *S) normalized.
            actions: (B, A) scaled, the data's.
            policy: at these states.
        """
        with torch.no_grad():
            drawn = policy.repeat(self.config.n_action_samples).sample()  # (B, n, A)
            values = self.critics(states, torch.cat([actions.unsqueeze(1), drawn], 1)).amin(0)  # (B, 1+n)
            advantage = values[:, 0] - values[:, 1:].mean(1)
            return (advantage / self.config.lam).exp().clamp(max=self.config.max_weight)

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        config = self.config
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        after = self.normalizer(batch.next_observations)
        with torch.no_grad():
            value = self.target_critics(after, self.actor(after).sample()).amin(0)  # (B,)
            target = batch.rewards + config.gamma * (1 - batch.terminals) * value
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - target).square().mean(1).sum()
        self.minimize("critic", critic_loss)

        policy = self.actor(states)
        weight = self.weights(states, actions, policy)  # (B,)
        actor_loss = -(weight * policy.log_prob(actions)).mean()
        self.minimize("actor", actor_loss)
        self.target_critics.follow(config.tau)
        return {
            "critic/loss": critic_loss.detach(),
            "critic/q_mean": q.detach().mean(),
            "actor/loss": actor_loss.detach(),
            "actor/weight": weight.mean(),
        }

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(AWAC)
