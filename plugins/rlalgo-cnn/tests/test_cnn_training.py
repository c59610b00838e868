"""Algorithms through the encoders: they learn what only pixels tell, and are saved, loaded and resumed bit-equal."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catch_game import Catch, mixed, record

import rlutils
from rlalgo import BatchRLAlgo, Choice, Episodes
from rlalgo.config import parse
from rlalgo.errors import CheckpointError
from rlutils.checkpoints import store as checkpoint
from rlutils.checkpoints.loading import load_algo
from rlutils.config.settings import Settings
from rlutils.evaluation.evaluate import evaluate

NOTHING: dict[str, Any] = {"trainer": {}, "callbacks": {}, "seconds": 0.0}
"""State of a trainer and callbacks that have none."""

torch.set_num_threads(1)
GAME = str(Path(__file__).parent / "catch_game.py")
ENCODERS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "channels": [8, 16], "kernels": [3, 3], "strides": [2, 1]},
    "impala": {"name": "impala", "channels": [4, 8], "blocks": 1, "tanh": True},
}
ALGOS: dict[str, dict[str, Any]] = {
    "bc": {"hidden_dims": [16]},
    "dt": {"context_length": 3, "embed_dim": 16, "n_layers": 1, "warmup": 2, "return_scale": 1.0},
    "dqn": {"hidden_dims": [16]},
    "discrete_cql": {"hidden_dims": [16]},
    "discrete_iql": {"hidden_dims": [16]},
}


def choose(name: str, **options: Any) -> Choice:
    """The algorithm as YAML would name it, with the encoder from this distribution."""
    known = rlutils.catalogue(["rlalgo_cnn"])
    entry = known.get("algo", name)
    return Choice(name, options, entry, parse(entry.Config, options, known, name))


def train(choice: Choice, episodes: Episodes, steps: int, batch: int = 32) -> BatchRLAlgo:
    assert choice.entry is not None
    torch.manual_seed(0)
    algo = choice.entry.cls(episodes.spec, choice.config)
    algo.prepare(episodes, steps)
    data, generator = algo.dataset(episodes), torch.Generator().manual_seed(0)
    for step in range(1, steps + 1):
        algo.update(data.gather(data.rows(batch, generator)), step)
    return algo


# --- learning ---


def caught(algo: BatchRLAlgo, **options: Any) -> float:
    """Mean return, that is the share of balls caught, over games that the data does not hold."""
    envs = [Catch() for _ in range(50)]
    (result,) = evaluate(algo, [algo.PolicyConfig(**options)], envs, episodes=100, seed=100_000)
    return result.mean


EYE = {"name": "cnn", "channels": [16, 32], "kernels": [4, 3], "strides": [2, 1]}
LEARNING: dict[str, tuple[dict[str, Any], int, int]] = {
    "bc": ({"hidden_dims": [64], "lr": 3e-3, "final_lr": 0.05, "keep_top": 0.5}, 400, 64),
    "dt": ({"context_length": 4, "embed_dim": 32, "n_layers": 1, "dropout": 0.0, "lr": 3e-3, "final_lr": 0.1,
            "warmup": 20, "clip": 1.0, "return_scale": 1.0}, 300, 48),
}  # fmt: skip
"""Options, updates and items in a batch."""


def learner(name: str, stack: int = 2) -> BatchRLAlgo:
    options, steps, batch = LEARNING[name]
    return train(choose(name, state_encoder=EYE, **options), mixed(1200, stack), steps, batch)


def played(act: Callable[[Catch], int]) -> float:
    """Mean return over the games that `caught` plays."""
    return float(record(lambda env, _: act(env), 100, seed=100_000).returns().mean())


def test_only_the_expert_catches_without_learning() -> None:
    rng = np.random.default_rng(0)
    assert played(Catch.expert) == 1
    assert max(played(lambda env, a=action: a) for action in range(3)) < 0.3  # type: ignore[misc]
    assert played(lambda env: int(rng.integers(3))) < 0.3


def test_bc_learns_to_catch_from_two_frames_but_not_from_one() -> None:
    assert caught(learner("bc")) > 0.9
    assert caught(learner("bc", stack=1)) < 0.85  # which way the ball goes is not in it


def test_dt_learns_to_catch_the_return_it_is_asked_for() -> None:
    algo = learner("dt")
    assert caught(algo, target_return=1.0) > 0.9


# --- saving and resuming ---


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ALGOS)
def test_trains_saves_and_loads_bit_equal(name: str, encoder: str, tmp_path: Path) -> None:
    episodes = mixed(12)
    choice = choose(name, state_encoder=ENCODERS[encoder], **ALGOS[name])
    fresh, algo = train(choice, episodes, 0), train(choice, episodes, 3)
    before, after = fresh.state_dict(), algo.state_dict()
    learnt = [key for key in after if not torch.equal(before[key], after[key])]
    assert any(after[key].dim() == 4 for key in learnt), "no convolution has learnt"
    assert all(bool(torch.isfinite(after[key]).all()) for key in after)
    settings = Settings(source=Choice("catch"), algo=choice)
    checkpoint.save(tmp_path / "checkpoints", 3, algo, settings, NOTHING)
    loaded = rlutils.load(tmp_path, plugins=["rlalgo_cnn"])
    assert all(torch.equal(value, after[key]) for key, value in loaded.state_dict().items())
    data = algo.dataset(episodes)
    batch = data.gather(torch.arange(20))
    assert torch.equal(loaded.predict(batch), algo.predict(batch))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ALGOS)
def test_resumes_bit_equal_to_a_run_never_stopped(name: str, encoder: str, tmp_path: Path) -> None:
    plugins = ["rlalgo_cnn", GAME]
    config = {
        "plugins": plugins,
        "threads": 1,
        "source": {"name": "catch", "episodes": 12},
        "env": "catch",
        "algo": {"name": name, "state_encoder": ENCODERS[encoder], **ALGOS[name]},
        "trainer": {"name": "offline", "steps": 6, "batch_size": 8},
        "evaluation": {"every": 3, "episodes": 1},
        "callbacks": [],
    }
    rlutils.train(config, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        rlutils.train({**config, "callbacks": [{"name": "stopper", "at": 4}]}, out=tmp_path / "parts")
    assert weights(tmp_path / "parts") != weights(tmp_path / "whole")
    rlutils.resume(tmp_path / "parts", ["callbacks=[]"], plugins=plugins)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def weights(folder: Path) -> bytes:
    return (checkpoint.find(folder) / "model.safetensors").read_bytes()


def test_a_checkpoint_names_the_distribution_to_install(tmp_path: Path) -> None:
    choice = choose("bc", state_encoder=ENCODERS["cnn"], **ALGOS["bc"])
    settings = Settings(source=Choice("catch"), algo=choice)
    checkpoint.save(tmp_path / "checkpoints", 0, train(choice, mixed(3), 0), settings, NOTHING)
    installed = metadata.packages_distributions().get("rlalgo_cnn")  # none where the module is merely on the path
    cure = "pip install 'rlalgo-cnn'" if installed else "--plugin rlalgo_cnn"
    with pytest.raises(CheckpointError, match=rf"the encoder 'cnn' came from plugin .*not loaded here; .*{cure}"):
        load_algo(checkpoint.find(tmp_path), rlutils.catalogue(block=blocked()))


def blocked() -> list[str]:
    """The entry point of this distribution, where it is installed and would be found."""
    return [p.name for p in metadata.entry_points(group="rlalgo") if p.value == "rlalgo_cnn"]
