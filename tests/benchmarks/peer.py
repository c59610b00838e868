"""The same work with Hugging Face's model, in the style of its Decision Transformer tutorial: what we compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor
from transformers import DecisionTransformerConfig, DecisionTransformerModel

STATES, ACTIONS, CONTEXT, LONGEST, SCALE = 11, 3, 20, 1000, 1000.0  # Hopper, the paper's gym setting


def returns_to_go(rewards: np.ndarray) -> np.ndarray:
    """(T,) -> (T,), step by step from the end, as the tutorial does it for every item."""
    out = np.zeros_like(rewards)
    total = 0.0
    for t in reversed(range(len(rewards))):
        total = rewards[t] + total
        out[t] = total
    return out


class Peer:
    """A model in eval mode, its optimizer and the statistics of the data.

    Args:
        episodes: dictionaries of lists (observations, actions, rewards), one item per step, as `datasets` gives them.
    """

    def __init__(self, episodes: Sequence[dict[str, list]]) -> None:
        self.episodes = episodes
        torch.manual_seed(0)
        config = DecisionTransformerConfig(
            state_dim=STATES, act_dim=ACTIONS, max_ep_len=LONGEST, bos_token_id=0, eos_token_id=0
        )  # the defaults are the paper's: width 128, 3 layers, 1 head, ReLU, dropout 0.1
        self.model = DecisionTransformerModel(config).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min((step + 1) / 10_000, 1))
        states = np.concatenate([np.asarray(episode["observations"]) for episode in episodes])
        self.mean, self.std = states.mean(0), states.std(0) + 1e-6
        lengths = np.array([len(episode["rewards"]) for episode in episodes])
        self.share = lengths / lengths.sum()
        self.rng = np.random.default_rng(0)

    def collate(self, size: int) -> dict[str, Tensor]:
        """A batch of left-padded windows, built item by item."""
        parts: dict[str, list[np.ndarray]] = {key: [] for key in ("s", "a", "g", "t", "m")}
        for index in self.rng.choice(len(self.episodes), size, p=self.share):
            episode = self.episodes[int(index)]
            start = int(self.rng.integers(len(episode["rewards"])))
            s = np.array(episode["observations"][start : start + CONTEXT])
            a = np.array(episode["actions"][start : start + CONTEXT])
            g = returns_to_go(np.array(episode["rewards"][start:]))[: len(s)]
            t = np.arange(start, start + len(s)).clip(max=LONGEST - 1)
            pad = CONTEXT - len(s)
            parts["s"].append(np.concatenate([np.zeros((pad, STATES)), (s - self.mean) / self.std]))
            parts["a"].append(np.concatenate([np.full((pad, ACTIONS), -10.0), a]))
            parts["g"].append(np.concatenate([np.zeros(pad), g / SCALE])[:, None])
            parts["t"].append(np.concatenate([np.zeros(pad), t]))
            parts["m"].append(np.concatenate([np.zeros(pad), np.ones(len(s))]))
        whole = {key: torch.from_numpy(np.stack(rows)) for key, rows in parts.items()}
        return {
            "states": whole["s"].float(),
            "actions": whole["a"].float(),
            "returns_to_go": whole["g"].float(),
            "timesteps": whole["t"].long(),
            "attention_mask": whole["m"].float(),
        }

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, K, A) predicted actions; call `model.eval()` before."""
        with torch.no_grad():
            return self.model(**batch).action_preds

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        """One update; the loss. Call `model.train()` before."""
        predicted = self.model(**batch).action_preds
        mask = batch["attention_mask"].flatten() > 0
        loss = (predicted.flatten(0, 1)[mask] - batch["actions"].flatten(0, 1)[mask]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.25)
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    def act(self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> Tensor:
        """(A,) the action for the last of T steps: (T, S) normalized, (T, A), (T, 1) scaled, (T,)."""
        states, actions = states[-CONTEXT:], actions[-CONTEXT:]
        returns_to_go, timesteps = returns_to_go[-CONTEXT:], timesteps[-CONTEXT:]
        pad = CONTEXT - len(states)
        mask = torch.cat([torch.zeros(pad), torch.ones(len(states))])

        def padded(x: Tensor) -> Tensor:
            return torch.cat([torch.zeros(pad, *x.shape[1:], dtype=x.dtype), x]).unsqueeze(0)

        with torch.no_grad():
            out = self.model(
                states=padded(states),
                actions=padded(actions),
                returns_to_go=padded(returns_to_go),
                timesteps=padded(timesteps),
                attention_mask=mask.unsqueeze(0),
            )
        return out.action_preds[0, -1]

    def play(self, env: gymnasium.Env, target: float, episodes: int) -> int:
        """Plays one episode after the other, one step at a time; the number of steps."""
        mean, std = torch.from_numpy(self.mean).float(), torch.from_numpy(self.std).float()
        steps = 0
        for number in range(episodes):
            observation, _ = env.reset(seed=number)
            states = torch.from_numpy(observation).reshape(1, STATES).float()
            actions = torch.zeros(0, ACTIONS)
            wanted = torch.tensor([[target / SCALE]])
            over: Any = False
            while not over:
                actions = torch.cat([actions, torch.zeros(1, ACTIONS)])
                timesteps = torch.arange(len(states))
                actions[-1] = self.act((states - mean) / std, actions, wanted, timesteps)
                observation, reward, terminated, truncated, _ = env.step(actions[-1].numpy())
                states = torch.cat([states, torch.from_numpy(observation).reshape(1, STATES).float()])
                wanted = torch.cat([wanted, wanted[-1:] - float(reward) / SCALE])
                over = terminated or truncated
                steps += 1
        return steps
