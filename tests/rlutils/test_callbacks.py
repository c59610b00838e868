"""Callbacks and the run-time hooks that they live by."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from types import SimpleNamespace as Thing

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlutils
from rlutils.callbacks import Averager
from rlutils.callbacks.best import Best
from rlutils.callbacks.csv import read_rows
from tests.rlutils.runs import PLUGIN, toy_config


@pytest.mark.covers_hook(
    "rlalgo_on_start", "rlalgo_on_step", "rlalgo_on_evaluation", "rlalgo_on_checkpoint", "rlalgo_on_end"
)
def test_run_time_hooks_are_called_in_the_order_of_the_run(tmp_path: Path) -> None:
    run = rlutils.train(toy_config(callbacks=[{"name": "meddler"}]), out=tmp_path / "run", trainer__steps=41)
    calls = run.callbacks[0].calls
    expected = ["start"]
    for step in range(1, 42):
        expected.append(f"step {step}")
        if step in (20, 40, 41):
            expected.append(f"evaluation {step} 2")
        if step in (20, 25, 40, 41):
            expected.append(f"checkpoint {step}")
    assert calls == [*expected, "end NoneType"]


def test_a_failed_run_ends_with_its_error(tmp_path: Path) -> None:
    config = toy_config(callbacks=[{"name": "meddler", "at": 3, "how": "raise"}])
    (tmp_path / "witness.py").write_text(
        "from rlalgo import hookimpl\n"
        "seen = []\n"
        "@hookimpl\n"
        "def rlalgo_on_end(run, error):\n"
        "    seen.append((run.step, repr(error)))\n"
    )
    config["plugins"] = [PLUGIN, str(tmp_path / "witness.py")]
    with pytest.raises(RuntimeError, match="the meddler broke"):
        rlutils.train(config, out=tmp_path / "run")
    witness = next(m for name, m in sys.modules.items() if name.startswith("_plugin_witness"))
    # A plugin's own module takes part in every run.
    assert witness.seen == [(3, "RuntimeError('the meddler broke')")]


def test_csv_rows_are_means_over_their_interval(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "from rlalgo import hookimpl\n"
        "seen = []\n"
        "@hookimpl\n"
        "def rlalgo_on_step(step, metrics):\n"
        "    seen.append({k: float(v) for k, v in metrics.items()})\n"
    )
    config = toy_config(plugins=[PLUGIN, str(tmp_path / "spy.py")], callbacks=[{"name": "csv", "every": 8}])
    rlutils.train(config, out=tmp_path / "run", trainer__steps=20)
    losses = [m["loss"] for m in next(m for n, m in sys.modules.items() if n.startswith("_plugin_spy")).seen]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [8, 16]
    for i, row in enumerate(rows):
        assert float(row["loss"]) == pytest.approx(sum(losses[8 * i : 8 * i + 8]) / 8, rel=1e-5)
        assert float(row["seconds"]) > 0


def test_a_row_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,seconds,loss\r\n10,1,0.5\r\n20,2,0.4\r\n30,3,0.")
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["10", "20"]


def test_tensorboard_holds_the_csv_numbers_and_is_purged_on_resume(tmp_path: Path) -> None:
    callbacks = [{"name": "csv", "every": 10}, {"name": "tensorboard", "every": 10}]
    broken = [*callbacks, {"name": "meddler", "at": 39, "how": "raise"}]
    with pytest.raises(RuntimeError):
        rlutils.train(toy_config(callbacks=broken), out=tmp_path / "run")
    rlutils.resume(tmp_path / "run", [f"callbacks={callbacks}".replace("'", '"')], plugins=[PLUGIN])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    points = {p.step: p.value for p in events.Scalars("train/loss")}
    rows = {int(r["step"]): float(r["loss"]) for r in read_rows(tmp_path / "run" / "metrics.csv")}
    assert points == pytest.approx(rows, rel=1e-5)
    assert len(events.Scalars("train/loss")) == 6  # the point at 30 of the broken run is gone
    assert {p.step for p in events.Scalars("evaluation/return/target_return=8")} == {20, 40, 60}


def test_console_writes_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rlutils.train(toy_config(callbacks=[{"name": "console", "every": 1, "seconds": 1e-9}]), out=tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/60")
    assert "loss" in lines[0]
    assert any(line.startswith("step 60/60") for line in lines)
    assert sum("target_return=8: return" in line for line in lines) == 3
    assert lines[-1].startswith("done: 60 updates")
    assert not any("\x1b" in line for line in lines)


def test_best_follows_the_score_both_ways() -> None:
    def play(config: Best.Config, results: list) -> list[int]:
        named: list[int] = []
        best = Best(config)
        run = Thing(mark_best=lambda path, step: named.append(step))
        for step, result in enumerate(results):
            best.rlalgo_on_evaluation(step=step, result=result)
            best.rlalgo_on_checkpoint(run=run, step=step, path=Path())
        return named

    scores = [Thing(score=s, metrics={"e/x": s}) for s in (1.0, 3.0, 2.0, None, 3.0, 4.0)]
    assert play(Best.Config(), scores) == [0, 1, 5]
    assert play(Best.Config(metric="e/x", mode="min"), [s for s in scores if s.score is not None]) == [0]
    assert play(Best.Config(metric="other"), scores) == []


def test_averager_survives_a_save(tmp_path: Path) -> None:
    whole, part = Averager(), Averager()
    for i in range(5):
        whole.add({"a": torch.tensor(float(i))})
    for i in range(2):
        part.add({"a": torch.tensor(float(i))})
    rest = Averager()
    rest.load_state_dict(part.state_dict())
    for i in range(2, 5):
        rest.add({"a": torch.tensor(float(i))})
    assert rest.take() == whole.take() == {"a": 2.0}
    assert whole.take() == {}


def test_the_best_checkpoint_is_never_chosen_by_a_number_that_is_none() -> None:
    best = Best(Best.Config(metric="x/y"))
    for step, value in ((10, math.nan), (20, 1.0), (30, math.nan), (40, 0.5)):
        best.rlalgo_on_evaluation(step, Thing(score=None, metrics={"x/y": value}))
    assert (best.step, best.score) == (20, 1.0)
