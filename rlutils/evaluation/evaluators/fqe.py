"""Fitted Q evaluation: what a policy is worth, from data alone (Le, Voloshin and Yue 2019, algorithm 3).

    minimize  E_{(s, a, r, s') in data} [ (r + gamma Q'(s', pi(s')) - Q(s, a))^2 ]

with Q' a slowly following copy; the answer is the mean of Q(s0, pi(s0)) over the data's initial states. Both
values of pi's actions are cut to what rewards like the data's can add up to: no true value lies outside of that, and a
policy that leaves the data cannot drive Q' away, as it does without (of a TD3+BC after 40 updates: -23,000).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rlalgo import BatchRLAlgo, DataSpec, Episodes, Run, TransitionBatch, Transitions
from rlalgo.config import Count, Fraction, HiddenDims, Positive, Seed, Size, StateEncoder
from rlalgo.core.scaler import ActionScaler
from rlalgo.errors import ConfigError
from rlalgo.nets import Normalizer, Target, critics_for
from rlutils.machine import memory, size
from rlutils.randomness import forked_rng


class FQE:
    """What the policy is worth: `value`, its expected discounted return; `sd` of that over the critics; their `loss`.

    Trains critics anew at every evaluation, with random numbers of its own, so training goes on as if it had not been
    there. The policy is the one that the algorithm's `predict` gives: a stochastic one is evaluated by its likeliest
    action. Values say nothing where the policy leaves what the data covers, and `sd` only how far critics that saw the
    same data disagree.
    """

    name: ClassVar[str] = "fqe"

    @dataclass(frozen=True)
    class Config:
        steps: Count = 10_000
        """Updates of the critics, at each evaluation."""
        batch_size: Size = 256
        """Transitions in a batch."""
        hidden_dims: HiddenDims = (256, 256)
        """Units of each hidden layer of the critics."""
        n_critics: Size = 2
        """Members of the ensemble; each is fitted to targets of its own."""
        lr: Positive = 3e-4
        """Adam's learning rate."""
        gamma: Fraction = 0.99
        """Discount of the value that is estimated, whatever the algorithm's own is."""
        tau: Fraction = 0.02
        """Share by which the target critics move to the trained ones at each update; targets settle after some
        1 / (tau (1 - gamma)) updates."""
        seed: Seed = 0
        """Of weights and batches: the same at every evaluation."""
        held_out: bool = False
        """Fit to the held-out episodes instead of those that the algorithm trains on."""
        state_encoder: StateEncoder | None = None
        """What embeds observations before the hidden layers; null feeds them in as they are, which suits vectors."""

        def critics(self, spec: DataSpec) -> nn.Module:
            """Of scaled actions and normalized observations."""
            return critics_for(
                spec.action_space, spec.encoder_space(), self.state_encoder, self.hidden_dims, self.n_critics
            )

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        """ConfigError for a policy or spaces that it cannot judge, for data or memory not there."""
        if self.config.held_out and run.held_out is None:
            raise ConfigError(["evaluation.evaluators: fqe.held_out: no episodes are held out; set holdout: 0.1"])
        if not hasattr(algo.dataset(episodes).gather(torch.zeros(1, dtype=torch.int64)), "next_observations"):
            raise ConfigError(
                [f"evaluation.evaluators: fqe needs a policy that acts on the present observation alone; {algo.name} "
                 "acts on a sequence. Try action_error or return_calibration"]
            )  # fmt: skip
        try:
            with torch.device("meta"):
                critics = self.config.critics(algo.spec)
        except (TypeError, ValueError) as error:
            raise ConfigError([f"evaluation.evaluators: fqe: {error}"]) from error
        # trained ones with gradients and Adam's two averages, and their targets
        if (need := 5 * sum(p.nbytes for p in critics.parameters())) > (there := memory(algo.device)):
            text = f"evaluation.evaluators: fqe needs {size(need)} and there are {size(there)}; make it smaller"
            raise ConfigError([text])

    def evaluate(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> dict[str, float]:
        config = self.config
        self.check(algo, episodes, run)
        episodes = episodes if config.held_out else run.episodes
        data = Transitions(episodes).to(algo.device)
        with forked_rng(config.seed):
            fit = _Fit(algo.spec, config, episodes).to(algo.device)
            losses = fit.train_on(data, algo)
        firsts = torch.isin(data.steps, episodes.starts[:-1].to(algo.device)).nonzero().squeeze(1)  # (E,) or fewer
        with torch.no_grad():
            batches = (data.gather(rows) for rows in firsts.split(1024))
            each = torch.cat([fit(b.observations, algo.predict(b)) for b in batches], 1)  # (n, E) or fewer
        values = (fit.center + fit.scale * each.cpu().double()).clamp(*fit.bounds).mean(1)  # (n,)
        sd = float(values.std()) if len(values) > 1 else 0.0
        return {"value": float(values.mean()), "sd": sd, "loss": float(torch.stack(losses[-100:]).mean())}


class _Fit(nn.Module):
    """Critics of raw observations and raw actions.

    They learn values in units of the data's discounted returns-to-go, less their mean: what they begin with, about 0,
    is then what the data got on average, and one learning rate fits rewards of any size.
    """

    def __init__(self, spec: DataSpec, config: FQE.Config, episodes: Episodes) -> None:
        super().__init__()
        self.config = config
        space = spec.encoder_space()
        self.scaler = ActionScaler(spec.action_space)
        self.scaler.fit(episodes)
        self.critics = config.critics(spec)
        self.target = Target(self.critics)
        self.normalizer = Normalizer(space)
        self.normalizer.fit(episodes)
        returns = episodes.returns_to_go(config.gamma)
        self.center, self.scale = float(returns.mean()), float(returns.std(correction=0)) or 1.0
        self.bounds = bounds(episodes.rewards, config.gamma)

    def forward(self, observations: Tensor, actions: Tensor, target: bool = False) -> Tensor:
        """Raw (B, *S) and (B, A) | (B,) -> (n, B) standardized values."""
        critics = self.target if target else self.critics
        return critics(self.normalizer(observations), self.scaler(actions))

    def targets(self, batch: TransitionBatch, after: Tensor) -> Tensor:
        """(n, B) r + gamma Q'(s', a') for a' = after, without the second term where s' is terminal; standardized."""
        with torch.no_grad():
            value = self.center + self.scale * self(batch.next_observations, after, target=True)
            value = value.clamp(*self.bounds)
        return (batch.rewards + self.config.gamma * (1 - batch.terminals) * value - self.center) / self.scale

    def train_on(self, data: Transitions, algo: BatchRLAlgo) -> list[Tensor]:
        """The losses, one after the other."""
        optimizer = torch.optim.Adam(self.critics.parameters(), self.config.lr, fused=True)
        losses = []
        for batch in self._batches(data):
            after = algo.predict(batch._replace(observations=batch.next_observations))  # (B, A) | (B,)
            loss = (self(batch.observations, batch.actions) - self.targets(batch, after)).square().mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.target.follow(self.config.tau)
            losses.append(loss.detach() / self.config.n_critics)
        return losses

    def _batches(self, data: Transitions) -> Iterator[TransitionBatch]:
        generator = torch.Generator().manual_seed(self.config.seed)
        for _ in range(self.config.steps):
            yield data.gather(data.rows(self.config.batch_size, generator))


def bounds(rewards: Tensor, gamma: float) -> tuple[float, float]:
    """The least and the largest discounted sum of rewards (N,) like these, of which an end may leave none at all."""
    low, high = min(0.0, float(rewards.min())), max(0.0, float(rewards.max()))
    horizon = 1 / (1 - gamma) if gamma < 1 else math.inf
    return low and low * horizon, high and high * horizon  # 0 times infinity would be NaN
