"""The encoders against plain loops, the shapes that they take and give, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import rlalgo_cnn
import torch
from gymnasium import spaces
from rlalgo_cnn import CNN, Impala
from torch import Tensor, nn

import rlutils
from rlalgo import Choice, Kind
from rlalgo.config import parse
from rlalgo.errors import ConfigError, PluginError
from rlalgo.nets import encoder
from rlalgo.schema import field_docs

torch.set_num_threads(1)
WIDTH = 6
SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": (3, 4), "kernels": (3, 2), "strides": (2, 1)},
    "impala": {"channels": (3, 4), "blocks": 1},
}
CLASSES: dict[str, Any] = {"cnn": CNN, "impala": Impala}


def images(*shape: int, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(0, 255 if dtype == np.uint8 else 1, shape, dtype)


def make(name: str, space: spaces.Space, width: int = WIDTH, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return CLASSES[name](space, width, CLASSES[name].Config(**{**SMALL[name], **options}))


def bytes_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- what they compute ---


def convolved(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """(C, H, W) -> (D, H', W') by the definition, in float64."""
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()  # type: ignore[union-attr]
    pad, k, s = layer.padding[0], weight.shape[-1], layer.stride[0]
    x = np.pad(x, [(0, 0), (int(pad), int(pad)), (int(pad), int(pad))])
    H, W = ((n - k) // s + 1 for n in x.shape[1:])
    out = np.empty((len(weight), H, W))
    for d in range(len(weight)):
        for i in range(H):
            for j in range(W):
                out[d, i, j] = (x[:, i * s : i * s + k, j * s : j * s + k] * weight[d]).sum() + bias[d]
    return out


def pooled(x: np.ndarray) -> np.ndarray:
    """The largest of the 3x3 around every second place: (C, H, W) -> (C, ceil(H/2), ceil(W/2))."""
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    return np.array(
        [[[c[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max() for j in columns] for i in rows] for c in x]
    )


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in layer.parameters())
    return weight @ x + bias


def of(module: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """The layers of a kind, in order."""
    return [layer for layer in module.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("hidden", [None, 5])
def test_cnn_computes_convolutions_with_relu_and_a_linear_map(hidden: int | None, tanh: bool) -> None:
    module, image = make("cnn", images(2, 8, 7), hidden_dim=hidden, tanh=tanh), bytes_of(2, 8, 7)
    x = image.numpy() / 255
    for layer in of(module, nn.Conv2d):
        x = relu(convolved(x, layer))
    *between, out = of(module, nn.Linear)
    assert len(between) == (hidden is not None)
    x = x.reshape(-1)
    for layer in between:
        x = relu(linear(x, layer))
    x = linear(x, out)
    np.testing.assert_allclose(module(image).detach(), np.tanh(x) if tanh else x, atol=1e-5)


def test_impala_computes_stages_of_residual_blocks() -> None:
    module, image = make("impala", images(2, 9, 6), blocks=2), bytes_of(2, 9, 6)
    x, convolutions = image.numpy() / 255, iter(of(module, nn.Conv2d))
    for _ in SMALL["impala"]["channels"]:
        x = pooled(convolved(x, next(convolutions)))
        for _ in range(2):
            x = x + convolved(relu(convolved(relu(x), next(convolutions))), next(convolutions))
    assert next(convolutions, None) is None
    (out,) = of(module, nn.Linear)
    np.testing.assert_allclose(module(image).detach(), linear(relu(x).reshape(-1), out), atol=1e-5)


def test_defaults_are_the_published_networks() -> None:
    """DQN's 4x84x84 become 64 maps of 7x7; IMPALA's 15 convolutions in 3 stages end in 32 of 11x11."""
    space = images(4, 84, 84)
    cnn, impala = CNN(space, 512, CNN.Config()), Impala(space, 256, Impala.Config())
    assert of(cnn, nn.Linear)[0].weight.shape == (512, 64 * 7 * 7)
    assert sum(p.numel() for p in cnn.parameters()) == 1_684_128  # DQN without its last layer
    assert of(impala, nn.Linear)[0].weight.shape == (256, 32 * 11 * 11)
    assert len(of(impala, nn.Conv2d)) == 15
    assert cnn(bytes_of(1, 4, 84, 84)).shape == (1, 512)
    assert impala(bytes_of(1, 4, 84, 84)).shape == (1, 256)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_numerical_differences(name: str) -> None:
    """In place and channels last, they must still be the function's own."""
    module = make(name, images(2, 7, 6, dtype=np.float32)).double()
    x = torch.rand(2, 2, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(module, x)
    first = of(module, nn.Conv2d)[0]

    def of_weight(weight: Tensor) -> Tensor:
        return torch.func.functional_call(module, {f"{where}.weight": weight}, x.detach())

    where = next(key for key, layer in module.named_modules() if layer is first)
    assert torch.autograd.gradcheck(of_weight, first.weight.detach().clone().requires_grad_())


# --- what they take ---


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("shape", [(3, 9, 8), (1, 9, 8), (9, 8)])
@pytest.mark.parametrize("name", SMALL)
def test_gives_the_width_for_any_leading_shape(name: str, shape: tuple[int, ...], lead: tuple[int, ...]) -> None:
    module, x = make(name, images(*shape)), bytes_of(*lead, *shape)
    before = x.clone()
    out = module(x)
    assert out.shape == (*lead, WIDTH)
    assert out.dtype == torch.float32
    assert torch.equal(x, before)
    alone = [module(image) for image in x.reshape(-1, *shape)]  # each image by itself
    for one, row in zip(alone, out.reshape(-1, WIDTH), strict=True):
        torch.testing.assert_close(one, row, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_bytes_are_scaled_to_one_and_floats_left_alone(name: str) -> None:
    of_bytes, of_floats = make(name, images(2, 9, 8)), make(name, images(2, 9, 8, dtype=np.float32))
    x = bytes_of(4, 2, 9, 8)
    scaled = x.float() / 255
    kept = scaled.clone()
    assert torch.equal(of_bytes(x), of_floats(scaled))
    assert torch.equal(scaled, kept)
    sixteen = make(name, spaces.Box(0, 15, (2, 9, 8), np.uint8))  # scaled by the space's own bound
    torch.testing.assert_close(sixteen(x % 16), of_floats((x % 16).float() / 15))


@pytest.mark.parametrize("name", SMALL)
def test_one_channel_is_an_image_without_channels(name: str) -> None:
    x = bytes_of(4, 9, 8)
    assert torch.equal(make(name, images(9, 8))(x), make(name, images(1, 9, 8))(x.unsqueeze(1)))


@pytest.mark.parametrize("name", SMALL)
def test_training_and_evaluating_give_the_same(name: str) -> None:
    module, x = make(name, images(2, 9, 8)), bytes_of(4, 2, 9, 8)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    first = module.train()(x)
    assert torch.equal(module.eval()(x), first)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert set(state) == {key for key, _ in module.named_parameters()}


# --- what they refuse ---


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "space", [images(5, dtype=np.float32), spaces.Discrete(4), images(2, 3, 9, 8), spaces.Box(-1, 1, (), np.float32)]
)
def test_refuses_what_is_no_image(name: str, space: spaces.Space) -> None:
    with pytest.raises(TypeError, match=rf"{name} needs images, \(C, H, W\) or \(H, W\), got .*choose linear or mlp"):
        make(name, space)


def test_cnn_refuses_images_smaller_than_its_kernels() -> None:
    wanted = r"cnn: images of shape \(4, 36, 15\) are too small; of 36x15 .* a kernel of 4 meets only 8x2; choose"
    with pytest.raises(ValueError, match=wanted):
        CNN(images(4, 36, 15), WIDTH, CNN.Config())
    with pytest.raises(ValueError, match=r"\(84, 84, 3\).*channels come first.* a kernel of 8 meets only 84x3"):
        CNN(images(84, 84, 3), WIDTH, CNN.Config())
    assert CNN(images(36, 36), WIDTH, CNN.Config())(bytes_of(36, 36)).shape == (WIDTH,)  # the least that lasts
    with pytest.raises(ValueError, match="a kernel of 3 meets only 2x2"):
        CNN(images(35, 35), WIDTH, CNN.Config())


def test_impala_refuses_images_that_its_stages_use_up() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\) are too small.* 2 of 3 stages halve it to 1x2; choose fewer"):
        Impala(images(4, 5), WIDTH, Impala.Config())
    assert Impala(images(5, 5), WIDTH, Impala.Config())(bytes_of(5, 5)).shape == (WIDTH,)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"channels": [8, 8]}, "encoder: channels, kernels and strides need .* got 2, 3 and 3 numbers"),
        ({"channels": [], "kernels": [], "strides": []}, "encoder: .* got 0, 0 and 0 numbers"),
        ({"kernels": [8, 0, 3]}, r"encoder.kernels\[1\]: should be greater than or equal to 1, got 0"),
        ({"chanels": [8]}, "encoder.chanels: unknown key 'chanels'. Did you mean 'channels'?"),
        ({"name": "impala", "channels": []}, "encoder: channels: give one number for each stage"),
        ({"name": "impala", "kernels": [3]}, "encoder.kernels: unknown key"),
    ],
)
def test_wrong_options_are_told_with_their_path(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(Chosen, {"encoder": {"name": "cnn", **options}}, rlutils.catalogue(["rlalgo_cnn"]))


def test_images_that_do_not_fit_are_told_before_training(tmp_path: Path) -> None:
    game = str(Path(__file__).parent / "catch_game.py")
    config = {
        "plugins": ["rlalgo_cnn", game],
        "source": "catch",
        "env": "catch",
        "algo": {"name": "bc", "state_encoder": "cnn"},
    }
    with pytest.raises(ConfigError, match=r"algo: cnn: images of shape \(2, 18, 20\) are too small"):
        rlutils.train(config, out=tmp_path / "run")


# --- how they are found ---


@dataclass(frozen=True)
class Chosen:
    encoder: Annotated[Choice, Kind("encoder", "state")]
    """What a YAML file names."""


@pytest.mark.parametrize("plugin", ["rlalgo_cnn", rlalgo_cnn.__file__])
def test_registers_by_module_and_by_file(plugin: str) -> None:
    installed = [p.name for p in metadata.entry_points(group="rlalgo") if p.value == "rlalgo_cnn"]
    known = rlutils.catalogue([plugin], block=installed)
    for name in SMALL:
        entry = known.get("encoder", name, "state")
        assert entry.cls.__name__ == CLASSES[name].__name__
        assert entry.owner.plugin == plugin
        with pytest.raises(PluginError, match=f"'{name}' cannot be an action encoder"):
            known.get("encoder", name, "action")
    without = rlutils.catalogue(block=installed)
    assert not set(SMALL) & set(without.names("encoder"))
    with pytest.raises(ConfigError, match="encoder: no encoder called 'cnn'"):
        parse(Chosen, {"encoder": "cnn"}, without)


def test_is_built_by_name_with_its_options() -> None:
    known = rlutils.catalogue(["rlalgo_cnn"])
    chosen = parse(Chosen, {"encoder": {"name": "cnn", **SMALL["cnn"], "tanh": True}}, known).encoder
    module = encoder(chosen, "state", images(2, 9, 8), WIDTH)
    assert torch.equal(module(bytes_of(2, 9, 8)), module(bytes_of(1, 2, 9, 8))[0])
    assert [layer.out_channels for layer in of(module, nn.Conv2d)] == [3, 4]


@pytest.mark.parametrize("name", SMALL)
def test_every_option_has_its_docstring(name: str) -> None:
    assert set(CLASSES[name].Config.__dataclass_fields__) <= set(field_docs(CLASSES[name].Config))
