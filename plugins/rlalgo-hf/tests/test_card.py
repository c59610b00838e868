"""Model cards: the hub's own loader reads them, and what they say how to do is done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from rlalgo_hf.card import model_card
from rlalgo_hf.exporting import export_hf
from rlalgo_hf.importing import import_hf
from their_models import PLAYED, checkpoint, data, played_by_card, their_model

import rlutils
from rlalgo.errors import RlalgoError
from rlutils.checkpoints.index import step_of_name
from rlutils.checkpoints.store import find
from rlutils.config.files import read_json, write_json
from rlutils.evaluation.play import play
from tests.rlutils.runs import PLUGIN, toy_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    rlutils.train(toy_config(), out=folder)
    return folder


def read(folder: Path) -> ModelCard:
    card = ModelCard.load(folder / "README.md")
    assert "\n\n\n\n" not in card.text
    return card


def test_the_hub_reads_the_results_with_their_intervals(trained: Path, tmp_path: Path) -> None:
    folder = export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    card, (played,) = read(folder), read_json_results(trained, 60)
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "reinforcement-learning")
    assert {"decision-transformer", "offline-reinforcement-learning", "Point"} <= set(card.data.tags)
    for found, policy in zip(card.data.eval_results, played["policies"], strict=True):
        assert (found.task_type, found.dataset_type, found.metric_type) == (
            "reinforcement-learning",
            "Point",
            "mean_reward",
        )
        assert found.metric_value == policy["mean"]
        assert found.metric_args["interval_95"] == policy["interval"]
        assert (found.metric_args["episodes"], found.metric_args["first_seed"]) == (3, 10**6)
    assert "not with D4RL's" in card.text
    assert "with random −10.0 and expert 10.0, as stored with the data" in card.text
    assert "here 0, 8" in card.text


def read_json_results(run: Path, step: int) -> list[dict[str, Any]]:
    return [read_json(path) for path in (run / "evaluations").glob(f"step_{step:09d}.json")]


def test_results_of_other_checkpoints_are_not_the_metadata(tmp_path: Path) -> None:
    rlutils.train(toy_config(callbacks=[{"name": "best", "mode": "min"}]), out=tmp_path / "run")
    steps = [step_of_name(find(tmp_path / "run", which).name) or 0 for which in ("best", "last")]
    assert steps[0] < steps[1]
    for which, step in zip(("best", "last"), steps, strict=True):
        (tmp_path / "README.md").write_text(model_card(tmp_path / "run", which))
        (played,) = read_json_results(tmp_path / "run", step)
        means = [policy["mean"] for policy in played["policies"]]
        assert [result.metric_value for result in read(tmp_path).data.eval_results] == means


def test_the_newest_results_of_the_checkpoint_are_the_metadata(tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "run")
    again = rlutils.evaluate(tmp_path / "run", overrides=["evaluation.episodes=7"], plugins=[PLUGIN])
    (tmp_path / "README.md").write_text(model_card(tmp_path / "run"))
    found = read(tmp_path).data.eval_results
    assert [result.metric_value for result in found] == [policy.mean for policy in again.policies]
    assert {result.metric_args["episodes"] for result in found} == {7}


@pytest.mark.parametrize("algo", ["dt", "bc"])
def test_a_whole_run_of_any_algorithm_has_a_card(algo: str, tmp_path: Path) -> None:
    rlutils.train(toy_config(algo), out=tmp_path / "run")
    (tmp_path / "README.md").write_text(model_card(tmp_path / "run", "best", repo="me/point"))
    card = read(tmp_path)
    assert (card.data.library_name, algo in card.data.tags) == ("rlalgo", True)
    assert 'load("hf://me/point")' in card.text
    assert "rlalgo pull me/point --out" in card.text
    assert ("Target returns" in card.text) == (algo == "dt")
    assert "State statistics" not in card.text  # a run normalizes by itself


def test_a_run_that_has_played_nothing_has_a_card(tmp_path: Path) -> None:
    import_hf(str(checkpoint(tmp_path / "theirs")), tmp_path / "run", PLAYED, target_returns=[8.0])
    card = read(export_hf(tmp_path / "run", tmp_path / "out"))
    assert card.data.eval_results is None
    assert "Nothing was played yet." in card.text
    assert "Imported, not trained further" in card.text
    with pytest.raises(RlalgoError, match="not a run folder"):
        model_card(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("film.mp4", '<video controls autoplay loop muted src="replay.mp4">'), ("a.gif", "](replay.gif)")],
)
def test_the_film_comes_along(name: str, shown: str, tmp_path: Path) -> None:
    import_hf(str(checkpoint(tmp_path / "theirs")), tmp_path / "run", PLAYED, target_returns=[8.0])
    play(tmp_path / "run", {}, video=tmp_path / "run" / name)
    folder = export_hf(tmp_path / "run", tmp_path / "out")
    assert shown in read(folder).text
    assert (folder / f"replay{Path(name).suffix}").read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert name in model_card(tmp_path / "run")


def test_what_data_calls_itself_is_no_markup(tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "run")
    name = "x|y](http://evil) <script>alert(1)</script>\n# Owned\n---\nlicense: mit"
    write_json(tmp_path / "run" / "data.json", {**read_json(tmp_path / "run" / "data.json"), "name": name})
    for file in (tmp_path / "run" / "evaluations").glob("*.json"):
        write_json(file, {**read_json(file), "env_id": name})
    (tmp_path / "README.md").write_text(model_card(tmp_path / "run"))
    card = read(tmp_path)
    assert card.data.eval_results[0].dataset_name == name
    assert card.data.license is None
    assert not re.search(r"(?<!\\)<script|^# Owned|(?<!\\)\]\(http://evil", card.text, re.MULTILINE)


@pytest.mark.parametrize(("target", "tanh"), [(8.0, True), (None, True), (8.0, False)])
def test_what_the_card_says_how_to_run_in_transformers_is_what_we_play(
    target: float | None, tanh: bool, tmp_path: Path
) -> None:
    """Without tanh, actions beyond the game's bounds."""
    theirs = checkpoint(tmp_path / "theirs", their_model(action_tanh=tanh))
    source = data(tmp_path / "toy.npz").split()
    targets = [] if target is None else [target]
    import_hf(str(theirs), tmp_path / "run", PLAYED, dataset=source, target_returns=targets)
    rlutils.evaluate(tmp_path / "run", overrides=["evaluation.episodes=1"])
    folder = export_hf(tmp_path / "run", tmp_path / "out")
    assert played_by_card(folder) == pytest.approx(play(tmp_path / "run", {})[0].ret, abs=0.06)
