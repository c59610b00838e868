"""IQL for discrete actions: the same three losses, with a categorical policy (Kostrikov, Nair and Levine 2021).

V:  minimize  E [ |tau - 1(u < 0)| u^2 ],  u = min_i Q'_i(s, a) - V(s)      (equation 5, expectile tau)
Q:  minimize  E [ (r + gamma V(s') - Q_i(s, a))^2 ]                         (equation 6)
pi: maximize  E [ exp(beta (min_i Q'_i(s, a) - V(s))) log pi(a | s) ]       (equation 7)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Count, Fraction, NonNegative, Positive, Probability
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import TransitionBatch, Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import features
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import (
    Actor,
    ActorPolicy,
    DiscreteCritics,
    DiscreteHead,
    Normalizer,
    Target,
    expectile_loss,
    trunk,
    warmup_cosine,
)
from rlalgo.registry import Choice, Kind


class DiscreteIQL(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "discrete_iql"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete,)

    @dataclass(frozen=True)
    class Config:
        width: Count = 256
        """Units of every hidden layer."""
        layers: Count = 2
        """Hidden layers of actor, critics and value."""
        actor_lr: Positive = 3e-4
        """Adam's learning rate for the actor, which falls to 0 by a cosine (appendix B)."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate for critics and value."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target critics move to the trained ones at each update."""
        expectile: Fraction = 0.7
        """0.5 values what the data does on average; towards 1, the best of it."""
        beta: NonNegative = 3.0
        """Inverse temperature of the advantage weights, in raw rewards, which iql scales; 0 clones the data."""
        max_weight: Positive = 100.0
        """Largest advantage weight."""
        dropout: Probability = 0.0
        """After the actor's hidden layers."""
        dueling: bool = False
        """State value and advantages of each critic in streams of their own (Wang et al. 2016, equation 9)."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy instead of taking the likeliest."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width, layers = spec.encoder_space(), config.width, config.layers
        assert isinstance(spec.action_space, spaces.Discrete)
        n = int(spec.action_space.n)

        def see() -> tuple[nn.Module, int]:
            return features(config.state_encoder, seen, width)

        self.normalizer = Normalizer(seen.shape)
        self.actor = Actor(trunk(*see(), width, layers, config.dropout), DiscreteHead(width, spec.action_space))
        self.critics = DiscreteCritics(*see(), n, 2, width, layers, config.dueling)
        self.value = nn.Sequential(trunk(*see(), width, layers), nn.Linear(width, 1), nn.Flatten(0))
        self.target_critics = Target(self.critics)
        values = [*self.critics.parameters(), *self.value.parameters()]
        actor: dict[str, Any] = {"params": self.actor.parameters(), "lr": config.actor_lr}
        self.optimizers["model"] = torch.optim.Adam([actor, {"params": values}], config.critic_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)
        self.schedulers["model"] = warmup_cosine(self.optimizers["model"], 0, total_steps, [0.0, 1.0])

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, n) logits."""
        return self.actor(self.normalizer(observations))

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        config = self.config
        states = self.normalizer(batch.observations)
        taken = batch.actions.expand(2, -1).unsqueeze(-1)  # (2, B, 1)
        with torch.no_grad():
            best = self.target_critics(states).gather(2, taken).squeeze(2).amin(0)  # (B,)
            after = self.value(self.normalizer(batch.next_observations))  # (B,)
            target = batch.rewards + config.gamma * (1 - batch.terminals) * after

        # All three losses take V as it was, as in CORL; in the authors' code Q and the actor see it after its step.
        v = self.value(states)  # (B,)
        value_loss = expectile_loss(best - v, config.expectile).mean()
        q = self.critics(states).gather(2, taken).squeeze(2)  # (2, B)
        critic_loss = (q - target).square().mean(1).sum()

        weight = (config.beta * (best - v.detach())).exp().clamp(max=config.max_weight)  # (B,)
        actor_loss = (weight * self.actor.head.loss(self.actor(states), batch.actions)).mean()  # of -log probability
        self.minimize("model", value_loss + critic_loss + actor_loss)  # they share no weights: one pass does for all
        self.target_critics.follow(config.tau)
        return {
            "value/loss": value_loss.detach(),
            "critic/loss": critic_loss.detach(),
            "critic/q_mean": q.detach().mean(),
            "actor/loss": actor_loss.detach(),
            "actor/weight": weight.mean(),
        }

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B,) the likeliest actions."""
        with self.evaluating():
            return self.actor.head.actions(self(batch.observations))

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, self, self.actor.head, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(DiscreteIQL)
