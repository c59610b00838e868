"""Data of the hub by name, from a server that speaks as the hub does: the source hf, and Minari's datasets."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import Fault, Hub
from pyarrow import parquet
from rlalgo_hf.hub import HubError

from rlalgo import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import DataError, RlalgoError, RlalgoWarning
from rlutils.data import hub as core_hub
from rlutils.data.hf_source import HfSource
from rlutils.data.minari_source import MinariSource
from rlutils.data.writers import write_hf
from tests.rlutils.minari_data import ID, write_dataset

REPO = "ed/gym_replay"
CONVERTED = "refs/convert/parquet"
SUBSET = "halfcheetah-expert-v2"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


@pytest.fixture
def original(root: Path) -> Episodes:
    write_dataset(root)
    return minari()


def minari(ident: str = ID) -> Episodes:
    return MinariSource(MinariSource.Config(id=ident)).load()


def hf(path: str | Path = REPO, **options: Any) -> Episodes:
    return HfSource(HfSource.Config(path=Path(path), **options)).load()


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def converted(original: Episodes, served: Hub, tmp_path: Path) -> Path:
    """The dataset on the hub as the hub converts it, in two files and with another subset; and the same here."""
    write_hf(original, tmp_path / "all.parquet")
    table = parquet.read_table(tmp_path / "all.parquet")
    files = {}
    for i, rows in enumerate((table[:2], table[2:])):
        parquet.write_table(rows, stream := io.BytesIO())
        files[f"{SUBSET}/train/{i:04d}.parquet"] = stream.getvalue()
    other = {"hopper-medium-v2/train/0000.parquet": b"not asked for", f"{SUBSET}/train/index.duckdb": b"nor this"}
    served.add(f"datasets/{REPO}", {"gym_replay.py": b"code of somebody else", "README.md": b"words"})
    served.add(f"datasets/{REPO}", {**files, **other}, CONVERTED)
    for name, content in files.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(content)
    return tmp_path / "here"


def test_a_dataset_by_its_name(original: Episodes, converted: Path, served: Hub) -> None:
    assert fingerprint(hf(subset=SUBSET)) == fingerprint(original)
    assert not [line for line in served.seen if "hopper" in line or "duckdb" in line or "main" in line]
    assert fingerprint(hf(converted, subset=SUBSET)) == fingerprint(original)  # what `hf download` brings
    assert HfSource(HfSource.Config(path=Path(REPO), subset=SUBSET)).label == f"hf:{REPO}/{SUBSET}"


def test_revisions_and_the_layout_of_push_to_hub(
    original: Episodes, converted: Path, served: Hub, tmp_path: Path
) -> None:
    content = (tmp_path / "all.parquet").read_bytes()
    files = {"data/train-00000-of-00001.parquet": content, "data/test-00000-of-00001.parquet": b"x"}
    first = served.add("datasets/me/own", files)
    served.add("datasets/me/own", {"README.md": b"nothing left"})
    assert fingerprint(hf("me/own", subset="data", revision=first)) == fingerprint(original)
    with pytest.raises(HubError, match=r"me/own@main: has no data/train/\*\.parquet or .*; it has README\.md"):
        hf("me/own", subset="data", revision="main")
    with pytest.raises(HubError, match=f"^me/own@{CONVERTED}: .*: it has no such revision; .*--repo-type dataset me"):
        hf("me/own", subset="data")
    with pytest.raises(HubError, match=f"has no default/train/.*; it has {SUBSET}/train/0000.parquet"):
        hf(subset="default")
    with pytest.raises(HubError, match="there is no such repository"):
        hf("me/none", subset="default")


@pytest.mark.parametrize(("match", "how"), [("GET /lfs", "flip"), ("GET /lfs", "drop"), ("GET /api", "junk")])
def test_damage_on_the_way(match: str, how: str, original: Episodes, converted: Path, served: Hub) -> None:
    served.faults = [Fault(match, how, 99)]
    with pytest.raises(HubError, match=f"^{REPO}@{CONVERTED}: ") as caught:
        hf(subset=SUBSET)
    one_line(caught.value)
    served.faults = []
    assert fingerprint(hf(subset=SUBSET)) == fingerprint(original)


def test_without_the_hub(original: Episodes, converted: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    how = f"hf download --repo-type dataset {REPO} --revision {CONVERTED} --local-dir FOLDER"
    why = r"cannot be reached \(HF_HUB_OFFLINE is set\), nor was it fetched before"
    with pytest.raises(HubError, match=f"{why}; .*{how}") as caught:
        hf(subset=SUBSET)
    one_line(caught.value)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hf(subset=SUBSET)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(RlalgoWarning, match="the cache is used"):
        assert fingerprint(hf(subset=SUBSET)) == fingerprint(original)
    monkeypatch.setitem(sys.modules, "rlalgo_hf.hub", None)
    with pytest.raises(RlalgoError, match=r"pip install rlalgo-hf$"):
        hf(subset=SUBSET)


def test_the_advice_is_good(original: Episodes, converted: Path, served: Hub, tmp_path: Path) -> None:
    """The command that the errors name brings a folder that the same YAML reads."""
    served.faults = [Fault("GET /api", 500)]
    with pytest.raises(HubError) as caught:
        hf(subset=SUBSET)
    command = re.findall("`(hf download .*)`", str(caught.value))[0].replace("FOLDER", str(tmp_path / "folder"))
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    code = "import sys; from huggingface_hub.cli.hf import main; main()"
    subprocess.run([sys.executable, "-c", code, *command.split()[1:]], env=env, check=True, capture_output=True)
    assert fingerprint(hf(tmp_path / "folder", subset=SUBSET)) == fingerprint(original)


# --- Minari ---

HOPPER = "mujoco/hopper/medium-v0"


@pytest.fixture
def farama(served: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets of one namespace on Minari's account; where the first one will come to lie."""
    write_dataset(root, HOPPER)
    files = [path for path in (root / "mujoco").rglob("*.*") if path.is_file()]
    named = {path.relative_to(root / "mujoco").as_posix(): path.read_bytes() for path in files}
    shutil.rmtree(root)
    named["namespace_metadata.json"] = b'{"datasets": ["%s"]}' % HOPPER.encode()
    served.add("datasets/farama-minari/mujoco", named)
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    constants, address = (
        huggingface_hub.constants,
        "/{repo_id}/resolve/{revision}/{filename}",
    )  # made when it was imported
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + address)
    return root / HOPPER


def test_a_minari_dataset_is_fetched(farama: Path, served: Hub) -> None:
    assert minari(HOPPER).steps == 15
    served.faults = [Fault(".*", "drop", 99)]
    assert minari(HOPPER).steps == 15
    with pytest.raises(DataError, match="is not on this machine"):
        minari("mujoco/hopper/expert-v0")


def test_an_unknown_minari_dataset(farama: Path, served: Hub) -> None:
    with pytest.raises(DataError, match=rf"the server has no such dataset\. Did you mean '{HOPPER}'\?"):
        minari("mujoco/hopper/mediun-v0")
    with pytest.raises(DataError, match="the server has nothing of mujoko"):
        minari("mujoko/hopper/medium-v0")
    assert list(farama.parents[2].iterdir()) == []


@pytest.mark.parametrize(("match", "how"), [("GET /lfs", "drop"), ("HEAD .*resolve", 503), ("GET /api", "junk")])
def test_a_minari_dataset_that_breaks_off(match: str, how: Any, farama: Path, served: Hub) -> None:
    served.faults = [Fault(match, how, 99)]
    with pytest.raises(DataError, match=f"^minari:{HOPPER} is not on this machine: the download failed"):
        minari(HOPPER)
    assert list(farama.parents[2].iterdir()) == []
    served.faults = []
    assert minari(HOPPER).steps == 15


def test_minari_without_the_hub(farama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_hub, "_WAIT", 0.3)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"cannot be reached \(HF_HUB_OFFLINE is set\)") as caught:
        minari(HOPPER)
    assert f"copy its folder to {farama}" in str(caught.value)
