"""The encoders at hand: shapes, roles and what they do to each kind of input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlalgo import Choice
from rlalgo.encoders import MLP, Linear
from rlalgo.errors import ConfigError, PluginError
from rlalgo.nets import encoder

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
FRAMES = spaces.Box(0, 255, (2, 4, 5), np.uint8)
SCALAR = spaces.Box(-1, 1, (), np.float32)
ACTION = spaces.Discrete(6)


def sample(space: Any, *lead: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(rng.integers(0, int(space.n), lead))
    if space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, (*lead, *space.shape), np.uint8))
    return torch.from_numpy(rng.random((*lead, *space.shape), np.float32))


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("space", [VECTOR, FRAMES, SCALAR, ACTION], ids=str)
@pytest.mark.parametrize("lead", [(4,), (2, 5)])
def test_any_leading_shape_gives_the_width(name: str, space: Any, lead: tuple[int, ...]) -> None:
    embed = encoder(Choice(name), "action", space, 7)
    x = sample(space, *lead)
    out = embed(x)
    assert out.shape == (*lead, 7)
    assert out.dtype == torch.float32
    one = embed(x.flatten(0, len(lead) - 1)[:1])
    torch.testing.assert_close(out.reshape(-1, 7)[:1], one)


def test_linear_is_one_matrix_or_one_table() -> None:
    vector: Any = encoder(Choice("linear"), "state", VECTOR, 7)
    x = sample(VECTOR, 4)
    weight, bias = vector.map.weight, vector.map.bias
    torch.testing.assert_close(vector(x), torch.einsum("bi,oi->bo", x, weight) + bias)
    table: Any = encoder(Choice("linear"), "timestep", spaces.Discrete(9), 7)
    assert [(n, tuple(p.shape)) for n, p in table.named_parameters()] == [("map.weight", (9, 7))]
    assert torch.equal(table(torch.tensor([3])), table.map.weight[3:4])


def test_pixels_are_scaled_by_the_spaces_bound() -> None:
    embed: Any = encoder(Choice("linear"), "state", FRAMES, 7)
    frames = sample(FRAMES, 4)
    expected = nn.functional.linear(frames.flatten(1).float() / 255, embed.map.weight, embed.map.bias)
    torch.testing.assert_close(embed(frames), expected)


def test_tanh_squashes() -> None:
    embed = encoder(Choice("linear", {"tanh": True}), "return", VECTOR, 7)
    assert embed(1e4 * sample(VECTOR, 4)).abs().max() <= 1


def test_mlp_has_the_hidden_layers_of_its_option() -> None:
    embed = encoder(Choice("mlp", {"hidden_dims": [8, 9]}), "state", VECTOR, 7)
    sizes = [tuple(p.shape) for n, p in embed.named_parameters() if n.endswith("weight")]
    assert sizes == [(8, 3), (9, 8), (7, 9)]


def test_a_role_that_an_encoder_cannot_play_is_refused() -> None:
    with pytest.raises(PluginError, match=r"cannot be a timestep encoder.*action, return, state"):
        encoder(Choice("mlp"), "timestep", ACTION, 7)
    assert Linear.ROLES > MLP.ROLES


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hiden_dims.*Did you mean 'hidden_dims'"):
        encoder(Choice("mlp", {"hiden_dims": [8]}), "state", VECTOR, 7)
