"""Modules that a dataset or a run folder names are installed ones only; a person's own may be files."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium import spaces

import rlutils
from rlalgo import DataSpec
from rlalgo.errors import EnvironmentFault
from rlalgo.plugins import catalogue
from rlutils.checkpoints.loading import run_settings
from rlutils.config.catalogue import _catalogue, read_settings
from rlutils.config.files import write_yaml
from rlutils.config.modules import installed, own_modules
from rlutils.envs.gym import GymEnv
from tests.rlutils.runs import PLUGIN, toy_config

PENDULUM = DataSpec(spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,)), env_id="Pendulum-v1")
OWN = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Mine(PendulumEnv):
    pass

class Wrapped(gymnasium.Wrapper):
    pass

open({trace!r}, "a").write("x")
gymnasium.register("Mine-v0", entry_point="{name}:Mine", max_episode_steps=7)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that registers an environment, in the working folder, which Python searches too; it leaves a trace."""
    file = tmp_path / "an_own_env.py"
    file.write_text(OWN.format(trace=str(tmp_path / "trace"), name=file.stem))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    yield file
    gymnasium.registry.pop("Mine-v0", None)
    for name in [name for name in sys.modules if "an_own_env" in name]:
        del sys.modules[name]


def ran(file: Path) -> bool:
    return (file.parent / "trace").exists()


@pytest.mark.parametrize("name", ["gymnasium", "gymnasium.wrappers", "rlalgo", "minari"])
def test_what_is_installed(name: str) -> None:
    assert installed(name)


@pytest.mark.parametrize("name", ["os", "json", "no_such_thing", "", "a-b", "../x"])
def test_what_is_no_distribution(name: str) -> None:
    assert not installed(name)


@pytest.mark.parametrize("kind", ["file", "package", "namespace", "shadow"])
def test_what_lies_in_the_working_folder_is_not_installed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pygments" if kind == "shadow" else "an_own_env"
    if kind in ("file", "shadow"):
        (tmp_path / f"{name}.py").touch()
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / ("__init__.py" if kind == "package" else "part.py")).touch()
    monkeypatch.chdir(tmp_path)
    for place in ("", str(tmp_path)):
        with monkeypatch.context() as patch:
            patch.syspath_prepend(place)
            for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
                patch.delitem(sys.modules, loaded)
            assert not installed(name)


def recorded(**record: Any) -> DataSpec:
    """The spec of a checkpoint or dataset that names modules."""
    return replace(PENDULUM, env_id=record.pop("env_id", "Pendulum-v1"), preprocess=record)


FOREIGN = {
    "id": recorded(env_id="an_own_env:Mine-v0"),
    "module": recorded(env_id="Mine-v0", env_module="an_own_env"),
    "wrapper": recorded(env_wrappers=[{"name": "W", "entry_point": "an_own_env:Wrapped", "kwargs": {}}]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_names_from_files_import_nothing_from_the_working_folder(name: str, own: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"an_own_env is not installed here, .*--plugin an_own_env\.py"):
        GymEnv(GymEnv.Config()).make(FOREIGN[name], 1)
    assert not ran(own)
    catalogue([str(own)])  # what the message advises
    assert len(GymEnv(GymEnv.Config()).make(FOREIGN[name], 1)) == 1


def test_a_missing_wrapper_says_what_to_do() -> None:
    for entry, words in (
        ("gymnasium.wrappers:NoSuch", "wrapper gymnasium.wrappers:NoSuch, and the .* here has no NoSuch; install the"),
        ("no_such_thing:W", "wrapper no_such_thing:W: the module no_such_thing is not installed here"),
        ("os:getcwd", "os:getcwd, which is no gymnasium.Wrapper"),
    ):
        spec = recorded(env_wrappers=[{"name": "W", "entry_point": entry, "kwargs": {}}])
        with pytest.raises(EnvironmentFault, match=words):
            GymEnv(GymEnv.Config()).make(spec, 1)


def test_pip_is_advised_for_known_packages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(EnvironmentFault, match="pip install 'gymnasium-robotics'"):
        GymEnv(GymEnv.Config(id="gymnasium_robotics:Fetch-v0")).make(PENDULUM, 1)
    with pytest.raises(EnvironmentFault) as caught:
        GymEnv(GymEnv.Config(id="no_such_thing:X-v0")).make(PENDULUM, 1)
    assert "pip" not in str(caught.value)


def config(**env: Any) -> dict[str, Any]:
    return toy_config("bc", env={"name": "gym", **env})


@pytest.mark.parametrize("how", ["beside the YAML", "working folder", "override", "mapping", "override mapping"])
def test_a_persons_own_yaml_or_command_finds_the_module(how: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, overrides, source = own.parent / "sub" / "a.yaml", list[str](), None
    file.parent.mkdir()
    ident: dict[str, Any] = {"id": "an_own_env:Mine-v0"}
    if how.startswith("override"):
        overrides, ident = ["env.id=an_own_env:Mine-v0"], {}
    if how == "beside the YAML":
        file = own.parent / "a.yaml"
        monkeypatch.chdir(file.parent / "sub")
    write_yaml(file, config(**ident))
    source = config(**ident) if "mapping" in how else file
    settings, _ = read_settings(source, overrides)
    assert str(own) in settings.plugins
    (env,) = GymEnv(settings.env.config).make(PENDULUM, 1)
    assert (env.spec.id, type(env.unwrapped).__name__) == ("Mine-v0", "Mine")  # type: ignore[union-attr]


def test_a_run_folder_does_not(own: Path) -> None:
    folder = own.parent / "run"
    folder.mkdir()
    write_yaml(folder / "config.yaml", config(id="an_own_env:Mine-v0"))
    settings, _ = run_settings(folder, [PLUGIN])
    with pytest.raises(EnvironmentFault, match="an_own_env is not installed here"):
        GymEnv(settings.env.config).make(PENDULUM, 1)
    assert not ran(own)
    typed, _ = run_settings(folder, [PLUGIN], ["env.id=an_own_env:Mine-v0"])
    assert ran(own)
    assert str(own) in typed.plugins


def test_an_installed_module_is_never_looked_for_among_files(tmp_path: Path) -> None:
    (tmp_path / "minari.py").touch()
    (tmp_path / "mine.py").touch()
    assert own_modules({"env": {"id": "minari:X-v0"}}, tmp_path) == []
    assert own_modules({"env": {"id": "mine:X-v0"}}, tmp_path) == [str(tmp_path / "mine.py")]
    assert own_modules({"env": {"id": "mine:X-v0"}, "plugins": ["elsewhere/mine.py"]}, tmp_path) == []
    for odd in (None, "gym", [], {"id": None}, {"id": 3}, {"id": "X-v0"}, {"id": "../mine:X-v0"}, {"id": ":X"}):
        assert own_modules({"env": odd}, tmp_path) == []


def test_a_run_trained_in_ones_own_environment(own: Path) -> None:
    """It is trained as its YAML says; later the run folder alone is not enough to import anything."""
    text = own.read_text().replace("PendulumEnv", "PointEnv")
    own.write_text(text.replace("gymnasium.envs.classic_control", "tests.rlutils.toy_plugin"))
    file, run = own.parent / "a.yaml", own.parent / "run"
    write_yaml(file, config(id="an_own_env:Mine-v0"))
    rlutils.train(file, run)
    gymnasium.registry.pop("Mine-v0")
    for name in [name for name in sys.modules if "an_own_env" in name]:
        del sys.modules[name]
    with pytest.raises(EnvironmentFault, match=r"--plugin an_own_env\.py"):
        rlutils.evaluate(run, plugins=[PLUGIN])
    _catalogue.cache_clear()  # as in another process
    result = rlutils.evaluate(run, plugins=[PLUGIN], overrides=["env.id=an_own_env:Mine-v0"])
    assert (result.env_id, len(result.policies)) == ("an_own_env:Mine-v0", 1)
