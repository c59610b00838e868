"""`rlalgo export`: the folder that it writes, what it replaces, and what cannot be exported."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import rlutils
from rlalgo import Controller, Policy
from rlalgo.batchrl.bc import BC
from rlalgo.core.spaces import from_mapping
from rlutils.config.files import read_as
from rlutils.export_command import export as command
from rlutils.exporting import runtime
from rlutils.exporting.export import ExportError, write_export
from rlutils.exporting.record import Exported
from tests.contract.setups import build, toy_episodes
from tests.rlutils.runs import PLUGIN, toy_config

ROOT = Path(__file__).parents[3]
SEEN = np.array([0.3, -0.4], np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rlutils.train(toy_config(), out=tmp_path_factory.mktemp("runs") / "run", trainer__steps=30).folder


def rlalgo(*words: Any) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def test_a_run_is_exported_by_command(run: Path, tmp_path: Path) -> None:
    out, plugin = tmp_path / "deep" / "out", ("--plugin", PLUGIN)
    code, said = rlalgo(run, "--out", out, "--format", "torch", "--target-return", 7, *plugin)
    assert (code, said) == (0, f"{out}: README.md, policy.json, policy.pt2, policy.py")
    about = read_as(Exported, out / "policy.json")
    assert (about.algorithm, about.step, about.context_length, about.target_return) == ("dt", 30, 4, 7.0)
    algo = rlutils.load(run, plugins=[PLUGIN])
    assert from_mapping(about.observation_space) == algo.spec.observation_space
    assert from_mapping(about.action_space) == algo.spec.action_space
    native, exported = Controller(algo.policy([algo.PolicyConfig(target_return=7.0)])), runtime.Policy(out)
    native.reset()
    np.testing.assert_allclose(exported.act(SEEN), native.act(SEEN), atol=1e-5)
    before = (out / "policy.json").read_text()
    assert rlalgo(run, "--out", out, *plugin)[0] == 2
    words = ("--format", "torchscript", "--checkpoint", "step_000000030", "--option", "target_return=3")
    assert rlalgo(run, "--out", out, "--replace", *words, *plugin)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "policy.json", "policy.pt", "policy.py"]
    about = read_as(Exported, out / "policy.json")
    assert (about.step, about.target_return, about.format) == (30, 3.0, "torchscript")
    assert before != (out / "policy.json").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "tflite"), "--format tflite: expected onnx, torchscript, torch"),
        (("--checkpoint", "step_9"), "no checkpoint 'step_9'"),
        (("--option", "sample=true", "--format", "torch"), "sample: true cannot be exported"),
        (("--option", "sample"), "expected key=value"),
        (("--option", "temperature=1"), "temperature"),
    ],
)
def test_what_is_typed_wrong_is_told_and_nothing_is_written(
    words: Any, message: str, run: Path, tmp_path: Path
) -> None:
    code, said = rlalgo(run, "--out", tmp_path / "out", "--plugin", PLUGIN, *words)
    assert code == 2
    assert message in said
    assert not any(tmp_path.iterdir())


def test_only_exports_are_replaced(bc_folder: Path, tmp_path: Path) -> None:
    algo = build("bc", "box").train(3).eval()

    def refused(out: Path, replace: bool = True) -> str:
        before = sorted(out.rglob("*")) if out.is_dir() else out.read_text()
        with pytest.raises(ExportError) as caught:
            write_export(algo, algo.PolicyConfig(), out, "torchscript", replace=replace)
        assert before == (sorted(out.rglob("*")) if out.is_dir() else out.read_text())
        return str(caught.value)

    export = shutil.copytree(bc_folder, tmp_path / "export")
    assert "exists; choose another --out" in refused(export, replace=False)
    (export / "notes.txt").write_text("mine")
    assert "also holds notes.txt" in refused(export)
    (tmp_path / "other").mkdir()
    assert "is no export" in refused(tmp_path / "other")
    (tmp_path / "file").write_text("mine")
    assert "is no export" in refused(tmp_path / "file")
    (tmp_path / "link").symlink_to(bc_folder)
    assert "is a link" in refused(tmp_path / "link")
    assert "is no export" in refused(ROOT / "tests" / "rlutils" / "exporting")


def test_what_was_to_be_replaced_is_back_when_its_place_is_not_taken(
    bc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a rename that fails, or by a kill before it."""
    algo, rename = build("bc", "box").train(3).eval(), Path.rename
    out, before = shutil.copytree(bc_folder, tmp_path / "out"), (bc_folder / "policy.json").read_text()

    def refused(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(ExportError, match="out: cannot be written: Input/output error"):
            write_export(algo, algo.PolicyConfig(), out, "torchscript", replace=True)
    assert (out / "policy.json").read_text() == before
    assert [*tmp_path.iterdir()] == [out]

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = f".out-{platform.node()}-{dead.pid}-abc"
    out.rename(tmp_path / f"{left}-old")
    (tmp_path / left).mkdir()
    broken = Choosy(toy_episodes("box").spec, BC.Config(hidden_dims=(8,)))
    broken.prepare(toy_episodes("box"), 10)
    with pytest.raises(ExportError, match="cannot be exported"):
        write_export(broken.eval(), broken.PolicyConfig(), out, "torch")
    assert (out / "policy.json").read_text() == before
    assert [*tmp_path.iterdir()] == [out]


def test_an_export_replaces_itself_where_one_stands(
    bc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algo = build("bc", "box").train(3).eval()
    monkeypatch.chdir(shutil.copytree(bc_folder, tmp_path / "out"))
    write_export(algo, algo.PolicyConfig(), ".", "torchscript", replace=True)
    assert (tmp_path / "out" / "policy.pt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_disk_or_name_leaves_nothing(tmp_path: Path) -> None:
    algo = build("bc", "box").train(3).eval()
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        write_export(algo, algo.PolicyConfig(), tmp_path / "file" / "out", "torchscript")


class Secretive(BC):
    def policy(self, options: Any) -> Policy:
        class Mine(Policy):
            def act(self, observations: Tensor, rows: Tensor) -> Tensor:
                return torch.zeros(len(rows), 2)

        return Mine()


class Choosy(BC):
    def forward(self, observations: Tensor) -> Any:
        return super().forward(observations * 2 if observations.sum() > 0 else observations)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Secretive, r"the policy of bc \(Mine\) cannot be exported: it has no `acting`"),
        (Choosy, "the policy of bc cannot be exported as torch: GuardOnDataDependent"),
    ],
)
def test_a_plugins_policy_that_cannot_is_told_in_a_line(cls: type[BC], message: str, tmp_path: Path) -> None:
    algo = cls(toy_episodes("box").spec, BC.Config(hidden_dims=(8,)))
    algo.prepare(toy_episodes("box"), 10)
    with pytest.raises(ExportError, match=message) as caught:
        write_export(algo.eval(), algo.PolicyConfig(), tmp_path / "out", "torch")
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_without_onnx_the_other_formats_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    algo = build("bc", "box").train(3).eval()
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install 'rlalgo\[onnx\]'"):
        write_export(algo, algo.PolicyConfig(), tmp_path / "out")
    write_export(algo, algo.PolicyConfig(), tmp_path / "out", "torchscript")


def test_nothing_of_this_machine_or_of_training_is_in_the_files(dt_folder: Path, tmp_path: Path) -> None:
    algo = build("edac", "box").train(3).eval()
    folders = [write_export(algo, algo.PolicyConfig(), tmp_path / name, name) for name in ("torch", "torchscript")]
    for path in [path for folder in (*folders, dt_folder) for path in folder.iterdir()]:
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                contents = [file.read(name) for name in file.namelist()]
            assert sum(map(len, contents)) < 3 * 4 * sum(p.numel() for p in algo.actor.parameters()) + 60_000
        for content in contents:
            assert str(ROOT).encode() not in content
    assert "metadata" not in str(onnx.load(dt_folder / "policy.onnx").graph.node[0])


def test_the_readme_of_an_export_works(dt_folder: Path) -> None:
    (listing,) = re.findall(r"```python\n(.*?)```", (dt_folder / "README.md").read_text(), re.DOTALL)
    code = f"import numpy as np\nobservation, reward = np.zeros(2), 1.0\n{listing}\nprint(action)"
    done = subprocess.run([sys.executable, "-c", code], cwd=dt_folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(dt_folder / "__pycache__", ignore_errors=True)
