"""Callbacks and the run-time hooks that they live by."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace as Thing

import pytest
import torch
from rich.console import Console as Terminal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlutils
from rlalgo.errors import CallbackFault
from rlutils.evaluation.statistics import summarize
from rlutils.training.callbacks import Averager
from rlutils.training.callbacks.best import Best, NoBestWarning
from rlutils.training.callbacks.console import Console
from rlutils.training.callbacks.csv import Csv, read_rows
from tests.rlutils.runs import PLUGIN, toy_config


def test_run_time_hooks_are_called_in_the_order_of_the_run(tmp_path: Path) -> None:
    run = rlutils.train(toy_config(callbacks=[{"name": "meddler"}]), out=tmp_path / "run", trainer__steps=41)
    calls = run.callbacks["meddler"].calls
    expected = ["start"]
    for step in range(1, 42):
        expected.append(f"step {step}")
        if step in (20, 25, 40, 41):
            expected.append(f"checkpoint {step}")
        if step in (20, 40, 41):
            expected.append(f"evaluation {step} 2")
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
    with pytest.raises(CallbackFault, match="the meddler broke"):
        rlutils.train(config, out=tmp_path / "run")
    witness = next(m for name, m in sys.modules.items() if name.startswith("_plugin_witness"))
    # A plugin's own module takes part in every run.
    assert [step for step, _ in witness.seen] == [3]
    assert witness.seen[0][1].startswith("CallbackFault(\"step 3: callback 'meddler' failed in rlalgo_on_step")


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
    (seen,) = (m.seen for name, m in sys.modules.items() if name.startswith("_plugin_spy") and hasattr(m, "seen"))
    losses = [m["actor/loss"] for m in seen]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [8, 16]
    for i, row in enumerate(rows):
        assert float(row["actor/loss"]) == pytest.approx(sum(losses[8 * i : 8 * i + 8]) / 8, rel=1e-5)
        assert float(row["seconds"]) > 0


def test_a_row_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,seconds,loss\r\n10,1,0.5\r\n20,2,0.4\r\n30,3,0.")
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["10", "20"]


def test_tensorboard_holds_the_csv_numbers_and_is_purged_on_resume(tmp_path: Path) -> None:
    callbacks = [{"name": "csv", "every": 10}, {"name": "tensorboard", "every": 10}]
    broken = [*callbacks, {"name": "meddler", "at": 39, "how": "raise"}]
    with pytest.raises(CallbackFault):
        rlutils.train(toy_config(callbacks=broken), out=tmp_path / "run")
    rlutils.resume(tmp_path / "run", [f"callbacks={callbacks}".replace("'", '"')], plugins=[PLUGIN])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    points = {p.step: p.value for p in events.Scalars("train/actor/loss")}
    rows = {int(r["step"]): float(r["actor/loss"]) for r in read_rows(tmp_path / "run" / "metrics.csv")}
    assert points == pytest.approx(rows, rel=1e-5)
    assert len(events.Scalars("train/actor/loss")) == 6  # the point at 30 of the broken run is gone
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
    assert lines.index("step 20  evaluating") < next(i for i, line in enumerate(lines) if line.startswith("step 20  t"))
    assert lines[-1].startswith("done: 60 updates")
    assert not any("\x1b" in line for line in lines)


def progress(width: int, evaluators: bool = False) -> tuple[Console, Thing, io.StringIO]:
    """The callback in a terminal of this width, at the start of a run; with evaluators it evaluates every 500 steps."""
    said = io.StringIO()
    console = Console(Console.Config())
    console.terminal = Terminal(file=said, force_terminal=True, width=width, highlight=False)
    run = Thing(step=0, total_steps=20_000, evaluates_at=lambda step: evaluators and step % 500 == 0)
    console.rlalgo_on_start(run=run)
    return console, run, said


def line(console: Console, width: int) -> str:
    """The bar as it stands there."""
    assert console.bar is not None
    terminal = Terminal(file=io.StringIO(), width=width)
    with terminal.capture() as got:
        terminal.print(console.bar.get_renderable())
    return got.get()


LOSSES = {"critic/loss": 25.66, "critic/q_mean": 0.1234, "actor/loss": -2.123, "actor/q": 11.0, "fifth": 1.0}


@pytest.mark.parametrize(("width", "losses"), [(60, 0), (80, 1), (100, 2), (120, 3), (200, 4)])
def test_console_drops_losses_before_anything_else(width: int, losses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console, run, _ = progress(width)
    monkeypatch.setattr(time, "perf_counter", lambda: console.began + 45.0)
    metrics = {key: torch.tensor(value) for key, value in LOSSES.items()}
    for step in range(4451, 4501):
        console.rlalgo_on_step(run=run, step=step, metrics=metrics)
    text = line(console, width)
    assert console.bar is not None
    console.bar.stop()
    assert text.count("\n") == 1
    assert text.startswith("training ━━")
    assert text[21:].startswith("  4500/20000 100/s  2 min 35 s left")  # after all of the bar
    shown = [f"{key} {value:.4g}" for key, value in LOSSES.items()][:losses]  # whole or not at all
    assert text.partition("left")[2].split() == " ".join(shown).split()


def test_console_says_that_it_evaluates_and_leaves_that_out_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    console, run, _ = progress(100, evaluators=True)
    began = console.began
    step = {"run": run, "metrics": {"loss": torch.tensor(1.0)}}
    monkeypatch.setattr(time, "perf_counter", lambda: began + 10.0)
    console.rlalgo_on_step(**step, step=450)
    assert "training" in line(console, 100)
    console.rlalgo_on_step(**step, step=500)
    assert "evaluating" in line(console, 100)
    monkeypatch.setattr(time, "perf_counter", lambda: began + 310.0)
    console.rlalgo_on_evaluation(step=500, result=Thing(policies=[], metrics={"fqe/value": 1.0}, seconds=300.0))
    assert "training" in line(console, 100)
    monkeypatch.setattr(time, "perf_counter", lambda: began + 320.0)
    console.rlalgo_on_step(**step, step=1000)
    # 1,000 in 20 s; what is left, with evaluations, at 1,000 in 320 s
    assert "50/s  1 h 41 min left" in line(console, 100)
    assert console.bar is not None
    console.bar.stop()


@pytest.mark.parametrize("episodes", [1, 2])
def test_console_claims_no_spread_of_one_episode(episodes: int) -> None:
    console, _, said = progress(100)
    policy = summarize({}, [15.0, 17.0][:episodes], [1] * episodes, [0] * episodes, None)
    console.rlalgo_on_evaluation(step=1, result=Thing(policies=[policy], metrics={}, seconds=0.0))
    assert console.bar is not None
    console.bar.stop()
    text = said.getvalue()
    assert ("in 1 episode" in text) == (episodes == 1)
    assert ("±" in text) == ("95% of the mean" in text) == ("over 2 episodes" in text) == (episodes == 2)


def test_best_follows_the_score_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlutils.training.callbacks.best.is_listed", lambda path: True)

    def play(config: Best.Config, results: list) -> list[int]:
        named: list[int] = []
        best = Best(config)
        run = Thing(folder=Path("run"), mark_best=lambda path, step: named.append(step))
        for step, result in enumerate(results):
            best.rlalgo_on_evaluation(run=run, step=step, result=result)
        return named

    scores = [Thing(score=s, numbers={"e/x": s}) for s in (1.0, 3.0, 2.0, None, 3.0, 4.0)]
    assert play(Best.Config(), scores) == [0, 1, 5]
    assert play(Best.Config(metric="e/x", mode="min"), [s for s in scores if s.score is not None]) == [0]
    with pytest.warns(NoBestWarning):
        assert play(Best.Config(metric="other"), scores) == []


def test_best_says_so_where_evaluations_lack_its_metric(tmp_path: Path) -> None:
    evaluation = {"every": 20, "episodes": 0, "evaluators": [{"name": "action_error", "allow_training_data": True}]}
    config = toy_config("bc", evaluation=evaluation, callbacks=[{"name": "best", "metric": "action_error/eror"}])
    with pytest.warns(NoBestWarning) as said:
        run = rlutils.train(config, out=tmp_path / "run")
    assert len(said) == 1  # of three evaluations, the first one's
    message = str(said[0].message)
    assert message.startswith("step 20: callbacks: best.metric: evaluations have no number 'action_error/eror', so no")
    assert "Did you mean 'action_error/error'? Known: action_error/error" in message
    assert run.step == 60


def test_averager_survives_a_save() -> None:
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


def test_averager_means_are_over_the_updates_that_had_the_metric() -> None:
    means = Averager()
    for i in range(6):
        metrics = {"critic/loss": torch.tensor(float(i))}
        means.add(metrics | ({"actor/loss": torch.tensor(10.0 * i)} if i % 2 else {}))
    saved = Averager()
    saved.load_state_dict(means.state_dict())
    assert means.take() == saved.take() == {"critic/loss": 2.5, "actor/loss": 30.0}


def test_a_metric_that_an_interval_lacks_is_an_empty_cell(tmp_path: Path) -> None:
    def log(callback: Csv, steps: range) -> None:
        for step in steps:
            late = {"actor/loss": torch.tensor(float(step))} if step in (4, 8) else {}
            callback.rlalgo_on_step(run, step, {"critic/loss": torch.tensor(1.0), **late})

    run = Thing(folder=tmp_path, step=0, seconds=lambda: 0.0)
    callback = Csv(Csv.Config(every=2))
    callback.rlalgo_on_start(run)
    log(callback, range(1, 7))
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["actor/loss"] for row in rows] == ["", "4", ""]
    assert [row["critic/loss"] for row in rows] == ["1", "1", "1"]
    run.step = 2  # and a resume from before the metric was first there
    again = Csv(Csv.Config(every=2))
    again.rlalgo_on_start(run)
    log(again, range(3, 9))
    assert [row["actor/loss"] for row in read_rows(tmp_path / "metrics.csv")] == ["", "4", "", "8"]


def test_the_best_checkpoint_is_never_chosen_by_a_number_that_is_none() -> None:
    best = Best(Best.Config(metric="x/y"))
    for step, value in ((10, math.nan), (20, 1.0), (30, math.nan), (40, 0.5)):
        best.rlalgo_on_evaluation(Thing(folder=Path("nowhere")), step, Thing(score=None, numbers={"x/y": value}))
    assert (best.step, best.score) == (20, 1.0)
