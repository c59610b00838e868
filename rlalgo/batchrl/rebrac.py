"""ReBRAC: TD3+BC with a penalty for the critics too, layer normalization and larger batches (Tarasov et al. 2023).

    Q:  minimize  E [ (r + gamma (min_i Q'_i(s', pi'(s')) - beta_c |pi'(s') - a'|^2) - Q_i(s, a))^2 ]
    pi: maximize  E [ lambda min_i Q_i(s, pi(s)) - beta_a |pi(s) - a|^2 ],   lambda = 1 / mean |Q(s, pi(s))|

where a' is the action that the data takes after s' (equations 3 and 4). Weights start as nn.Linear's do; the authors
start the last layers near 0 and hidden biases at 0.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, Dataset, DataSpec, Episodes, Policy, Transitions, hookimpl
from rlalgo.config import Count, Fraction, HiddenDims, NonNegative, Positive, StateEncoder
from rlalgo.errors import DataError
from rlalgo.nets import (
    ActorPolicy,
    Critics,
    Deterministic,
    DeterministicHead,
    Normalizer,
    Target,
    trunk,
)


class PairBatch(NamedTuple):
    """B transitions with the action that came next: (s, a, r, s', a', terminal)."""

    observations: Tensor  # (B, *S)
    actions: Tensor  # (B, A)
    rewards: Tensor  # (B,)
    next_observations: Tensor  # (B, *S)
    next_actions: Tensor  # (B, A); of no meaning where terminal
    terminals: Tensor  # (B,) float


class Pairs(Dataset[PairBatch]):
    """Every step whose next action is known or does not matter: all but truncated last steps."""

    def __init__(self, episodes: Episodes) -> None:
        self.transitions = Transitions(episodes)
        keep = torch.ones(episodes.steps, dtype=torch.bool)
        last = episodes.starts[1:] - 1  # (E,)
        keep[last] = episodes.terminations[last].cpu()
        self.kept = keep[self.transitions.steps].nonzero().squeeze(1)  # (M,) items of `transitions`
        if not len(self.kept):
            raise DataError("no step is followed by another: rebrac needs episodes of two steps or more")
        self.chances = episodes.chances(self.transitions.steps[self.kept])

    def __len__(self) -> int:
        return len(self.kept)

    def gather(self, rows: Tensor) -> PairBatch:
        data = self.transitions
        items = self.kept[rows.to(self.device)]  # (B,)
        batch = data.gather(items)
        actions = data.episodes.actions
        after = actions[(data.steps[items] + 1).clamp(max=len(actions) - 1)]
        return PairBatch(
            batch.observations, batch.actions, batch.rewards, batch.next_observations, after, batch.terminals
        )


class ReBRAC(BatchRLAlgo[PairBatch]):
    name: ClassVar[str] = "rebrac"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        hidden_dims: HiddenDims = (256, 256, 256)
        """Units of each hidden layer of actor and critics."""
        actor_lr: Positive = 1e-3
        """Adam's learning rate for the actor."""
        critic_lr: Positive = 1e-3
        """Adam's learning rate for the critics."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target networks move to the trained ones, at each update of the actor."""
        actor_penalty: NonNegative = 0.01
        """beta_a, the weight of the actor's distance from the data."""
        critic_penalty: NonNegative = 0.01
        """beta_c, the weight of the target action's distance from the data."""
        critic_norm: bool = True
        """Layer normalization in the critics."""
        actor_norm: bool = False
        """Layer normalization in the actor."""
        policy_freq: Count = 2
        """Updates of the critics for each update of the actor."""
        policy_noise: NonNegative = 0.2
        """Standard deviation of the noise on target actions, in units of half the action range."""
        noise_clip: NonNegative = 0.5
        """Largest noise on target actions, in the same units."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = False
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        space, encoder, dims = spec.encoder_space(), config.state_encoder, config.hidden_dims
        actions = spec.action_space
        assert isinstance(actions, spaces.Box)
        self.normalizer = Normalizer(space)
        features = trunk(space, encoder, dims, layer_norm=config.actor_norm)
        self.actor = nn.Sequential(features, DeterministicHead(dims[-1], actions))
        self.critics = Critics(space, encoder, dims, actions.shape[0], 2, config.critic_norm)
        self.target_actor, self.target_critics = Target(self.actor), Target(self.critics)
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Pairs:
        return Pairs(episodes)

    def forward(self, observations: Tensor) -> Deterministic:
        """Raw (B, *S) -> scaled actions (B, A)."""
        return self.actor(self.normalizer(observations))

    def targets(self, batch: PairBatch) -> Tensor:
        """(B,) r + gamma (min_i Q'_i(s', b) - beta_c |b - a'|^2), b = pi'(s') + noise; r alone where terminal."""
        config, after = self.config, self.normalizer(batch.next_observations)
        with torch.no_grad():
            action = self.target_actor(after).mode()  # (B, A)
            noise = (torch.randn_like(action) * config.policy_noise).clamp_(-config.noise_clip, config.noise_clip)
            action = (action + noise).clamp_(-1, 1)
            distance = (action - self.scaler(batch.next_actions)).square().sum(-1)  # (B,)
            value = self.target_critics(after, action).amin(0) - config.critic_penalty * distance  # (B,)
        return batch.rewards + config.gamma * (1 - batch.terminals) * value

    def actor_loss(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized (B, *S) and scaled (B, A) -> the loss and the squared distance in it."""
        chosen = self.actor(states).mode()  # (B, A)
        value = self.critics(states, chosen).amin(0)  # (B,)
        distance = (chosen - actions).square().sum(-1).mean()
        scale = value.detach().abs().mean().clamp(min=1e-6)
        return self.config.actor_penalty * distance - value.mean() / scale, distance

    def update(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        q = self.critics(states, actions)  # (2, B)
        critic_loss = (q - self.targets(batch)).square().mean(1).sum()
        self.minimize("critic", critic_loss)
        metrics = {"critic/loss": critic_loss.detach(), "critic/q_mean": q.detach().mean()}
        if step % self.config.policy_freq == 0:
            loss, distance = self.actor_loss(states, actions)
            self.minimize("actor", loss)
            self.target_actor.follow(self.config.tau)
            self.target_critics.follow(self.config.tau)
            metrics |= {"actor/loss": loss.detach(), "actor/distance": distance.detach()}
        return metrics

    def policy(self, options: Sequence[Any]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(ReBRAC)
