"""Reports, from fabricated run folders: every number is computed again here from the JSON that was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TARGETS = (800.0, 1600.0, 2400.0, 3200.0, 3600.0)
STEPS = tuple(range(500, 4001, 500))


def fake_run(
    folder: Path,
    *,
    algo: str = "dt",
    seed: int = 0,
    targets: tuple[float, ...] = TARGETS,
    steps: tuple[int, ...] = STEPS,
    episodes: int = 20,
    state: str = "finished",
    error: str | None = None,
    best: int | None = 3500,
    scored: bool = True,
    options: dict[str, Any] | None = None,
) -> Path:
    """A run folder in the format that `rlalgo train` writes."""
    rng = np.random.default_rng([seed, len(targets), len(algo)])
    for name in ("evaluations", "checkpoints"):
        (folder / name).mkdir(parents=True)
    config = {
        "seed": seed,
        "source": {"name": "minari", "id": "rlalgo/hopper/mixed-v0"},
        "algo": {"name": algo, "context": 10, "width": 64, "layers": 3, "heads": 1, "dropout": 0.0, "lr": 1e-3,
                 "warmup": 200, "return_scale": 1000.0, "state_encoder": {"name": "linear"}, **(options or {})},
        "plugins": [],
        "device": "auto",
        "threads": None,
        "trainer": {"name": "offline", "steps": 4000, "batch_size": 64, "checkpoint_every": 500, "patience": None},
        "evaluation": {"every": 500, "episodes": episodes, "seed": 1000000,
                       "policies": [{"target_return": t} for t in targets] or [{}], "evaluators": []},
        "env": {"name": "gym", "id": None},
        "callbacks": [{"name": "console", "every": 50}, {"name": "csv", "every": 100}, {"name": "best", "metric": None}],
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "spec.yaml").write_text("env_id: Hopper-v5\n")
    record = {
        "command": f"rlalgo train configs/{algo}_hopper.yaml seed={seed}",
        "started": f"2025-11-21T09:3{seed}:05+00:00",
        "state": state,
        "step": steps[-1] if steps else 0,
        "seconds": 124.25 + seed,
        "stopped": None,
        "error": error,
        "best_step": best,
        "versions": {"rlalgo": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "gymnasium": "1.4.0"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    plugin = {"kind": "algo", "name": algo, "plugin": f"rlalgo.batchrl.{algo}", "distribution": "rlalgo",
              "version": "0.1.0", "location": None}  # fmt: skip
    (folder / "plugins.yaml").write_text(yaml.safe_dump([plugin]))
    data = np.random.default_rng(7).gamma(1.3, 760, 470).clip(5, 3642)
    (folder / "data.json").write_text(json.dumps({
        "name": "minari:rlalgo/hopper/mixed-v0", "episodes": 470, "steps": 150029, "returns": data.tolist(),
        "lengths": [300] * 470, "ref_scores": [-20.27, 3234.3] if scored else None, "env_id": "Hopper-v5",
    }))  # fmt: skip
    lines = ["step,seconds,loss,action_error,lr"]
    for step in range(100, (steps[-1] if steps else 0) + 1, 100):
        loss = 0.06 + 0.3 * np.exp(-step / 500) + 0.01 * rng.standard_normal()
        lr = 1e-3 * min(1, step / 200) * (0.55 + 0.45 * np.cos(np.pi * step / 4000))
        lines.append(f"{step},{step / 50:.3f},{loss:.9g},{loss * 1.7:.9g},{lr:.9g}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    for step in steps:
        skill = 1 - np.exp(-step / 1500)
        played = []
        for target in targets or (None,):
            aim = 900 if target is None else min(target, 2700) ** 0.9 * 2.1
            returns = (skill * aim * (0.8 + 0.05 * seed) + 350 * rng.standard_normal(episodes) * skill).clip(12, 3500)
            played.append(policy({} if target is None else {"target_return": target}, returns, scored))
        write_evaluation(folder, step, played)
    if steps:
        for name, step in (("last", steps[-1]), ("best", best)):
            if step is not None:
                (folder / "checkpoints" / f"step_{step:09d}").mkdir(exist_ok=True)
                (folder / "checkpoints" / name).symlink_to(f"step_{step:09d}")
    return folder


def policy(options: dict[str, Any], returns: np.ndarray, scored: bool = True) -> dict[str, Any]:
    """A policy's result; its statistics are plain ones, so that a test can tell where a number came from."""
    middle = np.sort(returns)[len(returns) // 4 : len(returns) - len(returns) // 4]
    mean, sd = float(returns.mean()), float(returns.std(ddof=1))
    half = 1.96 * sd / len(returns) ** 0.5
    return {
        "label": ", ".join(f"{k}={v:g}" for k, v in options.items()) or "policy",
        "options": options,
        "returns": returns.tolist(),
        "lengths": [int(r / 3.2) + 10 for r in returns],
        "seeds": list(range(1_000_000, 1_000_000 + len(returns))),
        "mean": mean,
        "sd": sd,
        "iqm": float(middle.mean()),
        "interval": [mean - half, mean + half],
        "normalised": 100 * (mean + 20.27) / 3254.57 if scored else None,
    }


def write_evaluation(folder: Path, step: int, policies: list[dict[str, Any]], name: str | None = None) -> None:
    (folder / "evaluations" / f"{name or f'step_{step:09d}'}.json").write_text(json.dumps({
        "step": step, "checkpoint": f"step_{step:09d}", "source": "evaluate" if name else "train",
        "env_id": "Hopper-v5", "seed": 5 if name else 1_000_000, "seconds": 3.2,
        "score": max((p["mean"] for p in policies), default=None), "policies": policies, "metrics": {},
    }))  # fmt: skip


def demo(root: Path) -> list[Path]:
    """Three seeds of DT, one of them failed in a fourth run; a BC run."""
    shutil.rmtree(root, ignore_errors=True)
    runs = [fake_run(root / f"dt_hopper-s{seed}", seed=seed) for seed in range(3)]
    message = "step 1437: loss is nan; training stopped and this state is not saved. Try a lower learning rate, gradient clipping or other scales (rewards, returns)"  # noqa: E501
    runs.append(fake_run(root / "dt_hopper-s3", seed=3, steps=STEPS[:2], state="failed", error=message, best=1000))
    runs.append(fake_run(root / "bc_hopper-s0", algo="bc", targets=(), options={"context": 1}))
    return runs


if __name__ == "__main__":
    import sys

    from rlutils.report import write_report

    found = demo(Path(sys.argv[1]))
    write_report(found, Path(sys.argv[1]) / "all.html")
    write_report(found[:4], Path(sys.argv[1]) / "dt.html")
    write_report(found[4:], Path(sys.argv[1]) / "bc.html")
