"""An exported policy acts as the native one: every algorithm, action space, kind of observation and format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlutils.data.images import Images
from rlutils.data.spaces import time_first
from rlutils.exporting.export import write_export
from rlutils.exporting.runtime import Policy
from tests.contract.setups import algos, build
from tests.rlutils.exporting.exports import CNN, DT, FUSION, RGB, differences, trained

STEPS = 17
"""More than the context and the longest episode of the toy data (4 and 12)."""
FORMATS = ("onnx", "torchscript", "torch")
QUICK = [("bc", "box", "onnx"), ("iql", "discrete", "torch"), ("dt", "multi", "torchscript")]
EVERY = [(name, kind, format) for format in FORMATS for name, kind in algos()]


def agree(found: np.ndarray, continuous: bool) -> None:
    """Actions to 1e-5; discrete ones are the same, but that one history in a thousand may meet a tie."""
    if continuous:
        assert found.max() < 1e-5
    else:
        assert found.any(0).sum() <= max(1, found.shape[1] // 1000)


@pytest.mark.parametrize(
    ("name", "kind", "format"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in EVERY],
)
def test_acts_as_the_native_policy(name: str, kind: str, format: str, tmp_path: Path) -> None:
    """On 1,000 random histories of ONNX, and on 50 of the other formats."""
    setup = build(name, kind)
    algo, rng, n = setup.train(30).eval(), np.random.default_rng(0), 1000 if format == "onnx" else 50
    folder = write_export(algo, algo.PolicyConfig(), tmp_path / "out", format)
    observations = rng.normal(size=(STEPS, n, 2)).astype(np.float32) * 3
    targets = rng.uniform(-20, 20, n) if name == "dt" else None
    found = differences(algo, Policy(folder, rows=n), observations, rng.normal(size=(STEPS, n)), targets)
    agree(found, kind == "box")


VARIANTS: list[dict[str, Any]] = [
    {"positions": "token", "activation": "gelu_new", "max_timestep": 6},
    {
        "n_heads": 1,
        "embed_dim": 8,
        "context_length": 7,
        "tanh": False,
        "timestep_encoder": {"name": "linear", "tanh": True},
    },
    {"state_loss": 1.0, "return_loss": 1.0, "context_length": 2, "state_encoder": "mlp", "action_encoder": "mlp"},
]


@pytest.mark.parametrize(
    "format", ["torchscript", *(pytest.param(f, marks=pytest.mark.slow) for f in ("onnx", "torch"))]
)
@pytest.mark.parametrize("options", VARIANTS, ids=["token", "one head", "mlp"])
def test_every_decision_transformer(options: dict[str, Any], format: str, tmp_path: Path) -> None:
    algo, rng, n = build("dt", "box", **options).train(10).eval(), np.random.default_rng(0), 20
    folder = write_export(algo, algo.PolicyConfig(), tmp_path / "out", format)
    observations = rng.normal(size=(STEPS, n, 2)).astype(np.float32)
    found = differences(algo, Policy(folder, rows=n), observations, rng.normal(size=(STEPS, n)), rng.normal(size=n) * 9)
    agree(found, True)


DICT = spaces.Dict(
    arm=spaces.Tuple([spaces.Box(-5, 5, (2,), np.float64), spaces.Discrete(3, start=-1)]),
    buttons=spaces.MultiBinary(2),
    dial=spaces.MultiDiscrete([2, 3], start=[0, 5]),
)
EYES = spaces.Dict(arm=spaces.Tuple([spaces.Box(-5, 5, (2,), np.float64), spaces.Discrete(3)]), eye=RGB)
PUSH, KEYS = spaces.Box(-1, 3, (2,), np.float32), spaces.MultiDiscrete([[3], [2]], start=[[-1], [4]])
MLP: dict[str, Any] = {"hidden_dims": [16]}
CASES: dict[str, tuple[str, spaces.Space, spaces.Space, Images | None, int, dict[str, Any]]] = {
    "flattened": ("iql", DICT, PUSH, None, 1, MLP),
    "stacked": ("bc", DICT, KEYS, None, 3, MLP),
    "buttons": ("dqn", DICT, spaces.MultiBinary((2, 2)), None, 1, MLP),
    "frames": ("iql", RGB, PUSH, Images(True, True, (10, 12)), 3, {**MLP, "state_encoder": CNN}),
    "dt": ("dt", RGB, PUSH, Images(True, size=(9, 9)), 2, {**DT, "state_encoder": CNN}),
    "dt on vectors": ("dt", DICT, spaces.Discrete(3, start=2), None, 2, DT),
    "packed": ("iql", EYES, PUSH, None, 1, {**MLP, "state_encoder": FUSION}),
    "all": ("dt", EYES, PUSH, Images(gray=True, size=(8, 8)), 2, {**DT, "state_encoder": FUSION}),
}


@pytest.mark.parametrize("format", [*FORMATS[1:2], *(pytest.param(f, marks=pytest.mark.slow) for f in FORMATS[::2])])
@pytest.mark.parametrize("case", CASES)
def test_takes_what_the_environment_gives(case: str, format: str, tmp_path: Path) -> None:
    name, raw, actions, images, frame_stack, options = CASES[case]
    algo = trained(name, raw, actions, images, frame_stack, **options)
    folder = write_export(algo, algo.PolicyConfig(), tmp_path / "out", format)
    rng, n = np.random.default_rng(0), 20
    observations = [time_first(raw, [raw.sample() for _ in range(n)]) for _ in range(7)]
    targets = rng.uniform(-9, 9, n) if name == "dt" else None
    found = differences(algo, Policy(folder, rows=n), observations, rng.normal(size=(7, n)), targets, raw)
    agree(found, isinstance(actions, spaces.Box))
