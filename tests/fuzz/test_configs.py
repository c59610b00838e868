"""Whatever stands in a configuration, a collecting or a suite file, reading it succeeds or says what is wrong."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rlalgo.errors import RlalgoError
from rlutils.collecting.collect import collect_file
from rlutils.config.catalogue import read_settings
from rlutils.sweeps.suite import read_suite
from tests.fuzz.mutations import VALUES, mutate, times
from tests.rlutils.runs import OURS, ROOT

READERS: dict[str, Callable[[Path, list[str]], Any]] = {
    "*.yaml": lambda path, texts: read_settings(path, texts, OURS),
    "collect/*.yaml": lambda path, texts: collect_file(path, texts, False, OURS, Console(quiet=True)),
    "suites/*.yaml": lambda path, texts: read_suite(path, OURS),
}
KEYS = [
    "seed", "algo", "algo.lr", "algo.hidden_dims.0", "env", "env.id", "source.id", "plugins", "evaluation", "steps",
    "evaluation.policies.0.target_return", "callbacks.9", "callbacks.0.every", "trainer.steps", "\udcff", "a..b",
    "", ".", "behavior",
]  # fmt: skip
TEXTS = [f"{key}={value!r}" for key in KEYS for value in VALUES]
TEXTS += [
    f"{key}{text}" for key in KEYS for text in ("", "=", "==", "=[", "={a: [", "=!!int x", "=*a", "=\ud800", ".yaml")
]
"""Overrides."""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own; collecting stops where it would begin."""
    monkeypatch.setattr("rlutils.collecting.collect.collect", lambda *_: None)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "configs"


def meet(configs: Path, count: int) -> None:
    """Mutates as many files; prints the share of failures, which is to be none."""
    failures: list[str] = []
    refused = 0
    files = [(path, read) for pattern, read in READERS.items() for path in sorted(configs.glob(pattern))]

    @times(count)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        nonlocal refused
        (file, read), (other, _) = (data.draw(st.sampled_from(files)) for _ in range(2))
        kept = file.read_bytes()
        try:
            said = mutate(file, other, data.draw)
            texts = data.draw(st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(TEXTS), max_size=2)))
            begin = time.perf_counter()
            try:
                read(file, texts)
            except RlalgoError:
                refused += 1
            except Exception as error:  # noqa: BLE001 (whatever it is, it is a failure)
                failures.append(f"{said} {texts}: {error!r}")
            if time.perf_counter() - begin > 10 or Path("executed").exists():
                failures.append(f"{said} {texts}: slow, or executed")
        finally:  # hypothesis may stop while it draws
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            file.unlink(missing_ok=True)
            file.write_bytes(kept)

    one()
    print(f"{count} configurations, {refused} refused, {len(failures)} failures: {len(failures) / count:.1%}")
    assert not failures, "\n".join(failures)
    assert 0.2 * count < refused < count


def test_configurations_are_read_with_distrust(configs: Path) -> None:
    meet(configs, 300)


@pytest.mark.slow
def test_configurations_are_read_with_distrust_2000_times(configs: Path) -> None:
    meet(configs, 2_000)
