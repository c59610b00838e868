"""How often episodes are drawn: the option `sampling` of algorithms that imitate."""

from dataclasses import replace

import torch

from rlalgo.core.episodes import Episodes
from rlalgo.errors import DataError, near

MOST_CLASSES = 100


def sampled(episodes: Episodes, sampling: str) -> Episodes:
    """The same episodes, their steps drawn as `sampling` says, which multiplies the weights that they have.

    Args:
        episodes: the data.
        sampling: `uniform`; `by_return_class`: steps of each return are drawn as often as those of any other; or a
            column of `Episodes.info`, (E,) numbers of 0 or more.

    Raises:
        DataError: too many different returns for classes, or no such column of weights.
    """
    if sampling == "uniform":
        return episodes
    weights = torch.ones(len(episodes), dtype=torch.float64) if episodes.weights is None else episodes.weights
    if sampling == "by_return_class":
        classes, members = episodes.returns().unique(return_inverse=True)
        if len(classes) > MOST_CLASSES:
            why = f"there are {len(classes):,} different returns, and it is for few of them, as 0 and 1"
            raise DataError(f"algo.sampling: by_return_class: {why}; name a column of weights, or choose uniform")
        steps = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, members, weights * episodes.lengths())
        return replace(episodes, weights=weights / steps[members].where(weights > 0, 1.0))
    if (column := episodes.info.get(sampling)) is None:
        known = ["uniform", "by_return_class", *episodes.info]
        raise DataError(
            f"algo.sampling: nothing is called '{sampling}'.{near(sampling, known)} There are {', '.join(known)}"
        )
    column = column.double()
    if column.shape != (len(episodes),) or not column.isfinite().all() or (column < 0).any():
        raise DataError(
            f"algo.sampling: '{sampling}' is no column of weights: a finite number of 0 or more for each episode"
        )
    return replace(episodes, weights=weights * column)
