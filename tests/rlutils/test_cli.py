"""The command line as a person meets it: what works, and what is said when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rlutils.checkpoints.store import find
from rlutils.cli import app
from rlutils.config.files import read_yaml, write_yaml
from tests.rlutils.runs import PLUGIN, toy_config

ONLY = """
from dataclasses import dataclass
from typing import Any
from gymnasium import spaces
from rlalgo import hookimpl
from rlalgo.batchrl.bc import BC


class OnlyDiscrete(BC):
    name = "only_discrete"
    action_spaces = (spaces.Discrete,)


class OnlyBox(BC):
    name = "only_box"
    action_spaces = (spaces.Box,)


@hookimpl
def rlalgo_register_algos(register: Any) -> None:
    register(OnlyDiscrete)
    register(OnlyBox)
"""


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def plain(result: Result) -> str:
    """All output as one line of words, so that a terminal's width does not matter."""
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "only.py").write_text(ONLY)
    write_yaml(folder / "toy.yaml", {**toy_config(), "plugins": [PLUGIN, "./only.py"]})
    return folder / "toy.yaml"


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    result = call("train", str(config), "trainer.steps=40", "--out", str(folder))
    assert result.exit_code == 0, plain(result)
    assert str(folder) in plain(result)
    return folder


def test_train_records_the_command_that_repeats_it(run: Path, config: Path) -> None:
    assert read_yaml(run / "config.yaml")["trainer"]["steps"] == 40
    assert (find(run) / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algo=dtt", "no algo called 'dtt'. Did you mean 'dt'? Known: awac, bc, cql,"),
        ("algo.state_encoder=ccn", "no encoder called 'ccn'."),
        ("algo.timestep_encoder=mlp", "encoder 'mlp' cannot be a timestep encoder"),
        ("source=tooy", "no source called 'tooy'. Did you mean 'toy'?"),
        ("algo.contxt_length=5", "algo.contxt_length: unknown key 'contxt_length'. Did you mean 'context_length'?"),
        ("algo.context_length=five", "algo.context_length: should be a valid integer, got 'five'"),
        ("algo.n_heads=3", "embed_dim 16 is not a multiple of n_heads 3"),
        ("device=gpu9", "device: 'gpu9' cannot be used here"),
        ("plugins=[nowhere.at.all]", "plugin 'nowhere.at.all' cannot be imported: ModuleNotFoundError"),
        ("plugins=[./gone.py]", "plugin file"),
        ("algo=only_discrete; evaluation={}",
         "only_discrete needs a Discrete action space; toy has Box(-1.0, 1.0, (2,), float32). "
         "Try: awac, bc, cql, discrete_iql, dt, edac, iql, only_box, rebrac, sac_n, td3_bc."),
        ("callbacks=[{name: cvs}]", "callbacks[0]: no callback called 'cvs'. Did you mean 'csv'?"),
        ("evaluation.policies=[{target: 1}]", "evaluation.policies[0].target: unknown key 'target'."),
    ],
)  # fmt: skip
def test_wrong_settings_are_answered_before_anything_is_written(
    override: str, said: str, config: Path, tmp_path: Path
) -> None:
    result = call("train", str(config), *override.split("; "), "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert said in plain(result)
    assert "Traceback" not in plain(result)
    assert not (tmp_path / "run").exists()


def test_a_continuous_algorithm_on_discrete_data_is_refused(config: Path, tmp_path: Path) -> None:
    result = call(
        "train", str(config), "algo=only_box", "source.discrete=true", "evaluation={}", "--out", str(tmp_path)
    )
    assert result.exit_code == 2
    able = "bc, discrete_cql, discrete_iql, dqn, dt, iql, only_discrete."
    assert f"only_box needs a Box action space; toy has Discrete(5). Try: {able}" in plain(result)


def test_a_missing_or_broken_yaml_file_is_named(tmp_path: Path) -> None:
    assert "there is no such file" in plain(call("train", str(tmp_path / "no.yaml")))
    (tmp_path / "bad.yaml").write_text("a: 1\nb: [1\n")
    assert "bad.yaml, line" in plain(call("train", str(tmp_path / "bad.yaml")))
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "expected a mapping" in plain(call("train", str(tmp_path / "list.yaml")))


def test_an_unknown_dataset_is_answered_with_what_to_do(config: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    result = call(
        "train", str(config), "source={name: minari, id: nobody/nothing-v0, download: false}", "--out",
        str(tmp_path / "run"),
    )  # fmt: skip
    assert result.exit_code == 2
    assert "nobody/nothing-v0" in plain(result)
    assert "rlalgo collect" in plain(result)


def test_a_plugin_that_fails_at_import_is_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    result = call("train", str(config), "--plugin", str(tmp_path / "broken.py"), "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "broken.py' cannot be imported: ZeroDivisionError: division by zero" in plain(result)


def test_evaluate_prints_a_row_for_each_target_and_keeps_the_result(run: Path) -> None:
    result = call(
        "evaluate", str(run), "--episodes", "2", "--target-return", "1", "--target-return", "6", "--plugin", PLUGIN,
        "--checkpoint", "best",
    )  # fmt: skip
    assert result.exit_code == 0, plain(result)
    assert "target 1" in plain(result)
    assert "target 6" in plain(result)
    files = list((run / "evaluations").glob("evaluate_*.json"))
    values = json.loads(files[0].read_text())
    assert [len(p["returns"]) for p in values["policies"]] == [2, 2]
    assert values["checkpoint"] == find(run, "best").name


def test_evaluate_claims_no_spread_of_one_episode(run: Path) -> None:
    options = ("--target-return", "6", "--plugin", PLUGIN)
    one, two = (plain(call("evaluate", str(run), "--episodes", str(n), *options)) for n in (1, 2))
    row = one.partition("target 6")[2].split()
    assert (row[0], row[2], row[4]) == ("1", "–", "–")  # episodes, mean, sd, IQM, interval
    assert "–" not in two
    assert " to " in two.partition("target 6")[2]


@pytest.mark.filterwarnings("default::rlutils.training.callbacks.best.NoBestWarning")
def test_a_run_with_evaluators_alone(config: Path, tmp_path: Path) -> None:
    """Its numbers are printed, without headers of empty tables, and a wrong name to choose the best by is told."""
    folder = tmp_path / "run"
    evaluators = "evaluation={episodes: 0, evaluators: [{name: toy_error}]}"
    trained = call("train", str(config), "trainer.steps=20", evaluators, "callbacks=[{name: best, metric: toy/eror}]",
                   "--out", str(folder))  # fmt: skip
    assert trained.exit_code == 0, plain(trained)
    assert "warning: step 20: callbacks: best.metric: evaluations have no number 'toy/eror'" in plain(trained)
    assert ".py:" not in plain(trained)
    plugins = ("--plugin", PLUGIN, "--plugin", str(config.parent / "only.py"))
    evaluated = plain(call("evaluate", str(folder), *plugins))
    assert evaluated.startswith("step 20 toy_error/")
    assert "policy" not in evaluated
    reported = plain(call("report", str(folder)))
    assert "toy_error/" in reported
    assert "nothing was played" in reported
    assert "episodes" not in reported.partition("nothing was played")[0]
    assert "played again" not in reported


def test_play_prints_every_episode_and_films(run: Path, tmp_path: Path) -> None:
    result = call(
        "play", str(run), "--target-return", "8", "--episodes", "2", "--seed", "5", "--plugin", PLUGIN,
        "--video", str(tmp_path / "film.mp4"),
    )  # fmt: skip
    assert result.exit_code == 0, plain(result)
    assert "seed 5: return" in plain(result)
    assert "seed 6: return" in plain(result)
    import imageio.v3 as imageio

    frames = imageio.imread(tmp_path / "film.mp4", plugin="FFMPEG")
    assert len(frames) == 24  # two episodes of twelve steps
    without = call("play", str(run), "--target-return", "8", "--episodes", "2", "--seed", "5", "--plugin", PLUGIN)
    assert plain(without).split("video")[0].strip() == plain(result).split("video")[0].strip()


def test_play_refuses_options_that_the_policy_does_not_have(run: Path) -> None:
    result = call("play", str(run), "--option", "temperature=1", "--plugin", PLUGIN)
    assert result.exit_code == 2
    assert "unknown key 'temperature'" in plain(result)
    assert "--plugin" in plain(call("play", str(run)))  # the run's own plugin is named, not loaded


def test_commands_on_something_that_is_no_run(tmp_path: Path) -> None:
    for command in ("evaluate", "play", "report"):
        result = call(command, str(tmp_path))
        assert result.exit_code == 2, command
        assert str(tmp_path) in plain(result).replace(" ", "")
        assert "Traceback" not in plain(result)
    assert call("train", "--resume", str(tmp_path)).exit_code == 2


def test_plugins_lists_names_kinds_owners_and_options(config: Path) -> None:
    text = plain(call("plugins", "--plugin", PLUGIN))
    for part in ("algo dt", "encoder linear", "source minari", "env gym", "trainer offline", "callback csv",
                 "behavior ars", "evaluator toy_error"):  # fmt: skip
        assert part in text
    assert "K, steps that the model sees at once" in text
    assert "source toy" in text
    assert "toy_plugin.py" in text
    only = plain(call("plugins", "dt"))
    assert "algo dt" in only
    assert "algo bc" not in only
    assert call("plugins", "dtt").exit_code == 2


def test_blocked_plugins_are_gone(config: Path, tmp_path: Path) -> None:
    result = call("train", str(config), "--no-plugin", "dt", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "no algo called 'dt'" in plain(result)
    assert "no plugin called 'dtt' to block" in plain(call("plugins", "--no-plugin", "dtt"))


def test_schema_is_json_and_knows_plugins(tmp_path: Path) -> None:
    result = call("schema", "--plugin", PLUGIN)
    assert "source.toy" in json.loads(result.stdout)["definitions"]
    assert call("schema", "--out", str(tmp_path / "schema.json")).exit_code == 0
    assert "source.toy" not in json.loads((tmp_path / "schema.json").read_text())["definitions"]


def test_report_is_written_beside_the_run(run: Path) -> None:
    result = call("report", str(run))
    assert result.exit_code == 0, plain(result)
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_resume_from_the_command_line(config: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    assert call("train", str(config), "trainer.steps=20", "--out", folder).exit_code == 0
    result = call("train", "--resume", folder, "trainer.steps=30", "--plugin", PLUGIN, "--plugin",
                  str(config.parent / "only.py"))  # fmt: skip
    assert result.exit_code == 0, plain(result)
    assert read_yaml(tmp_path / "run" / "run.yaml")["step"] == 30
