"""How well an algorithm foretells the actions of episodes that it was not trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlalgo import BatchRLAlgo, Dataset, Episodes, Run
from rlalgo.config import Count, Seed
from rlalgo.errors import ConfigError


class ActionError:
    """How well the actions of held-out episodes are foretold: `error`, the lower the better.

    Of continuous actions the squared error over their variance, so that 0 is perfect and 1 no better than the mean
    action (over 1 where all are the same); of discrete ones the share that is wrong.

    A measure of imitation: it ranks what imitates (bc, dt). An algorithm that improves on its data departs from it, and
    is not the worse for that. The items are those that the algorithm would train on, which are the best episodes only
    where it is set to imitate these (`keep_top`).
    """

    name: ClassVar[str] = "action_error"

    @dataclass(frozen=True)
    class Config:
        items: Count = 10_000
        """Largest number of items (transitions, windows) to look at; drawn if there are more."""
        batch_size: Count = 256
        """Items at once."""
        seed: Seed = 0
        """Of the draw: the same items at every evaluation."""
        allow_training_data: bool = False
        """Measure on the training data where no episodes are held out, which flatters."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        """ConfigError where there is nothing to measure on."""
        need_held_out(self.name, self.config, run)

    def evaluate(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> dict[str, float]:
        self.check(algo, episodes, run)
        data = algo.dataset(episodes).to(algo.device)
        batches = (data.gather(rows) for rows in draw(data, self.config))
        return {"error": error_of((algo.predict(batch), batch) for batch in batches)}


def need_held_out(name: str, config: ActionError.Config, run: Run) -> None:
    """ConfigError where all episodes are trained on, unless the evaluator is told to put up with it."""
    if run.held_out is None and not config.allow_training_data:
        raise ConfigError(
            [f"evaluation.evaluators: {name} measures on episodes that are not trained on, and none are held "
             "out. Set holdout: 0.1 at the top level, or allow_training_data: true of the evaluator"]
        )  # fmt: skip


def draw(data: Dataset, config: ActionError.Config) -> tuple[Tensor, ...]:
    """At most `items` of the data's items, without repetition, in batches (B,) of `batch_size`."""
    generator = torch.Generator().manual_seed(config.seed)
    return torch.randperm(len(data), generator=generator)[: config.items].split(config.batch_size)


def error_of(pairs: Iterator[tuple[Tensor, Any]]) -> float:
    """Of predicted raw actions (B, A) | (B,) | (B, M), or (B, K, ...), and their batches: see ActionError."""
    wrong, count = 0.0, 0
    total, square = torch.zeros(()).double(), torch.zeros(()).double()  # of the data's actions, (A,) in the end
    for predicted, batch in pairs:
        mask = getattr(batch, "mask", torch.ones(len(predicted), dtype=torch.bool, device=predicted.device))
        expected, predicted = batch.actions[mask], predicted[mask]  # (n, A) | (n,) | (n, M)
        count += len(expected)
        if not expected.is_floating_point():
            wrong += float((predicted != expected).view(len(expected), -1).double().mean(1).sum())
            continue
        expected, predicted = expected.cpu().double(), predicted.cpu().double()
        wrong += float((predicted - expected).square().sum())
        total, square = total + expected.sum(0), square + expected.square().sum(0)
    if not total.dim():
        return wrong / count
    variation = float((square - total.square() / count).sum())
    return wrong / (variation if variation > 1e-12 * float(square.sum()) else count)
