"""The DQN-replay source against a plain simulation of the buffer that wrote the files."""

from __future__ import annotations

import gzip
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rlutils
import torch
import yaml
from dopamine_buffer import Buffer, Step, assert_same, expected, play, write
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from rlalgo import DataSpec, Transitions
from rlalgo.config import parse
from rlalgo.errors import ConfigError, DataError
from rlutils.config.catalogue import read_settings

from rlalgo_atari import Atari, DQNReplay, preprocessing


def source(path: Path, **options: Any) -> DQNReplay:
    return DQNReplay(DQNReplay.Config(path=path, game=options.pop("game", "Breakout"), **options))


def record(folder: Path, capacity: int, lengths: list[int], saves: int = 1, seed: int = 0) -> tuple[Buffer, list]:
    """Plays episodes into a buffer; saves it when there is one free row left, as the recordings were, and at the end
    if that never happened."""
    buffer, windows = Buffer(capacity), []
    for step in play(np.random.default_rng(seed), lengths):
        buffer.add(step)
        if buffer.count % capacity == capacity - 1 and len(windows) < saves:
            windows.append(buffer.save(folder, len(windows)))
    if not windows:
        windows.append(buffer.save(folder, 0))
    return buffer, windows


def test_reads_a_file_written_by_hand(tmp_path: Path) -> None:
    frames = np.zeros((12, 2, 2), np.uint8)
    frames[:, 0, 0] = [0, 0, 0, 10, 11, 0, 0, 0, 20, 21, 22, 255]  # the last row was never written
    write(tmp_path, "$store$_observation", 7, frames)
    write(tmp_path, "$store$_action", 7, np.array([0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 1, 99], np.int32))
    write(tmp_path, "$store$_reward", 7, np.array([0, 0, 0, 0, 1, 0, 0, 0, -1, 0, 1, 5], np.float32))
    write(tmp_path, "$store$_terminal", 7, np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1], np.uint8))
    write(tmp_path, "add_count", 7, np.array(11))
    episodes = source(tmp_path).load()
    assert episodes.observations[:, 0, 0].tolist() == [10, 11, 11, 20, 21, 22, 22]
    assert episodes.actions.tolist() == [1, 2, 3, 0, 1]
    assert episodes.rewards.tolist() == [0, 1, -1, 0, 1]
    assert episodes.terminations.tolist() == [False, True, False, False, False]
    assert episodes.truncations.tolist() == [False, False, False, False, True]
    assert episodes.starts.tolist() == [0, 2, 5]
    assert episodes.has_final.tolist() == [False, False]
    assert episodes.info["whole"].tolist() == [True, False]
    assert episodes.info["checkpoint"].tolist() == [7, 7]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    capacity=st.integers(5, 40),
    stop=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_reads_a_buffer_stopped_anywhere(lengths: list[int], capacity: int, stop: int, seed: int) -> None:
    buffer = Buffer(capacity)
    for step in play(np.random.default_rng(seed), lengths)[:stop]:
        buffer.add(step)
    with tempfile.TemporaryDirectory() as name:
        window = buffer.save(Path(name), 0)
        episodes = source(Path(name)).load()
    wanted = expected(buffer.history, [window])
    assert_same(episodes, wanted)
    held = buffer.history[slice(*window)]
    begun = [steps[0].first for steps in wanted]
    begun[0] &= held[0] is None  # nothing in the file says that its very first row begins an episode
    ended = [steps[-1].terminal for steps in wanted]
    assert episodes.info["whole"].tolist() == [a and b for a, b in zip(begun, ended, strict=True)]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=10, max_size=20),
    capacity=st.integers(8, 30),
    chosen=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    steps=st.one_of(st.none(), st.integers(1, 60)),
)
def test_reads_several_checkpoints_of_a_recording(
    lengths: list[int], capacity: int, chosen: list[int], steps: int | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        buffer, windows = record(Path(name), capacity, lengths, saves=5)
        chosen = [number for number in chosen if number < len(windows)] or [0]
        episodes = source(Path(name), checkpoints=tuple(chosen), steps=steps).load()
    wanted = expected(buffer.history, [windows[number] for number in chosen])
    if steps is not None:
        total = np.cumsum([len(episode) for episode in wanted])
        wanted = wanted[: int(np.searchsorted(total, steps)) + 1]
    assert_same(episodes, wanted)


def test_an_episode_that_two_checkpoints_share_is_one(tmp_path: Path) -> None:
    _, windows = record(tmp_path, 16, [5, 20, 6], saves=2)
    assert windows[0][1] == windows[1][0], "the second checkpoint begins where the first one ends"
    both, first, second, swapped = (source(tmp_path, checkpoints=c).load() for c in (None, (0,), (1,), (1, 0)))
    assert both.lengths().tolist() == [5, 20]
    assert both.info["whole"].tolist() == [True, True]
    assert both.info["checkpoint"].tolist() == [0, 0]
    assert [first.lengths().tolist(), second.lengths().tolist()] == [[5, 4], [16]]
    assert [first.info["whole"].tolist(), second.info["whole"].tolist()] == [[True, False], [False]]
    assert swapped.lengths().tolist() == [16, 5, 4]
    assert swapped.info["checkpoint"].tolist() == [1, 0, 0]
    assert swapped.truncations.nonzero().flatten().tolist() == [24]


def test_black_frames_within_an_episode_are_kept(tmp_path: Path) -> None:
    buffer = Buffer(40)
    for episode in range(2):
        for t in range(7):
            shade = 0 if t < 5 else 9  # black from the first frame on, idle and without reward
            buffer.add(Step(episode, np.full((2, 3), shade, np.uint8), 0, 0.0, t == 6, t == 0))
    window = buffer.save(tmp_path, 0)
    assert_same(source(tmp_path).load(), expected(buffer.history, [window]))


def test_black_frames_where_two_checkpoints_meet_are_kept(tmp_path: Path) -> None:
    buffer, windows = Buffer(10), []
    for t in range(16):
        shade = 0 if 4 <= t < 9 else 9
        buffer.add(Step(0, np.full((2, 3), shade, np.uint8), 0, 0.0, t == 15, t == 0))
        if buffer.count % 10 == 9:
            windows.append(buffer.save(tmp_path, len(windows)))
    assert windows == [(0, 9), (9, 19)]
    assert_same(source(tmp_path).load(), expected(buffer.history, windows))


def test_steps_are_filled_by_whole_episodes(tmp_path: Path) -> None:
    record(tmp_path, 40, [5, 3, 4, 20])
    for steps, lengths in ((1, [5]), (5, [5]), (6, [5, 3]), (8, [5, 3]), (12, [5, 3, 4])):
        assert source(tmp_path, steps=steps).load().lengths().tolist() == lengths


def test_the_final_buffer_begins_within_an_episode(tmp_path: Path) -> None:
    """The recording's last file tells a count below its capacity although the buffer had wrapped."""
    buffer = Buffer(10)
    for step in play(np.random.default_rng(0), [4, 9]):
        buffer.add(step)
    buffer.save(tmp_path, 3)
    write(tmp_path, "add_count", 3, np.array(buffer.count % 10))
    episodes = source(tmp_path).load()
    assert_same(episodes, expected(buffer.history, [(10, 19)]))
    assert episodes.info["whole"].tolist() == [False]


def test_the_time_limit_is_no_terminal_state(tmp_path: Path) -> None:
    buffer = Buffer(54_100, (1, 1))
    for episode, length in enumerate((26_999, 27_000)):
        for t in range(length):
            buffer.add(Step(episode, np.ones((1, 1), np.uint8), 1, 0.0, t == length - 1, t == 0))
    buffer.save(tmp_path, 0)
    episodes = source(tmp_path).load()
    last = episodes.starts[1:] - 1
    assert episodes.terminations[last].tolist() == [True, False]
    assert episodes.truncations[last].tolist() == [False, True]
    assert episodes.info["whole"].tolist() == [True, True]


def test_transitions_bootstrap_where_they_may(tmp_path: Path) -> None:
    record(tmp_path, 30, [4, 3, 20])  # the third is cut
    episodes = source(tmp_path, frame_stack=1).load()
    transitions = Transitions(episodes)
    batch = transitions.gather(torch.arange(len(transitions)))
    assert len(transitions) == episodes.steps - 1, "what followed the cut was not seen"
    assert batch.terminals.nonzero().flatten().tolist() == [3, 6]
    inner = batch.terminals == 0
    assert torch.equal(batch.next_observations[:-1][inner[:-1]], batch.observations[1:][inner[:-1]])


def test_rewards_are_clipped_on_demand_only(tmp_path: Path) -> None:
    buffer = Buffer(20)
    for t, reward in enumerate((0.5, -7.0, 0.0, 30.0)):
        buffer.add(Step(0, np.ones((2, 3), np.uint8), 1, reward, t == 3, t == 0))
    buffer.save(tmp_path, 0)
    assert source(tmp_path).load().rewards.tolist() == [1, -1, 0, 1]
    assert source(tmp_path, clip_rewards=False).load().rewards.tolist() == [0.5, -7, 0, 30]


def test_the_spec_says_how_to_play(tmp_path: Path) -> None:
    buffer = Buffer(20, (84, 84))
    for step in play(np.random.default_rng(0), [5], (84, 84)):
        buffer.add(step)
    buffer.save(tmp_path, 0)
    made = source(tmp_path, frame_stack=3)
    assert made.label == "dqn_replay:Breakout"
    spec = made.load().spec
    assert spec.observation_space == spaces.Box(0, 255, (84, 84), np.uint8)
    assert (spec.frame_stack, spec.max_steps, spec.env_id) == (3, 27_000, "ALE/Breakout-v5")
    assert spec.encoder_space().shape == (3, 84, 84)
    assert spec.preprocess == preprocessing()
    assert DataSpec.from_mapping(spec.to_mapping()) == spec
    (env,) = Atari(Atari.Config()).make(spec, 1)
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.25
    assert env.observation_space == spec.observation_space
    env.close()


@pytest.mark.parametrize(("game", "count"), [("Breakout", 4), ("Pong", 6), ("Qbert", 6), ("Seaquest", 18)])
def test_knows_the_actions_of_a_game(tmp_path: Path, game: str, count: int) -> None:
    record(tmp_path, 30, [4])
    assert source(tmp_path, game=game).load().spec.action_space == spaces.Discrete(count)


def test_all_eighteen_actions_are_played_again(tmp_path: Path) -> None:
    buffer = Buffer(20, (84, 84))
    for step in play(np.random.default_rng(0), [5], (84, 84)):
        step.action += 14
        buffer.add(step)
    buffer.save(tmp_path, 0)
    with pytest.raises(DataError, match=r"checkpoint 0: row \d+: action 1\d is outside 0 to 3 .*set `actions: 18`"):
        source(tmp_path).load()
    episodes = source(tmp_path, actions=18).load()
    (env,) = Atari(Atari.Config()).make(episodes.spec, 1)
    assert env.action_space == episodes.spec.action_space == spaces.Discrete(18)
    env.close()


def test_mapped_episodes_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "game"
    buffer, _ = record(folder, 30, [4, 3])
    plain = source(folder, memory_map=False, frame_stack=2).load()
    for _ in range(2):  # converted, then opened
        mapped = source(folder, memory_map=True, frame_stack=2).load()
        assert (mapped.mapped, plain.mapped) == (True, False)
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "starts", "has_final"):
            assert torch.equal(getattr(mapped, name), getattr(plain, name)), name
        assert (mapped.spec, set(mapped.info)) == (plain.spec, set(plain.info))
    source(folder, memory_map=True, frame_stack=4).load()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert source(folder, memory_map=True, steps=4).load().steps == 4
    assert len(list((tmp_path / "cache").iterdir())) == 2
    buffer.save(folder, 1)  # another checkpoint: other data
    assert source(folder, memory_map=True).load().steps == source(folder, memory_map=False).load().steps


def test_frames_are_held_once(tmp_path: Path) -> None:
    buffer = Buffer(3000, (84, 84))
    for step in play(np.random.default_rng(0), [200] * 20, (84, 84)):
        buffer.add(step)
    buffer.save(tmp_path, 0)
    made = source(tmp_path)
    made.load()  # imports and the game's own memory are not of interest
    del buffer
    tracemalloc.start()
    frames = made.load().observations
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames.numel() + 6 * 2**20, f"{peak / frames.numel():.2f} times the frames"


def _lack(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}_ckpt.0.gz").unlink()


def _write(name: str, values: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: write(folder, name, 0, values)


def _cut(name: str, share: float) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        path = folder / f"{name}_ckpt.0.gz"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def _spoil(row: int, column: str, value: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / f"$store$_{column}_ckpt.0.gz"
        with gzip.open(path) as file:
            values = np.load(file)
        values[row] = value
        write(folder, f"$store$_{column}", 0, values)

    return spoil


def _other_bytes(folder: Path) -> None:
    (folder / "$store$_observation_ckpt.0.gz").write_bytes(b"no gzip at all")


def _pickled(folder: Path) -> None:
    with gzip.open(folder / "add_count_ckpt.0.gz", "wb") as file:
        np.save(file, np.array({"a": 1}), allow_pickle=True)


def _claim(folder: Path) -> None:
    """A header of terabytes, and no values."""
    with gzip.open(folder / "$store$_observation_ckpt.0.gz", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 84, 84)}
        np.lib.format.write_array_header_1_0(file, header)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no frames": (_lack("$store$_observation"), r"has no \$store\$_observation_ckpt\.N\.gz"),
    "no actions": (_lack("$store$_action"), r"checkpoint 0: .* lacks \$store\$_action_ckpt\.0\.gz; copy all"),
    "no count": (_lack("add_count"), r"lacks add_count_ckpt\.0\.gz"),
    "lengths": (_write("$store$_reward", np.zeros(9, np.float32)), r"reward.* is \(9,\), but there are 30 frames"),
    "color": (_write("$store$_observation", np.zeros((30, 2, 3, 3), np.uint8)), r"\(30, 2, 3, 3\) uint8, expected"),
    "floats": (_write("$store$_observation", np.zeros((30, 2, 3))), r"float64, expected \(rows, H, W\) uint8"),
    "float actions": (_write("$store$_action", np.zeros(30)), r"holds float64, expected integers"),
    "count": (_write("add_count", np.arange(3)), r"add_count.* has shape \(3,\)"),
    "negative": (_write("add_count", np.array(-1)), r"says -1, expected 0 or more"),
    "nothing": (_write("add_count", np.array(0)), r"hold no steps"),
    "not finite": (_spoil(4, "reward", np.nan), r"episode 0, step 1: reward nan is not finite"),
    "cut frames": (_cut("$store$_observation", 0.6), r"observation_ckpt\.0\.gz cannot be read .*copy it again"),
    "cut rewards": (_cut("$store$_reward", 0.5), r"reward_ckpt\.0\.gz cannot be read .*copy it again"),
    "cut header": (_cut("$store$_terminal", 0.05), r"terminal_ckpt\.0\.gz cannot be read"),
    "no gzip": (_other_bytes, r"cannot be read \(Not a gzipped file"),
    "terabytes": (_claim, r"observation_ckpt\.0\.gz cannot be read \(it says .*more than it can hold"),
    "pickle": (_pickled, r"add_count_ckpt\.0\.gz cannot be read \(not a plain array"),
    "action": (_spoil(5, "action", 4), r"checkpoint 0: row 5: action 4 is outside 0 to 3"),
    "blank action": (_spoil(8, "action", 1), r"row 8 should be one of the 3 blank rows"),
    "blank frame": (_spoil(9, "observation", 1), r"row 9 should be one of the 3 blank rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told(tmp_path: Path, fault: str) -> None:
    record(tmp_path, 30, [4, 5, 5])  # rows 7 to 9 are blank
    source(tmp_path).load()
    break_it, message = FAULTS[fault]
    break_it(tmp_path)
    with pytest.raises(DataError, match=message) as raised:
        source(tmp_path).load()
    assert str(raised.value).startswith("dqn_replay:Breakout: ")


def test_a_flipped_bit_in_the_last_frames_is_noticed(tmp_path: Path) -> None:
    record(tmp_path, 30, [4, 5, 20])
    path = tmp_path / "$store$_observation_ckpt.0.gz"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # gzip's checksum
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="CRC"):
        source(tmp_path).load()


def test_wrong_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no folder; set `path`"):
        source(tmp_path / "nowhere").load()
    record(tmp_path, 30, [4, 5, 5])
    with pytest.raises(DataError, match=r"no checkpoint 3; it has \[0\]"):
        source(tmp_path, checkpoints=(3,)).load()
    with pytest.raises(DataError, match=r"no such game. Did you mean 'Breakout'\?"):
        source(tmp_path, game="Brekout").load()
    write(tmp_path, "$store$_observation", 1, np.zeros((30, 5, 5), np.uint8))
    for column, kind in (("$store$_action", np.int32), ("$store$_reward", np.float32), ("$store$_terminal", np.uint8)):
        write(tmp_path, column, 1, np.zeros(30, kind))
    write(tmp_path, "add_count", 1, np.array(29))
    with pytest.raises(DataError, match=re.escape("frames are (5, 5), those before it (2, 3)")):
        source(tmp_path).load()


def test_options_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = rlutils.catalogue(plugins=("rlalgo_atari",))
    monkeypatch.setenv("HOME", str(tmp_path))
    record(tmp_path / "logs", 30, [4, 5, 5])
    config = parse(DQNReplay.Config, {"path": "~/logs", "game": "Pong", "checkpoints": [0]}, known)
    assert len(DQNReplay(config).load()) == 3
    for wrong in ([], [1, 1], [-1]):
        with pytest.raises(ConfigError, match="checkpoints"):
            parse(DQNReplay.Config, {"path": "x", "game": "Pong", "checkpoints": wrong}, known)


def test_the_readmes_configuration_is_valid() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    config = yaml.safe_load(block) | {"algo": {"name": "bc"}}  # the rest is laid below
    found, _ = read_settings(config, plugins=("rlalgo_atari",))
    assert isinstance(found.source.config, DQNReplay.Config)
    assert found.env.name == "atari"
