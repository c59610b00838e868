"""What every registered encoder must fulfil in each of its roles."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from torch import nn
from torch.utils._pytree import tree_map

import rlutils
from rlalgo import Choice
from rlalgo.config import parse
from rlalgo.errors import PluginError, RlalgoError
from rlalgo.nets import encoder
from rlalgo.schema import field_docs
from tests.rlutils.runs import equal

CATALOGUE = rlutils.catalogue(("rlalgo_cnn",))  # the repository's own plugin keeps the same contract
WIDTH = 12

# What may come in a role. An encoder need not take all of them (one for images refuses vectors), but at least one.
SPACES: dict[str, list[spaces.Space]] = {
    "state": [
        spaces.Box(-np.inf, np.inf, (5,), np.float32),
        spaces.Box(-1, 1, (4, 5), np.float32),  # four stacked vectors
        spaces.Box(0, 255, (84, 84), np.uint8),
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Dict(eye=spaces.Box(0, 255, (4, 84, 84), np.uint8), at=spaces.Box(-9, 9, (4, 5), np.float32)),
    ],
    "action": [spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(6), spaces.MultiDiscrete([3, 2, 4])],
    "return": [spaces.Box(-np.inf, np.inf, (1,), np.float32)],
    "timestep": [spaces.Discrete(50)],
}
ROLES = [(name, role) for name in CATALOGUE.names("encoder") for role in CATALOGUE.get("encoder", name).cls.ROLES]


def build(name: str, role: str, space: spaces.Space) -> nn.Module:
    torch.manual_seed(0)
    entry = CATALOGUE.get("encoder", name)
    return encoder(Choice(name, {}, entry, parse(entry.Config, {}, CATALOGUE)), role, space, WIDTH)


def sample(space: spaces.Space, *lead: int, seed: int = 0) -> Any:
    """Values as datasets give them: float32, uint8 images, int64 numbers of actions and timesteps; of a Dict a dict."""
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Dict):
        return {name: sample(part, *lead, seed=seed) for name, part in space.spaces.items()}
    if isinstance(space, spaces.MultiDiscrete):
        return torch.from_numpy(rng.integers(0, space.nvec, (*lead, len(space.nvec))))
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(rng.integers(0, int(space.n), lead))
    shape = (*lead, *(space.shape or ()))
    if space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@pytest.fixture(params=sorted(ROLES), ids=lambda pair: "-".join(pair))
def taken(request: pytest.FixtureRequest) -> list[tuple[nn.Module, spaces.Space, str, str]]:
    """The encoder in its role, for each of the role's spaces that it takes."""
    name, role = request.param
    found = []
    for space in SPACES[role]:
        try:
            found.append((build(name, role, space), space, name, role))
        except (RlalgoError, TypeError, ValueError) as error:
            assert str(error), "a refusal says why"  # noqa: PT017 (other spaces must still be tried)
    assert found, f"{name} takes none of the {role} spaces: {SPACES[role]}"
    return found


def test_gives_the_width_for_any_leading_shape(taken: list) -> None:
    for module, space, _, _ in taken:
        module.eval()
        x = sample(space, 2, 3)
        out = module(x)
        assert out.shape == (2, 3, WIDTH)
        assert out.dtype == torch.float32
        assert torch.isfinite(out).all()
        flat = module(tree_map(lambda part: part.flatten(0, 1), x))
        torch.testing.assert_close(flat.view(2, 3, WIDTH), out, atol=1e-5, rtol=1e-5)
        first = module(tree_map(lambda part: part[:1, :1], x))
        torch.testing.assert_close(first[0, 0], out[0, 0], atol=1e-5, rtol=1e-5)


def test_tells_different_inputs_apart(taken: list) -> None:
    for module, space, _, _ in taken:
        module.eval()
        x, y = sample(space, 1), sample(space, 1, seed=1)
        if equal(x, y):
            y = (y + 1) % space.n
        assert (module(x) - module(y)).abs().max() > 1e-4


def test_leaves_its_input_alone(taken: list) -> None:
    for module, space, _, _ in taken:
        x = sample(space, 4)
        before = copy.deepcopy(x)
        module(x)
        assert equal(x, before)


def test_every_parameter_gets_a_gradient(taken: list) -> None:
    for module, space, _, _ in taken:
        module.train()
        everything = sample(space, 64)
        if isinstance(space, spaces.Discrete):
            everything = torch.arange(int(space.n))
        module(everything).square().sum().backward()
        parameters = list(module.named_parameters())
        assert parameters
        for name, p in parameters:
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name


def test_saves_and_loads_bit_equal(taken: list) -> None:
    for module, space, name, role in taken:
        module.train()(sample(space, 8))  # running statistics, if it has any, are part of it
        stored = safetensors.torch.save({key: value.contiguous() for key, value in module.state_dict().items()})
        other = build(name, role, space)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1)
        other.load_state_dict(safetensors.torch.load(stored))
        x = sample(space, 2, 3)
        assert torch.equal(module.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", CATALOGUE.names("encoder"))
def test_is_refused_in_any_other_role(name: str) -> None:
    entry = CATALOGUE.get("encoder", name)
    for role in sorted(set(SPACES) - entry.cls.ROLES):
        with pytest.raises(PluginError, match=rf"'{name}' cannot be a {role} encoder.*Known|{name}.*{role}"):
            CATALOGUE.get("encoder", name, role)
        with pytest.raises(PluginError, match=role):
            encoder(Choice(name, {}, entry, entry.Config()), role, SPACES[role][0], WIDTH)


@pytest.mark.parametrize("name", CATALOGUE.names("encoder"))
def test_every_option_has_its_docstring(name: str) -> None:
    config = CATALOGUE.get("encoder", name).Config
    assert config.__dataclass_fields__.keys() <= field_docs(config).keys()
