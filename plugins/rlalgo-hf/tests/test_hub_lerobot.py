"""The source lerobot with datasets of the hub: what is needed is fetched, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from rlalgo_hf.hub import HubError

from rlalgo import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import DataError
from rlutils.data.lerobot_source import LerobotSource
from tests.rlutils.data.files import Columns, write_lerobot

REPO = "lerobot/pusht"


def lerobot(path: str | Path, **options: Any) -> Episodes:
    return LerobotSource(LerobotSource.Config(path=Path(path), **options)).load()


@pytest.fixture
def here(served: Hub, tmp_path: Path) -> Path:
    """The dataset on the hub, and the same here."""
    random = np.random.default_rng(0)
    columns = {"observation.state": random.normal(size=(8, 2)), "action": random.normal(size=(8, 2))}
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    columns["next.reward"] = columns["action"][:, 0]
    films: Columns = {f"observation.{name}": random.integers(0, 256, (8, 16, 24, 3), np.uint8) for name in "ab"}
    write_lerobot(tmp_path / "set", columns, [5, 3], films)
    files = {str(path.relative_to(tmp_path / "set")): path for path in (tmp_path / "set").rglob("*") if path.is_file()}
    served.add(f"datasets/{REPO}", {name: path.read_bytes() for name, path in files.items()})
    return tmp_path / "set"


def test_a_dataset_by_its_name(here: Path, served: Hub) -> None:
    assert fingerprint(lerobot(REPO)) == fingerprint(lerobot(here))
    assert not [line for line in served.seen if ".mp4" in line]
    options = {"observations": ("observation.state", "observation.a")}
    assert fingerprint(lerobot(REPO, **options)) == fingerprint(lerobot(here, **options))
    with pytest.raises(DataError, match=rf"^lerobot:{REPO}: has no feature 'observation\.c'"):
        lerobot(REPO, observations=("observation.c",))


def test_without_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=f"cannot be reached .*hf download --repo-type dataset {REPO}") as caught:
        lerobot(REPO)
    assert "\n" not in str(caught.value)
