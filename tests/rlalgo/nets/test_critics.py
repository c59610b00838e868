"""Critics side by side against as many networks of torch's own, and target networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlalgo import Choice
from rlalgo.nets import Critics, DiscreteCritics, Ensemble, Target, critics_for

SPACE = spaces.Box(-np.inf, np.inf, (5,), np.float32)


def alone(ensemble: Any, i: int) -> nn.Sequential:
    """Member i as modules of torch's own."""
    parts: list[nn.Module] = []
    for k, layer in enumerate(ensemble.layers):
        if k:
            parts.append(nn.ReLU())
        if k and ensemble.norms is not None:
            norm = ensemble.norms[k - 1]
            parts.append(nn.LayerNorm(norm.weight.shape[-1]))
            parts[-1].load_state_dict({"weight": norm.weight[i, 0], "bias": norm.bias[i, 0]})
        parts.append(nn.Linear(*layer.weight.shape[1:]))
        parts[-1].load_state_dict({"weight": layer.weight[i].T, "bias": layer.bias[i, 0]})
    return nn.Sequential(*parts)


def shaken(module: Any) -> Any:
    """Every parameter moved, those that begin as 0 or 1 too."""
    for p in module.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return module


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 5, 2), (3, 5, 4, 1)])
def test_an_ensemble_equals_as_many_networks(sizes: Sequence[int], layer_norm: bool) -> None:
    """Outputs, and gradients of inputs and weights."""
    torch.manual_seed(0)
    ensemble: Any = shaken(Ensemble(4, sizes, layer_norm))
    x = torch.randn(4, 6, 3, requires_grad=True)
    for m in (4, 2):
        out = ensemble(x[:m])
        assert out.shape == (m, 6, sizes[-1])
        first = ensemble.layers[0].weight
        slopes = torch.autograd.grad(out.square().sum(), [x, first])
        for i in range(4):
            net: Any = alone(ensemble, i)
            expected = net(x[i])
            plain = torch.autograd.grad(expected.square().sum(), [x, net[0].weight])
            used = float(i < m)  # the others have no part in it
            if used:
                torch.testing.assert_close(out[i], expected)
            torch.testing.assert_close(slopes[0][i], used * plain[0][i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(slopes[1][i].T, used * plain[1], atol=1e-4, rtol=1e-4)


def test_an_ensemble_starts_as_linear_layers_do() -> None:
    torch.manual_seed(0)
    layers: Any = Ensemble(50, [16, 64, 4]).layers
    for layer, size in zip(layers, (16, 64), strict=True):
        for p in layer.parameters():
            bound = 1 / math.sqrt(size)
            assert p.abs().max().item() <= bound
            assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not torch.equal(layer.weight[0], layer.weight[1])


@pytest.mark.parametrize("choice", [None, Choice("linear")])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_critics_value_actions_one_by_one(layer_norm: bool, choice: Choice | None) -> None:
    torch.manual_seed(0)
    critics = shaken(Critics(SPACE, choice, (8, 8), 2, n=4, layer_norm=layer_norm))
    nets = [alone(critics.members, i) for i in range(4)]
    states, actions, several = torch.randn(6, 5), torch.randn(6, 2), torch.randn(6, 7, 2)
    own = torch.randn(4, 6, 2)
    assert critics(states, actions).shape == critics.each(states, own).shape == (4, 6)
    assert critics(states, several).shape == (4, 6, 7)
    for i, b in itertools.product(range(4), range(6)):

        def value(action: Tensor) -> Tensor:
            return nets[i](torch.cat([critics.inputs(states[b]), action]))[0]  # noqa: B023

        torch.testing.assert_close(critics(states, actions)[i, b], value(actions[b]))
        torch.testing.assert_close(critics.each(states, own)[i, b], value(own[i, b]))
        for k in range(7):
            torch.testing.assert_close(critics(states, several)[i, b, k], value(several[b, k]))
    for m in (1, 3):
        torch.testing.assert_close(critics(states, actions, first=m), critics(states, actions)[:m])
        torch.testing.assert_close(critics(states, several, first=m), critics(states, several)[:m])


@pytest.mark.parametrize("choice", [None, Choice("linear")])
@pytest.mark.parametrize("dueling", [False, True])
def test_discrete_critics_value_every_action(dueling: bool, choice: Choice | None) -> None:
    torch.manual_seed(0)
    critics = shaken(DiscreteCritics(SPACE, choice, (8,), 4, n=2, dueling=dueling))
    states, actions = torch.randn(6, 5), torch.randint(4, (6,))
    found, taken = critics(states), critics(states, actions)
    assert found.shape == (2, 6, 4)
    assert taken.shape == (2, 6)
    for i, b in itertools.product(range(2), range(6)):
        x = critics.inputs(states[b])
        expected = alone(critics.members, i)(x)
        if dueling:
            expected = alone(critics.value, i)(x) + expected - sum(expected.tolist()) / 4
        torch.testing.assert_close(found[i, b], expected)
        torch.testing.assert_close(taken[i, b], expected[actions[b]])


def test_critics_fit_the_action_space() -> None:
    box, discrete = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)
    assert critics_for(box, SPACE, None, (8,), n=3)(torch.zeros(6, 5), torch.zeros(6, 2)).shape == (3, 6)
    assert critics_for(discrete, SPACE, None, (8,), n=3)(torch.zeros(6, 5)).shape == (3, 6, 3)


def test_a_target_follows_by_tau_and_copies_statistics() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    both = nn.ModuleDict({"source": source, "target": Target(source)}).double()  # moving replaces buffers
    target: Any = both["target"]
    assert not any(p.requires_grad for p in target.parameters())
    x = torch.randn(6, 3).double()
    old = [p.clone() for p in target.parameters()]
    shaken(source)
    source(x)
    target.follow(0.25)
    for t, before, s in zip(target.parameters(), old, source.parameters(), strict=True):
        torch.testing.assert_close(t, 0.75 * before + 0.25 * s.detach())
    statistics: Any = source[1]
    assert statistics.running_mean.any()
    assert torch.equal(target.copy[1].running_mean, statistics.running_mean)
    assert torch.equal(target.copy[1].num_batches_tracked, statistics.num_batches_tracked)
    target.follow(1.0)
    assert torch.equal(target.eval()(x), source.eval()(x))
