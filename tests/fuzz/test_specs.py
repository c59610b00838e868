"""Whatever a recorded spec says of an environment, making it succeeds or says what is wrong, and imports nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rlalgo import DataSpec
from rlalgo.core.spaces import to_mapping
from rlalgo.errors import RlalgoError
from rlutils.envs.gym import GymEnv
from tests.fuzz.mutations import changed, times

BOX = spaces.Box(-1e6, 1e6, (4,))
SPECS: list[dict[str, Any]] = [
    DataSpec(BOX, spaces.Discrete(2), env_id="CartPole-v1").to_mapping(),
    DataSpec(
        BOX,
        spaces.Discrete(2),
        env_id="CartPole-v1",
        max_steps=20,
        preprocess={
            "env_module": "gymnasium",
            "env_kwargs": {"sutton_barto_reward": True},
            "env_wrappers": [
                {"name": "y", "entry_point": "gymnasium.wrappers:TimeLimit", "kwargs": {"max_episode_steps": 9}},
            ],
        },
    ).to_mapping(),
    DataSpec(
        BOX,
        spaces.Discrete(2),
        env_id="CartPole-v1",
        preprocess={
            "images": {"gray": True, "size": [8, 8]},
            "flatten": {"type": "Dict", "subspaces": {"x": {**to_mapping(BOX), "shape": [4]}}},
            "actions": {"type": "MultiDiscrete", "nvec": [2], "start": [0]},
        },
    ).to_mapping(),
]


def meet(count: int) -> None:
    """Makes as many environments; prints the share of failures, which is to be none."""
    failures: list[str] = []
    made = 0

    @times(count)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        nonlocal made
        values = changed(data.draw(st.sampled_from(SPECS)), data.draw)
        begin = time.perf_counter()
        try:
            (env,) = GymEnv(GymEnv.Config()).make(DataSpec.from_mapping(values), 1)
            with contextlib.closing(env):
                env.reset(seed=0)
            made += 1
        except RlalgoError:
            pass
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a failure)
            failures.append(f"{values}: {error!r}")
        if time.perf_counter() - begin > 10 or "evil" in sys.modules:
            failures.append(f"{values}: slow, or executed")

    one()
    print(f"{count} specs, {made} environments made, {len(failures)} failures: {len(failures) / count:.1%}")
    assert not failures, "\n".join(failures)
    assert made


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_recorded_specs_are_read_with_distrust() -> None:
    meet(200)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_recorded_specs_are_read_with_distrust_2000_times() -> None:
    meet(2_000)
