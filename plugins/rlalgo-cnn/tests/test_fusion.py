"""`fusion`: images and vectors together, by hand and from a recorded dataset to a policy that needs both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rlalgo_cnn import CNN, Fusion
from torch import Tensor

import rlutils
from rlalgo import Transitions
from rlalgo.config import parse
from rlalgo.core.spaces import Packed
from rlalgo.errors import ConfigError
from rlutils.collecting.collect import collect
from rlutils.collecting.settings import CollectSettings
from rlutils.data.minari_source import MinariSource

torch.set_num_threads(1)
PLUGINS = ["rlalgo_cnn"]
EYE = {"name": "cnn", "channels": [4], "kernels": [3], "strides": [2]}
SMALL = {"image_encoder": EYE, "image_dim": 16, "hidden_dims": [16]}
FUSION = {"name": "fusion", **SMALL}


class Lamps(gymnasium.Env):
    """A lamp is on or off, an arm is up or down; the right action says whether one of both, not both, is the case."""

    observation_space = spaces.Dict(
        lamp=spaces.Box(0, 255, (6, 8, 3), np.uint8),
        arm=spaces.Dict(at=spaces.Box(-np.inf, np.inf, (2,), np.float64), noise=spaces.Discrete(3)),
    )
    action_space = spaces.Discrete(2)

    def look(self) -> dict[str, Any]:
        on, up, noise = (int(self.np_random.integers(n)) for n in (2, 2, 3))
        self.right = on ^ up
        frame = np.full((6, 8, 3), 100 * on, np.uint8) + self.np_random.integers(0, 100, (6, 8, 3)).astype(np.uint8)
        at = np.array([1000 + (2 * up - 1) * self.np_random.uniform(1, 2), self.np_random.normal()])
        return {"lamp": frame, "arm": {"at": at, "noise": noise}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        reward = float(action == self.right)
        return self.look(), reward, False, False, {}


gymnasium.register("fusion/Lamps-v0", entry_point="test_fusion:Lamps", max_episode_steps=10)

ALGOS: dict[str, dict[str, Any]] = {
    "dqn": {"hidden_dims": [32], "lr": 3e-3, "gamma": 0.1},
    "bc": {"hidden_dims": [32], "lr": 3e-3},
    "dt": {"context_length": 2, "embed_dim": 32, "n_layers": 1, "lr": 3e-3, "warmup": 1, "return_scale": 10.0},
}


def fusion(space: spaces.Space, width: int = 5) -> Fusion:
    torch.manual_seed(0)
    return Fusion(space, width, parse(Fusion.Config, SMALL, rlutils.catalogue(PLUGINS)))


def test_it_is_its_parts() -> None:
    """An encoder for each image, the vectors of all frames through one MLP, and a linear map over both."""
    space = spaces.Dict(
        [
            ("b", spaces.Box(-1, 1, (2, 3), np.float32)),
            ("eye", spaces.Box(0, 255, (2, 5, 6), np.uint8)),
            ("a", spaces.Box(-1, 1, (4,), np.float32)),
            ("ear", spaces.Box(0, 255, (7, 5), np.uint8)),
        ]
    )
    module = fusion(space)
    x: dict[str, Tensor] = {
        "b": torch.randn(3, 2, 3), "eye": torch.randint(0, 256, (3, 2, 5, 6), dtype=torch.uint8),
        "a": torch.randn(3, 4), "ear": torch.randint(0, 256, (3, 7, 5), dtype=torch.uint8),
    }  # fmt: skip
    eye, ear = module.encoders
    assert (type(eye), type(ear)) == (CNN, CNN)
    vectors = module.mlp(torch.cat([x["b"].flatten(1), x["a"]], 1))
    expected = module.out(torch.cat([eye(x["eye"]), ear(x["ear"]), vectors], 1).relu())
    torch.testing.assert_close(module(x), expected)
    assert module(x).shape == (3, 5)


def test_images_alone_do_too() -> None:
    space = spaces.Dict(eye=spaces.Box(0, 255, (5, 6), np.uint8), ear=spaces.Box(0, 255, (7, 5), np.uint8))
    x = {name: torch.zeros(2, *box.shape, dtype=torch.uint8) for name, box in space.spaces.items()}
    assert fusion(space)(x).shape == (2, 5)


def test_it_refuses_what_is_one_box_and_others_what_is_two() -> None:
    image = spaces.Box(0, 255, (9, 9), np.uint8)
    with pytest.raises(TypeError, match="fusion needs images and vectors together"):
        fusion(image)
    with pytest.raises(TypeError, match=r"cnn needs images.*; choose fusion for it"):
        CNN(spaces.Dict(eye=image), 4, CNN.Config())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path


def recorded(name: str, behavior: Any) -> str:
    values = {"id": f"lamps/{name}-v0", "env": {"id": "fusion/Lamps-v0"}, "behavior": behavior, "steps": 1000}
    return collect(parse(CollectSettings, values, rlutils.catalogue(PLUGINS))).id


def trained(ident: str, algo: str, out: Path, stack: int = 1, **options: Any) -> Any:
    config = {
        "plugins": PLUGINS,
        "threads": 1,
        "source": {"name": "minari", "id": ident, "frame_stack": stack},
        "algo": {"name": algo, "state_encoder": FUSION, **ALGOS[algo], **options},
        "trainer": {"name": "offline", "steps": 400 // stack, "batch_size": 64},
        "evaluation": {"episodes": 10},
        "callbacks": [],
    }
    return rlutils.train(config, out=out)


def test_from_a_recording_to_policies_that_need_both(root: Path) -> None:
    teacher = trained(recorded("random", "random"), "dqn", root / "dqn")
    assert np.mean(teacher.last_result.policies[0].returns) > 9.5
    good = recorded("good", {"name": "run", "run": str(root / "dqn"), "plugins": PLUGINS})
    data = MinariSource(MinariSource.Config(good, frame_stack=2)).load()
    space = data.spec.observation_space
    assert isinstance(space, Packed)
    assert [(name, box.shape) for name, box in space.parts.spaces.items()] == [
        ("arm/at", (2,)), ("arm/noise", (3,)), ("lamp", (3, 6, 8)),
    ]  # fmt: skip
    for name in ("bc", "dt"):
        run = trained(good, name, root / name, stack=2)
        (result,) = rlutils.evaluate(run.folder, plugins=PLUGINS).policies
        assert np.mean(result.returns) > 9.5, name

    algo: Any = rlutils.load(root / "bc", plugins=PLUGINS)
    again: Any = rlutils.load(root / "bc", plugins=PLUGINS)
    batch = Transitions(data).gather(torch.arange(500))
    assert torch.equal(algo.predict(batch), again.predict(batch))
    seen = algo.spec.encoder_space()
    for part in (slice(4 * space.size, None), slice(0, 4 * space.size)):  # without the right lamp, or the right arm
        mixed = batch.observations.clone()
        mixed[..., part] = mixed[torch.randperm(500)][..., part]
        assert seen.unpack(mixed)["lamp"].shape == (500, 6, 6, 8)
        agree = (algo.predict(batch._replace(observations=mixed)) == batch.actions).float().mean()
        assert 0.35 < agree < 0.65
    assert (algo.predict(batch) == batch.actions).float().mean() > 0.97


def test_without_it_one_line_says_what_to_choose(root: Path) -> None:
    ident = recorded("random", "random")
    for state_encoder in (None, "mlp"):
        with pytest.raises(
            ConfigError, match=r"algo: .* together.*state_encoder: \{name: fusion\} \(pip install rlalgo-cnn"
        ):
            trained(ident, "bc", root / "bc", state_encoder=state_encoder)
    with pytest.raises(ConfigError, match=r"algo: cnn needs images.*choose fusion"):
        trained(ident, "bc", root / "bc", state_encoder="cnn")
    with pytest.raises(ConfigError, match="algo: dt: state_loss predicts vector observations"):
        trained(ident, "dt", root / "dt", state_loss=1.0)
