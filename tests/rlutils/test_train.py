"""Training runs: what they leave behind, resuming, stopping, failing; on a toy problem."""

from __future__ import annotations

import csv
import json
import re
import signal
import time
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import rlutils
from rlalgo import Controller
from rlalgo.batchrl.bc import BC
from rlalgo.errors import CallbackFault, CheckpointError, ConfigError, DataError, RlalgoError, TrainingError
from rlutils.checkpoints.store import find
from rlutils.checkpoints.training_state import load_trainer_state, write_trainer_state
from rlutils.config.claim import ClaimError
from rlutils.config.files import read_yaml, write_yaml
from rlutils.evaluation.evaluate import NotFiniteWarning
from rlutils.machine import pick_device
from rlutils.training.run import ScheduleWarning
from tests.rlutils.runs import PLUGIN, command, equal, state, toy_config, weights


def evaluations(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((folder / "evaluations").glob("step_*.json"))]
    for values in found:
        values.pop("seconds")
    return found


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def meddling(**options: Any) -> list[dict[str, Any]]:
    return [{"name": "csv", "every": 10}, {"name": "best"}, {"name": "meddler", **options}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One DT run to its end."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    rlutils.train(toy_config(), out=folder)
    return folder


def test_a_run_leaves_all_that_is_needed_to_read_and_repeat_it(finished: Path) -> None:
    record = read_yaml(finished / "run.yaml")
    assert record["state"] == "finished"
    assert record["step"] == 60
    assert record["command"].startswith("rlalgo train")
    assert {"python", "torch", "numpy"} <= set(record["versions"])
    assert [int(row["step"]) for row in metrics(finished)] == [10, 20, 30, 40, 50, 60]
    assert all(np.isfinite(float(row["actor/loss"])) for row in metrics(finished))
    assert [e["step"] for e in evaluations(finished)] == [20, 40, 60]
    last = evaluations(finished)[-1]
    assert [p["label"] for p in last["policies"]] == ["target_return=0", "target_return=8"]
    assert all(len(p["returns"]) == 3 and p["seeds"] == [10**6 + i for i in range(3)] for p in last["policies"])
    data = json.loads((finished / "data.json").read_text())
    assert (data["name"], data["episodes"], data["steps"]) == ("toy", 40, 480)
    assert {row["name"] for row in read_yaml(finished / "plugins.yaml")} >= {
        "toy",
        "dt",
        "linear",
        "offline",
        "csv",
    }
    # The resolved configuration is a configuration, and says every default.
    assert read_yaml(finished / "config.yaml")["algo"]["weight_decay"] == 1e-4


def test_last_and_best_are_kept_apart_and_named(finished: Path) -> None:
    checkpoints = finished / "checkpoints"
    scores = {e["step"]: e["score"] for e in evaluations(finished)}
    best = max(scores, key=lambda step: (scores[step], -step))
    index = json.loads((checkpoints / "index.json").read_text())
    assert (index["last"], index["best"]) == ("step_000000060", f"step_{best:09d}")
    assert not any(path.is_symlink() for path in finished.rglob("*"))
    assert read_yaml(finished / "run.yaml")["best_step"] == best
    # Nothing but what the two names point at is kept.
    assert {p.name for p in checkpoints.glob("step_*")} == {"step_000000060", f"step_{best:09d}"}


def test_a_loaded_policy_plays_the_very_episodes_of_the_last_evaluation(finished: Path) -> None:
    again = rlutils.evaluate(finished, plugins=[PLUGIN])
    then = evaluations(finished)[-1]["policies"]
    assert [p.returns for p in again.policies] == [p["returns"] for p in then]
    written = list((finished / "evaluations").glob("evaluate_*.json"))
    assert len(written) == 1
    assert json.loads(written[0].read_text())["source"] == "evaluate"
    written[0].unlink()


def test_controller_takes_and_gives_numpy(finished: Path) -> None:
    algo = rlutils.load(finished)
    controller = Controller(algo.policy([algo.PolicyConfig(target_return=5.0)]))
    controller.reset()
    action = controller.act(np.zeros(2, np.float32))
    assert action.shape == (2,)
    assert action.dtype == np.float32
    controller.observe(1.0)
    assert algo.spec.action_space.contains(controller.act(np.ones(2)))


def test_a_checkpoint_folder_loads_on_its_own(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(find(finished), tmp_path / "copied")
    mine, theirs = rlutils.load(tmp_path / "copied").state_dict(), rlutils.load(finished).state_dict()
    assert equal(mine, theirs)


@pytest.mark.parametrize("algo", ["dt", "bc"])
@pytest.mark.parametrize("at", [20, 33, 50])
def test_resume_is_bit_equal_to_a_run_never_stopped(algo: str, at: int, tmp_path: Path) -> None:
    rlutils.train(toy_config(algo), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=f"SIGTERM after step {at}"):
        rlutils.train(toy_config(algo, callbacks=meddling(at=at)), out=tmp_path / "parts")
    assert read_yaml(tmp_path / "parts" / "run.yaml")["state"] == "interrupted"
    torch.rand(7)  # whatever happened in between does not matter
    rlutils.resume(tmp_path / "parts", ["callbacks=[{name: csv, every: 10}, {name: best}]"], plugins=[PLUGIN])
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert equal(weights(tmp_path / "whole", "best"), weights(tmp_path / "parts", "best"))
    assert equal(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "parts")


def test_resume_cuts_back_what_was_logged_beyond_the_checkpoint(tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(CallbackFault, match=r"step 39: callback 'meddler' failed in rlalgo_on_step.*the meddler broke"):
        rlutils.train(toy_config(callbacks=meddling(at=39, how="raise")), out=parts)
    assert state(parts)["step"] == 39  # what is learnt is saved before the fault is told
    assert [int(row["step"]) for row in metrics(parts)] == [10, 20, 30]
    rlutils.resume(parts, ["callbacks=[{name: csv, every: 10}, {name: best}]"], plugins=[PLUGIN])
    assert metrics(tmp_path / "whole") == metrics(parts)
    assert equal(weights(tmp_path / "whole"), weights(parts))


def test_a_resumed_run_can_be_made_longer_but_not_another_one(finished: Path, tmp_path: Path) -> None:
    run = rlutils.train(toy_config(), out=tmp_path / "run")
    assert run.step == 60
    longer = rlutils.resume(tmp_path / "run", ["trainer.steps=80"], plugins=[PLUGIN])
    assert longer.step == 80
    (tmp_path / "over.yaml").write_text("algo: {lr: 1}\n")
    for override in ("algo.lr=1", str(tmp_path / "over.yaml")):
        with pytest.raises(ConfigError, match=r"algo: a resumed run keeps its algo"):
            rlutils.resume(tmp_path / "run", [override], plugins=[PLUGIN])
    (tmp_path / "seed.yaml").write_text("trainer: {steps: 90}\n")
    assert rlutils.resume(tmp_path / "run", [str(tmp_path / "seed.yaml")], plugins=[PLUGIN]).step == 90


def test_a_learning_rate_that_falls_keeps_its_schedule_in_a_longer_run(tmp_path: Path) -> None:
    """Stretched to the new steps, it would jump up from the end that it has reached."""
    config = toy_config("bc")
    config["algo"] |= {"final_lr": 0.1, "lr": 1e-2}
    rlutils.train(config, out=tmp_path / "run")
    with pytest.warns(ScheduleWarning, match=r"keeps the schedule of 60 updates .* train a new run for one of 80"):
        rlutils.resume(tmp_path / "run", ["trainer.steps=80"], plugins=[PLUGIN])
    assert state(tmp_path / "run")["optimizers"]["actor"]["param_groups"][0]["lr"] == pytest.approx(1e-3)


def test_a_warmup_that_is_longer_than_the_run_is_told_once(tmp_path: Path) -> None:
    config = toy_config("bc")
    config["algo"]["warmup"] = 61
    with pytest.warns(ScheduleWarning, match=r"warmup: 61 updates are more than the run's 60: lr is never") as said:
        rlutils.train(config, out=tmp_path / "run")
    assert len(said) == 1
    rlutils.resume(tmp_path / "run", ["trainer.steps=61"], plugins=[PLUGIN])  # not told any more


def test_training_leaves_the_number_of_threads_as_it_was(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rlutils.train(toy_config("bc"), out=tmp_path / "run")
        assert torch.get_num_threads() == 2
        rlutils.resume(tmp_path / "run", ["trainer.steps=70"], plugins=[PLUGIN])
        assert torch.get_num_threads() == 2
        wrong = {"algo": {"name": "bc", "gaussian": True}, "source": {"name": "toy", "discrete": True}}
        with pytest.raises(ConfigError, match="gaussian is for continuous actions"):
            rlutils.train({**toy_config("bc"), **wrong}, out=tmp_path / "wrong")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_a_resume_overrides_holds_for_the_next_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rlutils.train(toy_config("bc"), out=run)
    over = ["trainer.steps=90", "callbacks=[{name: meddler, at: 70}]"]
    with pytest.raises(KeyboardInterrupt, match="after step 70"):
        rlutils.resume(run, over, plugins=[PLUGIN])
    config = read_yaml(run / "config.yaml")
    assert (config["trainer"]["steps"], config["plugins"]) == (90, [PLUGIN])
    assert "meddler" in {row["name"] for row in read_yaml(run / "plugins.yaml")}
    with pytest.raises(ConfigError, match=r"trainer\.steps: 60, but .* has made 70 updates already"):
        rlutils.resume(run, ["trainer.steps=60"], plugins=[PLUGIN])
    assert read_yaml(run / "config.yaml") == config
    assert rlutils.resume(run, plugins=[PLUGIN]).step == 90


@pytest.mark.parametrize("what", ["optimizers", "schedulers", "groups"])
def test_a_run_of_other_optimizers_does_not_go_on(what: str, tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "run")
    path = find(tmp_path / "run")
    content = load_trainer_state(path)
    if what == "groups":
        content.optimizers["model"]["param_groups"] *= 2
    else:
        content = changed(content, **{what: {"actor": getattr(content, what)["model"]}})
    write_trainer_state(path, content)
    with pytest.raises(CheckpointError, match=r"another version of dt or of torch wrote this.*train it anew"):
        rlutils.resume(tmp_path / "run", ["trainer.steps=70"], plugins=[PLUGIN])
    rlutils.load(tmp_path / "run")


def test_a_resumed_run_may_take_other_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rlutils.train(toy_config("bc"), out=tmp_path / "run")
    sizes: list[int] = []
    update = BC.update

    def counted(self: BC, batch: Any, step: int) -> Any:
        sizes.extend([] if batch.rewards.is_meta else [len(batch.rewards)])  # without memory: its need is being found
        return update(self, batch, step)

    monkeypatch.setattr(BC, "update", counted)
    rlutils.resume(tmp_path / "run", ["trainer.steps=200", "trainer.batch_size=24"], plugins=[PLUGIN])
    assert sizes == [24] * 140


def test_a_run_does_not_go_on_with_data_of_another_kind(tmp_path: Path) -> None:
    run = rlutils.train(toy_config("bc"), out=tmp_path / "run")
    for name in ("algo.yaml",):
        path = find(run.folder) / name
        facts = read_yaml(path)
        facts["spec"]["frame_stack"] = 2
        write_yaml(path, facts)
    with pytest.raises(CheckpointError, match=r"learnt with the frame_stack 2, and .* has 1 now; train anew"):
        rlutils.resume(run.folder, ["trainer.steps=80"], plugins=[PLUGIN])


def test_a_run_is_not_evaluated_with_data_of_another_kind_nor_as_another_algorithm(tmp_path: Path) -> None:
    config = toy_config("bc", evaluation={"episodes": 0, "evaluators": ["toy_error"]})
    run = rlutils.train(config, out=tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"learnt with the action_space Box.*, and toy has Discrete.* data of that"
    ):
        rlutils.evaluate(run.folder, overrides=["source.discrete=true"], plugins=[PLUGIN])
    with pytest.raises(ConfigError, match=r"algo: .*cannot be overridden; train another run"):
        rlutils.evaluate(run.folder, overrides=["algo.lr=3"], plugins=[PLUGIN])
    assert rlutils.evaluate(run.folder, overrides=["source.episodes=9"], plugins=[PLUGIN]).metrics


def test_evaluating_more_often_does_not_change_the_weights(finished: Path, tmp_path: Path) -> None:
    config = toy_config()
    config["evaluation"] = {**config["evaluation"], "every": 7, "episodes": 1}
    rlutils.train(config, out=tmp_path / "often")
    assert equal(weights(finished), weights(tmp_path / "often"))


def test_the_seed_decides_everything(finished: Path, tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "same")
    rlutils.train(toy_config(), out=tmp_path / "other", seed=1)
    assert equal(weights(finished), weights(tmp_path / "same"))
    assert not equal(weights(finished), weights(tmp_path / "other"))


def test_nan_stops_with_step_and_metric_and_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 34: actor/loss is nan"):
        rlutils.train(toy_config(callbacks=meddling(at=33, how="nan")), out=tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 25
    assert all(torch.isfinite(w).all() for w in weights(tmp_path / "run").values())
    record = read_yaml(tmp_path / "run" / "run.yaml")
    assert record["state"] == "failed"
    assert "step 34" in record["error"]


def test_an_exploding_loss_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 1: actor/loss is "):
        rlutils.train(toy_config(), out=tmp_path / "run", trainer__max_loss=1e-9)


def test_patience_stops_early_and_says_so(tmp_path: Path) -> None:
    config = toy_config("bc")
    config["algo"] = {**config["algo"], "lr": 1e-30}  # nothing is learnt, so nothing gets better
    config["trainer"] = {**config["trainer"], "patience": 2, "steps": 1000}
    run = rlutils.train(config, out=tmp_path / "run")
    assert run.step == 60  # the first evaluation, at 20, and two more
    record = read_yaml(tmp_path / "run" / "run.yaml")
    assert record["state"] == "finished"
    assert "patience" in record["stopped"]


def test_a_callback_may_stop_the_run(tmp_path: Path) -> None:
    run = rlutils.train(toy_config(callbacks=meddling(at=13, how="stop")), out=tmp_path / "run")
    assert run.step == 13
    assert run.stopped == "enough"
    assert state(tmp_path / "run")["step"] == 13


def test_evaluators_measure_without_an_environment(tmp_path: Path) -> None:
    config = toy_config("bc", callbacks=[{"name": "best", "metric": "toy_error/mse", "mode": "min"}])
    config["evaluation"] = {"every": 20, "episodes": 0, "evaluators": ["toy_error"]}
    run = rlutils.train(config, out=tmp_path / "run")
    errors = {e["step"]: e["metrics"]["toy_error/mse"] for e in evaluations(tmp_path / "run")}
    assert len(errors) == 3
    assert run.best_step == min(errors, key=errors.__getitem__)
    assert all(e["policies"] == [] and e["score"] is None for e in evaluations(tmp_path / "run"))


def test_an_evaluator_that_measures_nonsense_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = rlutils.catalogue([PLUGIN]).get("evaluator", "toy_error").cls
    monkeypatch.setattr(cls, "evaluate", lambda *_: {"mse": float("inf"), "n": 3})
    config = toy_config("bc", callbacks=[{"name": "best", "metric": "toy_error/mse"}])
    config["evaluation"] = {"every": 0, "episodes": 0, "evaluators": ["toy_error"]}
    with pytest.warns(NotFiniteWarning, match="step 60: the evaluator toy_error gave mse = inf"):
        run = rlutils.train(config, out=tmp_path / "run")
    assert (run.step, run.best_step) == (60, None)
    assert evaluations(tmp_path / "run")[0]["metrics"] == {"toy_error/mse": None, "toy_error/n": 3}
    with pytest.warns(NotFiniteWarning):
        assert np.isnan(rlutils.evaluate(tmp_path / "run", plugins=[PLUGIN]).metrics["toy_error/mse"])


def test_scores_are_only_normalized_in_the_environment_they_belong_to(finished: Path, tmp_path: Path) -> None:
    policy = evaluations(finished)[-1]["policies"][0]
    assert policy["normalized"] == pytest.approx(100 * (policy["mean"] + 10) / 20)
    run = rlutils.train(toy_config(env={"name": "toy", "id": "Point-v9"}), out=tmp_path / "run")
    assert run.last_result is not None
    assert all(p.normalized is None for p in run.last_result.policies)


def test_a_device_that_is_not_here_is_answered_with_what_may_be() -> None:
    with pytest.raises(
        ConfigError, match=r"'gpu' cannot be used here; choose auto, cpu, cuda, cuda:N or mps"
    ) as caught:
        pick_device("gpu")
    assert "hpu" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"'cuda:99' cannot be used here \(.+\); choose"):
        pick_device("cuda:99")


def test_bad_data_stops_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy: episode 1, step 3: reward nan"):
        rlutils.train(toy_config(source={"name": "toy", "bad_step": 3}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_in_the_way_is_not_touched_unless_told_to(finished: Path, tmp_path: Path) -> None:
    before = weights(finished)
    with pytest.raises(ConfigError, match="--replace"):
        rlutils.train(toy_config(), out=finished, seed=5)
    assert equal(before, weights(finished))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not a run"):
        rlutils.train(toy_config(), out=tmp_path / "precious", replace=True)
    assert (tmp_path / "precious" / "thesis.tex").exists()
    rlutils.train(toy_config(), out=tmp_path / "run")
    assert rlutils.train(toy_config(), out=tmp_path / "run", replace=True, seed=3).step == 60


@pytest.mark.parametrize("fault", ["env", "evaluator", "data", "memory"])
def test_a_refused_run_deletes_nothing_and_leaves_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlutils.train(toy_config("bc"), out=tmp_path / "run", trainer__steps=5)
    before = weights(tmp_path / "run")
    config = toy_config("dt" if fault == "evaluator" else "bc")
    if fault == "env":
        config["env"] = {"name": "gym", "id": "CartPole-v1"}
    elif fault == "evaluator":
        config["evaluation"] = {"episodes": 0, "evaluators": ["fqe"]}  # which needs another kind of policy
    elif fault == "data":
        monkeypatch.setattr(BC, "dataset", lambda *_: (_ for _ in ()).throw(DataError("nothing to learn from")))
    else:
        config["algo"] = {"name": "bc", "hidden_dims": [999_999, 999_999]}
    said = {"env": "CartPole", "evaluator": "fqe needs", "data": "nothing", "memory": "does not fit into the memory"}
    for name in ("run", "new"):
        with pytest.raises(RlalgoError, match=said[fault]):
            rlutils.train(config, out=tmp_path / name, replace=True)
    assert equal(before, weights(tmp_path / "run"))
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for replace in (False, True):
        with pytest.raises(ConfigError, match=r"file is a file, and a run needs a folder; choose another --out"):
            rlutils.train(toy_config(), out=tmp_path / "file", replace=replace)
    assert (tmp_path / "file").is_file()
    with pytest.raises(ClaimError, match="cannot be written"):
        rlutils.train(toy_config(), out=tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate model.safetensors", "cannot be read as safetensors"),
        ("empty model.safetensors", "cannot be read as safetensors"),
        ("pickle model.safetensors", "cannot be read as safetensors"),
        ("remove algo.yaml", "no checkpoint|not a complete checkpoint"),
        ("foreign algo.yaml", "algo: Field required"),
    ],
)
def test_damaged_checkpoints_are_refused_by_name(damage: str, message: str, finished: Path, tmp_path: Path) -> None:
    import pickle
    import shutil

    shutil.copytree(find(finished), tmp_path / "copy")
    how, name = damage.split()
    file = tmp_path / "copy" / name
    if how == "truncate":
        file.write_bytes(file.read_bytes()[:-40])
    elif how == "remove":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "foreign": b"a: 1\n", "pickle": pickle.dumps(Bomb())}[how])
    with pytest.raises(CheckpointError, match=message):
        rlutils.load(tmp_path / "copy")


class Bomb:
    """Fails the test if anything ever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a checkpoint was unpickled",))


@pytest.mark.parametrize("name", ["trainer.json", "trainer.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", "pickle", "foreign", "deep"])
def test_a_damaged_trainer_state_is_refused_on_resume_and_never_unpickled(
    content: Any, name: str, tmp_path: Path
) -> None:
    import pickle

    rlutils.train(toy_config(), out=tmp_path / "run")
    file = find(tmp_path / "run") / name
    if content == "pickle":
        content = pickle.dumps(Bomb())
    elif content == "foreign":
        content = b'{"a": 1}' if name == "trainer.json" else safetensors.torch.save({"model": torch.zeros(3)})
    elif content == "deep":
        content = b"[" * 100_000
    file.write_bytes(content)
    before = [(tmp_path / "run" / name).read_text() for name in ("config.yaml", "run.yaml", "plugins.yaml")]
    with pytest.raises(CheckpointError, match=re.escape(name)):
        rlutils.resume(tmp_path / "run", ["trainer.steps=70"], plugins=[PLUGIN])
    assert before == [(tmp_path / "run" / name).read_text() for name in ("config.yaml", "run.yaml", "plugins.yaml")]
    rlutils.load(tmp_path / "run")  # playing needs only the other two files


def test_missing_checkpoints_say_what_there_is(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 'step_000000007'.*best.*last"):
        rlutils.load(finished, "step_000000007")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        rlutils.load(tmp_path / "nowhere")


def test_what_a_plugin_provided_is_named_not_imported(finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"source 'toy' came from plugin .*toy_plugin\.py.*--plugin"):
        rlutils.resume(finished, ["trainer.steps=70"])


def test_a_fault_at_the_end_of_one_callback_does_not_hide_the_others(tmp_path: Path) -> None:
    with pytest.raises(CallbackFault, match=r"step 60: callback 'meddler' failed in rlalgo_on_end.*broke at the end"):
        rlutils.train(
            toy_config(callbacks=[{"name": "meddler", "how": "end"}, {"name": "tensorboard"}]),
            out=tmp_path / "run",
        )
    assert read_yaml(tmp_path / "run" / "run.yaml")["state"] == "finished"
    with pytest.raises(TrainingError) as failed:
        rlutils.train(
            toy_config(callbacks=[{"name": "meddler", "how": "end"}]),
            out=tmp_path / "bad",
            trainer__max_loss=1e-9,
        )
    assert "broke at the end" in failed.value.__notes__[0]


def test_python_overrides_reach_nested_settings(tmp_path: Path) -> None:
    run = rlutils.train(toy_config(), out=tmp_path / "run", algo__lr=5e-4, trainer__steps=20, seed=4)
    assert run.settings.algo.config.lr == 5e-4
    assert run.settings.trainer.config.steps == 20
    assert run.settings.seed == 4


# --- in a process of its own ---


def wait_for(path: Path, process: Any) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def endless(tmp_path: Path, **changes: Any) -> Path:
    config = toy_config(**changes)
    config["trainer"] = {**config["trainer"], "steps": 1_000_000, "checkpoint_every": 50}
    config["evaluation"] = {**config["evaluation"], "every": 0}
    write_yaml(tmp_path / "config.yaml", config)
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_exits_cleanly(number: int, status: int, tmp_path: Path) -> None:
    process = command("train", str(endless(tmp_path)), "--out", str(tmp_path / "run"))
    wait_for(tmp_path / "run" / "checkpoints" / "index.json", process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert "a checkpoint is written" in error
    assert "Traceback" not in error
    assert f"after step {state(tmp_path / 'run')['step']};" in error
    assert read_yaml(tmp_path / "run" / "run.yaml")["state"] == "interrupted"


def test_kill_9_leaves_the_last_complete_checkpoint(tmp_path: Path) -> None:
    process = command("train", str(endless(tmp_path)), "--out", str(tmp_path / "run"))
    wait_for(tmp_path / "run" / "checkpoints" / "index.json", process)
    time.sleep(0.317)
    process.kill()
    process.communicate()
    reached = state(tmp_path / "run")["step"]
    assert reached % 50 == 0
    goal = reached + 40
    rlutils.resume(tmp_path / "run", [f"trainer.steps={goal}"], plugins=[PLUGIN])
    config = read_yaml(tmp_path / "config.yaml")
    config["trainer"]["steps"] = goal
    rlutils.train(config, out=tmp_path / "whole")
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_a_full_disk_stops_the_run_and_keeps_the_last_complete_checkpoint(tmp_path: Path) -> None:
    # A limit on the size of files makes writing fail as a full disk does, without root: the third checkpoint fails.
    (tmp_path / "limit.py").write_text(
        "import resource\nfrom rlalgo import hookimpl\n"
        "@hookimpl\ndef rlalgo_on_checkpoint(run, step):\n"
        "    if step == 100:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    )
    config = read_yaml(endless(tmp_path, callbacks=[{"name": "best"}]))
    config["plugins"] = [PLUGIN, "./limit.py"]
    write_yaml(tmp_path / "config.yaml", config)
    process = command("train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert "cannot write checkpoint" in error
    assert "step_000000150" in error
    assert "the last complete checkpoint is step_000000100" in error
    assert "Traceback" not in error
    assert state(tmp_path / "run")["step"] == 100
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    rlutils.load(tmp_path / "run")


def test_a_policy_that_cannot_be_played_is_refused_before_training(tmp_path: Path) -> None:
    config = toy_config("bc")
    config["evaluation"] = {**config["evaluation"], "policies": [{"sample": True}]}
    with pytest.raises(ConfigError, match=r"evaluation\.policies: sample: true needs"):
        rlutils.train(config, out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
