"""Settings: YAML and overrides to checked dataclasses, and the shipped configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlalgo import plugins as core_plugins
from rlalgo.config import parse, to_mapping
from rlalgo.errors import ConfigError
from rlalgo.schema import schema
from rlutils.collecting.settings import CollectSettings
from rlutils.config.catalogue import BUILTINS, catalogue, read_settings
from rlutils.config.files import read_yaml
from rlutils.config.overrides import override
from rlutils.config.settings import Evaluation, Settings
from rlutils.config.yaml_text import dump_yaml, parse_yaml
from tests.rlutils.runs import OURS, toy_config

CONFIGS = Path(__file__).parents[3] / "configs"
TRAINING = sorted(p for p in CONFIGS.rglob("*.yaml") if not {"collect", "suites", "overrides"} & set(p.parts))


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_shipped_configurations_are_valid_and_fit_the_schema(path: Path) -> None:
    settings, known = read_settings(path, plugins=OURS)
    jsonschema.validate(read_yaml(path), schema(Settings, known))
    # What is written into a run folder is the same configuration again, and fits the schema too.
    resolved = parse_yaml(dump_yaml(to_mapping(settings)))
    jsonschema.validate(resolved, schema(Settings, known))
    assert to_mapping(read_settings(resolved)[0]) == to_mapping(settings)
    # An editor finds the schema by the modeline.
    modeline = path.read_text().splitlines()[0]
    assert modeline.startswith("# yaml-language-server: $schema=")
    assert (path.parent / modeline.partition("=")[2]).resolve() == (CONFIGS / "schema.json").resolve()


def test_the_small_setting_is_laid_over_the_papers() -> None:
    paper = read_settings(CONFIGS / "dt_atari.yaml", plugins=OURS)[0]
    over = str(CONFIGS / "overrides/atari_small.yaml")
    small = read_settings(CONFIGS / "dt_atari.yaml", [over, "seed=3"], OURS)[0]
    assert (paper.algo.config.context_length, small.algo.config.context_length) == (30, 10)
    assert (small.trainer.config.steps, small.trainer.config.batch_size, small.seed) == (3_000, 32, 3)
    assert small.algo.config.state_encoder == paper.algo.config.state_encoder
    assert small.evaluation.policies == paper.evaluation.policies
    assert small.source == paper.source


def test_a_file_laid_over_replaces_lists_and_joins_mappings(tmp_path: Path) -> None:
    """A mapping with a name is another thing, which keeps no options of the one before."""
    (tmp_path / "over.yaml").write_text("a: {b: 2, d: {e: 5}}\nl: [3]\nsource: {name: new, path: p}\nx.y: 7\n")
    before = {"a": {"b": 1, "c": 1}, "l": [1, 2], "z": 0, "source": {"name": "old", "id": "i"}, "x": {"w": 6}}
    assert override(before, [str(tmp_path / "over.yaml"), "z=9"]) == {
        "a": {"b": 2, "c": 1, "d": {"e": 5}}, "l": [3], "z": 9, "source": {"name": "new", "path": "p"},
        "x": {"w": 6, "y": 7},
    }  # fmt: skip
    assert before["l"] == [1, 2]
    with pytest.raises(ConfigError, match=r"missing\.yaml: there is no such file"):
        override(before, [str(tmp_path / "missing.yaml")])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("collect/*.yaml")), ids=lambda p: p.name)
def test_shipped_collections_are_valid_and_fit_their_schema(path: Path) -> None:
    parse(CollectSettings, read_yaml(path), catalogue())
    jsonschema.validate(read_yaml(path), schema(CollectSettings, catalogue()))
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


@pytest.mark.parametrize(("cls", "name"), [(Settings, "schema.json"), (CollectSettings, "collect/schema.json")])
def test_the_shipped_schemas_are_up_to_date(cls: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLALGO_PLUGINS", "")  # only what this repository itself offers
    known = core_plugins.catalogue(OURS, builtins=BUILTINS)
    assert read_yaml(CONFIGS / name) == parse_yaml(dump_yaml(schema(cls, known))), "run `make schema`"


@pytest.mark.parametrize(
    "bad",
    [
        {"algo": {"name": "dt", "contxt": 3}},
        {"algo": "nope"},
        {"algo": {"name": "dt", "lr": "fast"}},
        {"algo": {"name": "dt", "timestep_encoder": "mlp"}},
        {"trainer": {"name": "offline", "steps": 0}},
        {"surprise": 1},
    ],
)
def test_the_schema_refuses_what_the_settings_refuse(bad: dict[str, Any]) -> None:
    config = {**toy_config(), **bad}
    known = catalogue(config["plugins"])
    jsonschema.validate(toy_config(), schema(Settings, known))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema(Settings, known))
    with pytest.raises(ConfigError):
        read_settings(config)


def test_every_fault_is_told_at_once_with_its_path() -> None:
    config = toy_config()
    config["algo"] = {**config["algo"], "lr": "1e-4", "contxt_length": 3, "state_encoder": {"name": "liner"}}
    config["trainer"] = {"name": "offline", "steps": -1}
    config["evaluation"] = {"policies": [{"target_return": 1}, {"target_retrun": 2}], "every": 2.5}
    config["surprise"] = 1
    with pytest.raises(ConfigError) as caught:
        read_settings(config)
    faults = caught.value.faults
    for start, hint in {
        "algo.contxt_length": "Did you mean 'context_length'?",
        "algo.lr": "'1e-4'",
        "algo.state_encoder": "Did you mean 'linear'?",
        "trainer.steps": "greater than or equal to 1",
        "evaluation.every": "2.5",
        "evaluation.policies[1].target_retrun": "Did you mean 'target_return'?",
        "surprise": "unknown key",
    }.items():
        matching = [fault for fault in faults if fault.startswith(start + ":")]
        assert len(matching) == 1, (start, faults)
        assert hint in matching[0]
    assert len(faults) == 7


def test_overrides_reach_every_depth() -> None:
    settings, _ = read_settings(
        toy_config(), ["algo.lr=2e-3", "evaluation.policies.1.target_return=5", "source.episodes=9", "seed=7"]
    )
    assert settings.algo.config.lr == 2e-3
    assert settings.evaluation.policies[1] == {"target_return": 5}
    assert settings.source.config.episodes == 9
    assert settings.seed == 7
    assert read_settings(toy_config("bc"), ["algo.state_encoder=mlp"])[0].algo.config.state_encoder.name == "mlp"
    nested = read_settings(toy_config("bc"), ["algo.state_encoder=mlp", "algo.state_encoder.hidden_dims=[8, 8]"])[0]
    assert nested.algo.config.state_encoder.config.hidden_dims == (8, 8)


def test_overrides_change_the_defaults_of_what_a_file_does_not_say() -> None:
    short = {key: toy_config()[key] for key in ("plugins", "source", "algo")}
    texts = ["trainer.steps=10", "env.id=Point-v9", "callbacks.0.every=7", "evaluation.policies.0.target_return=5"]
    settings, _ = read_settings({**short, "env": None}, texts)
    assert (settings.trainer.name, settings.trainer.config.steps) == ("offline", 10)
    assert (settings.env.name, settings.env.config.id) == ("gym", "Point-v9")
    assert [c.name for c in settings.callbacks] == [c.name for c in Settings.callbacks]
    assert settings.callbacks[0].config.every == 7
    assert settings.evaluation.policies == ({"target_return": 5},)
    assert settings.evaluation.episodes == Evaluation.episodes
    assert read_settings(short)[0].trainer.config.steps != 10  # the defaults themselves are as before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("callbacks=[csv, best, {name: best, metric: a/b}]", "callbacks: 'best' stands here twice"),
        ("evaluation.evaluators=[toy_error, {name: toy_error, rows: 3}]",
         "evaluation: evaluators: 'toy_error' stands here twice"),
        ("trainer.patience=1", r"trainer\.patience: compares the returns .* set trainer\.patience to null"),
    ],
)  # fmt: skip
def test_settings_that_cannot_both_have_their_way_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(toy_config(evaluation={"episodes": 0}), [override])


@pytest.mark.parametrize("text", ["algo.lr", "=3", "algo.lr.x=1", "evaluation.policies.9.x=1", "callbacks.a=1"])
def test_overrides_that_make_no_sense_say_so(text: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        read_settings(toy_config(), [text])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.integers() | st.booleans() | st.none())
def test_an_override_sets_just_its_own_place(keys: list[str], value: Any) -> None:
    before = {"x": {"y": [1, {"z": 2}]}, "a": {"kept": 1}}
    after = override(before, [f"{'.'.join(keys)}={dump_yaml(value).removesuffix('...' + chr(10))}"])
    place: Any = after
    for key in keys:
        place = place[key]
    assert place == value
    assert before == {"x": {"y": [1, {"z": 2}]}, "a": {"kept": 1}}  # the original is not touched
    assert after["x"] == before["x"]
    if len(keys) > 1 and keys[0] == "a":
        assert after["a"]["kept"] == 1


def test_plugin_files_are_found_beside_the_yaml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(Path(toy_config()["plugins"][0]).read_text())
    (tmp_path / "run.yaml").write_text(dump_yaml({**toy_config(), "plugins": ["./mine.py"]}))
    monkeypatch.chdir("/")
    settings, known = read_settings(tmp_path / "run.yaml")
    assert settings.plugins == (str(tmp_path / "mine.py"),)
    assert known.get("source", "toy").owner.location == str(tmp_path / "mine.py")


@pytest.mark.parametrize("text", ['plugins=["\\0.py"]', "plugins=3", "plugins=[1]", "\udcff=1", "algo.lr=\udcff"])
def test_names_that_no_file_can_have_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_settings(toy_config("bc"), [text])


def test_an_override_of_any_length_is_shown_in_short() -> None:
    for text in (f"algo=[{'1,' * 600_000}]", f"{'a' * 2_000_000}", f"algo.x.{'y' * 10_000}.z=1"):
        with pytest.raises(ConfigError) as caught:
            override({"algo": {"x": 1}}, [text])
        assert len(str(caught.value)) < 500
