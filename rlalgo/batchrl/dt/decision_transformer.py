"""Decision Transformer (Chen et al. 2021, arXiv 2106.01345): offline RL as sequence modeling.

    a_t = f(R_{t-K+1}, s_{t-K+1}, a_{t-K+1}, ..., R_t, s_t),    R_t = sum of the rewards from t to the end

trained by mean squared error (continuous actions) or cross-entropy (discrete ones) over real steps only.
Defaults are the paper's gym setting (table 8 and the authors' code).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, Choice, DataSpec, Episodes, Kind, WindowBatch, hookimpl
from rlalgo.batchrl.dt.dt_model import RETURN_SPACE, DTModel, DTOutput
from rlalgo.batchrl.dt.policy import DTPolicy
from rlalgo.batchrl.dt.rtg_ep_dataset import RtgEpDataset
from rlalgo.batchrl.dt.trajectory_gpt2 import TrajectoryGPT2
from rlalgo.config import Count, Few, Fraction, NonNegative, Positive, Probability, Size, StateEncoder, Whole
from rlalgo.core.sampling import sampled
from rlalgo.errors import RlalgoWarning
from rlalgo.nets import Normalizer, action_head, decay_groups, encoder, masked_mean, warmup_cosine


class DecisionTransformer(BatchRLAlgo[WindowBatch]):
    name: ClassVar[str] = "dt"
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)

    @dataclass(frozen=True)
    class Config:
        context_length: Size = 20
        """K, steps that the model sees at once (three tokens each)."""
        embed_dim: Size = 128
        """Size of a token."""
        n_layers: Annotated[Few, Field(le=256)] = 3
        """Transformer blocks."""
        n_heads: Size = 1
        """Attention heads; must divide embed_dim."""
        activation: Literal["relu", "gelu", "gelu_new"] = "relu"
        """Nonlinearity of the blocks."""
        dropout: Probability = 0.1
        """Dropout on embeddings, attention and residuals."""
        lr: Positive = 1e-4
        """AdamW's learning rate after warmup."""
        weight_decay: NonNegative = 1e-4
        """AdamW's decoupled weight decay."""
        decay: Literal["all", "products"] = "all"
        """What decays: every parameter (gym), or only the weights of linear maps and convolutions (Atari)."""
        betas: tuple[Probability, Probability] = (0.9, 0.999)
        """AdamW's averaging factors."""
        clip: Positive | None = 0.25
        """Largest gradient norm; null for no limit."""
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
        sampling: str = "uniform"
        """uniform, as the paper; by_return_class: each of few returns as often; or a column of weights of episodes."""
        delayed: bool = False
        """All reward on the last step of each episode; the return-to-go then stays constant while playing."""
        tanh: bool = True
        """Squash continuous actions into their bounds, or into the range of the data where there are none."""
        max_timestep: Count | None = None
        """Rows of the timestep table; later timesteps use the last one. null: the longest possible episode."""
        positions: Literal["timestep", "token"] = "timestep"
        """Embed each step's timestep (gym), or the token's place and the window's first timestep (Atari)."""
        state_loss: NonNegative = 0.0
        """Weight of predicting the next state; 0, as in the paper, leaves that head out."""
        return_loss: NonNegative = 0.0
        """Weight of predicting the next return-to-go; 0, as in the paper, leaves that head out."""
        state_encoder: StateEncoder = Choice("linear")
        """What embeds observations."""
        action_encoder: Annotated[Choice, Kind("encoder", "action")] = Choice("linear")
        """What embeds actions."""
        return_encoder: Annotated[Choice, Kind("encoder", "return")] = Choice("linear")
        """What embeds returns-to-go."""
        timestep_encoder: Annotated[Choice, Kind("encoder", "timestep")] = Choice("linear")
        """What embeds timesteps."""

        def __post_init__(self) -> None:
            if self.embed_dim % self.n_heads:
                raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of n_heads {self.n_heads}")
            if self.context_length == 1 and (self.state_loss or self.return_loss):
                raise ValueError("state_loss and return_loss predict the next step: context_length must be 2 or more")

    @dataclass(frozen=True)
    class PolicyConfig:
        target_return: float | None = None
        """Return to ask for, in raw reward units; null asks for the best return in the training data."""
        sample: bool = False
        """Draw discrete actions from the predicted distribution, as the paper does on Atari, not the likeliest."""

    best_return: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        space, W = spec.encoder_space(), config.embed_dim
        if config.state_loss and (len(space.shape) != 1 or space.dtype != np.float32):
            raise TypeError(f"dt: state_loss predicts vector observations, got {space}; set it to 0")
        self.max_timestep = config.max_timestep or spec.max_steps
        self.normalizer = Normalizer(space)
        self.register_buffer("best_return", torch.zeros(()))
        self.model = DTModel(
            W,
            embed_state=encoder(config.state_encoder, "state", space, W),
            embed_action=encoder(config.action_encoder, "action", spec.action_space, W),
            embed_return=encoder(config.return_encoder, "return", RETURN_SPACE, W),
            embed_timestep=encoder(config.timestep_encoder, "timestep", spaces.Discrete(self.max_timestep), W),
            head=action_head(W, spec.action_space, config.tanh),
            trunk=TrajectoryGPT2(W, config.n_layers, config.n_heads, None, config.activation, config.dropout),
            predict_state=nn.Linear(W, space.shape[0]) if config.state_loss else None,
            predict_return=nn.Linear(W, 1) if config.return_loss else None,
            context_length=config.context_length if config.positions == "token" else None,
        )
        self.stochastic = self.model.head.stochastic
        groups = decay_groups(self.model) if config.decay == "products" else self.model.parameters()
        self.optimizers["model"] = torch.optim.AdamW(
            groups, config.lr, config.betas, weight_decay=config.weight_decay, fused=True
        )

    def prepare(self, episodes: Episodes, total_steps: int) -> None:
        super().prepare(episodes, total_steps)
        if self.config.normalize:
            self.normalizer.fit(episodes)
        returns = episodes.returns()
        self.best_return.copy_(returns.max())
        most, scale = float(returns.abs().max()), self.config.return_scale
        squashed = self.config.return_encoder.options.get("tanh")  # as the authors' on Atari
        if not squashed and most and not 1 / 50 <= most / scale <= 50:
            text = f"return_scale: {scale:g} is far from the data's returns, up to {most:.4g} in size; try that instead"
            warnings.warn(text, RlalgoWarning, stacklevel=2)
        self.schedulers["model"] = warmup_cosine(
            self.optimizers["model"], self.config.warmup, total_steps, self.config.final_lr
        )

    def dataset(self, episodes: Episodes) -> RtgEpDataset:
        episodes = sampled(episodes.top(self.config.keep_top), self.config.sampling)
        return RtgEpDataset(episodes.delayed() if self.config.delayed else episodes, self.config.context_length)

    def embed(self, observations: Tensor) -> Tensor:
        """Raw (..., *S) -> (..., W)."""
        return self.model.embed_state(self.normalizer(observations))

    def forward(self, observations: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> DTOutput:
        """Raw right-padded windows (B, K, *S), (B, K, A) | (B, K), (B, K), (B, K) -> predictions (B, K, ...)."""
        return self.decode(self.embed(observations), actions, returns_to_go, timesteps)

    def decode(
        self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor, at: Tensor | None = None
    ) -> DTOutput:
        """As `forward`, from embedded states (B, K, W); with `at`, (B,) int64, one action a window, (B, ...)."""
        return self.model.decode(
            states,
            self.scaler(actions),
            returns_to_go / self.config.return_scale,
            timesteps.clamp(max=self.max_timestep - 1),
            at,
        )

    def update(self, batch: WindowBatch, step: int) -> dict[str, Tensor]:
        out = self(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)
        loss = actor_loss = -masked_mean(out.actions.log_prob(self.scaler(batch.actions)), batch.mask)
        metrics = {"actor/loss": actor_loss}
        both = batch.mask[:, 1:]  # (B, K-1) a step and the next; padding is on the right
        if out.observations is not None:
            error = out.observations[:, :-1] - self.normalizer(batch.observations[:, 1:])  # (B, K-1, S)
            metrics["state/loss"] = masked_mean(error.square().mean(-1), both)
            loss = loss + self.config.state_loss * metrics["state/loss"]
        if out.returns is not None:
            error = out.returns[:, :-1] - batch.returns_to_go[:, 1:] / self.config.return_scale  # (B, K-1)
            metrics["return/loss"] = masked_mean(error.square(), both)
            loss = loss + self.config.return_loss * metrics["return/loss"]
        if loss is not actor_loss:
            metrics["loss"] = loss
        self.minimize("model", loss)
        return {name: value.detach() for name, value in metrics.items()}

    def predict(self, batch: WindowBatch) -> Tensor:
        """(B, K, A) | (B, K) raw greedy actions at every step; what stands at padding means nothing."""
        with self.evaluating():
            out = self(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)
            return self.scaler.inverse(out.actions.mode())

    def policy(self, options: Sequence[PolicyConfig]) -> DTPolicy:
        best = float(self.best_return)
        return DTPolicy(self, [replace(o, target_return=best) if o.target_return is None else o for o in options])


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(DecisionTransformer)
