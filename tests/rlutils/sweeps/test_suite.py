"""The grid of a suite file: its runs, their settings, its faults."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rlalgo.config import to_mapping
from rlalgo.errors import ConfigError
from rlalgo.schema import schema
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.files import read_yaml
from rlutils.config.overrides import texts_of
from rlutils.sweeps.suite import Suite, matches, read_suite
from tests.rlutils.runs import OURS, toy_config
from tests.rlutils.sweeps.suites import write_suite

SUITES = Path(__file__).parents[3] / "configs" / "suites"


def test_the_grid_is_the_product_in_the_order_of_seeds(tmp_path: Path) -> None:
    path = write_suite(tmp_path, options={"bc": {"algo.dropout": [0.1, 0.2], "algo.lr": [1e-3, 1e-4]}})
    _, cells = read_suite(path)
    tried = [f"algo.dropout={d},algo.lr={lr}" for d, lr in itertools.product([0.1, 0.2], [0.001, 0.0001])]
    names = []
    for seed, algo, dataset in itertools.product([3, 1], ["bc", "dt"], ["small", "large/one"]):
        names += [f"{algo}/{dataset}/{t}/s{seed}" for t in (tried if algo == "bc" else [])]
        names += [f"{algo}/{dataset}/s{seed}"] if algo == "dt" else []
    assert [cell.name for cell in cells] == names
    cell = next(cell for cell in cells if cell.name == "bc/large/one/algo.dropout=0.2,algo.lr=0.0001/s1")
    expected = toy_config("bc", seed=1, source={"name": "toy", "episodes": 30})
    expected["algo"] |= {"dropout": 0.2, "lr": 1e-4}
    assert to_mapping(cell.settings) == to_mapping(read_settings(expected)[0])


def test_settings_apply_where_their_pattern_matches_and_the_last_wins(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={
        "*": {"evaluation.episodes": 7, "trainer": {"steps": 50}},
        "dt": {"trainer.steps": 40, "algo": {"state_encoder": {"name": "linear"}}},
        "*/large/one": {"trainer.batch_size": 5},
        "dt/small": {"trainer.steps": 30},
    })  # fmt: skip
    found = {}
    for cell in read_suite(path)[1]:
        trainer = cell.settings.trainer.config
        found[cell.group] = (cell.settings.evaluation.episodes, trainer.steps, trainer.batch_size)
        assert len(cell.settings.evaluation.policies) == (2 if cell.algo == "dt" else 1)  # merged, not replaced
    assert found == {
        "bc/small": (7, 50, 16), "bc/large/one": (7, 50, 5), "dt/small": (7, 30, 16), "dt/large/one": (7, 40, 5),
    }  # fmt: skip


def test_the_command_of_a_run_makes_the_same_settings(tmp_path: Path) -> None:
    path = write_suite(tmp_path, set={"*": {"callbacks": [{"name": "csv", "every": 5}], "algo.lr": 1e-5}})
    for cell in read_suite(path)[1]:
        config, *overrides = cell.words
        assert to_mapping(read_settings(config, overrides)[0]) == to_mapping(cell.settings)
        assert cell.command(Path("out")).endswith(f"seed={cell.seed} --out out/{cell.name} --continue")


def test_a_mapping_is_merged_and_a_named_one_replaces() -> None:
    values = {"a.b": 1, "c": {"d": [1], "e": {"name": "x", "f": 2}}, "g": None}
    assert list(texts_of(values)) == ["a.b=1", "c.d=[1]", 'c.e={"name": "x", "f": 2}', "g=null"]


@pytest.mark.parametrize(
    ("pattern", "name", "is_so"),
    [("*", "bc/x/s0", True), ("bc", "bc/x/s0", True), ("bc", "bc10/x", False), ("*/x", "bc/x/s0", True),
     ("*/s0", "bc/x/s0", True), ("*/s0", "bc/x/s01", False), ("bc/[xy]", "bc/y", True), ("x", "bc/x", False)],
)  # fmt: skip
def test_patterns_match_names_and_their_beginnings(pattern: str, name: str, is_so: bool) -> None:
    assert matches(pattern, name) == is_so


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": [0]}, ["unknown key 'seed'. Did you mean 'seeds'?"]),
        ({"set": {"bv": {}}, "options": {"dt/huge": {}}}, ["'bv' matches nothing. Did you mean 'bc'?", "dt/huge"]),
        ({"seeds": [1, 1]}, ["has one twice"]),
        ({"seeds": []}, ["seeds:"]),
        ({"set": {"*": {"seed": 1}}}, ["set.*.seed"]),
        ({"algos": {"../bc": "bc.yaml", "dt": "no.yaml"}}, ["'../bc' cannot name a folder", "no.yaml: there is no"]),
        ({"datasets": {"a": {}, "a/s1": {}}}, ["bc/a/s1/s1: lies in the folder of bc/a/s1"]),
        ({"options": {"*": {"algo.lr": []}}}, ["algo.lr"]),
        ({"processes": 0}, ["processes"]),
        (
            {"processes": 0, "seeds": [1, 1], "algos": {"../bc": "bc.yaml", "dt": "no.yaml"}},
            ["processes", "has one twice", "'../bc' cannot name a folder", "no.yaml: there is no"],
        ),
    ],
)
def test_a_suite_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_suite(write_suite(tmp_path, **changes))
    assert all(text in str(caught.value) for text in said)


def test_the_schema_takes_a_suite_and_refuses_unknown_keys(tmp_path: Path) -> None:
    values, rules = read_yaml(write_suite(tmp_path)), schema(Suite, catalogue())
    jsonschema.validate(values, rules)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "seed": 1}, rules)


def test_the_shipped_schema_is_up_to_date() -> None:
    made = json.loads(json.dumps(schema(Suite, catalogue(OURS))))
    assert json.loads((SUITES / "schema.json").read_text()) == made, "run `make schema`"


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_suites_are_valid_and_fit_their_schema(path: Path) -> None:
    _, cells = read_suite(path, OURS)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    jsonschema.validate(read_yaml(path), schema(Suite, catalogue(OURS)))
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
