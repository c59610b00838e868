"""A fingerprint tells data from other data, whatever of it differs, and wherever it lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlalgo.core import fingerprint as module
from rlalgo.core.fingerprint import fingerprint
from tests.rlalgo.toy_data import make_episodes

COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations", "has_final")


@pytest.mark.parametrize("kind", ["box", "discrete", "frames", "packed"])
def test_every_row_of_every_column_counts(kind: str) -> None:
    data = make_episodes(kind)
    assert fingerprint(data) == fingerprint(make_episodes(kind))
    seen = {fingerprint(data)}
    for name in COLUMNS:
        for row in range(len(getattr(data, name))):
            column = getattr(data, name).clone()
            column[row] = ~column[row] if column.dtype == torch.bool else column[row] + 1
            seen.add(fingerprint(replace(data, **{name: column})))
    assert len(seen) == 1 + sum(len(getattr(data, name)) for name in COLUMNS)


def test_it_is_what_earlier_versions_wrote_into_their_runs() -> None:
    data = make_episodes("discrete", lengths=(2,), terminated=[True])
    steps = torch.arange(2.0)
    data = replace(data, observations=torch.arange(6.0).view(3, 2), actions=steps.long(), rewards=steps)
    assert fingerprint(data) == "d8744e1daaed1fb8a5e1da5714e8f2d9"


def test_flipped_actions_other_bounds_of_episodes_and_weights_count() -> None:
    data = make_episodes(lengths=(3, 1, 4))
    others = [
        replace(data, actions=-data.actions),
        replace(data, starts=torch.tensor([0, 2, 4, 8])),
        replace(data, weights=torch.ones(3, dtype=torch.float64)),
        data.select(torch.arange(2)),
        data.delayed(),
    ]
    assert len({fingerprint(x) for x in [data, *others]}) == 6
    assert fingerprint(replace(data, info={})) == fingerprint(data)  # facts are not learnt from


def test_of_what_is_large_some_rows_count_mapped_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WHOLE", 1000)
    data = make_episodes("frames", lengths=(30, 40))
    np.save(tmp_path / "x.npy", data.observations.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    assert fingerprint(replace(data, observations=mapped, mapped=True)) == fingerprint(data)
    for row in (0, -1):
        column = data.observations.clone()
        column[row] += 1
        assert fingerprint(replace(data, observations=column)) != fingerprint(data)
    assert fingerprint(replace(data, observations=data.observations[:-1])) != fingerprint(data)
