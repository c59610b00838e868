"""Listing and inspecting datasets: the numbers against numpy's, broken ones named, the texts as a person sees them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.image import imread
from rich.console import Console

from rlalgo.errors import DataError
from rlutils.data.inspect import Inspection, inspect_dataset, list_datasets
from rlutils.reports.data_view import plot_returns, print_inspection, print_list
from tests.rlutils.minari_data import ID, edit, edit_metadata, replace_column, write_dataset


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def printed(show: Any, *arguments: Any, width: int = 80, encoding: str = "utf-8") -> str:
    """What `show(*arguments, console)` prints, without colors."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(*arguments, Console(file=file, width=width, highlight=False))
    file.seek(0)
    return file.read()


def inspection(returns: Any, **changes: Any) -> Inspection:
    returns = np.asarray(returns, float)
    values: dict[str, Any] = {
        "label": f"minari:{ID}", "path": Path("here"), "size": 12_345, "env_id": None,
        "observation_space": spaces.Box(-1, 1, (3,)), "action_space": spaces.Discrete(2),
        "returns": returns, "lengths": np.full(len(returns), 7), "terminated": np.zeros(len(returns), bool),
    }  # fmt: skip
    return Inspection(**{**values, **changes})


def test_list_names_the_sound_and_the_broken(root: Path) -> None:
    both: dict[str, Any] = {"observation_space": spaces.Box(-8, 8, (3,)), "action_space": spaces.Box(-2, 2, (1,))}
    write_dataset(root, "toy/pendulum/a-v0", lengths=(9, 2), env="Pendulum-v1", ref_scores=(-1500.0, -150.0), **both)
    write_dataset(root, "plain-v1", ref_scores=None)
    for name in ("cut-v0", "short-v0", "bare-v0"):
        write_dataset(root, f"toy/{name}")
    file = root / "toy/cut-v0/data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    edit_metadata(root, "toy/short-v0", total_episodes=7)
    (root / "toy/bare-v0/data/metadata.json").unlink()
    (root / "toy/begun-v0").mkdir()  # a creation or download that was killed at its start
    (root / "toy/.download-x" / "hidden-v0").mkdir(parents=True)
    found = {info.id: info for info in list_datasets()}
    assert list(found) == sorted(found)
    assert set(found) == {"plain-v1", "toy/pendulum/a-v0"} | {f"toy/{x}-v0" for x in ("cut", "short", "bare", "begun")}
    whole = found["toy/pendulum/a-v0"]
    assert (whole.broken, whole.episodes, whole.steps) == (None, 2, 11)
    assert (whole.env_id, whole.ref_scores) == ("Pendulum-v1", (-1500.0, -150.0))
    assert whole.size == sum(f.stat().st_size for f in (root / "toy/pendulum/a-v0/data").iterdir())
    assert (found["plain-v1"].env_id, found["plain-v1"].ref_scores, found["plain-v1"].steps) == (None, None, 15)
    for name, why in (
        ("cut", "cannot be read"), ("short", "7 episodes"), ("bare", "json: there is"), ("begun", "no such file")
    ):  # fmt: skip
        assert why in str(found[f"toy/{name}-v0"].broken)

    text = printed(print_list, width=40)  # narrow, and still no id is cut
    assert text.splitlines()[0] == f"Datasets in {root} (MINARI_DATASETS_PATH)"
    assert "toy/pendulum/a-v0  Pendulum-v1         2     11  -1,500    -150" in text
    assert text.count("broken minari:toy/") == 4


def test_list_of_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_datasets() == []
    assert "rlalgo collect configs/collect/hopper.yaml" in printed(print_list)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "nowhere"))
    assert list_datasets() == []
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.setenv("HOME", str(root))
    text = printed(print_list)
    assert f"Datasets in {root}/.minari/datasets (MINARI_DATASETS_PATH is not set)" in text


def test_inspection_has_the_numbers_of_the_data(root: Path) -> None:
    buffers = write_dataset(root, facts={"noise": [0.5, 0.0, 1.0]}, ref_scores=(-2.0, 3.0), description="toy data")
    found = inspect_dataset(ID)
    returns = [float(np.sum(buffer.rewards, dtype=np.float64)) for buffer in buffers]
    np.testing.assert_allclose(found.returns, returns)
    assert found.lengths.tolist() == [5, 3, 7]
    assert found.steps == 15
    assert found.terminated.tolist() == [False, True, False]
    assert found.facts["noise"].tolist() == [0.5, 0.0, 1.0]
    assert (found.ref_scores, found.description, found.path) == ((-2.0, 3.0), "toy data", root / ID)


def test_inspecting_what_is_broken_or_absent(root: Path) -> None:
    write_dataset(root)
    with pytest.raises(DataError, match=r"toy/lines-v0 is not on this machine.*Did you mean 'toy/line-v0'"):
        inspect_dataset("toy/lines-v0")
    with edit(root) as file:
        file["episode_1/rewards"][1] = np.nan
    with pytest.raises(DataError, match="minari:toy/line-v0: episode 1: its rewards are not all finite"):
        inspect_dataset(ID)
    replace_column(root, "episode_1/rewards", np.zeros(4))
    with pytest.raises(DataError, match="says 15 steps"):
        inspect_dataset(ID)
    shutil.rmtree(root / ID / "data")
    with pytest.raises(DataError, match=r"metadata\.json: there is no such file"):
        inspect_dataset(ID)
    write_dataset(root, "toy/none-v0")
    with edit(root, "toy/none-v0") as file:
        file.clear()
    edit_metadata(root, "toy/none-v0", total_episodes=0, total_steps=0)
    with pytest.raises(DataError, match="holds no episodes"):
        inspect_dataset("toy/none-v0")


@pytest.mark.parametrize("bins", [5, 16, 40])
@pytest.mark.parametrize(
    "returns",
    [[5.0], [-3.0, -3.0], [0, 1], [4.67, 992.2, 3642.0], [-557.3, 11739], [1e-7, 3e-7], [-1e9, 1e9, 5], [0, 1e-12]],
    ids=str,
)
def test_histogram_holds_every_episode_between_round_edges(returns: list[float], bins: int) -> None:
    counts, edges = inspection(returns).histogram(bins)
    assert counts.sum() == len(returns)
    assert len(counts) == len(edges) - 1 <= bins
    assert edges[0] <= min(returns)
    assert max(returns) <= edges[-1]
    steps = np.diff(edges)
    np.testing.assert_allclose(steps, steps[0])
    if len(counts) > 1:
        digits = f"{steps[0]:.1e}"[:3]
        assert digits in ("1.0", "2.0", "2.5", "5.0")
        np.testing.assert_allclose(edges / steps[0], np.round(edges / steps[0]), atol=1e-6)
        assert len(counts) >= bins // 4


def test_text_of_an_inspection() -> None:
    returns = [10.0] * 3 + [25.0] * 12 + [49.0]
    found = inspection(
        returns,
        env_id="Hopper-v5",
        ref_scores=(0.0, 30.0),
        facts={"noise": np.linspace(0, 1, 16), "seed": np.arange(16), "return": np.array(returns)},
        lengths=np.array([5] * 15 + [1200]),
        terminated=np.array([True] * 15 + [False]),
        observation_space=spaces.Dict(at=spaces.Box(-1, 1, (2,)), door=spaces.Discrete(3)),
    )
    text = printed(print_inspection, found)
    for line in (
        "minari:toy/line-v0",
        "environment   Hopper-v5",
        "observations  Dict(at: Box of 2 float32, -1 to 1, door: Discrete(3))",
        "actions       Discrete(2)",
        "episodes      16 (15 ended in a terminal state, 1 cut)",
        "steps         1,275 (5 to 1,200 per episode)",
        "noise         0 to 1, mean 0.5",
        "seed          0 to 15",
        "on disk       12.3 kB in here",
    ):
        assert line in text.splitlines()
    header = next(line for line in text.splitlines() if "median" in line)
    assert header.split() == ["mean", "min", "10%", "25%", "median", "75%", "90%", "max"]
    scores = next(line for line in text.splitlines() if line.startswith("normalized  ")).split()
    assert scores[1:5] == [f"{100 * value / 30:.1f}" for value in (np.mean(returns), 10, 10, 25)]
    assert "normalized: 0 is random (0), 100 is expert (30)" in text
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines() if " to " in line and "█" in line}
    assert list(rows) == ["10 to 12.5", "25 to 27.5", "47.5 to 50"]  # empty ones have no bar
    lengths = [line.count("█") for line in rows.values()]
    most = max(lengths)
    assert lengths[1] == most
    assert abs(lengths[0] - most * 3 / 12) <= 1
    assert "mean" in next(line for line in text.splitlines() if line.lstrip().startswith("22.5 to 25"))
    assert "expert" in next(line for line in text.splitlines() if line.lstrip().startswith("30 to 32.5"))
    assert "random" not in text.split("episodes\n")[-1]  # 0 lies outside

    plain = printed(print_inspection, found, width=60, encoding="ascii")
    assert "#" in plain
    assert "12" in plain


def test_picture_of_the_returns(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 1000, 400)
    found = inspection(lengths * 3.0, lengths=lengths, terminated=lengths < 900, ref_scores=(0.0, 3000.0))
    path = tmp_path / "returns.png"
    plot_returns(found, path)
    picture = imread(path)
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1  # something is drawn
    plot_returns(inspection([1.0]), path)  # one episode, no reference scores
    assert imread(path)[..., :3].std() > 0.05
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(DataError, match=r"nowhere/x.png: the picture cannot be written"):
        plot_returns(found, tmp_path / "nowhere" / "x.png")
