"""CQL(H): conservative Q-learning on top of SAC (Kumar et al. 2020).

    minimize  weight E_s [ log sum_a exp Q(s, a) - E_{a in data} Q(s, a) ] + E [ (Q(s, a) - target)^2 ]

(equation 4, with the squared error whole as in the authors' code; the paper halves it). The sum over actions is
estimated by importance sampling, from uniform actions and from the policy's at s and at s' (appendix F).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.config import Count, Fraction, NonNegative, Positive, Whole
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
    Counter,
    Critics,
    Normalizer,
    SquashedGaussianHead,
    Target,
    bounded_box,
    trunk,
)
from rlalgo.registry import Choice, Kind


class CQL(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "cql"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        width: Count = 256
        """Units of every hidden layer."""
        layers: Count = 2
        """Hidden layers of actor and critics (3 in the authors' runs)."""
        actor_lr: Positive = 1e-4
        """Adam's learning rate for the actor."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate for the critics."""
        temperature_lr: NonNegative = 1e-4
        """Adam's learning rate for SAC's entropy temperature; 0 keeps it."""
        temperature: Positive = 1.0
        """SAC's entropy temperature at the start."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target critics move to the trained ones at each update."""
        weight: Positive = 5.0
        """Of the conservative term; the authors' `min_q_weight`."""
        samples: Count = 10
        """Actions drawn from each of the three proposals."""
        softmax_temperature: Positive = 1.0
        """t in t log of the integral of exp(Q / t). (The authors' `temp` divides log densities too.)"""
        importance: bool = True
        """Weight samples by their density (the authors' `min_q_version` 3); False sums over them (version 2, which adds
        the data's action to the sum)."""
        lagrange: Positive | None = None
        """What `weight` x gap is kept at by an adapted factor (equation 30, tau); None: no such factor. The gap is of
        means over samples: for a threshold of the authors, who sum, subtract weight x log(3 samples). (At temperature 1
        and with `importance`.)"""
        lagrange_lr: Positive = 3e-4
        """Adam's learning rate for the adapted factor."""
        max_target: bool = False
        """Value s' by its best of `samples` actions (the authors' `max_q_backup`) instead of by one draw."""
        entropy_target: bool = False
        """Subtract the entropy term from targets as SAC does; the authors leave it out (`deterministic_backup`), and so
        does `max_target`, which excludes it."""
        clone_steps: Whole = 0
        """Updates at the start in which the actor clones the data (the authors' `policy_eval_start`)."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

        def __post_init__(self) -> None:
            if self.max_target and self.entropy_target:
                raise ValueError(
                    "entropy_target is for targets of one draw, max_target takes the best: set one of them"
                )

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy instead of taking tanh of its mean."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width, layers = spec.encoder_space(), config.width, config.layers
        space = bounded_box(spec.action_space, self.name)
        self.A = space.shape[0]

        def see() -> tuple[nn.Module, int]:
            return features(config.state_encoder, seen, width)

        self.normalizer = Normalizer(seen.shape)
        self.actor = Actor(trunk(*see(), width, layers), SquashedGaussianHead(width, space))
        self.critics = Critics(*see(), self.A, 2, width, layers)
        self.target_critics = Target(self.critics)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)
        self.optimizers["temperature"] = torch.optim.Adam([self.log_temperature], config.temperature_lr, fused=True)
        if config.lagrange is not None:
            self.log_factor = nn.Parameter(torch.tensor(0.0))
            self.optimizers["lagrange"] = torch.optim.Adam([self.log_factor], config.lagrange_lr, fused=True)
        self.updates = Counter()

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, 2A) mean and log standard deviation before the tanh."""
        return self.actor(self.normalizer(observations))

    def draw(self, states: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """n actions of the policy for each state: (B, n, A) scaled, and their log densities (B, n)."""
        prediction = self.actor(states).unsqueeze(1).expand(-1, n, -1)  # (B, n, 2A)
        return self.actor.head.sample(prediction)

    def targets(self, batch: TransitionBatch, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(B,) r + gamma min_i Q'_i(s', a') with the policy's draws a' (B, n, A) at s' and log densities (B, n)."""
        config, after = self.config, self.normalizer(batch.next_observations)
        if config.max_target:
            value = self.target_critics(after, actions).amax(-1).amin(0)  # (B,)
        else:
            value = self.target_critics(after, actions[:, 0]).amin(0)  # (B,)
        if config.entropy_target:
            value = value - self.log_temperature.exp() * log_prob[:, 0]
        return batch.rewards + config.gamma * (1 - batch.terminals) * value

    def log_sum_exp(self, states: Tensor, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(2, B) t log of the integral of exp(Q / t) over all actions, estimated from 3n samples of each state.

        Args:
            states: (B, *S) normalized.
            actions: (B, 3n, A) scaled: n uniform ones, n of the policy at s and n of the policy at s'.
            log_prob: (B, 3n) their log densities.
        """
        t = self.config.softmax_temperature
        values = self.critics(states, actions) / t  # (2, B, 3n)
        if self.config.importance:
            # Each proposal estimates the same integral; the mean over all samples combines them.
            values = values - log_prob - math.log(log_prob.shape[1])
        return t * torch.logsumexp(values, -1)

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        config, n = self.config, self.config.samples
        states, actions = self.normalizer(batch.observations), self.actor.head.scale(batch.actions)
        with torch.no_grad():
            now = self.draw(states, n)
            after = self.draw(self.normalizer(batch.next_observations), n)
            target = self.targets(batch, *after)
            uniform = torch.empty_like(now[0]).uniform_(-1, 1)  # of density 2^-A
            proposals = torch.cat([uniform, now[0], after[0]], 1)  # (B, 3n, A)
            log_prob = torch.cat([torch.full_like(now[1], -self.A * math.log(2)), now[1], after[1]], 1)  # (B, 3n)
        factor = target.new_ones(()) if config.lagrange is None else self.log_factor.detach().exp().clamp(max=1e6)
        weight = config.weight * factor
        q = self.critics(states, actions)  # (2, B)
        error = (q - target).square().mean(1).sum()
        gap = -q.detach().mean(1)  # (2,) of log-sum-exp over the data's values

        def critic_losses() -> Iterator[Tensor]:
            yield error - weight * q.mean(1).sum()
            # On a CPU the activations of 32 states' samples stay in the core's cache, those of all do not.
            size = 32 if q.device.type == "cpu" else len(states)
            for some in zip(states.split(size), proposals.split(size), log_prob.split(size), strict=True):
                part = self.log_sum_exp(*some).sum(1) / len(states)  # (2,)
                gap.add_(part.detach())
                yield weight * part.sum()

        self.minimize("critic", critic_losses())
        if config.lagrange is not None:
            slack = (config.weight * gap - config.lagrange).sum()
            self.minimize("lagrange", -self.log_factor.exp().clamp(max=1e6) * slack)

        prediction = self.actor(states)  # (B, 2A)
        chosen, log_prob = self.actor.head.sample(prediction)  # (B, A), (B,)
        temperature = self.log_temperature.detach().exp()
        if self.updates.step() <= config.clone_steps:
            actor_loss = (temperature * log_prob + self.actor.head.loss(prediction, batch.actions)).mean()
        else:
            actor_loss = (temperature * log_prob - self.critics(states, chosen).amin(0)).mean()
        self.minimize("actor", actor_loss)
        # Entropy is kept at -A (SAC, section 5).
        self.minimize("temperature", -self.log_temperature * (log_prob.detach().mean() - self.A))
        self.target_critics.follow(config.tau)
        return {
            "critic/loss": error.detach(),
            "critic/gap": gap.mean(),
            "critic/factor": factor,
            "critic/q_mean": q.detach().mean(),
            "actor/loss": actor_loss.detach(),
            "actor/entropy": -log_prob.detach().mean(),
            "actor/temperature": temperature,
        }

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B, A) raw actions, tanh of the mean."""
        with self.evaluating():
            return self.actor.head.actions(self(batch.observations))

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, self, self.actor.head, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(CQL)
