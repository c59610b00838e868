"""CQL(H): conservative Q-learning on top of SAC (Kumar et al. 2020).

    minimize  conservative_weight E_s [ log sum_a exp Q(s, a) - E_{a in data} Q(s, a) ] + E [ (Q(s, a) - target)^2 ]

(equation 4, with the squared error whole as in the authors' code; the paper halves it). The sum over actions is
estimated by importance sampling, from uniform actions and from the policy's at s and at s' (appendix F).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Few, Fraction, HiddenDims, NonNegative, Positive, StateEncoder, Whole
from rlalgo.nets import (
    ActorPolicy,
    Critics,
    Normalizer,
    SquashedGaussian,
    SquashedGaussianHead,
    Target,
    trunk,
)


class CQL(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "cql"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer of actor and critics (three of them in the authors' runs)."""
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
        conservative_weight: Positive = 5.0
        """Weight of the conservative term (the authors' min_q_weight)."""
        n_action_samples: Few = 10
        """Actions drawn from each of the three proposals: uniform, the policy at s and the policy at s'."""
        softmax_temperature: Positive = 1.0
        """t in t log of the integral of exp(Q / t). (The authors' `temp` divides log densities too.)"""
        importance: bool = True
        """Weight samples by their density (the authors' `min_q_version` 3); False sums over them (version 2, which adds
        the data's action to the sum)."""
        lagrange: Positive | None = None
        """What conservative_weight x gap is kept at by the factor alpha' (equation 30, tau); null: no such factor. The
        gap is of means over samples: for a threshold of the authors, who sum, subtract conservative_weight x
        log(3 n_action_samples). (At temperature 1 and with `importance`.)"""
        lagrange_lr: Positive = 3e-4
        """Adam's learning rate for alpha'."""
        max_q_backup: bool = False
        """Value s' by its best of `n_action_samples` actions instead of by one draw."""
        backup_entropy: bool = False
        """Subtract the entropy term from targets as SAC does; the authors leave it out (deterministic_backup), and so
        does `max_q_backup`, which excludes it."""
        bc_warmup_steps: Whole = 0
        """Updates at the start in which the actor clones the data (the authors' `policy_eval_start`)."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

        def __post_init__(self) -> None:
            if self.max_q_backup and self.backup_entropy:
                raise ValueError(
                    "backup_entropy is for targets of one draw, max_q_backup takes the best: set one of them"
                )

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the policy instead of taking tanh of its mean."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        space, encoder, dims = spec.encoder_space(), config.state_encoder, config.hidden_dims
        actions = spec.action_space
        assert isinstance(actions, spaces.Box)
        self.A = actions.shape[0]
        self.normalizer = Normalizer(space)
        self.actor = nn.Sequential(trunk(space, encoder, dims), SquashedGaussianHead(dims[-1], actions))
        self.critics = Critics(space, encoder, dims, self.A)
        self.target_critics = Target(self.critics)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)
        self.optimizers["temperature"] = torch.optim.Adam([self.log_temperature], config.temperature_lr, fused=True)
        if config.lagrange is not None:
            self.log_alpha_prime = nn.Parameter(torch.tensor(0.0))
            self.optimizers["lagrange"] = torch.optim.Adam([self.log_alpha_prime], config.lagrange_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> SquashedGaussian:
        """Raw (B, *S) -> a distribution over scaled actions (B, A)."""
        return self.actor(self.normalizer(observations))

    def targets(self, batch: TransitionBatch, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(B,) r + gamma min_i Q'_i(s', a') with the policy's draws a' (B, n, A) at s' and log densities (B, n)."""
        config, after = self.config, self.normalizer(batch.next_observations)
        if config.max_q_backup:
            value = self.target_critics(after, actions).amax(-1).amin(0)  # (B,)
        else:
            value = self.target_critics(after, actions[:, 0]).amin(0)  # (B,)
        if config.backup_entropy:
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

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        config, n = self.config, self.config.n_action_samples
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        with torch.no_grad():
            now = self.actor(states).repeat(n).sample_with_log_prob()  # (B, n, A), (B, n)
            after = self(batch.next_observations).repeat(n).sample_with_log_prob()
            target = self.targets(batch, *after)  # (B,)
            uniform = torch.empty_like(now[0]).uniform_(-1, 1)  # of density 2^-A
            proposals = torch.cat([uniform, now[0], after[0]], 1)  # (B, 3n, A)
            log_prob = torch.cat([torch.full_like(now[1], -self.A * math.log(2)), now[1], after[1]], 1)  # (B, 3n)
        alpha_prime = 1.0 if config.lagrange is None else self.log_alpha_prime.detach().exp().clamp(max=1e6)
        q = self.critics(states, actions)  # (2, B)
        error = (q - target).square().mean(1).sum()
        gap = self.minimize_critics(q, error, config.conservative_weight * alpha_prime, states, proposals, log_prob)
        metrics = {"critic/loss": error.detach(), "critic/gap": gap.mean(), "critic/q_mean": q.detach().mean()}
        if config.lagrange is not None:
            slack = (config.conservative_weight * gap - config.lagrange).sum()
            self.minimize("lagrange", -self.log_alpha_prime.exp().clamp(max=1e6) * slack)
            metrics["critic/alpha_prime"] = alpha_prime

        policy = self.actor(states)
        chosen, log_prob = policy.sample_with_log_prob()  # (B, A), (B,)
        temperature = self.log_temperature.detach().exp()
        if step <= config.bc_warmup_steps:
            actor_loss = (temperature * log_prob - policy.log_prob(actions)).mean()
        else:
            actor_loss = (temperature * log_prob - self.critics(states, chosen).amin(0)).mean()
        self.minimize("actor", actor_loss)
        # Entropy is kept at -A (SAC, section 5).
        self.minimize("temperature", -self.log_temperature * (log_prob.detach().mean() - self.A))
        self.target_critics.follow(config.tau)
        return metrics | {
            "actor/loss": actor_loss.detach(),
            "actor/entropy": -log_prob.detach().mean(),
            "actor/temperature": temperature,
        }

    def minimize_critics(
        self, q: Tensor, error: Tensor, weight: Tensor | float, states: Tensor, proposals: Tensor, log_prob: Tensor
    ) -> Tensor:
        """One step of the critics down error + weight (log-sum-exp - Q); returns the gap between the two, (2,).

        The conservative term is differentiated part by part, each let go before the next: on a CPU the activations of
        32 states' samples stay in the core's cache, those of all do not.

        Args:
            q: (2, B) values of the data's actions.
            error: 0-d squared error of these.
            weight: of the conservative term.
            states, proposals, log_prob: as for `log_sum_exp`.
        """
        parameters = self.parameters_of("critic")
        for p in parameters:
            p.grad = None
        (error - weight * q.mean(1).sum()).backward(inputs=parameters)
        gap = -q.detach().mean(1)  # (2,)
        size = 32 if q.device.type in ("cpu", "meta") else len(states)  # meta: whoever measures what a CPU would need
        for part in zip(states.split(size), proposals.split(size), log_prob.split(size), strict=True):
            share = self.log_sum_exp(*part).sum(1) / len(states)  # (2,)
            (weight * share.sum()).backward(inputs=parameters)
            gap += share.detach()
        self.step("critic")
        return gap

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(CQL)
