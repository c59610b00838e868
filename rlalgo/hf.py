"""For those who stay with transformers' own `Trainer`: it trains our algorithms; nothing of it is imported.

model = ForTrainer(algo)  # prepared on the episodes
windows = WindowCollator(algo.dataset(episodes), draws=steps * 64, seed=0)
arguments = TrainingArguments("out", max_steps=steps, per_device_train_batch_size=64, **model.arguments)
Trainer(model, arguments, windows, windows, optimizers=model.optimizers).train()  # trains `algo` itself
"""

from collections import namedtuple
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.dataset import Dataset
from rlalgo.errors import TrainingError


class WindowCollator:
    """`train_dataset` or `eval_dataset` of a Trainer, and its `data_collator`: windows for dt, transitions for others.

    All draws are made here, so that batch k is the same whatever loads it: workers, accumulation, a resumed Trainer.
    Read in order they are those of the trainer `offline` with this seed; shuffled they are as likely.

    Args:
        data: `algo.dataset(episodes)`.
        draws: items in all, updates x batch size x accumulated batches (another epoch has the same ones again); drawn
            with replacement, by the weights of the episodes. None: every item once, which suits evaluation.
        seed: of the draws.
    """

    def __init__(self, data: Dataset, draws: int | None = None, seed: int = 0) -> None:
        self.data = data
        generator = torch.Generator().manual_seed(seed)
        self.rows = torch.arange(len(data)) if draws is None else data.rows(draws, generator)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> list[Any]:
        """For torch's DataLoader: one item, which is a whole batch; a Trainer looks for columns in each item."""
        return [self.data.gather(self.rows[places])]

    def __call__(self, batches: list[Any]) -> dict[str, Tensor]:
        """What any WindowCollator gave its DataLoader, by the names of the batch's columns."""
        return batches[0]._asdict()


class ForTrainer(nn.Module):
    """A prepared algorithm as a Trainer takes it: `forward(**batch)` is the loss that `update` minimizes.

    It is the algorithm's own weights that are trained.

    Args:
        algo: has one optimizer and minimizes one loss, as dt and bc.
        on_step: told of every update, by its number and metrics: `run.on_step` fills the run's own curves.

    Raises:
        TrainingError: the algorithm has several optimizers, or (at the first batch) its update is more than one step
            down one loss.
        RuntimeError: it is not prepared.
    """

    accepts_loss_kwargs: ClassVar[bool] = False
    """Else a Trainer takes `**batch` for its sign that losses of accumulated batches are averaged in here."""

    def __init__(self, algo: BatchRLAlgo, on_step: Callable[[int, dict[str, Tensor]], None] | None = None) -> None:
        super().__init__()
        algo._refuse_unprepared()
        if len(algo.optimizers) != 1:
            raise _misfit(algo, f"has {len(algo.optimizers)} optimizers ({', '.join(algo.optimizers)})")
        self.algo = algo
        (name,) = algo.optimizers
        self.optimizers: tuple[Optimizer, LRScheduler] = (
            algo.optimizers[name],
            algo.schedulers.get(name) or ConstantLR(algo.optimizers[name], 1.0),
        )
        """For the Trainer's argument of this name, which else makes ones of its own, by its own defaults."""
        self.metrics: dict[str, Tensor] = {}
        """Of the last batch."""
        if on_step is not None:
            self.optimizers[0].register_step_post_hook(lambda *_: on_step(self.step, self.metrics))

    @property
    def step(self) -> int:
        """Number of the update that is being made, 1 at the first; the schedule has it, also in a resumed Trainer."""
        return self.optimizers[1].last_epoch + 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Of TrainingArguments, what makes the Trainer do what the trainer `offline` does."""
        return {
            "max_grad_norm": self.algo.clip or 0.0,  # 1 by default
            "train_sampling_strategy": "sequential",  # the draws are random already
            "logging_nan_inf_filter": False,  # by default NaN is left out of what is logged
        }

    def forward(self, return_loss: bool = True, **batch: Tensor) -> dict[str, Tensor]:
        """{"loss": 0-d} of a batch's columns; `return_loss` tells a Trainer that there is one in evaluation too."""
        algo, losses = self.algo, list[Tensor]()
        versions = [p._version for p in algo.parameters()]
        algo.minimize = lambda name, loss: losses.append(loss)  # type: ignore[method-assign]
        try:
            self.metrics = algo.update(_batch_type(*batch)(**batch), self.step)
        finally:
            del algo.minimize
        if len(losses) != 1 or versions != [p._version for p in algo.parameters()]:
            raise _misfit(algo, "does more in an update than a step down one loss (target networks?)")
        return {"loss": losses[0]}


def _misfit(algo: BatchRLAlgo, why: str) -> TrainingError:
    text = f"{algo.name} {why}, and transformers' Trainer makes one step down one loss; train it by rlutils.train"
    return TrainingError(text)


@cache
def _batch_type(*columns: str) -> Any:
    return namedtuple("Batch", columns)
