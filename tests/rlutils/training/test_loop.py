"""`rlutils.train(..., loop=...)`: whatever trains, the run is one like any other."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import rlutils
from rlalgo import BatchRLAlgo, Episodes
from rlalgo.errors import ConfigError
from rlutils.cli import app
from rlutils.config.files import read_yaml
from rlutils.training.folder import stage
from rlutils.training.run import Run
from tests.rlutils.runs import PLUGIN, equal, toy_config, weights

CONFIG = toy_config("bc", evaluation={"every": 0, "episodes": 3, "policies": [{}]})


def updates(algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
    """What the trainer `offline` does."""
    data, generator = algo.dataset(episodes), torch.Generator().manual_seed(run.seed)
    for step in range(1, run.total_steps + 1):
        run.on_step(step, algo.update(data.gather(data.rows(16, generator)), step))


def test_a_run_by_another_loop_is_one_like_any_other(tmp_path: Path) -> None:
    own = rlutils.train(CONFIG, tmp_path / "own")
    other = rlutils.train(CONFIG, tmp_path / "other", loop=updates)
    assert equal(weights(own.folder), weights(other.folder))
    rows = [list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines())) for run in (own, other)]
    assert [row["actor/loss"] for row in rows[0]] == [row["actor/loss"] for row in rows[1]]
    assert own.last_result is not None
    assert other.last_result is not None
    assert own.last_result.policies == other.last_result.policies
    for file in ("data.json", "config.yaml"):
        assert (own.folder / file).read_text() == (other.folder / file).read_text()
    facts = read_yaml(other.folder / "run.yaml")
    assert (facts["state"], facts["step"]) == ("finished", 60)
    assert facts["command"].endswith("# by loop=updates, from Python")
    plugin = ("--plugin", PLUGIN)
    for command, *options in (["evaluate", *plugin], ["play", "--episodes", "1", *plugin], ["report"]):
        result = CliRunner().invoke(app, [command, str(other.folder), *options])
        assert result.exit_code == 0, result.output


def test_it_need_not_tell_its_updates(tmp_path: Path) -> None:
    def silent(algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        assert algo.training
        assert len(episodes) == 36
        assert run.held_out is not None

    run = rlutils.train(CONFIG, tmp_path / "run", loop=silent, holdout=0.1)
    assert run.step == 60
    assert run.last_result is not None
    assert rlutils.load(run.folder).prepared


@pytest.mark.parametrize("how", ["raises", "signal"])
def test_one_that_is_broken_off_is_begun_again(how: str, tmp_path: Path) -> None:
    def broken(algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        if how == "raises":
            raise ZeroDivisionError("in the loop")
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    def begin(loop: Any) -> Run:
        return rlutils.train(CONFIG, tmp_path / "run", loop=loop, resume=True)

    error = ZeroDivisionError if how == "raises" else KeyboardInterrupt
    with pytest.raises(error, match=r"in the loop|stopped by SIGINT after step 0; there is no checkpoint yet"):
        begin(broken)
    assert stage(tmp_path / "run") == "begun"
    assert begin(updates).step == 60
    assert begin(broken).step == 60  # is finished, and left alone
    with pytest.raises(ConfigError, match="a loop of your own cannot go on with it; begin anew with replace=True"):
        rlutils.train(CONFIG, tmp_path / "run", loop=updates, resume=True, trainer__steps=80)
    assert stage(tmp_path / "run") == "finished"
