"""IQL: implicit Q-learning, in which no action outside the data is ever valued (Kostrikov, Nair and Levine 2021).

V:  minimize  E [ |tau - 1(u < 0)| u^2 ],  u = min_i Q'_i(s, a) - V(s)      (equation 5, expectile tau)
Q:  minimize  E [ (r + gamma V(s') - Q_i(s, a))^2 ]                         (equation 6)
pi: maximize  E [ exp(beta (min_i Q'_i(s, a) - V(s))) log pi(a | s) ]       (equation 7)

The policy is a Gaussian for continuous actions and categorical for discrete ones; the losses are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Fraction, HiddenDims, NonNegative, Positive, Probability, StateEncoder
from rlalgo.nets import (
    ActorPolicy,
    Distribution,
    Normalizer,
    Target,
    action_head,
    critics_for,
    expectile_loss,
    trunk,
    warmup_cosine,
)


class IQL(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "iql"

    @dataclass(frozen=True)
    class Config:
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer of actor, critics and value."""
        actor_lr: Positive = 3e-4
        """Adam's learning rate for the actor, which falls to 0 by a cosine (appendix B)."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate for critics and value."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target critics move to the trained ones at each update."""
        expectile: Fraction = 0.7
        """Which expectile of Q the value is: 0.5 is the data's average, towards 1 the best of the data."""
        beta: NonNegative = 3.0
        """Inverse temperature of the advantage weights; 0 clones the data."""
        max_weight: Positive = 100.0
        """Largest advantage weight."""
        dropout: Probability = 0.0
        """Dropout after the actor's hidden layers (0.1 for Adroit in appendix B)."""
        reward_scale: Positive | Literal["auto"] = 1.0
        """Factor on rewards; auto takes 1000 / (best - worst return of the data), as the authors do for HalfCheetah,
        Hopper and Walker2d alone, and 1 where all returns are equal."""
        dueling: bool = False
        """State value and advantages of each discrete critic in streams of their own (Wang et al. 2016, equation 9)."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy's distribution instead of taking the likeliest."""

    reward_scale: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        space, encoder, dims = spec.encoder_space(), config.state_encoder, config.hidden_dims
        self.normalizer = Normalizer(space)
        features = trunk(space, encoder, dims, config.dropout)
        self.actor = nn.Sequential(features, action_head(dims[-1], spec.action_space, gaussian=True))
        self.critics = critics_for(spec.action_space, space, encoder, dims, dueling=config.dueling)
        self.value = nn.Sequential(trunk(space, encoder, dims), nn.Linear(dims[-1], 1), nn.Flatten(0))
        self.target_critics = Target(self.critics)
        values = [*self.critics.parameters(), *self.value.parameters()]
        actor: dict[str, Any] = {"params": self.actor.parameters(), "lr": config.actor_lr}
        self.optimizers["model"] = torch.optim.Adam([actor, {"params": values}], config.critic_lr, fused=True)
        scale = 1.0 if config.reward_scale == "auto" else config.reward_scale
        self.register_buffer("reward_scale", torch.tensor(scale))

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)
        returns = episodes.returns()
        spread = returns.max() - returns.min()
        if self.config.reward_scale == "auto" and spread > 1e-6 * returns.abs().max():
            self.reward_scale.fill_(1000 / float(spread))
        self.schedulers["model"] = warmup_cosine(self.optimizers["model"], 0, total_steps, [0.0, 1.0])

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Distribution:
        """Raw (B, *S) -> a distribution over scaled actions."""
        return self.actor(self.normalizer(observations))

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        config = self.config
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        with torch.no_grad():
            best = self.target_critics(states, actions).amin(0)  # (B,)
            after = self.value(self.normalizer(batch.next_observations))  # (B,)
            target = self.reward_scale * batch.rewards + config.gamma * (1 - batch.terminals) * after

        # All three losses take V as it was, as in CORL; in the authors' code Q and the actor see it after its step.
        v = self.value(states)  # (B,)
        value_loss = expectile_loss(best - v, config.expectile).mean()
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - target).square().mean(1).sum()

        weight = (config.beta * (best - v.detach())).exp().clamp(max=config.max_weight)  # (B,)
        actor_loss = -(weight * self.actor(states).log_prob(actions)).mean()
        self.minimize("model", value_loss + critic_loss + actor_loss)  # they share no weights: one pass does for all
        self.target_critics.follow(config.tau)
        return {
            "value/loss": value_loss.detach(),
            "critic/loss": critic_loss.detach(),
            "critic/q_mean": q.detach().mean(),
            "actor/loss": actor_loss.detach(),
            "actor/weight": weight.mean(),
        }

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(IQL)
    register(IQL, "discrete_iql")
