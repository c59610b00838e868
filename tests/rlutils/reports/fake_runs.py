"""Fabricated run and suite folders, and a reader of the pages about them."""

from __future__ import annotations

import base64
import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlutils.checkpoints.index import Index, write_index
from rlutils.config.files import write_yaml
from rlutils.reports.experiments import experiments
from rlutils.reports.runs_page import write_report

SECTIONS = ["Run", "Results", "Achieved returns", "Training", "To reproduce"]
TARGETS = (800.0, 1600.0, 2400.0, 3200.0, 3600.0)
STEPS = tuple(range(500, 4001, 500))
REFERENCE = (-20.27, 3234.3)
"""Returns of a random and of an expert policy."""


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
        "algo": {"name": algo, "context": 10, "width": 64, "dropout": 0.0, "lr": 1e-3, "warmup": 200,
                 "return_scale": 1000.0, "state_encoder": {"name": "linear"}, **(options or {})},
        "plugins": [],
        "device": "auto",
        "threads": None,
        "trainer": {"name": "offline", "steps": 4000, "batch_size": 64, "patience": None},
        "evaluation": {"every": 500, "episodes": episodes, "seed": 1000000,
                       "policies": [{"target_return": t} for t in targets] or [{}], "evaluators": []},
        "env": {"name": "gym", "id": None},
        "callbacks": [{"name": "csv", "every": 100}, {"name": "best", "metric": None}],
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
            noise = 350 * rng.standard_normal(episodes)
            returns = (skill * (aim * (0.8 + 0.05 * seed) + noise)).clip(12, 3500)
            played.append(policy({} if target is None else {"target_return": target}, returns, scored))
        write_evaluation(folder, step, played)
    if steps:
        name_checkpoints(folder, steps[-1], best)
    return folder


def name_checkpoints(folder: Path, last: int, best: int | None) -> None:
    """Folders of these steps, and the index that names them."""
    names = [None if step is None else f"step_{step:09d}" for step in (last, best)]
    complete = sorted({name for name in names if name is not None})
    for name in complete:
        (folder / "checkpoints" / name).mkdir(exist_ok=True)
    write_index(folder / "checkpoints", Index("a run", *names, complete))


def policy(options: dict[str, Any], returns: np.ndarray, scored: bool = True) -> dict[str, Any]:
    """A policy's result; its statistics are plain ones, so that a test can tell where a number came from."""
    middle = np.sort(returns)[len(returns) // 4 : len(returns) - len(returns) // 4]
    mean, sd = float(returns.mean()), float(returns.std(ddof=1))
    half = 1.96 * sd / len(returns) ** 0.5
    return {
        "label": ", ".join(f"{k}={v:g}" for k, v in options.items()) or "policy",
        "options": options,
        "returns": returns.tolist(),
        "lengths": [max(int(r / 3.2), 0) + 10 for r in returns],
        "seeds": list(range(1_000_000, 1_000_000 + len(returns))),
        "mean": mean,
        "sd": sd,
        "iqm": float(middle.mean()),
        "interval": [mean - half, mean + half],
        "normalized": 100 * (mean + 20.27) / 3254.57 if scored else None,
    }


def write_evaluation(folder: Path, step: int, policies: list[dict[str, Any]], name: str = "") -> None:
    (folder / "evaluations" / f"{name or f'step_{step:09d}'}.json").write_text(json.dumps({
        "step": step, "checkpoint": f"step_{step:09d}", "source": "evaluate" if name else "train",
        "env_id": "Hopper-v5", "seed": 5 if name else 1_000_000, "seconds": 3.2,
        "score": max((p["mean"] for p in policies), default=None), "policies": policies, "metrics": {},
    }))  # fmt: skip


def played_nothing(folder: Path, factor: float = 1.0) -> Path:
    run = fake_run(folder, seed=int(factor), steps=STEPS[:2], best=500)
    for path in (run / "evaluations").iterdir():
        values = json.loads(path.read_text())
        metrics = {"held_out/loss": factor * values["step"] / 1000, "held_out/value": 1234.5}
        path.write_text(json.dumps(values | {"policies": [], "score": None, "metrics": metrics}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluation"]["evaluators"] = [{"name": "held_out"}]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def three_seeds(root: Path) -> list[Path]:
    return [fake_run(root / f"dt-s{seed}", seed=seed, best=3500 - 500 * seed) for seed in range(3)]


def fake_suite(folder: Path, states: dict[str, str | None] | None = None, scored: bool = True, **changes: Any) -> Path:
    """3 algorithms, 2 datasets, 3 seeds: all finished but those named, None being never started."""
    runs = []
    for algo in ("bc", "dt", "iql"):
        for dataset in ("hopper/medium", "cheetah"):
            for seed in range(3):
                name = f"{algo}/{dataset}/s{seed}"
                runs.append({"name": name, "algo": algo, "dataset": dataset, "options": "", "seed": seed})
                state = (states or {}).get(name, "finished")
                if state is None:
                    continue
                targets = (800.0, 3600.0, 1600.0) if algo == "dt" else ()
                options = {"algo": algo, "targets": targets, "scored": scored, "best": 1000, **changes}
                run = fake_run(folder / name, seed=seed, steps=(500, 1000, 1500), episodes=12, state=state, **options)
                for step in (500, 1000, 1500):
                    values = returns_of(algo, dataset, seed, step)
                    played = [
                        policy({"target_return": t} if t else {}, values + (t or 3600) - 3600, scored)
                        for t in targets or (None,)
                    ]
                    write_evaluation(run, step, played)
    write_yaml(folder / "suite.yaml", {"suite": "suites/mine.yaml", "runs": runs})
    return folder


def returns_of(algo: str, dataset: str, seed: int, step: int) -> np.ndarray:
    """(12,) episodes, of a skewed kind, so that mean and IQM differ."""
    rng = np.random.default_rng([*algo.encode(), len(dataset), seed, step])
    return rng.gamma(2.0, 300 + step / 20 + 100 * seed, 12)


def scores(algo: str, dataset: str, seed: int, step: int = 1500) -> list[float]:
    low, high = REFERENCE
    return [100 * (float(value) - low) / (high - low) for value in returns_of(algo, dataset, seed, step)]


def read_returns(run: Path, step: int) -> dict[str, list[float]]:
    """Label -> returns, straight from the file."""
    values = json.loads((run / "evaluations" / f"step_{step:09d}.json").read_text())
    return {p["label"].replace("target_return=", "target "): p["returns"] for p in values["policies"]}


def middle_mean(values: list[float]) -> float:
    quarter = len(values) // 4
    return statistics.fmean(sorted(values)[quarter : len(values) - quarter])


class Page(HTMLParser):
    """What a browser would see: text, tables, references, images."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[tuple[str, str]]]] = []  # rows of (text, title) cells
        self.references: list[str] = []
        self.alts: list[str] = []
        self.style = ""
        self.open: list[str] = []
        self.feed(path.read_text())
        self.text = re.sub(r"\s+", " ", " ".join(self.words))
        self.images = [base64.b64decode(r.split(",")[1]).decode() for r in self.references if r.startswith("data:")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.references += [values[key] for key in ("src", "href", "srcset", "action", "data") if key in values]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.alts.append(values["alt"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", values.get("title", "")))
        elif tag in ("h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # well nested

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data
        if "td" in self.open or ("tr" in self.open and "th" in self.open):
            text, title = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, title)

    def results(self, number: int = 0) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Of one result table: checkpoint -> policy -> its cells after the name."""
        found: dict[str, dict[str, list[tuple[str, str]]]] = {}
        table = [table for table in self.tables if table[0][0][0] == "policy"][number]
        for row in table[1:]:
            if len(row) == 1:
                part = found.setdefault(row[0][0], {})
            else:
                part[row[0][0]] = row[1:]
        return found


def report(runs: list[Path], out: Path) -> Page:
    write_report(experiments(runs), out)
    return Page(out)
