"""EDAC, and SAC-N as its special case: pessimism by the least of many critics (An et al. 2021).

    target = r + gamma (min_i Q'_i(s', a') - temperature log pi(a' | s')),   a' ~ pi(s')
    Q: minimize  sum_i E [ (target - Q_i(s, a))^2 ] + eta / (N - 1) E [ sum_{i != j} cos(grad_a Q_i, grad_a Q_j) ]

(algorithm 1, equation 2). SAC-N has eta = 0 and needs many more critics; EDAC makes them differ. Weights start as
nn.Linear's do; the authors start the critics' last layer near 0 and hidden biases at 0.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Fraction, HiddenDims, NonNegative, Positive, Size, StateEncoder
from rlalgo.nets import (
    ActorPolicy,
    Critics,
    Normalizer,
    SquashedGaussian,
    SquashedGaussianHead,
    Target,
    trunk,
)


class EDAC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "edac"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box,)

    @dataclass(frozen=True)
    class Config:
        n_critics: Size = 10
        """N, the size of the ensemble (EDAC 10 to 50; SAC-N 10 for halfcheetah to 500 for hopper in the paper)."""
        diversity: NonNegative = 1.0
        """eta, the weight of the cosine between the critics' gradients; 0 is SAC-N (0, 1 or 5 in the paper)."""
        hidden_dims: HiddenDims = (256, 256, 256)
        """Units of each hidden layer of actor and critics."""
        actor_lr: Positive = 3e-4
        """Adam's learning rate for the actor."""
        critic_lr: Positive = 3e-4
        """Adam's learning rate for the critics."""
        temperature_lr: NonNegative = 3e-4
        """Adam's learning rate for the entropy temperature; 0 keeps it."""
        temperature: Positive = 1.0
        """Entropy temperature at the start."""
        gamma: Fraction = 0.99
        """Discount of the next step's value."""
        tau: Fraction = 0.005
        """Share by which the target critics move to the trained ones at each update."""
        clip: Positive | None = None
        """Largest gradient norm of each optimizer; null for no limit."""
        normalize: bool = False
        """Normalize vector observations by the data's mean and standard deviation."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

        def __post_init__(self) -> None:
            if self.diversity and self.n_critics < 2:
                raise ValueError("diversity needs two critics or more; set n_critics: 10, or diversity: 0")

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
        self.critics = Critics(space, encoder, dims, self.A, config.n_critics)
        self.target_critics = Target(self.critics)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.optimizers["actor"] = torch.optim.Adam(self.actor.parameters(), config.actor_lr, fused=True)
        self.optimizers["critic"] = torch.optim.Adam(self.critics.parameters(), config.critic_lr, fused=True)
        self.optimizers["temperature"] = torch.optim.Adam([self.log_temperature], config.temperature_lr, fused=True)

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes)

    def forward(self, observations: Tensor) -> SquashedGaussian:
        """Raw (B, *S) -> a distribution over scaled actions (B, A)."""
        return self.actor(self.normalizer(observations))

    def targets(self, batch: TransitionBatch) -> Tensor:
        """(B,) the soft target above, without its second term where s' is terminal."""
        after = self.normalizer(batch.next_observations)
        with torch.no_grad():
            action, log_prob = self.actor(after).sample_with_log_prob()  # (B, A), (B,)
            value = self.target_critics(after, action).amin(0) - self.log_temperature.exp() * log_prob  # (B,)
        return batch.rewards + self.config.gamma * (1 - batch.terminals) * value

    def gradient_cosine(self, q: Tensor, actions: Tensor) -> Tensor:
        """Mean over the batch of sum_{i != j} cos(grad_a Q_i, grad_a Q_j) / (N - 1).

        Args:
            q: (N, B) values, a function of `actions`.
            actions: (N, B, A), a copy for each member, so that one backward pass gives every gradient.
        """
        (slopes,) = torch.autograd.grad(q.sum(), actions, create_graph=True)  # (N, B, A)
        slopes = F.normalize(slopes, dim=-1, eps=1e-10)
        # sum_ij g_i . g_j = |sum_i g_i|^2, and the N terms i = j are g_i . g_i
        together = slopes.sum(0).square().sum(-1) - slopes.square().sum((0, 2))  # (B,)
        return together.mean() / (len(q) - 1)

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        config = self.config
        states, actions = self.normalizer(batch.observations), self.scaler(batch.actions)
        target = self.targets(batch)  # (B,)
        metrics = dict[str, Tensor]()
        if config.diversity:
            each = actions.expand(config.n_critics, -1, -1).clone().requires_grad_()  # (N, B, A)
            q = self.critics.each(states, each)  # (N, B)
            cosine = self.gradient_cosine(q, each)
            metrics["critic/gradient_cosine"] = cosine.detach()
        else:
            q, cosine = self.critics(states, actions), target.new_zeros(())
        error = (q - target).square().mean(1).sum()
        self.minimize("critic", error + config.diversity * cosine)

        chosen, log_prob = self.actor(states).sample_with_log_prob()  # (B, A), (B,)
        temperature = self.log_temperature.detach().exp()
        actor_loss = (temperature * log_prob - self.critics(states, chosen).amin(0)).mean()
        self.minimize("actor", actor_loss)
        # Entropy is kept at -A (SAC, section 5).
        self.minimize("temperature", -self.log_temperature * (log_prob.detach().mean() - self.A))
        self.target_critics.follow(config.tau)
        return metrics | {
            "critic/loss": error.detach(),
            "critic/q_mean": q.detach().mean(),
            "critic/q_spread": q.detach().std(0, correction=0).mean(),
            "actor/loss": actor_loss.detach(),
            "actor/entropy": -log_prob.detach().mean(),
            "actor/temperature": temperature,
        }

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(EDAC)
    register(EDAC, "sac_n", n_critics=20, diversity=0.0)
