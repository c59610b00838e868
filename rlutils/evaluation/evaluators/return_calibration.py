"""Whether what a return-conditioned model does depends on the return it is asked for, and rightly so."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlalgo import BatchRLAlgo, Dataset, Episodes, Run
from rlalgo.config import Count
from rlalgo.errors import ConfigError
from rlutils.evaluation.evaluators.action_error import ActionError, draw, error_of, need_held_out


class ReturnCalibration:
    """Asks for other returns than those that followed: how well are the actions foretold then?

    A calibrated model foretells them best when asked for what did follow. All returns-to-go of a window are moved by
    the same amount, so that they still differ by its rewards. The errors are those of `action_error`.

    - `error`: asked for the true return-to-go.
    - `rtg_gain`: 1 - error / error when asked for what another window of the same timestep got (or of the next one
      where there is none): 0 or less for a model that makes no use of it. Small too where all episodes are alike.
    - `best_offset`: which of `offsets` has the smallest error; 0 if calibrated, more if the model must be asked for too
      much.
    - `return_bias`, `return_rmse`, `return_correlation`: of the next return-to-go as dt's return head foretells it,
      where that is trained (`return_loss`), in raw reward units.
    """

    name: ClassVar[str] = "return_calibration"

    @dataclass(frozen=True)
    class Config(ActionError.Config):
        items: Count = 2_000
        """Largest number of windows to look at; drawn if there are more."""
        offsets: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
        """What to add to returns-to-go, in standard deviations of the episodes' returns."""

        def __post_init__(self) -> None:
            if not self.offsets:
                raise ValueError("offsets is empty: give at least one")

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> None:
        """ConfigError where there is nothing to measure on, or for an algorithm that is not asked for returns."""
        need_held_out(self.name, self.config, run)
        if not hasattr(algo.dataset(episodes).gather(torch.zeros(1, dtype=torch.int64)), "returns_to_go"):
            raise ConfigError(
                [f"evaluation.evaluators: return_calibration needs an algorithm that is asked for a return, as dt is; "
                 f"{algo.name} is not. Try action_error or fqe"]
            )  # fmt: skip

    def evaluate(self, algo: BatchRLAlgo, episodes: Episodes, run: Run) -> dict[str, float]:
        self.check(algo, episodes, run)
        data = algo.dataset(episodes).to(algo.device)
        rows = draw(data, self.config)

        def error(shift: Tensor) -> float:
            """Asked for returns-to-go moved by this much, (n,)."""
            moved = (_moved(data.gather(part), by) for part, by in zip(rows, shift.split(len(rows[0])), strict=True))
            return error_of((algo.predict(batch), batch) for batch in moved)

        swap = _swap(data, rows)  # (n,)
        unit = float(episodes.returns().std(correction=0))
        by_offset = {offset: error(torch.full_like(swap, offset * unit)) for offset in self.config.offsets}
        true, other = error(torch.zeros_like(swap)), error(swap)
        found = {
            "error": true,
            "rtg_gain": 1 - true / max(other, 1e-12),
            "best_offset": min(by_offset, key=lambda offset: (by_offset[offset], abs(offset))),
        }
        return found | _return_head(algo, data, rows)


def _moved(batch: Any, by: Tensor) -> Any:
    """The batch with each window's returns-to-go moved, by (B,)."""
    return batch._replace(returns_to_go=batch.returns_to_go + by.unsqueeze(1))


def _swap(data: Dataset, rows: tuple[Tensor, ...]) -> Tensor:
    """(n,) what turns each window's first return-to-go into that of another one of the same timestep."""
    batches = (data.gather(part) for part in rows)
    firsts = torch.cat([torch.stack([b.returns_to_go[:, 0], b.timesteps[:, 0].float()]) for b in batches], 1)  # (2, n)
    order = firsts[1].argsort(stable=True)  # the draw's own order among equals
    sizes = firsts[1][order].unique_consecutive(return_counts=True)[1]  # (T,) windows of each timestep
    ends = sizes.cumsum(0)
    starts = ends - sizes
    mate = torch.arange(len(order), device=order.device) - 1  # the one before
    mate[starts] = ends - 1  # of the same timestep, around
    alone = starts[sizes == 1]
    mate[alone] = torch.where(alone + 1 < len(order), alone + 1, alone - 1)
    other = torch.empty_like(firsts[0])
    other[order] = firsts[0, order[mate]]
    return other - firsts[0]


def _return_head(algo: BatchRLAlgo, data: Dataset, rows: tuple[Tensor, ...]) -> dict[str, float]:
    """How right the return head is, where there is one: dt's, or that of a plugin with the same setting."""
    if not getattr(algo.config, "return_loss", 0):
        return {}
    predicted, expected = [], []
    with algo.evaluating():
        for batch in (data.gather(part) for part in rows):
            out = algo(batch.observations, batch.actions, batch.returns_to_go, batch.timesteps)
            both = batch.mask[:, 1:]  # (B, K-1) where a next step is
            predicted.append(out.returns[:, :-1][both] * algo.config.return_scale)
            expected.append(batch.returns_to_go[:, 1:][both])
    pair = torch.stack([torch.cat(predicted), torch.cat(expected)]).cpu().double()  # (2, m)
    error = pair[0] - pair[1]
    return {
        "return_bias": float(error.mean()),
        "return_rmse": float(error.square().mean().sqrt()),
        "return_correlation": float(torch.corrcoef(pair)[0, 1].nan_to_num()),
    }
