"""Checkpoints as transformers saves them, a game to play them in, and transformers' own way of playing."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor
from transformers import DecisionTransformerModel

from rlalgo import BatchRLAlgo
from rlutils.data.writers import write_npz
from tests.rlalgo.batchrl.dt.test_hugging_face import hugging_face
from tests.rlutils.toy_plugin import HORIZON, PointEnv, ToySource

S, A, K, W = 2, 2, 4, 16
MEAN, STD = [0.125, -0.5], [0.5, 0.75]
PLAYED = ["env.id=hf/Point-v0", "algo.return_scale=10", f"algo.context_length={K}", "device=cpu", "threads=1"]


class Point(PointEnv):
    """With rewards as MuJoCo's, of numpy's float64."""

    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        return seen, np.float64(reward), *rest


gymnasium.register("hf/Point-v0", entry_point=Point, max_episode_steps=HORIZON)


def their_model(seed: int = 0, **config: Any) -> DecisionTransformerModel:
    """As `hugging_face`, for the environment above."""
    options = {"state_dim": S, "act_dim": A, "hidden_size": W, "max_ep_len": HORIZON, "n_head": 2}
    return hugging_face(seed, **{**options, "n_positions": 1024, "bos_token_id": None, "eos_token_id": None, **config})


def card(mean: list[float] = MEAN, std: list[float] = STD) -> str:
    """As the field's published checkpoints have it."""
    return (
        "---\ntags:\n- decision-transformer\n---\n# A Decision Transformer\n\n"
        f"The following normalization coefficients are required to use this model:\n\nmean = {mean}\n\nstd = {std}\n"
    )


def checkpoint(folder: Path, model: DecisionTransformerModel | None = None, readme: str | None = card()) -> Path:
    """A folder that `save_pretrained` wrote, with a model card."""
    (model or their_model()).save_pretrained(folder)
    if readme is not None:
        (folder / "README.md").write_text(readme)
    return folder


def data(file: Path) -> str:
    """A file with the toy recordings, of the registered game; what `--dataset` is to say."""
    episodes = ToySource(ToySource.Config()).load()
    write_npz(dataclasses.replace(episodes, spec=dataclasses.replace(episodes.spec, env_id="hf/Point-v0")), file)
    return f"npz path={file}"


def history(steps: int = 3 * K, size: int = S) -> tuple[np.ndarray, np.ndarray]:
    """Random observations (T, S) and rewards (T,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(steps, size)).astype(np.float32), rng.normal(size=steps).astype(np.float32)


def our_actions(algo: BatchRLAlgo, target: float, observations: np.ndarray, rewards: np.ndarray) -> Tensor:
    """(T, A) of a policy to which these things happen."""
    policy, row = algo.policy([algo.PolicyConfig(target_return=target)]), torch.zeros(1, dtype=torch.int64)
    policy.reset(row)
    actions = []
    for seen, reward in zip(torch.from_numpy(observations), torch.from_numpy(rewards), strict=True):
        actions.append(policy.act(seen[None], row)[0])
        policy.observe(reward[None], row)
    return torch.stack(actions)


def their_actions(
    model: DecisionTransformerModel,
    target: float,
    observations: np.ndarray,
    rewards: np.ndarray,
    mean: Any = MEAN,
    std: Any = STD,
    scale: float = 10.0,
    context: int = K,
) -> Tensor:
    """(T, A) as the authors play it: left-padded windows of so many steps with an attention mask."""
    states = (torch.from_numpy(observations) - torch.tensor(mean)) / torch.tensor(std)
    left = torch.from_numpy(target - np.append(0, rewards.astype(np.float64).cumsum())[:-1]).float() / scale
    actions = torch.zeros(len(states), A)
    for t in range(len(states)):
        first = max(0, t + 1 - context)
        n = t + 1 - first

        def padded(x: Tensor, n: int = n) -> Tensor:
            return torch.cat([torch.zeros(context - n, *x.shape[1:], dtype=x.dtype), x])[None]

        with torch.no_grad():
            actions[t] = model(
                states=padded(states[first : t + 1]),
                actions=padded(actions[first : t + 1]),
                rewards=None,
                returns_to_go=padded(left[first : t + 1, None]),
                timesteps=padded(torch.arange(first, t + 1).clamp(max=model.config.max_ep_len - 1)),
                attention_mask=padded(torch.ones(n, dtype=torch.int64)),
            ).action_preds[0, -1]
    return actions


def played_by_card(folder: Path) -> float:
    """The return that the code of an exported folder's card prints: the statistics, then the loop."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace('"REPO"', repr(str(folder))), {})
    (said,) = re.findall(r"return (\S+)", printed.getvalue())
    return float(said)
