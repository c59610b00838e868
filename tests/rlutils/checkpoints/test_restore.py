"""A training state is compared with what it is loaded into before anything is stepped."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import rlutils
from rlalgo.errors import CheckpointError, RlalgoError
from rlutils.checkpoints.fitting import misfit, optimizers_misfit
from rlutils.checkpoints.store import find
from rlutils.checkpoints.training_state import TrainingState, load_trainer_state, write_trainer_state
from rlutils.config.files import read_yaml, write_yaml
from tests.rlutils.runs import PLUGIN, equal, toy_config, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    rlutils.train(toy_config(), out=folder)
    return folder


def resume(run: Path) -> None:
    rlutils.resume(run, ["trainer.steps=62", "evaluation.every=0", "evaluation.episodes=0"], plugins=[PLUGIN])


def moments(state: TrainingState) -> dict[str, Any]:
    return state.optimizers["model"]["state"][0]


def each(**changes: Any) -> Callable[[TrainingState], None]:
    """Sets these entries for every parameter."""

    def change(state: TrainingState) -> None:
        for values in state.optimizers["model"]["state"].values():
            values.update(changes)

    return change


def group(**changes: Any) -> Callable[[TrainingState], None]:
    return lambda state: state.optimizers["model"]["param_groups"][0].update(changes)


def schedule(**changes: Any) -> Callable[[TrainingState], None]:
    return lambda state: state.schedulers["model"].update(changes)


def rng(**changes: Any) -> Callable[[TrainingState], None]:
    return lambda state: state.rng.update(changes)


def trainer(**changes: Any) -> Callable[[TrainingState], None]:
    return lambda state: state.trainer.update(changes)


WORDS = torch.zeros(624, dtype=torch.int64)
CHANGES: dict[str, tuple[Callable[[TrainingState], Any], str]] = {
    "shape": (
        each(exp_avg=torch.zeros(1)),
        r"optimizer model, parameter .*exp_avg: got float32 \(1,\), expected float32",
    ),
    "dtype": (
        lambda state: moments(state).update(exp_avg=moments(state)["exp_avg"].double()),
        r"exp_avg: got float64 .*, expected float32",
    ),
    "missing": (
        lambda state: moments(state).pop("exp_avg_sq"),
        "got exp_avg, step, expected exp_avg, exp_avg_sq",
    ),
    "more": (each(other=torch.zeros(1)), "got exp_avg, exp_avg_sq, other, step"),
    "negative count": (each(step=torch.tensor(-1.0)), "step: got -1, expected a number of updates"),
    "parameter": (
        lambda state: state.optimizers["model"]["state"].update({999: {}}),
        "not by the number of its .* parameters",
    ),
    "learning rate": (group(lr=-1e-3), r"group 0.lr: got -0.001, expected finite numbers with the signs of"),
    "betas": (group(betas=(0.9, float("nan"))), r"group 0.betas: got .*nan"),
    "betas' number": (group(betas=(0.9,)), r"betas: got tuple of 1, expected tuple of 2"),
    "flag": (group(maximize=True), r"group 0.maximize: got True, expected False"),
    "option": (group(unheard_of=1), "unheard_of"),
    "parameters": (group(params=[0]), r"group 0.params: got list of 1"),
    "epoch": (schedule(last_epoch=-3), "last_epoch: got -3, expected at least 0"),
    "epoch's type": (schedule(last_epoch="3"), "schedulers.model.last_epoch: got str, expected int"),
    "rates": (schedule(base_lrs=[]), r"base_lrs: got list of 0"),
    "torch": (rng(torch=torch.zeros(3, dtype=torch.uint8)), "random states are none of ours"),
    "torch's bits": (rng(torch=torch.full((5056,), 255, dtype=torch.uint8)), "random states are none of ours"),
    "numpy": (rng(numpy=[WORDS, 10**6, 0, 0.0]), "random states are none of ours"),
    "numpy's words": (rng(numpy=[WORDS - 1, 3, 0, 0.0]), "random states are none of ours"),
    "python": (rng(python=[WORDS, None]), "random states are none of ours"),
    "no random states": (lambda state: state.rng.clear(), "random states are none of ours"),
    "generator": (trainer(generator=torch.zeros(3)), "not the state of the trainer offline: trainer.generator"),
    "best": (trainer(best="much"), "trainer.best: got str"),
    "waited": (trainer(waited=-1), "trainer.waited: got -1"),
    "trainer": (lambda state: state.trainer.clear(), "not the state of the trainer offline: trainer: got nothing"),
    "csv": (lambda state: state.callbacks["csv"].update(counts={"x": 1}), "callback 'csv' failed in load_state_dict"),
    "best step": (lambda state: state.callbacks["best"].update(step="7"), "callback 'best' failed in load_state_dict"),
    "step": (lambda state: replace(state, step=40), "trainer.json is of step 40, and algo.yaml of step 60"),
    "negative step": (lambda state: replace(state, step=-60), "step: Input should be greater than or equal to 0"),
    "seconds": (lambda state: replace(state, seconds=float("nan")), "seconds: Input should be"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_state_that_does_not_fit_is_refused_by_name(what: str, run: Path) -> None:
    change, said = CHANGES[what]
    path = find(run)
    state = load_trainer_state(path)
    changed = change(state)
    write_trainer_state(path, changed if isinstance(changed, TrainingState) else state)
    before = (run / "config.yaml").read_text(), weights(run)
    with pytest.raises(RlalgoError, match=said):
        resume(run)
    assert (run / "config.yaml").read_text() == before[0]
    assert equal(weights(run), before[1])
    rlutils.load(run)  # for playing it still serves


@pytest.mark.parametrize("names", [("trainer.json", "trainer.safetensors"), ("trainer.safetensors",), ("algo.yaml",)])
def test_the_state_of_another_run_is_refused(names: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "other", seed=1)
    for name in names:
        shutil.copy(find(tmp_path / "other") / name, find(run) / name)
    with pytest.raises(CheckpointError, match=r"of different (runs|checkpoints).*train anew"):
        resume(run)


def test_a_whole_checkpoint_of_another_run_is_not_gone_on_from(run: Path, tmp_path: Path) -> None:
    rlutils.train(toy_config(), out=tmp_path / "other", seed=1)
    path = find(run)
    shutil.rmtree(path)
    shutil.copytree(find(tmp_path / "other"), path)
    with pytest.raises(CheckpointError, match="its files are of different runs"):
        resume(run)


def test_another_configuration_than_the_checkpoints_is_refused(run: Path) -> None:
    config = read_yaml(run / "config.yaml")
    config["algo"]["lr"] = 0.5
    write_yaml(run / "config.yaml", config)
    with pytest.raises(CheckpointError, match=r"was trained with algo\.lr: 0\.003, and .* says 0\.5; put it back"):
        resume(run)


OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"fused": True}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {}),
    (torch.optim.RMSprop, {"centered": True}),
    (torch.optim.Adagrad, {}),
    (torch.optim.NAdam, {}),
    (torch.optim.ASGD, {}),
    (torch.optim.Adafactor, {}),
]


@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_optimizer_is_known_by_what_it_keeps(cls: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    class Algo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 4)
            self.optimizers: dict[str, Any] = {"o": cls(self.net.parameters(), lr=0.1, **options)}  # type: ignore[call-arg]

    def stepped() -> Algo:
        algo = Algo()
        algo.net(torch.ones(2, 3)).sum().backward()
        algo.optimizers["o"].step()
        return algo

    saved = {"o": stepped().optimizers["o"].state_dict()}
    for algo in (Algo(), stepped()):
        before = deepcopy(algo.optimizers["o"].state_dict())
        parameters = [p.clone() for p in algo.parameters()]
        assert optimizers_misfit(saved, algo) is None  # type: ignore[arg-type]
        assert equal(list(before["state"].values()), list(algo.optimizers["o"].state_dict()["state"].values()))
        assert equal(parameters, [p.data for p in algo.parameters()])
    for name, value in saved["o"]["state"].get(0, {}).items():
        saved["o"]["state"][0][name] = torch.zeros(7, 7)
        message = optimizers_misfit(saved, Algo())  # type: ignore[arg-type]
        assert message is not None
        assert f"optimizer o, parameter net.weight.{name}: got float32 (7, 7)" in message
        saved["o"]["state"][0][name] = value


def test_an_optimizer_that_cannot_be_looked_at_is_named() -> None:
    algo: Any = nn.Linear(1, 1)
    algo.optimizers = {"o": torch.optim.LBFGS(algo.parameters())}
    message = optimizers_misfit({"o": algo.optimizers["o"].state_dict()}, algo)
    assert message is not None
    assert message.startswith("optimizer o: what it keeps cannot be told")


def test_schedules_are_compared_through_and_through() -> None:
    def schedule() -> dict[str, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        return lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict()

    changed = schedule()
    changed["milestones"][7] = 1
    assert misfit(schedule(), schedule(), "s") is None
    assert misfit(changed, schedule(), "s") == "s.milestones: got 3, 5, 7, expected 3, 5"
