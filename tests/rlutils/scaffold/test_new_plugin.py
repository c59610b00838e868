"""`rlalgo new-plugin`: what it writes is complete and works; what it cannot write is refused with the reason."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import rlutils
from rlalgo.config import parse
from rlalgo.errors import PluginError
from rlalgo.hookspecs import CATALOGUE_HOOKS
from rlutils.cli import app
from rlutils.collecting.settings import CollectSettings
from rlutils.config.catalogue import read_settings
from rlutils.config.files import read_yaml
from rlutils.scaffold.new_plugin import WHAT, NewPlugin, new_plugin
from tests.rlutils.environments import ROOT, fresh, python

KINDS = sorted(WHAT)


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["new-plugin", *words])


def plain(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NewPlugin]:
    """A plugin of every kind."""
    out = tmp_path_factory.mktemp("made")
    return {kind: new_plugin(kind, f"my-{kind}", out, rlutils.catalogue()) for kind in KINDS}


def test_there_is_one_for_every_kind() -> None:
    assert set(KINDS) == set(CATALOGUE_HOOKS)


@pytest.mark.parametrize("kind", KINDS)
def test_is_complete_and_its_example_is_valid(made: dict[str, NewPlugin], kind: str) -> None:
    plugin, module = made[kind], f"rlalgo_my_{kind}"
    assert {str(path.relative_to(plugin.folder)) for path in plugin.folder.rglob("*") if path.is_file()} == set(
        plugin.files
    )
    assert {"pyproject.toml", "README.md", f"{module}.py", f"tests/test_{module}.py"} <= set(plugin.files)
    project = tomllib.loads((plugin.folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == plugin.folder.name == f"rlalgo-my-{kind}"
    assert project["project"]["entry-points"]["rlalgo"] == {f"rlalgo-my-{kind}": module}
    assert project["tool"]["setuptools"]["py-modules"] == [module]

    given = [str(plugin.folder / f"{module}.py")]
    known = rlutils.catalogue(given)
    assert known.get(kind, f"my_{kind}").owner.plugin == given[0]
    example = plugin.folder / "example.yaml"
    if kind == "behavior":
        assert parse(CollectSettings, read_yaml(example), known).behavior.name == f"my_{kind}"
    else:
        read_settings(example, plugins=given)
        assert f"my_{kind}" in example.read_text()
    if "data.yaml" in plugin.files:
        data = parse(CollectSettings, read_yaml(plugin.folder / "data.yaml"), known)
        assert data.id == read_yaml(example)["source"]["id"]


def test_is_clean(made: dict[str, NewPlugin]) -> None:
    folder = str(made["algo"].folder.parent)
    python("-m", "ruff", "check", "--no-cache", "--select", "E,F,W,I,UP,B,SIM,PT,RET,NPY,BLE", folder)
    python("-m", "ruff", "format", "--no-cache", "--check", folder)


def run_tests(plugins: Sequence[NewPlugin], executable: str = sys.executable, **variables: str) -> str:
    """Their own tests, in a process of their own."""
    folders = [str(plugin.folder / "tests") for plugin in plugins]
    return python("-m", "pytest", "-q", "-p", "no:cacheprovider", *folders, executable=executable, **variables)


def test_its_own_tests_pass(made: dict[str, NewPlugin]) -> None:
    """Of two kinds; all of them run below, installed (they take half a minute)."""
    plugins = [made["encoder"], made["callback"]]
    path = os.pathsep.join([str(ROOT), *(str(plugin.folder) for plugin in plugins)])
    assert "passed" in run_tests(plugins, PYTHONPATH=path)


@pytest.mark.slow
def test_its_tests_can_fail(tmp_path: Path) -> None:
    plugin = new_plugin("encoder", "broken", tmp_path, rlutils.catalogue())
    module = plugin.folder / "rlalgo_broken.py"
    module.write_text(module.read_text().replace("nn.LayerNorm(b), ", ""))
    with pytest.raises(AssertionError, match="test_is_layer_normalized"):
        run_tests([plugin], PYTHONPATH=os.pathsep.join([str(ROOT), str(plugin.folder)]))


@pytest.mark.slow
def test_every_kind_is_built_installed_found_and_tested(made: dict[str, NewPlugin], tmp_path: Path) -> None:
    """Wheels in a fresh environment that sees this one's packages, so that nothing is downloaded."""
    executable = fresh(tmp_path, [plugin.folder for plugin in made.values()])
    entries = ",".join(plugin.folder.name for plugin in made.values())
    listed = python("-m", "rlutils.cli", "plugins", "--short", executable=executable, RLALGO_PLUGINS=entries)
    for kind in KINDS:
        assert f"{kind} my_{kind}  rlalgo-my-{kind} 0.1.0, plugin rlalgo-my-{kind}" in listed
    with pytest.raises(AssertionError, match="No module named rlalgo_my_algo"):
        python("-m", "rlalgo_my_algo")  # it is not to be had but in the fresh environment
    assert "passed" in run_tests(list(made.values()), executable, RLALGO_PLUGINS=entries)


@pytest.mark.slow
def test_mypy_finds_nothing(made: dict[str, NewPlugin], tmp_path: Path) -> None:
    files = [str(plugin.folder / file) for plugin in made.values() for file in plugin.files if file.endswith(".py")]
    once = [file for file in files if not file.endswith("toy_data.py")] + [files[files.index(_toy(files))]]
    options = ["--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    path = os.pathsep.join([str(ROOT), *(str(plugin.folder) for plugin in made.values())])
    assert "no issues" in python("-m", "mypy", *options, *once, MYPYPATH=path, PYTHONPATH="unset")


def _toy(files: Sequence[str]) -> str:
    """The trainer's, which has more in it than the others."""
    return next(file for file in files if file.endswith("toy_data.py") and "my-trainer" in file)


# --- the command ---


def test_the_command_says_what_it_wrote_and_how_to_go_on(tmp_path: Path) -> None:
    result = call("algorithm", "calm_down2", "--out", str(tmp_path / "new"))
    folder = tmp_path / "new" / "rlalgo-calm_down2"
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{folder}: pyproject.toml, README.md")
    assert lines[-3:] == [
        f"  pip install -e {folder}",
        f"  python -m pytest {folder}",
        f"  rlalgo collect {folder}/data.yaml && rlalgo train {folder}/example.yaml",
    ]
    assert "class CalmDown2Algo(BatchRLAlgo" in (folder / "rlalgo_calm_down2.py").read_text()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing temporary is left


def test_a_behavior_and_a_source_are_used_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    assert "rlalgo collect " in call("behavior", "x", "--out", str(folder)).stdout.splitlines()[-1]
    last = call("source", "y", "--out", str(folder)).stdout.splitlines()[-1]
    assert last == f"  rlalgo train '{folder}/rlalgo-y/example.yaml' source.path=FOLDER_OF_NPZ_FILES"


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("encodr", "x", r"no kind of plugin called 'encodr'\. Did you mean 'encoder'\? Kinds: algo, encoder"),
        ("algorithm", "bc", r"the algo 'bc' exists: rlalgo \S+, plugin 'bc'\. Choose another name"),
        ("algo", "TD3-BC", r"the algo 'td3_bc' exists"),
        ("callback", "Csv", r"the callback 'csv' exists: rlalgo \S+, plugin 'rlutils'"),
        ("encoder", "../x", r"'\.\./x' is no name"),
        ("encoder", "2d", r"'2d' is no name for a plugin: a letter, then letters, digits"),
        ("encoder", "two words", "'two words' is no name"),
        ("encoder", "x-", "'x-' is no name"),
        ("encoder", "a--b", "'a--b' is no name"),
        ("encoder", "größe", "'größe' is no name"),
        ("encoder", "", "'' is no name"),
    ],
)
def test_refuses(kind: str, name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=why):
        new_plugin(kind, name, tmp_path, rlutils.catalogue())
    assert list(tmp_path.iterdir()) == []
    result = call(kind, name, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert plain(result).startswith("error: ")


def test_a_name_of_another_kind_is_free(tmp_path: Path) -> None:
    plugin = new_plugin("encoder", "bc", tmp_path, rlutils.catalogue())
    known = rlutils.catalogue([str(plugin.folder / "rlalgo_bc.py")])
    assert known.get("encoder", "bc").cls is not known.get("algo", "bc").cls


def test_refuses_a_name_that_a_plugin_given_here_has(made: dict[str, NewPlugin], tmp_path: Path) -> None:
    given = str(made["source"].folder / "rlalgo_my_source.py")
    with pytest.raises(PluginError, match=rf"the source 'my_source' exists: {given}"):
        new_plugin("source", "my-source", tmp_path, rlutils.catalogue([given]))


def test_refuses_the_name_of_an_installed_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "rlalgo_there-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rlalgo-there\nVersion: 2.5\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(PluginError, match=r"rlalgo-there 2\.5 is installed"):
        new_plugin("encoder", "there", tmp_path / "out", rlutils.catalogue())


def test_leaves_an_existing_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "rlalgo-mine").mkdir()
    with pytest.raises(PluginError, match="exists and is left as it is"):
        new_plugin("encoder", "mine", tmp_path, rlutils.catalogue())
    assert list((tmp_path / "rlalgo-mine").iterdir()) == []


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="rlalgo-x cannot be written: File exists"):
        new_plugin("encoder", "x", tmp_path / "file", rlutils.catalogue())
    with pytest.raises(PluginError, match="cannot be written: File name too long"):
        new_plugin("encoder", "x" * 300, tmp_path, rlutils.catalogue())


def test_leaves_nothing_behind_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str) -> None:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        path.write_text(content)

    monkeypatch.setattr("rlutils.scaffold.new_plugin.write_atomic", full)
    with pytest.raises(PluginError, match="No space left on device; nothing is left there"):
        new_plugin("encoder", "x", tmp_path, rlutils.catalogue())
    assert list(tmp_path.iterdir()) == []
