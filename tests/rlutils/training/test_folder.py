"""A run's folder: what is refused, what is kept, and what happens when it goes away while a run is trained."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlutils
from rlalgo import hookimpl
from rlalgo.errors import CallbackFault, CheckpointError, ConfigError, RlalgoError
from rlutils.checkpoints.index import read_index
from rlutils.checkpoints.store import find
from rlutils.config.claim import ClaimError
from rlutils.config.files import read_yaml
from rlutils.config.recorded import changes
from rlutils.config.settings import Settings
from rlutils.training.folder import stage
from tests.rlutils.runs import PLUGIN, state, toy_config


def with_hook(monkeypatch: pytest.MonkeyPatch, hook: str, act: Callable[[Any, int], None]) -> dict[str, Any]:
    """A configuration whose callback does this, with the run and the step, in one hook."""
    cls = rlutils.catalogue([PLUGIN]).get("callback", "meddler").cls
    for name in [name for name in vars(cls) if name.startswith("rlalgo_on_")]:
        monkeypatch.delattr(cls, name)
    monkeypatch.setattr(cls, hook, hookimpl(lambda self, run: act(run, run.step)), raising=False)
    return toy_config("bc", callbacks=[{"name": "csv", "every": 10}, "best", "meddler"])


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("how", [{}, {"replace": True}, {"resume": True}])
@pytest.mark.parametrize("name", ["notes.txt", ".hidden", ".step_x.tmp", ".claim-mine", "run.yaml"])
def test_a_folder_of_something_else_is_never_touched(name: str, how: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(ConfigError, match="exists, is not empty and is not a run; choose another --out"):
        rlutils.train(toy_config("bc"), out=tmp_path / "run", **how)
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_what_a_killed_process_left_is_nothing(tmp_path: Path) -> None:
    for name in (".config.yaml.abcd_123.tmp", ".run.yaml.abcdefgh.tmp", ".step_000000020.tmp"):
        (tmp_path / name).touch()
    (tmp_path / ".claim-0123456789abcdef").mkdir()
    assert stage(tmp_path) == "free"
    rlutils.train(toy_config("bc"), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert stage(tmp_path) == "finished"


def test_settings_of_another_run_are_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rlutils.train(toy_config("bc"), out=run, trainer__steps=20)
    with pytest.raises(ConfigError, match=r"begun with other settings: seed: 0, now 1; evaluation.episodes: 3, now 2;"):
        rlutils.train(toy_config("bc"), out=run, resume=True, seed=1, evaluation__episodes=2, trainer__steps=20)
    with pytest.raises(ConfigError, match=r"trainer.steps: 10, but .* has made 20 updates already"):
        rlutils.train(toy_config("bc"), out=run, resume=True, trainer__steps=10)
    for arguments in ({"out": None}, {"out": run, "replace": True}):
        with pytest.raises(ConfigError, match="--continue goes on with the run in --out RUN, and never together with"):
            rlutils.train(toy_config("bc"), resume=True, **arguments)
    again = rlutils.train(toy_config("bc"), out=run, resume=True, trainer__steps=20, threads=2)
    assert (again.step, again.started) == (20, False)
    assert rlutils.train(toy_config("bc"), out=run, resume=True).step == 60
    assert read_yaml(run / "config.yaml")["trainer"]["steps"] == 60


def test_options_that_a_run_did_not_know_had_their_defaults(tmp_path: Path) -> None:
    run = rlutils.train(toy_config("bc"), out=tmp_path / "run", trainer__steps=20)
    settings: Settings = run.settings
    recorded = read_yaml(tmp_path / "run" / "config.yaml")
    assert changes(recorded, settings) == {}
    for keys in (["checkpoints"], ["device"], ["evaluation", "envs"], ["algo", "lr"], ["callbacks", 1, "mode"]):
        older = read_yaml(tmp_path / "run" / "config.yaml")
        place: Any = older
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        assert changes(older, settings) == {}
    for keys, path in ((["algo", "dropout"], "algo.dropout"), (["callbacks", 0, "every"], "callbacks.0.every")):
        older = read_yaml(tmp_path / "run" / "config.yaml")
        place = older
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        assert list(changes(older, settings)) == [path]  # the run has another value than the default
    assert next(iter(changes({**recorded, "algo": {"name": "dt"}}, settings))) == "algo.name"
    assert list(changes({**recorded, "later": 1}, settings)) == ["later"]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("last_and_best", [60]),
        ("all", [20, 25, 40, 50, 60]),
        (1, [60]),
        (2, [50, 60]),
        (9, [20, 25, 40, 50, 60]),
    ],
)
def test_so_many_checkpoints_are_kept(keep: Any, kept: list[int], tmp_path: Path) -> None:
    run = tmp_path / "run"
    rlutils.train(toy_config("bc", callbacks=[]), out=run, checkpoints__keep=keep)
    names = [f"step_{step:09d}" for step in kept]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["index.json", *names]
    index = read_index(run / "checkpoints")
    assert index is not None
    assert (index.complete, index.last, index.best) == (names, names[-1], None)
    rlutils.resume(run, ["checkpoints.keep=1", "trainer.steps=60"], plugins=[PLUGIN])  # and less is kept from then on
    assert [path.name for path in (run / "checkpoints").glob("step_*")] == [names[-1]]


@pytest.mark.parametrize("keep", ["none", 0, -1, 1.5, True])
def test_what_is_no_number_to_keep_is_refused(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints\.keep"):
        rlutils.train(toy_config("bc"), out=tmp_path / "run", checkpoints__keep=keep)


def test_a_step_that_is_saved_again_leaves_the_old_one_until_the_new_one_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(run: Any, step: int) -> None:
        index = read_index(run.folder / "checkpoints")
        assert index is not None
        seen.append((index.last, all(find(run.folder, name) for name in index.complete)))
        if len(seen) == 1:
            run.checkpoint(run.algo, step, {"generator": run.algo.generator.get_state(), "best": None, "waited": 0})

    from rlutils.training.trainer import OfflineTrainer

    keep = OfflineTrainer._keep

    def kept(self: Any, algo: Any, step: int, run: Any) -> None:
        algo.generator, run.algo = self.generator, algo
        keep(self, algo, step, run)

    monkeypatch.setattr(OfflineTrainer, "_keep", kept)
    config = with_hook(monkeypatch, "rlalgo_on_checkpoint", look)
    rlutils.train(config, out=tmp_path / "run", trainer__steps=20)
    assert seen == [("step_000000020", True), ("step_0000000020", True)]
    assert find(tmp_path / "run").name == "step_0000000020"
    assert rlutils.resume(tmp_path / "run", ["trainer.steps=40"], plugins=[PLUGIN]).step == 40


# --- what goes away, or cannot be written, while a run is trained ---


def at(step: int, act: Callable[[Path], Any]) -> Callable[[Any, int], None]:
    return lambda run, now: act(run.folder) if now == step else None


@pytest.mark.parametrize("name", ["", "checkpoints"])
def test_a_folder_removed_while_training_is_told(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    config = with_hook(monkeypatch, "rlalgo_on_step", at(30, lambda folder: shutil.rmtree(folder / name)))
    if name:  # the run goes on, and what it writes from then on is whole
        rlutils.train(config, out=tmp_path / "run")
        assert state(tmp_path / "run")["step"] == 60
    else:
        with pytest.raises(RlalgoError) as caught:
            rlutils.train(config, out=tmp_path / "run")
        assert "is this process's no longer (it was removed)" in one_line(caught.value)
        assert not (tmp_path / "run").exists()


def instead(path: Path) -> None:
    """A file where a folder was, a folder where a file was."""
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("name", ["checkpoints", "evaluations", "run.yaml", "metrics.csv", "checkpoints/index.json"])
def test_something_else_in_the_place_of_a_file_is_told(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    config = with_hook(monkeypatch, "rlalgo_on_step", at(30, lambda folder: instead(folder / name)))
    with pytest.raises(RlalgoError) as caught:
        rlutils.train(config, out=tmp_path / "run")
    assert name in one_line(caught.value)


def test_who_lost_the_folder_writes_nothing_more(tmp_path: Path, monkeypatch: Any) -> None:
    def take(folder: Path) -> None:
        (folder / ".claim").rename(folder / "theirs")
        for path in folder.rglob("*"):
            times[path] = path.stat().st_mtime_ns

    times: dict[Path, int] = {}
    config = with_hook(monkeypatch, "rlalgo_on_step", at(39, take))
    with pytest.raises(ClaimError, match=r"no longer \(it was removed\); nothing more is written"):
        rlutils.train({**config, "callbacks": ["meddler"]}, out=tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == times


def test_a_broken_tensorboard_folder_is_told_and_costs_no_training(tmp_path: Path, monkeypatch: Any) -> None:
    def block(run: Any, step: int) -> None:
        (run.folder / "tensorboard").write_text("")

    config = with_hook(monkeypatch, "rlalgo_on_start", block)
    config["callbacks"] = ["meddler", {"name": "tensorboard", "every": 10}]
    with pytest.raises(CallbackFault, match=r"step 0: callback 'tensorboard' failed in rlalgo_on_start: FileExists"):
        rlutils.train(config, out=tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 0


def test_so_is_a_disk_that_tensorboard_fills(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(run: Any, step: int) -> None:
        monkeypatch.setattr(RecordWriter, "write", full)
        monkeypatch.setattr(RecordWriter, "flush", full)

    config = with_hook(monkeypatch, "rlalgo_on_start", fill)
    config["callbacks"] = [{"name": "tensorboard", "every": 1}, "meddler"]
    with pytest.raises(CallbackFault, match=r"callback 'tensorboard' failed in rlalgo_on_.*No space left") as caught:
        rlutils.train(config, out=tmp_path / "run")
    assert not getattr(caught.value, "__notes__", [])
    assert "Traceback" not in "".join(capfd.readouterr())
    assert find(tmp_path / "run")


def test_a_run_without_a_checkpoint_says_how_to_begin_it_again(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rlutils.training.folder.write_json", full)
        with pytest.raises(CheckpointError, match="run: No space left on device; there is no checkpoint yet") as caught:
            rlutils.train(toy_config("bc"), out=tmp_path / "run")
        one_line(caught.value)
    assert stage(tmp_path / "run") == "begun"
    with pytest.raises(CheckpointError, match=r"begin it again: rlalgo train .*config.yaml --out .*run --continue"):
        rlutils.resume(tmp_path / "run", plugins=[PLUGIN])
    rlutils.train(tmp_path / "run" / "config.yaml", out=tmp_path / "run", resume=True)
    assert stage(tmp_path / "run") == "finished"
