"""What docs/huggingface.md shows works as shown: every listing is a file, a command or a program of a run of the page.

The sizes in its YAML are made smaller, the environment is a toy of the same spaces, and a local server is the hub.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import gymnasium
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces
from hub_server import TOKEN, Hub, hub
from transformers import DecisionTransformerModel
from typer.testing import CliRunner

from rlalgo.core.fingerprint import fingerprint
from rlutils.cli import app
from rlutils.config.files import read_yaml, write_yaml
from rlutils.config.yaml_text import parse_yaml
from rlutils.data.named import find_source, load_source
from tests.rlutils.runs import equal, weights

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "huggingface.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {text.split("\n")[0].removeprefix("# "): text for language, text in BLOCKS if language in ("python", "yaml")}
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
LENGTH, STEPS = 20, 6


class Cheetah(gymnasium.Env):
    """Runs as far as it is pushed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = spaces.Box(-np.inf, np.inf, (17,), np.float64)
    action_space = spaces.Box(-1, 1, (6,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.normal(size=17), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.normal(size=17), float(action.sum()), False, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8)


def replay(episodes: int = 12) -> bytes:
    """A Parquet file in the layout of edbeeching/decision_transformer_gym_replay."""
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(episodes, LENGTH, 17)).astype(np.float32).tolist(),
        "actions": rng.uniform(-1, 1, (episodes, LENGTH, 6)).astype(np.float32).tolist(),
        "rewards": (rng.uniform(100, 300, (episodes, LENGTH)) * np.linspace(1, 3, episodes)[:, None]).tolist(),
        "dones": [[False] * LENGTH] * episodes,
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def smaller(text: str) -> dict[str, Any]:
    values = parse_yaml(text)
    values["algo"] |= {"embed_dim": 16, "n_layers": 2, "warmup": 2}
    values["trainer"] |= {"steps": STEPS, "batch_size": 8}
    values["evaluation"] |= {"every": STEPS // 2}
    return values


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Runs the page from top to bottom in an empty folder: command or program -> what it printed."""
    folder = tmp_path_factory.mktemp("page")
    found = {"folder": str(folder)}
    with pytest.MonkeyPatch.context() as patch, hub() as served:
        patch.chdir(folder)
        as_if_installed(folder / "installed", patch)
        at_hub(served, folder / "cache", patch)
        spec = gymnasium.envs.registration.EnvSpec("HalfCheetah-v5", Cheetah, max_episode_steps=LENGTH)
        patch.setitem(gymnasium.registry, "HalfCheetah-v5", spec)
        for language, text in BLOCKS:
            name = text.split("\n")[0].removeprefix("# ")
            if language == "yaml":
                write_yaml(folder / name, smaller(text))
            elif language == "python":
                (folder / name).write_text(text)
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    runpy.run_path(str(folder / name))
                found[name] = printed.getvalue()
            for command in text.splitlines() if language == "bash" else ():
                program, *words = shlex.split(command)
                assert program == "rlalgo", command
                result = CliRunner().invoke(app, words)
                assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
                found[command] = result.output
        found["requests"] = "\n".join(served.seen)
        yield found


def as_if_installed(site: Path, patch: pytest.MonkeyPatch) -> None:
    """The plugin's commands are found by its entry points."""
    project = tomllib.loads((ROOT / "plugins/rlalgo-hf/pyproject.toml").read_text())["project"]
    info = site / "rlalgo_hf-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rlalgo-hf\nVersion: 0.1.0\n")
    points = [f"{name} = {place}" for name, place in project["entry-points"]["rlalgo.commands"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[rlalgo.commands]", *points]))
    patch.syspath_prepend(str(site))


def at_hub(served: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Requests to the hub go to this one, which has the data of the tutorial."""
    patch.setenv("HF_ENDPOINT", served.url)
    patch.setenv("HF_TOKEN", TOKEN)
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    name, branch = "datasets/edbeeching/decision_transformer_gym_replay", "refs/convert/parquet"
    served.add(name, {"halfcheetah-expert-v2/train/0000.parquet": replay()}, branch)


def test_every_listing_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "yaml", "bash"}
    assert set(FILES) == {"halfcheetah.yaml", "in_python.py", "by_transformers.py"}
    assert len(COMMANDS) == 9


def test_the_yaml_is_the_one_in_configs() -> None:
    assert parse_yaml(FILES["halfcheetah.yaml"]) == read_yaml(ROOT / "configs" / "dt_halfcheetah_hf.yaml")


def test_the_tutorial_is_followed(outputs: dict[str, str]) -> None:
    """The data comes from the hub, and the run with its film goes there."""
    run = Path(outputs["folder"]) / "runs" / "cheetah"
    assert read_yaml(run / "run.yaml")["step"] == STEPS
    assert (run / "film.mp4").stat().st_size > 0
    assert "target 6000" in outputs[next(c for c in COMMANDS if c.startswith("rlalgo evaluate"))]
    assert "halfcheetah-expert-v2/train/0000.parquet" in outputs["requests"]
    assert (Path(outputs["folder"]) / "runs" / "pulled" / "film.mp4").read_bytes() == (run / "film.mp4").read_bytes()
    assert re.search(r"tensor\(\[.*,.*\]", outputs["in_python.py"])


def test_a_run_by_transformers_is_one_like_any_other(outputs: dict[str, str]) -> None:
    run = Path(outputs["folder"]) / "runs" / "by_transformers"
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, result.output
    assert read_yaml(run / "run.yaml")["state"] == "finished"
    assert len(list((run / "evaluations").iterdir())) == 1
    assert equal(weights(run), weights(run.with_name("cheetah")))


def test_the_exported_folder_opens(outputs: dict[str, str]) -> None:
    model = DecisionTransformerModel.from_pretrained(Path(outputs["folder"]) / "cheetah-hf")
    assert (model.config.state_dim, model.config.act_dim, model.config.hidden_size) == (17, 6, 16)


@pytest.mark.parametrize("write", ["to_parquet", "save_to_disk"])
def test_a_dataset_in_memory_comes_in_by_a_file(write: str, tmp_path: Path) -> None:
    (tmp_path / "replay.parquet").write_bytes(replay())
    rows = datasets.Dataset.from_dict(pq.read_table(tmp_path / "replay.parquet").to_pydict())
    getattr(rows, write)(str(tmp_path / "out.parquet"))
    found, expected = (
        load_source(find_source(["hf", f"path={tmp_path / name}.parquet"]))[0] for name in ("out", "replay")
    )
    assert fingerprint(found) == fingerprint(expected)


def test_the_lines_are_as_many_as_the_page_says() -> None:
    counts = {name: len([x for x in text.splitlines() if x.split("#")[0].strip()]) for name, text in FILES.items()}
    yaml, trainer = counts["halfcheetah.yaml"], counts["by_transformers.py"]
    assert f"| settings, model and data | 12 | {yaml} | {yaml} |" in PAGE
    assert f"| training | 18 | 1 | {trainer} |" in PAGE
    assert f"| in all | 209 | {yaml + 4} | {yaml + trainer + 3} |" in PAGE


def test_every_file_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:configs|plugins)/[\w/.-]+)`", PAGE):
        assert (ROOT / path).exists(), path
