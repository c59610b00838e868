"""fast: the very function of the plain trunk, outputs and gradients, and its dropout mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlalgo.batchrl.dt import TrajectoryGPT2, fast
from rlalgo.batchrl.dt.fast import dropout_mask
from tests.rlalgo.batchrl.dt.loud import louder

W, T = 128, 11


def tokens(keep: str, batch: int) -> fast.Tokens | None:
    """No choice, every state token, or one token of each sequence."""
    if keep == "all":
        return None
    if keep == "states":
        return slice(None), slice(1, None, 3)
    return torch.arange(batch).unsqueeze(1), torch.randint(T, (batch, 1))


def outputs_and_gradients(
    run: fast.RunTrunk, trunk: TrajectoryGPT2, x: Tensor, keep: fast.Tokens | None
) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = run(trunk, x, keep)
    torch.manual_seed(5)
    loss = (out * torch.randn(out.shape)).sum() / out.numel()
    parameters = dict(trunk.named_parameters())
    gradients = torch.autograd.grad(loss, [x, *parameters.values()])
    return {"out": out.detach(), **dict(zip(["x", *parameters], gradients, strict=True))}


@pytest.mark.parametrize("keep", ["all", "states", "one each"])
@pytest.mark.parametrize("batch", [2, 40])  # few tokens and many
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("n_heads", [1, 4])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # the second goes the way of dropout and never drops anything
def test_outputs_and_gradients_are_those_of_the_plain_trunk(
    dropout: float, n_heads: int, activation: str, batch: int, keep: str
) -> None:
    trunk = louder(TrajectoryGPT2(W, n_layers=3, n_heads=n_heads, activation=activation, dropout=dropout))
    x, kept = torch.randn(batch, T, W), tokens(keep, batch)
    expected = outputs_and_gradients(fast.plain, trunk.eval(), x, kept)
    got = outputs_and_gradients(fast.forward, trunk.train(), x, kept)
    torch.testing.assert_close(got["out"], expected["out"], atol=1e-5, rtol=1e-5)
    # Gradients in double precision: in single, a ReLU's input may round to the other side of 0.
    trunk, x = trunk.double(), x.double()
    expected = outputs_and_gradients(fast.plain, trunk.eval(), x, kept)
    got = outputs_and_gradients(fast.forward, trunk.train(), x, kept)
    for name, gradient in expected.items():
        assert gradient.norm() > 0 or name.endswith("qkv.bias")
        assert (got[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


def test_in_double_precision_nothing_but_rounding_differs() -> None:
    trunk = louder(TrajectoryGPT2(W, n_layers=2, n_heads=1, dropout=0.0).double())
    x, kept = torch.randn(40, T, W, dtype=torch.float64), tokens("states", 40)
    expected, got = (outputs_and_gradients(run, trunk, x, kept) for run in (fast.plain, fast.forward))
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-13, rtol=1e-10, msg=name)


def test_the_mean_over_dropout_is_that_of_the_plain_trunk() -> None:
    """Same places, same scale: over many draws both come to the same mean and spread."""
    trunk = louder(TrajectoryGPT2(8, n_layers=1, n_heads=2, dropout=0.2)).train()
    x = torch.randn(1, 4, 8).expand(4000, 4, 8)
    with torch.no_grad():
        torch.manual_seed(0)
        ours, plain = (run(trunk, x, None).double() for run in (fast.forward, fast.plain))
    error = (ours.var(0) + plain.var(0)).div(len(x)).sqrt()  # (4, 8) standard error of the difference
    assert ((ours.mean(0) - plain.mean(0)).abs() < 4.5 * error).all()
    torch.testing.assert_close(ours.std(0), plain.std(0), atol=0, rtol=0.1)


@pytest.mark.parametrize(("shape", "p"), [((3, 5, 7), 0.5), ((101, 1001), 0.1), ((64, 999), 0.9)])
def test_dropout_multiplies_by_0_or_the_inverse_of_what_is_kept(shape: tuple[int, ...], p: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask(torch.zeros(shape), p)
    assert mask.shape == shape
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    n = mask.numel()
    assert abs((mask == 0).float().mean() - p) < 4 * math.sqrt(p * (1 - p) / n)
    if n > 1000:  # neighbors and rows are drawn independently
        dropped = (mask == 0).float() - p
        for a, b in (
            (dropped[:, 1:], dropped[:, :-1]),
            (dropped[1:], dropped[:-1]),
            (dropped[:, 4:], dropped[:, :-4]),
        ):
            assert abs((a * b).mean()) < 4 * p * (1 - p) / math.sqrt(a.numel())
    torch.manual_seed(0)
    assert torch.equal(mask, dropout_mask(torch.zeros(shape), p))  # from the default generator, which is saved


def test_no_dropout_keeps_everything() -> None:
    assert dropout_mask(torch.zeros(8), 0.0).tolist() == [1.0] * 8
