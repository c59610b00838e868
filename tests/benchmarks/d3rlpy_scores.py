"""Trains d3rlpy's TD3+BC, IQL and CQL on the data and with the settings of ours, and compares the final scores.

    python tests/benchmarks/d3rlpy_scores.py D3RLPY_PYTHON [FOLDER] [SUITE_FOLDER]

D3RLPY_PYTHON is the interpreter of an environment that has d3rlpy (`make .venv-d3rlpy/.installed`). What is in FOLDER
(runs/d3rlpy) already is not trained or played again. SUITE_FOLDER (runs/results) holds ours: `rlalgo sweep
configs/suites/results.yaml`. The last policies of both sides play the same 100 episodes.
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

import rlutils
from rlalgo import Episodes, Policy, rollout
from rlutils.config.files import read_yaml, write_json
from rlutils.data.minari_source import MinariSource
from rlutils.envs.gym import GymEnv

ALGOS = {"td3_bc": 20_000, "iql": 20_000, "cql": 4_000}  # updates, as in configs/suites/results.yaml
TASKS = ("hopper/medium", "halfcheetah/medium")
SEEDS = (0, 1, 2)
EPISODES, ENVS, FIRST_SEED = 100, 20, 2_000_000


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


def score(policy: Policy, episodes: Episodes, result: Path) -> float:
    """The normalized score of a policy; its returns are kept in a file and not played again."""
    if not result.exists():
        envs = GymEnv(GymEnv.Config()).make(episodes.spec, ENVS)
        write_json(result, rollout(policy, envs, EPISODES, FIRST_SEED).returns().tolist())
    assert episodes.spec.ref_scores is not None
    low, high = episodes.spec.ref_scores
    return 100 * (float(np.mean(json.loads(result.read_text()))) - low) / (high - low)


def theirs(python: str, folder: Path, algo: str, task: str, seed: int) -> float:
    """The score of d3rlpy's last policy."""
    name, episodes = f"{algo}-{task.replace('/', '-')}-{seed}", load(task)
    policy, data = folder / f"{name}.pt", folder / f"{task.replace('/', '-')}.npz"
    if not policy.exists():
        if not data.exists():
            export(episodes, data)
        script = str(Path(__file__).with_name("peer_d3rlpy.py"))
        command = [python, script, "train", str(data), algo, str(seed), str(ALGOS[algo]), str(policy)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return score(Exported(policy, ENVS), episodes, folder / f"{name}-d3rlpy.json")


def ours(folder: Path, suite: Path, algo: str, task: str, seed: int) -> float | None:
    """The score of our last policy, None where the run is not finished."""
    run = suite / algo / task / f"s{seed}"
    if not (run / "run.yaml").exists() or read_yaml(run / "run.yaml")["state"] != "finished":
        return None
    assert read_yaml(run / "config.yaml")["trainer"]["steps"] == ALGOS[algo], "not the same number of updates"
    policy = rlutils.load(run).policy([{}] * ENVS)
    return score(policy, load(task), folder / f"{algo}-{task.replace('/', '-')}-{seed}-ours.json")


def table(python: str, folder: Path, suite: Path) -> list[str]:
    lines = [
        "| algorithm, data | ours: seeds | mean | d3rlpy: seeds | mean | allowed shortfall | holds |",
        "|" + "---|" * 7,
    ]
    for algo, task in itertools.product(ALGOS, TASKS):
        mine = [ours(folder, suite, algo, task, seed) for seed in SEEDS]
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
