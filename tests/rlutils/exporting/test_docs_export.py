"""What docs/export.md shows works as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import torch

import rlutils
from rlalgo import DataSpec
from rlalgo.batchrl.dt import DecisionTransformer
from rlalgo.core.spaces import as_float32
from rlutils.exporting.export import export, write_export
from rlutils.exporting.runtime import Policy
from tests.rlutils.exporting.exports import differences
from tests.rlutils.runs import PLUGIN, toy_config

DOC = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
LISTINGS = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)


def test_the_listing_plays(tmp_path: Path) -> None:
    env = gymnasium.make("Hopper-v5")
    torch.manual_seed(0)
    config = DecisionTransformer.Config(context_length=3, embed_dim=8, n_layers=1)
    algo = DecisionTransformer(DataSpec(as_float32(env.observation_space), env.action_space), config)  # type: ignore[arg-type]
    algo.prepared = True
    option = algo.eval().PolicyConfig(target_return=3000.0)
    folder = write_export(algo, option, tmp_path / "policies" / "hopper")
    named = re.findall(r"^  (\S+) ", DOC.split("policies/hopper/\n")[1].split("```")[0], re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", LISTINGS[0]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"return \d+\.\d\n", done.stdout), done.stderr


def test_the_policy_of_ones_own_is_exported(tmp_path: Path) -> None:
    (tmp_path / "smoothed.py").write_text(LISTINGS[1])
    plugins = [PLUGIN, str(tmp_path / "smoothed.py")]
    config = {**toy_config("bc"), "algo": {"name": "smoothed", "hidden_dims": [8]}, "plugins": plugins}
    run = rlutils.train(config, out=tmp_path / "run", trainer__steps=20)
    algo = rlutils.load(run.folder, plugins=plugins)
    exported = Policy(export(run.folder, tmp_path / "out", "torchscript", plugins=plugins), rows=5)
    observations = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(0)).numpy()
    assert differences(algo, exported, observations, observations[..., 0]).max() < 1e-5
