"""What the README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import rlutils
from rlutils.config.catalogue import read_settings
from rlutils.config.yaml_text import parse_yaml
from tests.rlutils.runs import toy_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_encoder_of_the_readme_trains_and_loads(tmp_path: Path) -> None:
    (tmp_path / "my_encoder.py").write_text(next(b for b in blocks("python") if b.startswith("# my_encoder.py")))
    config = toy_config()
    config["plugins"] = [*config["plugins"], str(tmp_path / "my_encoder.py")]
    config["algo"] = {**config["algo"], "state_encoder": "fourier"}
    run = rlutils.train(config, out=tmp_path / "run", trainer__steps=5)
    algo = rlutils.load(run.folder, plugins=config["plugins"])
    assert type(algo.model.embed_state).__name__ == "Fourier"


def test_the_configuration_of_the_readme_is_valid() -> None:
    settings, _ = read_settings(parse_yaml(blocks("yaml")[0]))
    assert settings.algo.config.state_encoder.config.hidden_dims == (128,)


def test_the_original_names_of_the_readme_can_be_imported() -> None:
    line = next(b for b in blocks("python") if b.startswith("from rlalgo.batchrl.dt import"))
    names: dict[str, object] = {}
    exec(line, names)
    assert {"DT_model", "trajectory_gpt2", "rtgEpDataset", "dt_play", "from_hugging_face"} <= names.keys()


def test_every_file_and_target_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`((?:configs|docs|rlalgo|tests)/[\w/.]+\.\w+)`", README):
        assert (ROOT / name).is_file(), name
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE)) <= targets
