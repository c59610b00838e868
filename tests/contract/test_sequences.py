"""What every algorithm on windows must fulfil: it remembers the past and sees no future and no padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlalgo import BatchRLAlgo, WindowBatch
from rlalgo.core.spaces import ends
from tests.contract.setups import Setup, only, weights_of

sees_sequences = only(lambda setup: isinstance(setup.batches(setup.make(), 1)[0], WindowBatch))


@pytest.fixture
def sequence(setup: Setup) -> tuple[BatchRLAlgo, WindowBatch]:
    """A sequence algorithm with weights that make much of all it sees, and windows full and padded."""
    algo = setup.make()
    data = algo.dataset(setup.episodes)
    batch = data.gather(torch.arange(len(data)))
    assert isinstance(batch, WindowBatch)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in algo.parameters():
            p.add_(2 * torch.randn_like(p) / math.sqrt(p.shape[-1]))
    assert batch.mask.all(1).any()
    assert not batch.mask.all()
    return algo, batch


def reached(algo: BatchRLAlgo, batch: WindowBatch, name: str, step: int) -> Tensor:
    """(B, K) bool: the actions that change when one column changes at one step, in several ways."""
    column, before = getattr(batch, name), algo.predict(batch)
    moved = torch.zeros_like(batch.mask)
    torch.manual_seed(3)
    for size in (1, 5, 25):
        changed = column.clone()
        x = column[:, step]
        if x.is_floating_point():
            changed[:, step] = x + torch.randn_like(x).sign() * (1 + torch.rand_like(x)) * size * column.std()
        else:
            first, last = (torch.from_numpy(end) for end in ends(algo.spec.action_space))
            n = last - first + 1
            changed[:, step] = first + (x - first + torch.randint(1, int(n.min()), x.shape)) % n
        assert not torch.equal(changed[:, step], x)
        after = algo.predict(batch._replace(**{name: changed}))
        moved |= (after - before).abs().reshape(*moved.shape, -1).amax(-1) > 1e-6
    return moved & batch.mask


FIRST_ACTION_CHANGED = {"observations": 0, "returns_to_go": 0, "actions": 1, "rewards": 1}
"""How many steps after a changed one an action may change first: what is done now has seen the present state and
return-to-go, but neither itself nor its reward."""


@sees_sequences
@pytest.mark.parametrize("name", FIRST_ACTION_CHANGED)
def test_no_future_changes_a_present_action(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1]):
        first = step + FIRST_ACTION_CHANGED[name]
        assert not reached(algo, batch, name, step)[:, :first].any(), f"{name} at step {step}"


@sees_sequences
@pytest.mark.parametrize("name", ["observations", "returns_to_go"])
def test_the_present_state_and_return_do_change_the_action(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1]):
        assert reached(algo, batch, name, step)[:, step].any(), step


@sees_sequences
@pytest.mark.parametrize("name", ["observations", "actions", "returns_to_go"])
def test_the_past_is_remembered(sequence: tuple, name: str) -> None:
    algo, batch = sequence
    for step in range(batch.mask.shape[1] - 1):
        assert reached(algo, batch, name, step)[:, step + 1 :].any(), step


@sees_sequences
def test_what_stands_in_padding_changes_nothing(sequence: tuple, setup: Setup) -> None:
    algo, batch = sequence
    pad = ~batch.mask
    torch.manual_seed(6)
    n = int(getattr(setup.episodes.spec.action_space, "n", 5))
    noisy = {}
    for name in ("observations", "actions", "rewards", "returns_to_go", "timesteps"):
        x = getattr(batch, name).clone()
        x[pad] = torch.randn_like(x[pad]) * 10 if x.is_floating_point() else torch.randint_like(x[pad], n)
        noisy[name] = x
    other = batch._replace(**noisy)
    torch.testing.assert_close(algo.predict(other)[batch.mask], algo.predict(batch)[batch.mask], atol=1e-6, rtol=0)
    losses = []
    for data in (batch, other):
        twin = setup.make()
        twin.load_state_dict(algo.state_dict())
        torch.manual_seed(0)
        losses.append((twin.update(data, 1), weights_of(twin)))
    (metrics, learnt), (other_metrics, other_learnt) = losses
    for key, value in metrics.items():
        torch.testing.assert_close(other_metrics[key], value, atol=1e-6, rtol=1e-5)
    for key, value in learnt.items():
        torch.testing.assert_close(other_learnt[key], value, atol=1e-5, rtol=1e-4)
