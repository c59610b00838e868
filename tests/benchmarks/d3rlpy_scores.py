"""Trains d3rlpy's TD3+BC, IQL and CQL on the data and with the settings of ours, and compares the final scores.

    python tests/benchmarks/d3rlpy_scores.py D3RLPY_PYTHON [FOLDER] [SUITE_FOLDER]

D3RLPY_PYTHON is the interpreter of an environment that has d3rlpy (`make .venv-d3rlpy/.installed`). What is in FOLDER
(runs/d3rlpy) already is not trained again. SUITE_FOLDER (runs/results) holds ours: `rlalgo sweep
configs/suites/results.yaml`. Policies of both sides play the same environments from the same seeds.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlalgo import Episodes, Policy, rollout
from rlutils.envs import GymEnv
from rlutils.files import write_json
from rlutils.sources.minari import MinariSource

ALGOS = {"td3_bc": 20_000, "iql": 20_000, "cql": 5_000}  # updates, as in configs/suites/results.yaml
TASKS = ("hopper/medium", "halfcheetah/medium")
SEEDS = (0, 1, 2)
EPISODES, FIRST_SEED = 20, 1_000_000  # the defaults of `evaluation`


class Exported(Policy):
    """A policy that d3rlpy exported as TorchScript: raw observations in, raw actions out."""

    def __init__(self, path: Path, n: int) -> None:
        self.net, self.options = torch.jit.load(str(path)), [None] * n

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(observations.float()).clamp(-1, 1)


def load(task: str) -> Episodes:
    return MinariSource(MinariSource.Config(id=f"rlalgo/{task}-v0")).load()


def export(episodes: Episodes, path: Path) -> None:
    """The columns that d3rlpy takes."""
    rows = torch.arange(episodes.steps) + episodes.episode_ids()
    np.savez(
        path,
        observations=episodes.observations[rows].numpy(),
        actions=episodes.actions.numpy(),
        rewards=episodes.rewards[:, None].numpy(),
        terminals=episodes.terminations.float().numpy(),
        timeouts=episodes.truncations.float().numpy(),
    )


def theirs(python: str, folder: Path, algo: str, task: str, seed: int) -> float:
    """The normalised score of d3rlpy's last policy."""
    name = f"{algo}-{task.replace('/', '-')}-{seed}"
    result, policy, data = folder / f"{name}.json", folder / f"{name}.pt", folder / f"{task.replace('/', '-')}.npz"
    if not result.exists():
        episodes = load(task)
        if not policy.exists():
            if not data.exists():
                export(episodes, data)
            script = str(Path(__file__).with_name("peer_d3rlpy.py"))
            command = [python, script, "train", str(data), algo, str(seed), str(ALGOS[algo]), str(policy)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        envs = GymEnv(GymEnv.Config()).make(episodes.spec, EPISODES)
        returns = rollout(Exported(policy, EPISODES), envs, EPISODES, FIRST_SEED).returns().tolist()
        write_json(result, {"returns": returns, "ref_scores": episodes.spec.ref_scores})
    values = json.loads(result.read_text())
    low, high = values["ref_scores"]
    return 100 * (float(np.mean(values["returns"])) - low) / (high - low)


def ours(folder: Path, algo: str, task: str, seed: int) -> float | None:
    """The normalised score of our last policy, None where the run is not there."""
    found = sorted((folder / algo / task / f"s{seed}" / "evaluations").glob("step_*.json"))
    if not found or int(found[-1].stem.removeprefix("step_")) < ALGOS[algo]:
        return None
    return json.loads(found[-1].read_text())["policies"][0]["normalised"]


def table(python: str, folder: Path, suite: Path) -> list[str]:
    lines = [
        "| algorithm, data | ours: seeds | mean | d3rlpy: seeds | mean | allowed shortfall | holds |",
        "|" + "---|" * 7,
    ]
    for algo, task in itertools.product(ALGOS, TASKS):
        mine = [ours(suite, algo, task, seed) for seed in SEEDS]
        peer = [theirs(python, folder, algo, task, seed) for seed in SEEDS]
        have = [score for score in mine if score is not None]
        if len(have) < len(SEEDS):
            lines.append(f"| {algo}, {task} | {_list(have)} | – | {_list(peer)} | {np.mean(peer):.1f} | | |")
            continue
        pooled = float(np.sqrt((np.var(have, ddof=1) + np.var(peer, ddof=1)) / 2))
        allowed = max(5.0, pooled)
        holds = "yes" if np.mean(have) >= np.mean(peer) - allowed else "no"
        lines.append(f"| {algo}, {task} | {_list(have)} | {np.mean(have):.1f} | {_list(peer)} | {np.mean(peer):.1f} "
                     f"| {allowed:.1f} | {holds} |")  # fmt: skip
    return lines


def _list(scores: Sequence[float]) -> str:
    return " / ".join(f"{score:.1f}" for score in scores)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/d3rlpy")
    target.mkdir(parents=True, exist_ok=True)
    print("\n".join(table(sys.argv[1], target, Path(sys.argv[3] if len(sys.argv) > 3 else "runs/results"))))
