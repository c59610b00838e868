"""transformers' own Trainer trains our algorithms: the same batches, losses and weights as the trainer `offline`."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from rlalgo import BatchRLAlgo, Choice, Episodes
from rlalgo.errors import TrainingError
from rlalgo.hf import ForTrainer, WindowCollator
from rlalgo.plugins import make
from tests.rlalgo.toy_data import make_episodes

STEPS, BATCH = 24, 8
SMALL: dict[str, dict[str, Any]] = {
    "dt": {"context_length": 4, "embed_dim": 16, "n_layers": 2, "dropout": 0.0, "warmup": 5, "final_lr": 0.1,
           "lr": 3e-3, "clip": 0.25, "return_scale": 3.0, "state_loss": 0.1},
    "bc": {"hidden_dims": (16, 16), "gaussian": True, "clip": 0.5},
}  # fmt: skip
EPISODES = replace(make_episodes("box", (12, 1, 7, 20)), weights=torch.tensor([1.0, 4.0, 0.0, 2.0])).check("toy")


def prepared(name: str, episodes: Episodes = EPISODES) -> BatchRLAlgo:
    torch.manual_seed(0)
    algo = make("algo", Choice(name, SMALL.get(name, {"hidden_dims": (8, 8)})), episodes.spec)
    algo.prepare(episodes, STEPS)
    return algo


def trainer(
    algo: BatchRLAlgo, folder: Path, on_step: Callable | None = None, ours: bool = True, **arguments: Any
) -> Trainer:
    """As docs/huggingface.md makes one; with `ours=False` nothing of our optimizer and arguments is passed on."""
    model = ForTrainer(algo, on_step)
    accumulated = arguments.get("gradient_accumulation_steps", 1)
    windows = WindowCollator(algo.dataset(EPISODES), STEPS * BATCH * accumulated, seed=3)
    defaults = {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "logging_steps": 1, "use_cpu": True}
    defaults |= {"disable_tqdm": True, "dataloader_pin_memory": False, **(model.arguments if ours else {})}
    return Trainer(
        model,
        TrainingArguments(str(folder), **{**defaults, **arguments}),
        data_collator=windows,
        train_dataset=windows,
        eval_dataset=WindowCollator(algo.dataset(EPISODES)),
        optimizers=model.optimizers if ours else (None, None),
    )


def by_ourselves(algo: BatchRLAlgo) -> list[float]:
    """What the trainer `offline` does; the losses."""
    data, generator, losses = algo.dataset(EPISODES), torch.Generator().manual_seed(3), []
    algo.train()
    for step in range(1, STEPS + 1):
        metrics = algo.update(data.gather(data.rows(BATCH, generator)), step)
        losses.append(float(metrics.get("loss", metrics["actor/loss"])))
    return losses


def logged(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def same(a: BatchRLAlgo, b: BatchRLAlgo) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_trainer_does_what_our_own_does(name: str, workers: int, tmp_path: Path) -> None:
    own, theirs = prepared(name), prepared(name)
    losses = by_ourselves(own)
    found = trainer(theirs, tmp_path, dataloader_num_workers=workers)
    found.train()
    assert logged(found) == pytest.approx(losses, abs=1e-6)
    assert losses[-1] < losses[0]
    assert same(own, theirs)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["dt", "bc"]), st.integers(0, 9))
def test_batches_are_those_of_the_offline_trainer_whatever_their_sizes(sizes: list[int], name: str, seed: int) -> None:
    data, generator = prepared(name).dataset(EPISODES), torch.Generator().manual_seed(seed)
    windows, at = WindowCollator(data, sum(sizes), seed), 0
    for size in sizes:
        batch = windows(windows.__getitems__([*range(at, at + size)]))
        expected = data.gather(data.rows(size, generator))
        assert list(batch) == list(expected._fields)
        assert all(torch.equal(a, b) for a, b in zip(batch.values(), expected, strict=True))
        at += size


def test_without_a_number_of_draws_every_item_comes_once() -> None:
    data = prepared("dt").dataset(EPISODES)
    windows = WindowCollator(data)
    batches = list(DataLoader(windows, batch_size=7, collate_fn=windows))
    assert sum(len(batch["mask"]) for batch in batches) == len(windows) == EPISODES.steps
    whole = data.gather(torch.arange(len(data)))
    assert torch.equal(torch.cat([batch["actions"] for batch in batches]), whole.actions)


def test_batches_may_be_accumulated(tmp_path: Path) -> None:
    """Two batches of 8 transitions make the update of one of 16."""
    whole, halves = prepared("bc"), prepared("bc")
    found = trainer(whole, tmp_path / "whole", per_device_train_batch_size=2 * BATCH, max_steps=STEPS // 2)
    parts = trainer(halves, tmp_path / "halves", gradient_accumulation_steps=2, max_steps=STEPS // 2)
    found.train()
    parts.train()
    assert logged(parts) == pytest.approx(logged(found), abs=1e-6)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_a_resumed_trainer_ends_as_one_that_was_not_stopped(name: str, tmp_path: Path) -> None:
    through, resumed = prepared(name), prepared(name)
    told: list[int] = []
    saving = {"save_strategy": "steps", "save_steps": STEPS // 2}
    trainer(through, tmp_path, **saving).train()
    again = trainer(resumed, tmp_path, lambda step, metrics: told.append(step), **saving)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{STEPS // 2}"))
    assert same(through, resumed)
    assert told == [*range(STEPS // 2 + 1, STEPS + 1)]


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_of_an_evaluation_is_the_mean_over_all_windows(name: str, tmp_path: Path) -> None:
    algo = prepared(name)
    before = copy.deepcopy(algo.state_dict())
    found = trainer(algo, tmp_path, per_device_eval_batch_size=EPISODES.steps)
    loss = found.evaluate()["eval_loss"]
    data = algo.dataset(EPISODES)
    with torch.no_grad():
        model = ForTrainer(algo).eval()
        expected = model(**data.gather(torch.arange(len(data)))._asdict())["loss"]
    assert loss == pytest.approx(float(expected), abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), algo.state_dict().values(), strict=True))


def test_an_evaluation_amid_training_changes_nothing_of_it(tmp_path: Path) -> None:
    own, theirs = prepared("dt"), prepared("dt")
    by_ourselves(own)
    found = trainer(theirs, tmp_path, eval_strategy="steps", eval_steps=5)
    found.train()
    assert sum("eval_loss" in row for row in found.state.log_history) >= 4
    assert same(own, theirs)


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_by_the_trainers_own_optimizer_and_in_any_order(name: str, tmp_path: Path) -> None:
    algo = prepared(name)
    found = trainer(algo, tmp_path, ours=False, learning_rate=3e-3)
    found.train()
    losses = logged(found)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_every_update_is_told_with_its_metrics(tmp_path: Path) -> None:
    told: list[tuple[int, dict[str, Tensor]]] = []
    algo = prepared("dt")
    found = trainer(algo, tmp_path, lambda *arguments: told.append(arguments), gradient_accumulation_steps=2)
    found.train()
    assert [step for step, _ in told] == [*range(1, STEPS + 1)]
    assert {"loss", "actor/loss", "state/loss"} == told[-1][1].keys()


def test_a_loss_that_is_none_is_shown(tmp_path: Path) -> None:
    algo = prepared("bc")
    with torch.no_grad():
        next(algo.parameters()).fill_(math.nan)
    found = trainer(algo, tmp_path, max_steps=2)
    found.train()
    assert all(math.isnan(loss) for loss in logged(found))


@pytest.mark.parametrize("name", ["cql", "td3_bc"])
def test_several_optimizers_are_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=rf"{name} has \d optimizers \(.*actor.*\).*train it by rlutils.train"):
        ForTrainer(prepared(name))


@pytest.mark.parametrize(("name", "kind"), [("iql", "box"), ("dqn", "discrete")])
def test_target_networks_are_refused(name: str, kind: str) -> None:
    episodes = make_episodes(kind, (6, 5))
    algo = prepared(name, episodes)
    model, windows = ForTrainer(algo), WindowCollator(algo.dataset(episodes), 4)
    with pytest.raises(TrainingError, match=f"{name} does more in an update than a step down one loss"):
        model(**windows(windows.__getitems__([0, 1, 2, 3])))
    assert "minimize" not in vars(algo)


def test_what_is_not_prepared_is_refused() -> None:
    with pytest.raises(RuntimeError, match="dt is not prepared"):
        ForTrainer(make("algo", Choice("dt", SMALL["dt"]), EPISODES.spec))
