"""Decision Transformer (Chen et al. 2021, arXiv 2106.01345): offline RL as sequence modeling.

    a_t = f(R_{t-K+1}, s_{t-K+1}, a_{t-K+1}, ..., R_t, s_t),    R_t = sum of the rewards from t to the end

trained by mean squared error (continuous actions) or cross-entropy (discrete ones) over real steps only.
Defaults are the paper's gym setting (table 8 and the authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo.batchrl.dt.dt_model import RETURN_SPACE, DTModel, DTOutput
from rlalgo.batchrl.dt.policy import DTPolicy
from rlalgo.batchrl.dt.rtg_ep_dataset import RtgEpDataset
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.config import Count, Fraction, NonNegative, Positive, Probability, Whole
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import WindowBatch
from rlalgo.core.episodes import Episodes
from rlalgo.core.spec import DataSpec
from rlalgo.encoders import encoder
from rlalgo.hookspecs import hookimpl
from rlalgo.nets import Normalizer, action_head, decay_groups, masked_mean, warmup_cosine
from rlalgo.registry import Choice, Kind


class DecisionTransformer(BatchRLAlgo[WindowBatch]):
    name: ClassVar[str] = "dt"

    @dataclass(frozen=True)
    class Config:
        context: Count = 20
        """K, steps that the model sees at once (three tokens each)."""
        width: Count = 128
        """Size of a token."""
        layers: Count = 3
        """Transformer blocks."""
        heads: Count = 1
        """Attention heads; must divide width."""
        activation: Literal["relu", "gelu", "gelu_new"] = "relu"
        """Nonlinearity of the blocks."""
        dropout: Probability = 0.1
        """On embeddings, attention and residuals."""
        lr: Positive = 1e-4
        """AdamW's learning rate after warmup."""
        weight_decay: NonNegative = 1e-4
        """AdamW's decoupled weight decay."""
        decay: Literal["all", "products"] = "all"
        """What decays: every parameter (gym), or only the weights of linear maps and convolutions (Atari)."""
        betas: tuple[Probability, Probability] = (0.9, 0.999)
        """AdamW's averaging factors."""
        clip: Positive | None = 0.25
        """Largest gradient norm."""
        warmup: Whole = 10_000
        """Updates over which the learning rate rises linearly."""
        final_lr: Fraction = 1.0
        """Share of lr that a cosine reaches at the last update; 1 keeps it constant, as the paper does in gym."""
        return_scale: Positive = 1000.0
        """Returns-to-go are divided by this."""
        normalize: bool = True
        """Normalize vector observations by the data's mean and standard deviation."""
        keep_top: Fraction = 1.0
        """Train on the best episodes only, up to this share of the steps (the authors' pct_traj)."""
        delayed: bool = False
        """All reward on the last step of each episode; the return-to-go then stays constant while playing."""
        tanh: bool = True
        """Squash continuous actions into a bounded action space."""
        max_timestep: Count | None = None
        """Rows of the timestep table; later timesteps use the last one. None: the longest possible episode."""
        positions: Literal["timestep", "token"] = "timestep"
        """Embed each step's timestep (gym), or the token's place and the window's first timestep (Atari)."""
        state_loss: NonNegative = 0.0
        """Weight of predicting the next state; 0, as in the paper, leaves the head out."""
        return_loss: NonNegative = 0.0
        """Weight of predicting the next return-to-go; likewise."""
        state_encoder: Annotated[Choice, Kind("encoder", "state")] = Choice("linear")
        """What embeds observations."""
        action_encoder: Annotated[Choice, Kind("encoder", "action")] = Choice("linear")
        """What embeds actions."""
        return_encoder: Annotated[Choice, Kind("encoder", "return")] = Choice("linear")
        """What embeds returns-to-go."""
        timestep_encoder: Annotated[Choice, Kind("encoder", "timestep")] = Choice("linear")
        """What embeds timesteps."""

        def __post_init__(self) -> None:
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
            if self.context == 1 and (self.state_loss or self.return_loss):
                raise ValueError("state_loss and return_loss predict the next step, so context must be 2 or more")

    @dataclass(frozen=True)
    class PolicyConfig:
        target_return: float | None = None
        """Return to ask for, in raw reward units; None asks for the best return in the training data."""
        sample: bool = False
        """Draw discrete actions from the predicted distribution, as the paper does on Atari, not the likeliest."""

    best_return: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        seen, width = spec.encoder_space(), config.width
        self.max_timestep = config.max_timestep or spec.max_steps
        self.normalizer = Normalizer(seen.shape)
        self.register_buffer("best_return", torch.zeros((), dtype=torch.float64))
        if config.state_loss and len(seen.shape) != 1:
            raise TypeError(f"dt: state_loss predicts vector observations, got {seen}; set it to 0")
        timesteps = spaces.Discrete(self.max_timestep)
        self.model = DTModel(
            width,
            embed_state=encoder(config.state_encoder, "state", seen, width),
            embed_action=encoder(config.action_encoder, "action", spec.action_space, width),
            embed_return=encoder(config.return_encoder, "return", RETURN_SPACE, width),
            embed_timestep=encoder(config.timestep_encoder, "timestep", timesteps, width),
            head=action_head(width, spec.action_space, config.tanh),
            trunk=TrajectoryGPT2(
                width, config.layers, config.heads, activation=config.activation, dropout=config.dropout
            ),
            predict_state=nn.Linear(width, seen.shape[0]) if config.state_loss else None,
            predict_return=nn.Linear(width, 1) if config.return_loss else None,
            context=config.context if config.positions == "token" else None,
        )
        self.clip = config.clip
        groups = [{"params": list(self.model.parameters())}]
        if config.decay == "products":
            groups = decay_groups(self.model)
        self.optimizers["model"] = torch.optim.AdamW(
            groups, config.lr, config.betas, weight_decay=config.weight_decay, fused=True
        )

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        if self.config.normalize:
            self.normalizer.fit(episodes)
        self.best_return.copy_(episodes.returns().max())
        self.schedulers["model"] = warmup_cosine(
            self.optimizers["model"], self.config.warmup, total_steps, self.config.final_lr
        )

    def dataset(self, episodes: Episodes) -> RtgEpDataset:
        episodes = episodes.top(self.config.keep_top)
        return RtgEpDataset(episodes.delayed() if self.config.delayed else episodes, self.config.context)

    def embed(self, observations: Tensor) -> Tensor:
        """Raw (..., *S) -> (..., width)."""
        return self.model.embed_state(self.normalizer(observations))

    def forward(self, observations: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> DTOutput:
        """Raw right-padded windows (B, K, *S), (B, K, A) | (B, K), (B, K), (B, K) -> predictions (B, K, ...)."""
        return self.decode(self.embed(observations), actions, returns_to_go, timesteps)

    def decode(
        self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor, at: Tensor | None = None
    ) -> DTOutput:
        """As `forward`, from embedded states (B, K, width); with `at`, (B,) int64, one action a window, (B, 1, ...)."""
        return self.model.decode(
            states,
            self.model.head.scale(actions),
            returns_to_go / self.config.return_scale,
            timesteps.clamp(max=self.max_timestep - 1),
            at,
        )

    def update(self, batch: WindowBatch) -> dict[str, Tensor]:
        out = self(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)
        action_loss = masked_mean(self.model.head.loss(out.actions, batch.actions), batch.mask)
        metrics = {"loss": action_loss}
        if out.observations is not None or out.returns is not None:
            metrics |= self._next_step_losses(out, batch)
            weights = {"state/loss": self.config.state_loss, "return/loss": self.config.return_loss}
            metrics["action/loss"] = action_loss
            metrics["loss"] = action_loss + sum(w * metrics[k] for k, w in weights.items() if k in metrics)
        self.minimize("model", metrics["loss"])
        return {key: value.detach() for key, value in metrics.items()}

    def _next_step_losses(self, out: DTOutput, batch: WindowBatch) -> dict[str, Tensor]:
        """Squared errors of the next state (normalized) and return-to-go (scaled), where there is a next step."""
        both = batch.mask[:, 1:]  # (B, K-1) padding is on the right: before a real step stands a real one
        losses = {}
        if out.observations is not None:
            error = (out.observations[:, :-1] - self.normalizer(batch.observations[:, 1:])).square().mean(-1)
            losses["state/loss"] = masked_mean(error, both)
        if out.returns is not None:
            error = (out.returns[:, :-1] - batch.returns_to_go[:, 1:] / self.config.return_scale).square()
            losses["return/loss"] = masked_mean(error, both)
        return losses

    def predict(self, batch: WindowBatch) -> Tensor:
        """(B, K, A) | (B, K) raw greedy actions at every step; what stands at padding means nothing."""
        with self.evaluating():
            out = self(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)
            return self.model.head.actions(out.actions)

    def policy(self, options: Sequence[PolicyConfig]) -> DTPolicy:
        best = float(self.best_return)
        asked = [o if o.target_return is not None else replace(o, target_return=best) for o in options]
        return DTPolicy(self, asked)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(DecisionTransformer)
