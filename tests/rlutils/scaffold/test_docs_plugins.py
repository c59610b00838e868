"""What docs/plugins.md shows works as shown: every listing is a file, a command or a message of a run of the page."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rlutils
from rlalgo import hookspecs
from rlalgo.config import parse
from rlalgo.errors import ConfigError
from rlalgo.hookspecs import CATALOGUE_HOOKS
from rlutils.cli import app
from rlutils.config.files import read_yaml
from rlutils.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {text.split("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language in ("python", "yaml")}
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs the page from top to bottom in an empty folder: command -> what it printed."""
    folder = tmp_path_factory.mktemp("page")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "data"))
        for name, text in FILES.items():
            (folder / name).write_text(text)
        for command in COMMANDS:
            program, *words = shlex.split(command)
            assert program == "rlalgo", command
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
            found[command] = result.output
        found["folder"] = str(folder)
    return found


def test_every_listing_is_run_or_checked() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "yaml", "bash", "text", "toml"}
    assert set(FILES) == {"bumps.py", "data.yaml", "bumps.yaml", "trimmed.py", "trimmed.yaml"}
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("name", ["bumps.py", "trimmed.py"])
def test_the_listings_have_fewer_than_40_lines(name: str) -> None:
    assert len(FILES[name].splitlines()) < 40
    assert max(map(len, FILES[name].splitlines())) <= 120


def test_the_encoder_trains(outputs: dict[str, str]) -> None:
    folder = Path(outputs["folder"])
    listed = outputs["rlalgo plugins bumps --plugin ./bumps.py"]
    assert "encoder bumps" in listed
    assert "Centers for every number." in listed
    plugins = [str(folder / "bumps.py")]
    algo = rlutils.load(folder / "runs" / "bumps", plugins=plugins)
    bumps = [module for module in algo.modules() if type(module).__name__ == "Bumps"]
    assert len(bumps) == 1
    assert bumps[0].map.in_features == 4 * 6  # type: ignore[union-attr]


def test_the_algorithm_trains_and_plays(outputs: dict[str, str]) -> None:
    folder = Path(outputs["folder"]) / "runs" / "trimmed"
    assert read_yaml(folder / "run.yaml")["step"] == 100
    assert read_yaml(folder / "config.yaml")["algo"] == {"name": "trimmed", "keep": 0.6}
    played = next(text for command, text in outputs.items() if command.startswith("rlalgo evaluate"))
    assert re.search(r"policy +3 ", played)


def test_the_messages_are_those_that_are_given(outputs: dict[str, str]) -> None:
    known = rlutils.catalogue([str(Path(outputs["folder"]) / "trimmed.py")])
    with pytest.raises(ConfigError) as error:
        parse(Settings, {"source": "x", "algo": {"name": "trimmed", "kep": 0.6, "keep": 2}}, known)
    shown = next(text for language, text in BLOCKS if language == "text").splitlines()
    assert [fault for fault in error.value.faults if fault.startswith("algo")] == shown


def test_the_distribution_is_what_is_generated(outputs: dict[str, str]) -> None:
    folder = Path(outputs["folder"])
    assert (folder / "elsewhere" / "rlalgo-calm" / "rlalgo_calm.py").is_file()
    written = tomllib.loads((folder / "rlalgo-waves" / "pyproject.toml").read_text())
    shown = tomllib.loads(next(text for language, text in BLOCKS if language == "toml"))
    assert written["project"]["entry-points"] == shown["project"]["entry-points"]


def test_the_tables_name_every_hook_with_its_arguments() -> None:
    for kind, hook in CATALOGUE_HOOKS.items():
        assert re.search(rf"^\| {kind} \| `{hook}` \|", PAGE, re.MULTILINE), kind
    for name, spec in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("rlalgo_on_"):
            arguments = ", ".join(inspect.signature(spec).parameters)
            assert f"| `{name}({arguments})` |" in PAGE, name


def test_every_file_and_name_that_the_page_mentions_exists() -> None:
    for path in re.findall(r"`((?:rlalgo|tests|plugins)/[\w/.-]+)`", PAGE):
        assert (ROOT / path).exists(), path
    for module, name in re.findall(r"`(rlalgo\.(?:nets|encoders|errors))\.(\w+)", PAGE):
        assert hasattr(__import__(module, fromlist=[name]), name), name
    ranges = re.search(r"\((`Count`.*?) of `rlalgo\.config`", PAGE, re.DOTALL)
    assert ranges is not None
    config = __import__("rlalgo.config", fromlist=["Count"])
    assert all(hasattr(config, name) for name in re.findall(r"`(\w+)`", ranges[1]))
