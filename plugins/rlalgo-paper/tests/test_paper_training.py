"""Runs on the paper's toy tasks: the contract of sources, the README's examples, play by the rules of the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rlutils
from rlalgo import Choice
from rlalgo.config import parse
from rlutils.config.yaml_text import parse_yaml
from tests.contract import test_sources as contract

PLUGINS = ("rlalgo_paper",)
CATALOGUE = rlutils.catalogue(PLUGINS)
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
FEW = {"trainer__steps": 5, "algo__warmup": 1, "evaluation__episodes": 4, "threads": 1, "source__episodes": 100}


@pytest.mark.parametrize("check", [f for name, f in vars(contract).items() if name.startswith("test_")])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("key_to_door", {"layout": "tvt", "observation": "crop"}),
        ("key_to_door", {"observation": "pixels"}),
        ("key_to_door", {"rooms": ["st", "s", "st"], "moves": [2, 1, 2], "layout_seed": 1}),
        ("shortest_path", {}),
    ],
    ids=str,
)
def test_the_sources_keep_the_contract(check: Callable[[Choice], None], name: str, options: dict[str, Any]) -> None:
    options, entry = {"episodes": 20, **options}, CATALOGUE.get("source", name)
    check(Choice(name, options, entry, parse(entry.Config, options, CATALOGUE, name)))


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_readme_train(text: str, tmp_path: Path) -> None:
    run = rlutils.train(parse_yaml(text), tmp_path / "run", plugins=PLUGINS, **FEW)
    assert rlutils.load(run.folder, plugins=PLUGINS).spec == run.spec


def test_the_readme_has_an_example_of_each() -> None:
    assert [parse_yaml(text)["source"]["name"] for text in EXAMPLES] == ["key_to_door", "shortest_path"]


ALGOS = {
    "bc": {"hidden_dims": [16], "normalize": False},
    "dt": {"context_length": 13, "embed_dim": 16, "n_layers": 1, "warmup": 5, "return_scale": 1.0, "normalize": False},
}
SOURCES = {
    "key_to_door": {"layout": "open", "layout_seed": 2, "observation": "crop", "moves": [7, 1, 8], "episodes": 300},
    "shortest_path": {"nodes": 8, "edge_probability": 0.3, "steps": 6, "episodes": 300},
}


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_run_plays_by_the_rules_of_its_data(source: str, algo: str, tmp_path: Path) -> None:
    config = {
        "threads": 1,
        "source": {"name": source, **SOURCES[source]},
        "algo": {"name": algo, **ALGOS[algo]},
        "trainer": {"name": "offline", "steps": 20, "batch_size": 16},
        "evaluation": {"every": 0, "episodes": 5, "policies": [{"sample": True}]},
        "callbacks": [],
    }
    rlutils.train(config, tmp_path / "run", plugins=PLUGINS)
    result = rlutils.evaluate(tmp_path / "run", plugins=PLUGINS)
    (played,) = result.policies
    longest = 16 if source == "key_to_door" else 6
    ends = list(zip(played.lengths, played.info["success"], strict=True))
    assert all(length == longest or (success and length < longest) for length, success in ends)
    assert result.env_id == {"key_to_door": "KeyToDoor-v0", "shortest_path": "ShortestPath-v0"}[source]
    envs = rlutils.load(tmp_path / "run", plugins=PLUGINS).spec.preprocess["env_kwargs"]
    assert {key: envs[key] for key in SOURCES[source] if key in envs} == {
        key: value for key, value in SOURCES[source].items() if key in envs
    }


def test_dt_learns_to_fetch_the_key(tmp_path: Path) -> None:
    """A room of two cells: half of the random episodes fetch the key, and the target says whether to."""
    config = {
        "threads": 1,
        "source": {"name": "key_to_door", "rooms": ["tst", "s", "ts"], "moves": [1, 1, 2], "episodes": 2000},
        "algo": {
            **ALGOS["dt"],
            "name": "dt",
            "context_length": 4,
            "embed_dim": 32,
            "dropout": 0.0,
            "lr": 3e-3,
            "keep_top": 0.3,
        },
        "trainer": {"name": "offline", "steps": 300, "batch_size": 64},
        "evaluation": {"every": 0, "episodes": 40, "policies": [{"target_return": 1}, {"target_return": 0}]},
        "callbacks": [],
    }
    rlutils.train(config, tmp_path / "run", plugins=PLUGINS)
    asked, not_asked = rlutils.evaluate(tmp_path / "run", plugins=PLUGINS).policies
    assert sum(asked.returns) >= 36
    assert sum(not_asked.returns) <= 10
