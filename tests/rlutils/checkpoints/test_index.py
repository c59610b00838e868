"""Which checkpoint is the last and the best one; and that nothing else is ever removed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rlutils
from rlalgo.errors import CheckpointError
from rlutils.checkpoints.index import Index, read_index, write_index
from rlutils.checkpoints.store import find, mark_best, prune
from rlutils.reports.records import load_run_record
from tests.rlutils.runs import PLUGIN, equal, toy_config, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    rlutils.train(toy_config("bc"), out=folder)
    return folder


def test_what_a_person_puts_beside_the_checkpoints_stays(run: Path) -> None:
    folder = run / "checkpoints"
    own = ["step_x", "step_000000003.bak", "step_000000003", "step_000000010", "thesis", ".step_notes.tmp"]
    for name in own:
        shutil.copytree(find(run), folder / name)
    (find(run) / "notes.txt").write_text("the good one")
    (folder / "step_000000004").symlink_to(folder / "thesis")
    write_index(folder, Index("x", *(["step_000000060"] * 2), ["step_000000004", "step_000000060"]))
    prune(folder)
    assert all((folder / name / "model.safetensors").exists() for name in own)
    assert (folder / "step_000000004").is_symlink()
    write_index(folder, Index("x", "step_000000010", None, ["step_000000010", "step_000000060"]))
    prune(folder)
    assert [path.name for path in (folder / "step_000000060").iterdir()] == ["notes.txt"]
    assert read_index(folder) == Index("x", "step_000000010", None, ["step_000000010"])


def test_a_folder_of_others_in_the_way_is_not_written_over(run: Path) -> None:
    way = run / "checkpoints" / "step_000000070"
    way.mkdir()
    (way / "algo.yaml").write_text("mine: yes\n")
    with pytest.raises(CheckpointError, match=r"step_000000070 is in the way, and this run did not write it; move it"):
        rlutils.resume(run, ["trainer.steps=70"], plugins=[PLUGIN])
    assert [path.read_text() for path in way.iterdir()] == ["mine: yes\n"]
    assert find(run).name == "step_000000060"


def test_a_run_copied_without_its_index_still_plays_and_goes_on(run: Path) -> None:
    before = weights(run)
    (run / "checkpoints" / "index.json").unlink()
    shutil.copytree(find(run), run / "checkpoints" / "step_000000007")
    assert find(run).name == "step_000000060"
    assert equal(weights(run), before)
    with pytest.raises(CheckpointError, match=r"no checkpoint 'best'. Found: .*last \(step_000000060\)"):
        rlutils.load(run, "best")
    assert load_run_record(run).last_step == 60
    rlutils.resume(run, ["trainer.steps=70"], plugins=[PLUGIN])
    assert find(run).name == "step_000000070"
    assert (run / "checkpoints" / "step_000000007").is_dir()  # which nothing says is this run's


def test_a_checkpoints_own_path_plays(run: Path, tmp_path: Path) -> None:
    result = rlutils.evaluate(find(run), overrides=["evaluation.episodes=1"], plugins=[PLUGIN])
    assert result.step == 60
    assert len(list((run / "evaluations").glob("evaluate_*.json"))) == 1
    shutil.copytree(find(run), tmp_path / "alone")
    assert rlutils.load(tmp_path / "alone").name == "bc"
    alone = rlutils.evaluate(tmp_path / "alone", overrides=["env=toy", "evaluation.episodes=1"], plugins=[PLUGIN])
    assert alone.policies == result.policies
    assert len(list((tmp_path / "alone" / "evaluations").iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{}", "[" * 100_000, '{"run": 3}', '{"run": "x", "last": "../../etc"}',
        '{"run": "x", "last": "step_000000001"}', '{"run": "x", "complete": ["step_x"]}', '{"run": "x", "more": 1}',
        '{"run": "x", "complete": {"step_000000001": NaN}}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_an_index_of_another_make_is_refused_and_noted(content: Any, run: Path) -> None:
    file = run / "checkpoints" / "index.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=r"index\.json: .*; remove this index"):
        rlutils.load(run)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        prune(file.parent)
    assert (file.parent / "step_000000060").is_dir()
    assert any("index is left out" in note for note in load_run_record(run).notes)


def test_only_what_the_index_lists_is_called_best(run: Path) -> None:
    with pytest.raises(CheckpointError, match="does not list this checkpoint"):
        mark_best(run / "checkpoints" / "step_000000003")
    mark_best(find(run))
    assert json.loads((run / "checkpoints" / "index.json").read_text())["best"] == "step_000000060"
    assert find(run, "best") == find(run)


@pytest.mark.parametrize("which", ["../../run", "step_x", "/etc", ".", "index.json"])
def test_a_checkpoint_is_called_by_its_name_and_nothing_else(which: str, run: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find(run, which)


def test_a_folder_that_cannot_be_changed_is_told_in_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run / "checkpoints"
    write_index(folder, Index("x", "step_000000060", None, ["step_000000010", "step_000000060"]))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlutils.checkpoints.store.write_index", full)
    with pytest.raises(
        CheckpointError, match=r"cannot be removed: No space left on device; the last .* step_000000060"
    ):
        prune(folder)
    with pytest.raises(CheckpointError, match=r"index\.json: cannot be written: No space left on device"):
        mark_best(find(run))
    assert find(run).name == "step_000000060"
