"""An encoder of images, as a plugin would bring it, serves discrete algorithms without a change to any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlalgo.plugins import default_catalogue
from tests.rlalgo.batchrl.few_rows import everything
from tests.rlalgo.batchrl.tiny_conv import TinyConv, with_conv
from tests.rlalgo.toy_data import make_episodes


@pytest.mark.parametrize("name", ["bc", "dqn", "discrete_cql", "discrete_iql"])
def test_learns_what_only_the_image_tells(name: str) -> None:
    """The rewarded action is written into the frame, as a bright row; every episode ends after one step."""
    episodes = make_episodes("channels", (1,) * 120, seed=2, terminated=[True] * 120, frame_stack=2)
    right = torch.arange(120) % 3
    pixels = torch.zeros_like(episodes.observations)  # (240, 2, 4, 5)
    pixels[torch.arange(120) * 2, :, right] = 255
    actions = right if name == "bc" else episodes.actions
    rewards = (actions == right).float()
    episodes = replace(episodes, observations=pixels, actions=actions, rewards=rewards)
    entry = default_catalogue().get("algo", name)
    rates = {"actor_lr": 3e-3, "critic_lr": 3e-3} if name == "discrete_iql" else {"lr": 3e-3}
    torch.manual_seed(0)
    algo = entry.cls(episodes.spec, with_conv(entry, hidden_dims=[32], **rates))
    algo.prepare(episodes, 300)
    batch = everything(algo, episodes)
    for step in range(1, 301):
        algo.update(batch, step)
    assert (algo.predict(batch) == right).float().mean() > 0.95
    encoders = [module for module in algo.modules() if isinstance(module, TinyConv)]
    assert encoders
    for encoder in encoders:
        assert encoder.net[0].out_channels == 3  # the option arrived
        assert set(encoder.seen) <= {(torch.uint8, torch.Size((4, 4, 5)))}  # two frames along the channels
