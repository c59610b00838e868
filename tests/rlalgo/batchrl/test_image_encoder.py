"""An encoder of images, as a plugin would bring it, serves every discrete algorithm without a change to any."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlalgo import BatchRLAlgo
from rlalgo.batchrl.bc import BC
from rlalgo.batchrl.discrete_cql import DiscreteCQL
from rlalgo.batchrl.discrete_iql import DiscreteIQL
from rlalgo.batchrl.dqn import DQN
from rlalgo.nets import Target
from tests.rlalgo.batchrl.discrete import TinyConv, everything, with_conv
from tests.rlalgo.toy_data import make_episodes

ALGOS = [BC, DQN, DiscreteCQL, DiscreteIQL]
SHAPES = {"channels": (4, 4, 5), "frames": (2, 4, 5)}
"""What an encoder sees of (2, 4, 5) and of (4, 5) bytes, two of them stacked."""


def encoders(algo: BatchRLAlgo) -> dict[str, TinyConv]:
    return {name: module for name, module in algo.named_modules() if isinstance(module, TinyConv)}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("cls", ALGOS)
def test_trains_on_stacked_frames(cls: type[BatchRLAlgo], kind: str) -> None:
    episodes = make_episodes(kind, (6, 5, 7), seed=1, frame_stack=2)
    torch.manual_seed(0)
    algo = cls(episodes.spec, with_conv(cls, width=16, layers=1))
    algo.prepare(episodes, 30)
    batch = everything(algo, episodes)
    before = {name: p.clone() for name, p in algo.named_parameters()}
    for _ in range(30):
        metrics = algo.update(batch)
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert encoders(algo)
    for name, encoder in encoders(algo).items():
        assert encoder.net[0].out_channels == 3  # the option arrived
        assert set(encoder.seen) <= {(torch.uint8, torch.Size(SHAPES[kind]))}
        for key, p in encoder.named_parameters():  # every encoder learns, and those of targets follow
            assert not torch.equal(p, before[f"{name}.{key}"])
    targets = [module for module in algo.modules() if isinstance(module, Target)]
    assert all(encoders(target.copy) for target in targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", ALGOS)
def test_acting_frame_by_frame_is_predicting_from_stacks(cls: type[BatchRLAlgo]) -> None:
    episodes = make_episodes("channels", (6,), frame_stack=2)
    algo = cls(episodes.spec, with_conv(cls, width=16, layers=1))
    policy, row = algo.policy([cls.PolicyConfig()]), torch.zeros(1, dtype=torch.int64)
    policy.reset(row)
    acted = [int(policy.act(frame[None], row)) for frame in episodes.observations[:6]]
    assert acted == algo.predict(everything(algo, episodes)).tolist()


@pytest.mark.parametrize("cls", ALGOS)
def test_learns_what_only_the_image_tells(cls: type[BatchRLAlgo]) -> None:
    """The rewarded action is written into the frame, as a bright row; every episode ends after one step."""
    episodes = make_episodes("channels", (1,) * 120, seed=2, terminated=[True] * 120, frame_stack=2)
    right = torch.arange(120) % 3
    pixels = torch.zeros_like(episodes.observations)  # (240, 2, 4, 5)
    pixels[torch.arange(120) * 2, :, right] = 255
    actions = right if cls is BC else episodes.actions
    rewards = (actions == right).float()
    episodes = replace(episodes, observations=pixels, actions=actions, rewards=rewards)
    torch.manual_seed(0)
    rates = {"lr": 3e-3} if hasattr(cls.Config, "lr") else {"actor_lr": 3e-3, "critic_lr": 3e-3}
    algo = cls(episodes.spec, with_conv(cls, width=32, layers=1, **rates))
    algo.prepare(episodes, 300)
    batch = everything(algo, episodes)
    for _ in range(300):
        algo.update(batch)
    assert (algo.predict(batch) == right).float().mean() > 0.95
