"""Behavior cloning and %BC: imitate the data, or its best episodes (Chen et al. 2021, section 5.1).

    minimize  E_{(s, a) in top fraction of the data} [ -log pi(a | s) ]

which is the squared error for a continuous action of fixed variance and the cross-entropy for a discrete one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Policy, TransitionBatch, Transitions, hookimpl
from rlalgo.config import Fraction, HiddenDims, NonNegative, Positive, Probability, StateEncoder, Whole
from rlalgo.core.sampling import sampled
from rlalgo.nets import ActorPolicy, Distribution, Normalizer, action_head, trunk, warmup_cosine


class BC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "bc"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)

    @dataclass(frozen=True)
    class Config:
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer."""
        dropout: Probability = 0.0
        """Dropout after every hidden layer."""
        lr: Positive = 1e-3
        """AdamW's learning rate."""
        weight_decay: NonNegative = 1e-4
        """AdamW's decoupled weight decay."""
        clip: Positive | None = None
        """Largest gradient norm; null for no limit."""
        warmup: Whole = 0
        """Updates over which the learning rate rises linearly."""
        final_lr: Fraction = 1.0
        """Share of lr that a cosine reaches at the last update; 1 keeps it constant."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        keep_top: Fraction = 1.0
        """%BC: imitate the best episodes only, up to this share of the steps; 0.1 is the paper's 10%BC."""
        sampling: str = "uniform"
        """uniform; by_return_class: each of few returns as often; or a column of weights of episodes."""
        tanh: bool = True
        """Squash continuous actions into their bounds, or into the range of the data where there are none."""
        gaussian: bool = False
        """Learn the spread of continuous actions too, by maximum likelihood; else the squared error is minimized."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the predicted distribution (discrete, or `gaussian`) instead of taking the likeliest."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        if config.gaussian and not isinstance(spec.action_space, spaces.Box):
            raise ValueError(f"gaussian is for continuous actions, got {spec.action_space}; set it to false")
        space, dims = spec.encoder_space(), config.hidden_dims
        self.normalizer = Normalizer(space)
        features = trunk(space, config.state_encoder, dims, config.dropout)
        head = action_head(dims[-1], spec.action_space, config.tanh, config.gaussian)
        self.actor = nn.Sequential(features, head)
        self.stochastic = head.stochastic
        self.optimizers["actor"] = torch.optim.AdamW(
            self.actor.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)
        self.schedulers["actor"] = warmup_cosine(
            self.optimizers["actor"], self.config.warmup, total_steps, self.config.final_lr
        )

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(sampled(episodes.top(self.config.keep_top), self.config.sampling))

    def forward(self, observations: Tensor) -> Distribution:
        """Raw (B, *S) -> a distribution over scaled actions."""
        return self.actor(self.normalizer(observations))

    def update(self, batch: TransitionBatch, step: int) -> dict[str, Tensor]:
        loss = -self(batch.observations).log_prob(self.scaler(batch.actions)).mean()
        self.minimize("actor", loss)
        return {"actor/loss": loss.detach()}

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(BC)
