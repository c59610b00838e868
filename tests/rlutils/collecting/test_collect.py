"""Collecting: what is recorded is what happened, and a dataset is there completely or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest

import tests.rlalgo.toy_envs
from rlalgo.config import parse
from rlalgo.errors import ConfigError, DataError, EnvironmentFault
from rlutils.collecting.collect import collect
from rlutils.collecting.settings import CollectResult, CollectSettings
from rlutils.config.catalogue import catalogue
from rlutils.data.inspect import list_datasets
from rlutils.data.minari_source import MinariSource


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def settings(**changes: Any) -> CollectSettings:
    values = {"id": "local/toy/random-v0", "env": {"id": "toy/Drift-v0"}, "behavior": "random", "steps": 60}
    return parse(CollectSettings, {**values, **changes}, catalogue(changes.get("plugins", ())))


def record(replace: bool = False, **changes: Any) -> CollectResult:
    return collect(settings(**changes), replace)


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of it."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("env", ["toy/Drift-v0", "toy/Chain-v0", "toy/Blink-v0"])
def test_recorded_actions_played_again_give_the_recorded_episodes(env: str, root: Path) -> None:
    result = record(env={"id": env}, steps=50, ref_scores=[-3, 7])
    assert result.steps >= 50
    dataset = minari.load_dataset(result.id)
    assert (dataset.total_steps, dataset.total_episodes) == (result.steps, result.episodes)
    again = dataset.recover_environment()
    for episode, facts in zip(dataset, dataset.storage.get_episode_metadata(range(result.episodes)), strict=True):
        observation, _ = again.reset(seed=int(facts["seed"]))
        assert np.allclose(episode.observations[0], observation)
        for t, action in enumerate(episode.actions):
            step = again.step(int(action) if action.ndim == 0 else action.copy())
            assert np.allclose(episode.observations[t + 1], step[0], atol=1e-6)
            assert episode.rewards[t] == pytest.approx(step[1], abs=1e-6)
            assert (bool(episode.terminations[t]), bool(episode.truncations[t])) == step[2:4]
        assert facts["return"] == pytest.approx(float(np.sum(episode.rewards)), abs=1e-5)
        assert facts["policy"] == "random"
    assert result.returns == pytest.approx([float(np.sum(e.rewards)) for e in dataset], abs=1e-5)


def test_a_collected_dataset_loads_as_episodes_with_its_facts(root: Path) -> None:
    result = record(ref_scores=[-3, 7], description="a test")
    episodes = MinariSource(MinariSource.Config(id=result.id)).load()
    assert (len(episodes), episodes.steps) == (result.episodes, result.steps)
    assert episodes.returns().tolist() == pytest.approx(result.returns, abs=1e-4)
    assert episodes.spec.env_id == "toy/Drift-v0"
    assert episodes.spec.ref_scores == (-3.0, 7.0)
    assert episodes.spec.max_steps == 10
    assert episodes.info["seed"].tolist() == list(range(result.episodes))
    assert str(episodes.observations.dtype) == "torch.float32"
    assert minari.load_dataset(result.id).storage.metadata["description"] == "a test"


def test_success_is_stored_with_every_episode(root: Path) -> None:
    episodes = MinariSource(MinariSource.Config(id=record(env={"id": "toy/Goal-v0"}, steps=300).id)).load()
    reached = episodes.terminations[episodes.starts[1:] - 1].tolist()
    assert episodes.info["success"].tolist() == reached
    assert len(set(reached)) == 2


def test_frames_are_stored_without_loss(root: Path) -> None:
    episodes = MinariSource(MinariSource.Config(id=record(env={"id": "toy/Blink-v0"}).id)).load()
    assert sorted(episodes.observations.unique().tolist()) == [0, 255]
    assert (episodes.observations.sum((1, 2)) == 255).all()


def test_the_same_seed_gives_the_same_arrays_and_another_one_others(root: Path) -> None:
    def arrays(ident: str) -> list[np.ndarray]:
        return [a for e in minari.load_dataset(ident) for a in (e.observations, e.actions, e.rewards)]

    a, b, c = (arrays(record(id=f"toy/{name}-v0", seed=seed).id) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert len(a) == len(b)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert any(not np.array_equal(x, y) for x, y in zip(a, c, strict=False))


def test_without_reference_scores_none_are_made_up(root: Path) -> None:
    assert MinariSource(MinariSource.Config(id=record().id)).load().spec.ref_scores is None


def test_an_existing_dataset_is_only_replaced_when_asked_to(root: Path) -> None:
    record(seed=1)
    before = content(root)
    with pytest.raises(DataError, match=r"local/toy/random-v0 exists .*--replace"):
        record(seed=2)
    assert content(root) == before
    record(seed=2, replace=True)
    assert content(root).keys() == before.keys()
    assert content(root) != before
    assert list(minari.list_local_datasets()) == ["local/toy/random-v0"]


BREAKS = """
from dataclasses import dataclass
import os
import torch
from rlalgo import Policy, hookimpl

class Breaks:
    name = "breaks"

    @dataclass(frozen=True)
    class Config:
        how: str

    def __init__(self, config):
        self.how = config.how

    def policies(self, env, seed, progress):
        if self.how == "nothing":
            return
        yield Sampler(env.action_space), {}
        if self.how == "raise":
            raise RuntimeError("the behavior broke")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        if self.how == "kill":
            os.kill(os.getpid(), 9)
        if self.how == "file":
            open("/nowhere/at/all")
        while self.how != "short":
            yield Sampler(env.action_space, 50 if self.how == "actions" else 1), {"odd": seed + 1, "label": "x"}

class Sampler(Policy):
    def __init__(self, space, factor=1):
        self.space, self.factor = space, factor

    def act(self, observations, rows):
        return torch.from_numpy(self.space.sample() * self.factor).unsqueeze(0)

@hookimpl
def rlalgo_register_behaviors(register):
    register(Breaks)
"""


@pytest.fixture
def breaks(tmp_path: Path) -> str:
    (tmp_path / "breaks.py").write_text(BREAKS)
    return str(tmp_path / "breaks.py")


@pytest.mark.parametrize(
    ("how", "error"), [("raise", RuntimeError), ("interrupt", KeyboardInterrupt), ("nothing", DataError)]
)
def test_a_failed_collection_leaves_nothing_and_touches_nothing(
    how: str, error: type[BaseException], breaks: str, root: Path
) -> None:
    record()
    before = content(root)
    for ident in ("local/toy/random-v0", "other/new-v0"):
        with pytest.raises(error):
            record(id=ident, plugins=[breaks], behavior={"name": "breaks", "how": how}, replace=True)
    assert content(root) == before
    assert {p.name for p in root.iterdir()} == {"local"}
    assert [(d.id, d.broken) for d in list_datasets()] == [("local/toy/random-v0", None)]


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("actions", DataError, "'breaks', episode 1: the action .-?[0-9.]+. is outside Box"),
        ("short", DataError, "'breaks' ended after [0-9]+ of 1,000 steps"),
        ("nothing", DataError, "'breaks' ended after 0 of 1,000 steps"),
        ("file", FileNotFoundError, "/nowhere/at/all"),  # not for a disk that cannot be written
    ],
)
def test_what_a_behavior_may_not_do(how: str, error: type, text: str, breaks: str, root: Path) -> None:
    with pytest.raises(error, match=text):
        record(env={"id": "Pendulum-v1"}, plugins=[breaks], behavior={"name": "breaks", "how": how}, steps=1000)
    assert list(root.iterdir()) == []


def test_an_endless_behavior_is_stopped_at_the_steps_asked_for(breaks: str) -> None:
    result = record(plugins=[breaks], behavior={"name": "breaks", "how": "endless"}, steps=100)
    assert 100 <= result.steps < 110
    facts = list(minari.load_dataset(result.id).storage.get_episode_metadata(range(1, result.episodes)))
    assert [(fact["odd"], fact["label"], fact["seed"]) for fact in facts] == [
        (1, "x", number) for number in range(1, result.episodes)
    ]


class Broken(tests.rlalgo.toy_envs.Drift):
    """Gives what is no number as its observation or its reward."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, action: Any) -> Any:
        answer = list(super().step(action))
        answer[self.at] = answer[self.at] * float("nan")
        return tuple(answer)


gymnasium.register("toy/Broken-v0", entry_point=f"{__name__}:Broken")


@pytest.mark.parametrize(("at", "what"), [(0, "the observation"), (1, "the reward")])
def test_what_an_environment_may_not_give(at: int, what: str, root: Path) -> None:
    with pytest.raises(EnvironmentFault, match=rf"Broken-v0, episode of seed 0, step 0: {what} is .*nan.*finite"):
        record(env={"id": "toy/Broken-v0", "kwargs": {"at": at}})
    assert list(root.iterdir()) == []


def run_collect(path: Path, prelude: str = "") -> subprocess.CompletedProcess:
    code = (
        f"import sys; import tests.rlalgo.toy_envs\n{prelude}\n"
        f"sys.argv = ['rlalgo', 'collect', {str(path)!r}, '--replace']\nfrom rlutils.cli import main\nmain()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_a_kill_leaves_behind_is_hidden_and_cleared_by_the_next_collection(
    breaks: str, root: Path, tmp_path: Path
) -> None:
    record()
    before = content(root)
    (tmp_path / "kill.yaml").write_text(
        "id: local/toy/random-v0\nenv: {id: toy/Drift-v0}\nbehavior: {name: breaks, how: kill}\nplugins: [breaks.py]\n"
    )
    assert run_collect(tmp_path / "kill.yaml").returncode == -9
    assert {k: v for k, v in content(root).items() if not k.startswith(".collect")} == before
    assert list(minari.list_local_datasets()) == ["local/toy/random-v0"]
    assert any(p.name.startswith(".collect") for p in root.iterdir())
    record(id="other/new-v0")
    assert {p.name for p in root.iterdir()} == {"local", "other"}


def test_a_full_disk_leaves_the_old_dataset(root: Path, tmp_path: Path) -> None:
    record()
    before = content(root)
    (tmp_path / "more.yaml").write_text(
        "id: local/toy/random-v0\nenv: {id: toy/Drift-v0}\nbehavior: random\nsteps: 3000\n"
    )
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    result = run_collect(tmp_path / "more.yaml", limit)
    assert result.returncode == 2, result.stderr
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr
    assert content(root) == before
    assert {p.name for p in root.iterdir()} == {"local"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20000  # the limit was the other process's


def test_the_old_dataset_returns_when_the_new_one_cannot_take_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(seed=1)
    before = content(root)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        """The disk refuses the new dataset, and only that."""
        if Path(target) == root / "local/toy/random-v0" and "replaced" not in Path(source).parts:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match="No space left on device; nothing was changed"):
        record(seed=2, replace=True)
    assert content(root) == before


def test_the_old_dataset_returns_after_a_kill_at_the_worst_moment(root: Path, tmp_path: Path) -> None:
    """Between the two renames of a replacement: the old one is aside, the new one not yet in its place."""
    record()
    before = content(root)
    (tmp_path / "again.yaml").write_text(
        "id: local/toy/random-v0\nenv: {id: toy/Drift-v0}\nbehavior: random\nsteps: 60\nseed: 5\n"
    )
    die = (
        "import os\nreal = os.replace\ndef replace(a, b):\n    real(a, b)\n"
        "    if 'replaced' in str(b): os.kill(os.getpid(), 9)\nos.replace = replace"
    )
    assert run_collect(tmp_path / "again.yaml", die).returncode == -9
    assert not (root / "local/toy/random-v0").exists()
    record(id="other/new-v0")
    assert {k: v for k, v in content(root).items() if not k.startswith("other")} == before
    assert {p.name for p in root.iterdir()} == {"local", "other"}


def test_datasets_and_namespaces_do_not_swallow_each_other(root: Path) -> None:
    record(id="local/toy-v0/inner-v0")
    before = content(root)
    with pytest.raises(DataError, match="is not a dataset"):
        record(id="local/toy-v0", replace=True)
    with pytest.raises(DataError, match="would lie within the dataset local/toy-v0/inner-v0"):
        record(id="local/toy-v0/inner-v0/more-v0")
    assert content(root) == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match=r"cannot be written.*MINARI_DATASETS_PATH"):
        record()
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path / "file" / "below")


@pytest.mark.parametrize("ident", ["hopper", "a/b-v0", "a/b", "../x-v0", "a//b-v0", "/a/b-v0", "a b/c-v0"])
def test_dataset_ids_are_checked(ident: str) -> None:
    with pytest.raises(ConfigError, match="is no dataset id"):
        settings(id=ident)


def test_unknown_environments_get_near_names() -> None:
    with pytest.raises(EnvironmentFault, match=r"there is no environment 'Hoper-v5'\. Did you mean 'Hopper-v5'"):
        record(env={"id": "Hoper-v5"})


class Tree(gymnasium.Env):
    """Dict observations, to be stored as they are."""

    observation_space = gymnasium.spaces.Dict(
        {"a": gymnasium.spaces.Box(-9, 9, (2,), np.float64), "b": gymnasium.spaces.Discrete(5)}
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        return self._look(), 1.0, self.t == 3, False, {}

    def _look(self) -> dict[str, Any]:
        return {"a": np.full(2, self.t, np.float64), "b": self.t}


gymnasium.register("toy/Tree-v0", entry_point=f"{__name__}:Tree")


def test_dict_observations_are_stored_as_they_are_and_load_flattened(root: Path) -> None:
    result = record(env={"id": "toy/Tree-v0"}, steps=6)
    episode = next(iter(minari.load_dataset(result.id)))
    assert episode.observations["a"].tolist() == [[t, t] for t in range(4)]
    assert episode.observations["b"].tolist() == [0, 1, 2, 3]
    episodes = MinariSource(MinariSource.Config(id=result.id)).load()
    assert episodes.observations[1].tolist() == [1, 1, 0, 1, 0, 0, 0]


def test_progress_is_told(root: Path) -> None:
    said: list[tuple[str, float]] = []
    collect(settings(), progress=lambda phase, done: said.append((phase, done)))
    assert all(0 <= done <= 1 for _, done in said)
    assert said[-1][0] == "writing"
    assert any("episodes" in phase for phase, _ in said)


def test_an_environment_that_cannot_be_stored_is_told_before_it_is_played(root: Path) -> None:
    gymnasium.register("toy/Callable-v0", entry_point=tests.rlalgo.toy_envs.Goal, max_episode_steps=12)
    try:
        with pytest.raises(EnvironmentFault, match=r"env: toy/Callable-v0 cannot be stored .*entry_point='m"):
            record(env={"id": "toy/Callable-v0"})
    finally:
        del gymnasium.registry["toy/Callable-v0"]
