"""Behavior cloning and %BC: imitate the data, or its best episodes (Chen et al. 2021, section 5.1).

    minimize  E_{(s, a) in top fraction of the data} [ -log pi(a | s) ]

which is the squared error for a continuous action of fixed variance and the cross-entropy for a discrete one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from rlalgo.config import Count, Fraction, NonNegative, Positive, Probability, Whole
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import TransitionBatch, Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import features
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import ActorPolicy, Normalizer, action_head, trunk, warmup_cosine
from rlalgo.registry import Choice, Kind


class BC(BatchRLAlgo[TransitionBatch]):
    name: ClassVar[str] = "bc"

    @dataclass(frozen=True)
    class Config:
        width: Count = 256
        """Units of every hidden layer."""
        layers: Count = 2
        """Hidden layers."""
        dropout: Probability = 0.0
        """After every hidden layer."""
        lr: Positive = 1e-3
        """AdamW's learning rate."""
        weight_decay: NonNegative = 1e-4
        """AdamW's decoupled weight decay."""
        clip: Positive | None = None
        """Largest gradient norm."""
        warmup: Whole = 0
        """Updates over which the learning rate rises linearly."""
        final_lr: Fraction = 1.0
        """Share of lr that a cosine reaches at the last update; 1 keeps it constant."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        keep_top: Fraction = 1.0
        """%BC: imitate the best episodes only, up to this share of the steps; 0.1 is the paper's 10%BC."""
        tanh: bool = True
        """Squash continuous actions into a bounded action space."""
        gaussian: bool = False
        """Learn the spread of continuous actions too, by maximum likelihood; else the squared error is minimized."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

    @dataclass(frozen=True)
    class PolicyConfig:
        sample: bool = False
        """Draw actions from the predicted distribution (discrete, or `gaussian`) instead of taking the likeliest."""

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width = spec.encoder_space(), config.width
        self.normalizer = Normalizer(seen.shape)
        self.net = trunk(*features(config.state_encoder, seen, width), width, config.layers, config.dropout)
        self.head = action_head(width, spec.action_space, config.tanh, config.gaussian)
        self.clip = config.clip
        self.optimizers["model"] = torch.optim.AdamW(
            self.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)
        self.schedulers["model"] = warmup_cosine(
            self.optimizers["model"], self.config.warmup, total_steps, self.config.final_lr
        )

    def dataset(self, episodes: Episodes) -> Transitions:
        return Transitions(episodes.top(self.config.keep_top))

    def forward(self, observations: Tensor) -> Tensor:
        """Raw (B, *S) -> (B, A) scaled actions, or (B, n) logits."""
        return self.head(self.net(self.normalizer(observations)))

    def update(self, batch: TransitionBatch) -> dict[str, Tensor]:
        loss = self.head.loss(self(batch.observations), batch.actions).mean()
        self.minimize("model", loss)
        return {"loss": loss.detach()}

    def predict(self, batch: TransitionBatch) -> Tensor:
        """(B, A) | (B,) raw greedy actions."""
        with self.evaluating():
            return self.head.actions(self(batch.observations))

    def policy(self, options: Sequence[PolicyConfig]) -> Policy:
        return ActorPolicy(self, self, self.head, options)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(BC)
