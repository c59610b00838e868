"""d3rlpy's side of the comparison. It pins an older gymnasium, so this file runs in an environment of its own.

    python tests/benchmarks/peer_d3rlpy.py train DATA.npz ALGO SEED STEPS POLICY.pt
    python tests/benchmarks/peer_d3rlpy.py serve DATA.npz ALGO

`train` exports the policy as TorchScript, which `d3rlpy_scores.py` plays in the same environments as ours. `serve`
answers each line `N` on its standard input with the seconds that N training steps took, for the benchmarks.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import CQLConfig, IQLConfig, TD3PlusBCConfig
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory
from d3rlpy.preprocessing import ReturnBasedRewardScaler, StandardObservationScaler

HIDDEN = (256, 256)


def make(name: str, steps: int) -> Any:
    """The algorithm with the settings of our configs: two hidden layers of 256, batches of 256, normalized states."""
    encoder = d3rlpy.models.VectorEncoderFactory(list(HIDDEN))
    shared: dict[str, Any] = {
        "observation_scaler": StandardObservationScaler(),
        "actor_encoder_factory": encoder,
        "critic_encoder_factory": encoder,
    }
    if name == "td3_bc":
        return TD3PlusBCConfig(**shared).create(device="cpu")
    if name == "iql":
        cosine = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=steps))
        return IQLConfig(
            **shared,
            value_encoder_factory=encoder,
            actor_optim_factory=cosine,
            reward_scaler=ReturnBasedRewardScaler(multiplier=1000.0),
        ).create(device="cpu")
    assert name == "cql", name
    return CQLConfig(**shared, actor_learning_rate=3e-4, alpha_learning_rate=0.0).create(device="cpu")


def load(path: str) -> Any:
    """A dataset of whole episodes from flat arrays."""
    data = np.load(path)
    return d3rlpy.dataset.MDPDataset(
        data["observations"], data["actions"], data["rewards"], data["terminals"], data["timeouts"]
    )


def train(path: str, name: str, seed: str, steps: str, out: str) -> None:
    d3rlpy.seed(int(seed))
    algo = make(name, int(steps))
    algo.fit(
        load(path),
        n_steps=int(steps),
        n_steps_per_epoch=1000,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    algo.save_policy(out)


def serve(path: str, name: str) -> None:
    dataset = load(path)
    algo = make(name, 100_000)
    algo.build_with_dataset(dataset)
    algo.observation_scaler.fit_with_transition_picker(dataset.episodes, dataset.transition_picker)
    if algo.reward_scaler is not None:
        algo.reward_scaler.fit_with_trajectory_slicer(dataset.episodes, dataset.trajectory_slicer)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            algo.update(dataset.sample_transition_batch(256))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "serve": serve}[sys.argv[1]](*sys.argv[2:])
