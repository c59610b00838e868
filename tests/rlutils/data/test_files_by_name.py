"""The sources npz, d4rl, trajectories and robomimic: the same data in another file is the same data."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rlalgo import Episodes
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import DataError
from rlutils.data import unpickling
from rlutils.data.d4rl_source import d4rl_scores
from rlutils.data.flat import CutWarning
from rlutils.data.minari_source import MinariSource
from rlutils.data.unpickling import PickledArray, unpickle
from tests.rlutils.data.files import (
    NAMES,
    Columns,
    assert_one_line,
    assert_same,
    damage,
    flat,
    load,
    losses,
    trajectories,
    write,
)
from tests.rlutils.minari_data import ID, write_dataset


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset(tmp_path, lengths=(5, 3, 7, 1, 2, 4, 6, 2, 3, 4, 5, 2))  # demo_10 comes after demo_9
    return MinariSource(MinariSource.Config(id=ID)).load()


@pytest.fixture
def columns(original: Episodes) -> Columns:
    return flat(original)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_data_is_the_same_bit_for_bit(name: str, original: Episodes, columns: Columns, tmp_path: Path) -> None:
    write(name, tmp_path / "data.npz", columns)
    data = load(name, tmp_path / "data.npz", env_id="CartPole-v1", ref_scores=(0.0, 10.0), max_steps=9)
    assert data.spec.env_id == "CartPole-v1"
    assert data.spec.ref_scores == (0.0, 10.0)
    assert data.spec.max_steps == 9
    plain = load(name, tmp_path / "data.npz")
    assert_same(plain, original)
    assert losses(plain) == losses(original)


@pytest.mark.parametrize("name", ["npz", "d4rl"])
def test_what_is_read_in_blocks_is_the_same(
    name: str, original: Episodes, columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlutils.data.flat._BLOCK", 7)  # two rows of observations
    write(name, tmp_path / "data.npz", columns)
    assert_same(load(name, tmp_path / "data.npz"), original)


@pytest.mark.parametrize("name", NAMES)
def test_without_what_came_next_only_that_is_missing(
    name: str, original: Episodes, columns: Columns, tmp_path: Path
) -> None:
    del columns["next_observations"]
    write(name, tmp_path / "data.npz", columns)
    data = load(name, tmp_path / "data.npz")
    assert not data.has_final.any()
    final = data.starts[1:] + torch.arange(len(data))
    assert torch.equal(data.observations[final], data.observations[final - 1])
    assert torch.equal(data.rewards, original.rewards)


def test_what_no_flag_ends_was_cut(columns: Columns, tmp_path: Path) -> None:
    columns["truncations"][-1] = columns["terminations"][-1] = False
    write("d4rl", tmp_path / "x.hdf5", columns)
    data = load("d4rl", tmp_path / "x.hdf5")
    assert data.steps == len(columns["rewards"])
    assert data.truncations[-1]


def test_episodes_without_timeouts_are_cut_at_the_limit_that_is_told(columns: Columns, tmp_path: Path) -> None:
    del columns["truncations"], columns["next_observations"]
    write("d4rl", tmp_path / "x.hdf5", columns)
    with pytest.raises(DataError, match="has no 'timeouts'; set `max_steps`"):
        load("d4rl", tmp_path / "x.hdf5")
    data = load("d4rl", tmp_path / "x.hdf5", max_steps=3)
    assert data.lengths().max() == 3
    assert torch.equal(data.terminations, torch.from_numpy(columns["terminations"]))
    last = data.starts[1:] - 1
    assert torch.equal(data.truncations[last], ~data.terminations[last])


def test_observations_that_do_not_go_on_end_an_episode_with_a_word(columns: Columns, tmp_path: Path) -> None:
    columns["next_observations"][1] = 7.0
    write("npz", tmp_path / "x.npz", columns)
    with pytest.warns(CutWarning, match=r"do not go on .* after step 1 \(1 such steps\)"):
        data = load("npz", tmp_path / "x.npz")
    assert data.lengths()[:3].tolist() == [2, 3, 3]
    assert (data.observations[2] == 7.0).all()
    assert data.truncations[1]


def test_terminations_within_goal_tasks_stay_within_episodes(columns: Columns, tmp_path: Path) -> None:
    columns["truncations"] |= columns["terminations"]
    columns["terminations"][1] = True
    write("d4rl", tmp_path / "x.hdf5", columns)
    data = load("d4rl", tmp_path / "x.hdf5", continues=True)
    assert data.terminations[1]
    assert data.lengths()[0] == 5


def test_columns_may_have_other_names(original: Episodes, columns: Columns, tmp_path: Path) -> None:
    columns["done"] = columns.pop("terminations").astype(np.float64)
    np.savez(tmp_path / "x.npz", **columns)
    assert_same(load("npz", tmp_path / "x.npz", columns={"terminations": "done"}), original)
    with pytest.raises(DataError, match=r"has no 'dones' \(terminations\); it holds .* Did you mean 'done'"):
        load("npz", tmp_path / "x.npz", columns={"terminations": "dones"})


@pytest.mark.parametrize(
    ("actions", "space"),
    [
        (np.array([0, 2, 1]), spaces.Discrete(3)),
        (np.array([[0, 1], [1, 2], [0, 0]]), spaces.Discrete(6)),
        (np.array([[0.5], [-1.0], [1.0]]), spaces.Box(-1, 1, (1,))),
        (np.array([0.5, -3.0, 1.0]), spaces.Box(-np.inf, np.inf, (1,))),
        (np.array([True, False, True]), spaces.Discrete(2)),
    ],
    ids=["whole", "several", "within", "wide", "flags"],
)
def test_spaces_are_found(actions: np.ndarray, space: spaces.Space, tmp_path: Path) -> None:
    images = np.arange(3 * 8 * 9 * 3, dtype=np.uint8).reshape(3, 8, 9, 3)
    np.savez(tmp_path / "x.npz", observations=images, actions=actions, rewards=[1, 2, 3])
    data = load("npz", tmp_path / "x.npz")
    assert data.spec.action_space == space
    assert data.spec.observation_space == spaces.Box(0, 255, (3, 8, 9), np.uint8)
    assert np.array_equal(data.observations[:3].numpy(), images.transpose(0, 3, 1, 2))
    clipped = load("npz", tmp_path / "x.npz", clip_actions=True)
    assert clipped.actions.max() <= 5


def test_a_whole_dict_of_observations_with_images(tmp_path: Path) -> None:
    images = np.arange(4 * 8 * 9 * 3, dtype=np.uint8).reshape(4, 8, 9, 3)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for i in range(2):
            demo = file.create_group(f"data/demo_{i}")
            demo["obs/image"], demo["obs/arm"] = images, np.ones((4, 2))
            demo["actions"], demo["rewards"], demo["dones"] = np.zeros((4, 2)), np.zeros(4), np.zeros(4)
        file["mask/train"] = np.array([b"demo_1"])
    data = load("robomimic", tmp_path / "x.hdf5", keys=("arm", "image"), demos="train")
    assert (len(data), data.steps) == (1, 4)
    parts = data.spec.observation_space.parts  # type: ignore[attr-defined]
    assert list(parts) == ["arm", "image"]
    with pytest.raises(DataError, match="no observation is called 'imag'; there are arm, image"):
        load("robomimic", tmp_path / "x.hdf5", keys=("imag",))


def test_what_else_is_in_files_of_d4rl(original: Episodes, columns: Columns, tmp_path: Path) -> None:
    for name in ("rewards", "terminations", "truncations"):
        columns[name] = columns[name].astype(np.float32)[:, None]  # (N, 1), as D4RL's own reader takes them, too
    write("d4rl", tmp_path / "x.hdf5", columns)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file["infos/qpos"], file["metadata/algorithm"] = np.zeros((44, 9)), "SAC"
        file["metadata/policy/fc0/weight"] = np.zeros((3, 4))
        file["virtual/0/rewards"] = np.zeros(3)
    assert_same(load("d4rl", tmp_path / "x.hdf5"), original)


def test_goals_of_antmaze_are_terminals_at_each_step(columns: Columns, tmp_path: Path) -> None:
    columns["truncations"] |= columns["terminations"]
    columns["terminations"][1:4] = True
    del columns["next_observations"]
    write("d4rl", tmp_path / "x.hdf5", columns)
    assert load("d4rl", tmp_path / "x.hdf5").lengths()[:4].tolist() == [2, 1, 1, 1]
    assert load("d4rl", tmp_path / "x.hdf5", continues=True).lengths()[0] == 5


def test_demonstrations_without_observations_are_told_how_to_get_them(columns: Columns, tmp_path: Path) -> None:
    write("robomimic", tmp_path / "x.hdf5", columns)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file["data"].attrs["env_args"], file["data"].attrs["total"] = '{"env_name": "Lift"}', 44
        file["data/demo_0/states"], file["data/demo_0"].attrs["num_samples"] = np.zeros((5, 9)), 5
        file["mask/train"], file["mask/valid"] = np.array([b"demo_10", b"demo_9"]), np.array([b"demo_3"])
    assert load("robomimic", tmp_path / "x.hdf5", demos="train").lengths().tolist() == [4, 5]
    assert load("robomimic", tmp_path / "x.hdf5", demos="valid").lengths().tolist() == [1]
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        del file["data/demo_0/obs"], file["data/demo_0/next_obs"]
    with pytest.raises(DataError, match=r"data/demo_0 has no obs, only actions, .*dataset_states_to_obs\.py"):
        load("robomimic", tmp_path / "x.hdf5")


def test_scores_go_by_the_task(columns: Columns, tmp_path: Path) -> None:
    assert d4rl_scores("hopper-medium-v2") == d4rl_scores("hopper_medium_replay-v2") == (-20.272305, 3234.3)
    assert d4rl_scores("antmaze-umaze-v2") == (0.0, 1.0)
    assert d4rl_scores("maze2d-umaze-dense-v1") != d4rl_scores("maze2d-umaze-sparse-v1") == (23.85, 161.86)
    assert d4rl_scores("hoppers-v2") is None
    assert d4rl_scores("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed") == (0.0, 1.0)
    assert d4rl_scores("walker_mixed") == d4rl_scores("walker2d-medium-replay-v0") == (1.629008, 4592.3)
    write("d4rl", tmp_path / "hopper_medium-v2.hdf5", columns)
    assert load("d4rl", tmp_path / "hopper_medium-v2.hdf5").spec.ref_scores == (-20.272305, 3234.3)
    assert load("d4rl", tmp_path / "hopper_medium-v2.hdf5", task="pen-human-v1").spec.ref_scores == d4rl_scores("pen")
    with pytest.raises(DataError, match="D4RL has no task hoper"):
        load("d4rl", tmp_path / "hopper_medium-v2.hdf5", task="hoper-v2")


steps = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=steps, draw=st.data())
def test_any_columns_there_and_back(lengths: list[tuple[int, bool]], draw: st.DataObject, tmp_path: Path) -> None:
    n, numbers = sum(length for length, _ in lengths), st.floats(-1, 1, width=32)
    wide = st.floats(width=32, allow_nan=False, allow_infinity=False)
    last = np.cumsum([length for length, _ in lengths]) - 1
    columns = {
        "observations": draw.draw(arrays.arrays(np.float32, (n, 3), elements=wide)),
        "actions": draw.draw(arrays.arrays(np.float32, (n, 2), elements=numbers)),
        "rewards": draw.draw(arrays.arrays(np.float32, (n,), elements=numbers)),
        "terminations": np.zeros(n, bool),
        "truncations": np.zeros(n, bool),
    }  # fmt: skip
    for row, (_, terminal) in zip(last, lengths, strict=True):
        columns["terminations" if terminal else "truncations"][row] = True
    columns["next_observations"] = np.roll(columns["observations"], -1, 0)
    found = []
    for name in NAMES:
        write(name, tmp_path / "data.npz", columns)
        found.append(load(name, tmp_path / "data.npz"))
        back = flat(found[-1])
        assert all(np.array_equal(back[column], values) for column, values in columns.items()), name
    assert len({fingerprint(data) for data in found}) == 1


def spoil(column: str, change: Callable[[np.ndarray], Any]) -> Callable[[Columns], None]:
    def spoiled(columns: Columns) -> None:
        columns[column] = change(columns[column])

    return spoiled


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[6] = np.nan
    return values


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil("rewards", with_nan), "episode 1, step 1: reward nan is not finite"),
        (spoil("actions", with_nan), r"episode 1, step 1: action \[nan, nan\] is not finite"),
        (spoil("rewards", lambda x: x.astype("S3")), "S3'?, (expected float32|not of numbers|which is no number)"),
        (spoil("rewards", lambda x: np.stack([x, x], 1)), r"episode 0, step 0: rewards have shape \(2,\) per step"),
        (spoil("actions", lambda x: -x.astype(int) - 1), "actions: a value is outside|outside the action space"),
        (lambda columns: columns.pop("rewards"), "rewards"),
        (lambda columns: columns.pop("observations"), "obs"),
    ],
    ids=["NaN", "NaN action", "texts", "rewards of two dimensions", "negative", "no rewards", "no observations"],
)
def test_faults_are_named(
    name: str, change: Callable[[Columns], None], said: str, columns: Columns, tmp_path: Path
) -> None:
    change(columns)
    write(name, tmp_path / "data.npz", columns)
    with pytest.raises(DataError, match=said) as error:
        load(name, tmp_path / "data.npz")
    assert str(error.value).startswith(f"{name}:{tmp_path / 'data.npz'}")
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::rlutils.data.flat.CutWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_files_are_told_in_one_line(name: str, draw: st.DataObject, original: Episodes, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(name, path, flat(original))
    damage(path, draw)
    assert_one_line(lambda: load(name, path))
    path.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_none(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing.x", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match=f"^{name}:{re.escape(str(path))}"):
            load(name, path)


def test_lengths_differ(columns: Columns, tmp_path: Path) -> None:
    parts = trajectories(columns)
    parts[1]["actions"] = parts[1]["actions"][1:]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    with pytest.raises(DataError, match="episode 1: 2 actions but 3 rewards"):
        load("trajectories", tmp_path / "x.pkl")
    columns["actions"] = columns["actions"][1:]
    np.savez(tmp_path / "x.npz", **columns)
    with pytest.raises(DataError, match=r"actions have shape \(43, 2\), and rewards \(44,\)"):
        load("npz", tmp_path / "x.npz")
    for bad in (np.array([0, 50]), np.array([0.0, 44.0]), np.array([0, 5, 5, 44]), np.array([0, -1, 44])):
        np.savez(tmp_path / "x.npz", **(columns | {"actions": np.zeros((44, 2)), "starts": bad}))
        with pytest.raises(DataError, match="starts do not rise from 0 to 44"):
            load("npz", tmp_path / "x.npz")


def npz(path: Path, header: str, data: bytes = b"", claim: int | None = None) -> None:
    """A .npz whose array claims what it likes."""
    text = (header + "\n").encode()
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rewards.npy", content)
        if claim:
            file.infolist()[0].file_size = claim


@pytest.mark.parametrize(
    ("header", "claim", "said"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", None, "not those of"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", None, "not those of"),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,)}",
            40_000_000_100,
            "more than there can be",
        ),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", None, "no 'observations'"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", None, "no 'observations'"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': ('1',)}", None, "cannot be read"),
        ("__import__('os').system('touch x')", None, "cannot be read"),
    ],
)
def test_claims_of_npz_are_not_believed(header: str, claim: int | None, said: str, tmp_path: Path) -> None:
    npz(tmp_path / "x.npz", header, bytes(8), claim)
    with pytest.raises(DataError, match=said):
        load("npz", tmp_path / "x.npz")


def test_a_step_may_not_claim_what_no_space_has(columns: Columns, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("actions", "rewards", "terminals", "timeouts"):
            file[name] = np.zeros((1, 2) if name == "actions" else 1)
        file.create_dataset("observations", (1, 2**26), "u1", compression="gzip")[:] = 0
    with pytest.raises(DataError, match="numbers per step, and 33,554,432 are the most"):
        load("d4rl", tmp_path / "x.hdf5")


def test_objects_in_npz_are_refused(columns: Columns, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **columns, notes=np.array([{}], object))
    load("npz", tmp_path / "x.npz")  # which has no use for them
    columns["rewards"] = np.array([Evil(print, ())] * len(columns["rewards"]), object)
    np.savez(tmp_path / "x.npz", **columns)
    with pytest.raises(DataError, match=r"rewards.npy is of object, not of numbers, and nothing is unpickled"):
        load("npz", tmp_path / "x.npz")


def test_arrays_may_be_transposed(original: Episodes, columns: Columns, tmp_path: Path) -> None:
    transposed: Columns = {name: np.asfortranarray(values) for name, values in columns.items()}
    np.savez(tmp_path / "x.npz", **transposed)
    assert_same(load("npz", tmp_path / "x.npz"), original)


class Evil:
    """Is pickled as a call."""

    def __init__(self, call: Any, arguments: tuple, state: Any = None) -> None:
        self.reduced = (call, arguments, state) if state is not None else (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def calling(module: str, name: str, argument: str) -> bytes:
    """A pickle of protocol 0 that calls a function with a text."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


EVIL = {
    "os.system": lambda mark: calling("os", "system", f"touch {mark}"),
    "posix.system": lambda mark: calling("posix", "system", f"touch {mark}"),
    "subprocess": lambda mark: pickle.dumps(Evil(__import__("subprocess").getoutput, (f"touch {mark}",))),
    "eval": lambda mark: calling("builtins", "eval", f'open("{mark}", "w")'),
    "exec of Python 2": lambda mark: calling("__builtin__", "eval", f'open("{mark}", "w")'),
    "getattr": lambda mark: pickle.dumps(Evil(getattr, ({}, "keys"))),
    "numpy.testing": lambda mark: calling("numpy.testing._private.utils", "runstring", f'open("{mark}", "w")'),
    "numpy.load": lambda mark: pickle.dumps(Evil(np.load, (str(mark),))),
    "numpy.memmap": lambda mark: pickle.dumps(Evil(np.memmap, (str(mark), "u1", "w+", 0, (1,)))),
    "numpy.fromfile": lambda mark: pickle.dumps(Evil(np.fromfile, (str(mark),))),
    "numpy.save": lambda mark: pickle.dumps(Evil(np.save, (str(mark), [1]))),
    "attributes": lambda mark: b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
    "nested": lambda mark: pickle.dumps([{"rewards": [Evil(__import__("os").system, (f"touch {mark}",))]}]),
    "within an array": lambda mark: pickle.dumps(np.array([Evil(__import__("os").system, (f"touch {mark}",))], object)),
    "as a state": lambda mark: pickle.dumps(Evil(dict, (), {"x": Evil(__import__("os").system, (f"touch {mark}",))})),
    "instance": lambda mark: f"(S'touch {mark}'\nios\nsystem\n.".encode(),
    "object": lambda mark: f"(cos\nsystem\nS'touch {mark}'\no.".encode(),
    "extension": lambda mark: b"\x82\x01.",
    "new object": lambda mark: b"cnumpy\nndarray\n)\x81.",
    "state of a function": lambda mark: b"c_codecs\nencode\n(NU\x0c__defaults__K\x01sb.",
    "state of bytes in the file": lambda mark: b"B\x00\x01\x00\x00" + b"x" * 256 + b"(U\x04pathK\x01db.",
    "buffers of protocol 5": lambda mark: b"\x80\x05\x97\x98.",
    "persistent": lambda mark: b"Pid\n.",
}  # fmt: skip


@pytest.mark.parametrize("kind", EVIL)
def test_nothing_in_a_pickle_is_called(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "called"
    (tmp_path / "x.pkl").write_bytes(EVIL[kind](mark))
    with pytest.raises(DataError, match="cannot be read") as error:
        load("trajectories", tmp_path / "x.pkl")
    assert "\n" not in str(error.value)
    assert not mark.exists()


def array_pickle(descr: bytes, dtype_state: bytes, data: bytes = b"\x41" * 8, shape: bytes = b"K\x01\x85") -> bytes:
    """An ndarray by hand, whose dtype has the state that is given."""
    dtype = b"cnumpy\ndtype\n(V" + descr + b"\nI00\nI01\ntR" + dtype_state
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
    return b"\x80\x03" + array + b"(K\x01" + shape + dtype + b"\x89C" + bytes([len(data)]) + data + b"tb."


ONE_HASH = range(2**61 - 1, 2**77, 2**61 - 1)
"""A dict of these would take an hour."""


@pytest.mark.parametrize(
    "content",
    [
        array_pickle(b"O", b"(I3\nV|\nNNNI-1\nI-1\nI0\ntb"),  # an object's flags taken away: bytes as pointers
        array_pickle(b"V8", b"(I3\nV|\nNNNI8\nI1\nI0\ntb"),
        array_pickle(b"f8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", b"\x41" * 7),
        array_pickle(b"f8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", shape=b"I100000000\n\x85"),
        array_pickle(b"f8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", shape=b"I-1\nI-1\n\x86"),
        array_pickle(b"1000000000f8", b""),
        b"cnumpy\ndtype\n(dVx\nI1\nsb.",  # a state for the function itself
        b"\x80\x04cnumpy\nndarray\n)\x81.",
        b"\x80\x02]r\xff\xff\xff\xff.",  # a memo of 64 GB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",  # bytes of 64 PB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00.",
        b"",
        b"not a pickle",
        array_pickle(b"f8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", shape=b"J\xff\xff\xff\x7fU\x01x\x86"),  # 2 billion times x
        array_pickle(b"f8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", b"", shape=b"K\x00\x8a\xff" + b"\x7f" * 255 + b"\x86"),
        b"(" * 200_000 + b"t" * 200_000 + b".",
        b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",  # a key whose hash would overflow the stack
        b"}(" + b"".join(b"\x8a\x0c" + n.to_bytes(12, "little") + b"N" for n in ONE_HASH) + b"u.",
        b"N" + b"".join(b"p%d\n" % n for n in ONE_HASH) + b".",
        b"\x8f.",
        b")" + b"\x85" * 200_000 + b"U\x01x\x93.",
        pickle.dumps([1, 2]),
        pickle.dumps([]),
        pickle.dumps({"rewards": [1]}),
        pickle.dumps([{"rewards": 1, "observations": 1, "actions": 1}]),
        pickle.dumps([{"rewards": [], "observations": [], "actions": []}]),
        pickle.dumps([{"rewards": ["a"], "observations": [[{}]], "actions": [[1.0]]}]),
        pickle.dumps([{"rewards": [[1], [1, 2]], "observations": [[1.0]], "actions": [[1.0]]}]),
    ],
)  # fmt: skip
def test_absurd_pickles_are_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"^trajectories:") as error:
        load("trajectories", tmp_path / "x.pkl")
    assert "\n" not in str(error.value)


def laughs() -> list:
    """A hundred million numbers, in a few bytes."""
    found: list = [0.0] * 10
    for _ in range(7):
        found = [found] * 10
    return found


def within_itself() -> list:
    found: list = []
    found += [found, found]
    return found


@pytest.mark.parametrize(
    ("rewards", "times", "said"),
    [
        (laughs(), 1, "rewards: .*more numbers than the file has bytes"),
        ([np.zeros(10_000)] * 10_000, 1, "rewards: .*more numbers than the file has bytes"),
        (within_itself(), 1, "rewards: .*lists in lists, more than 8 of them"),
        (["x" * 250] * 10_000, 1, "rewards: .*texts in the place of numbers"),
        (np.zeros(1000), 20_000, "steps and more, and the file has"),
    ],
    ids=["lists of one list", "one array", "itself", "texts", "one trajectory"],
)
def test_what_is_shared_does_not_grow_without_bounds(rewards: Any, times: int, said: str, tmp_path: Path) -> None:
    part = {"rewards": rewards, "observations": np.zeros((1000, 1)), "actions": np.zeros((1000, 1))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([part] * times))
    with pytest.raises(DataError, match=said) as error:
        load("trajectories", tmp_path / "x.pkl")
    assert "\n" not in str(error.value)


def python_2(value: Any, text: Callable[[bytes], bytes]) -> bytes:
    """As Python 2 pickles it, where bytes and texts are one kind."""
    if isinstance(value, np.ndarray):
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + text(b"b") + b"tR"
        shape = b"(" + b"".join(b"I%d\n" % n for n in value.shape) + b"t"
        dtype = b"cnumpy\ndtype\n(" + text(value.dtype.str[1:].encode()) + b"I0\nI1\ntR"
        dtype += b"(I3\n" + text(b"<") + b"NNNI-1\nI-1\nI0\ntb"
        return made + b"(I1\n" + shape + dtype + b"I00\n" + text(value.tobytes()) + b"tb"
    if isinstance(value, dict):
        return b"(" + b"".join(text(key.encode()) + python_2(part, text) for key, part in value.items()) + b"d"
    return b"(" + b"".join(python_2(part, text) for part in value) + b"l"


@pytest.mark.parametrize(
    "text",
    [lambda raw: b"S" + repr(raw)[1:].encode() + b"\n", lambda raw: b"T" + len(raw).to_bytes(4, "little") + raw],
    ids=["protocol 0", "protocol 2"],
)
def test_pickles_of_python_2(
    text: Callable[[bytes], bytes], original: Episodes, columns: Columns, tmp_path: Path
) -> None:
    (tmp_path / "x.pkl").write_bytes(python_2(trajectories(columns), text) + b".")
    assert_same(load("trajectories", tmp_path / "x.pkl"), original)


def test_arrays_may_be_lists_of_arrays(original: Episodes, columns: Columns, tmp_path: Path) -> None:
    parts = [{name: list(values) for name, values in part.items()} for part in trajectories(columns)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    assert_same(load("trajectories", tmp_path / "x.pkl"), original)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=arrays.arrays(
        st.sampled_from(["b1", "i1", "<i2", ">i4", "i8", "u1", "u2", ">u8", "f2", "<f4", ">f8"]),
        arrays.array_shapes(min_dims=0, min_side=0),
    ),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    old=st.booleans(),
)  # fmt: skip
def test_arrays_come_through_every_protocol(values: np.ndarray, protocol: int, old: bool, tmp_path: Path) -> None:
    moved = np.moveaxis(np.stack([values] * 2, -1)[..., None], -2, 0)
    content = pickle.dumps({"a": values, "b": (values.T, moved)}, protocol)
    if old and protocol < 4:  # as numpy 1 writes it
        content = content.replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "x.pkl").write_bytes(content)
    found = unpickle(tmp_path / "x.pkl")
    for got, expected in ((found["a"], values), (found["b"][0], values.T), (found["b"][1], moved)):
        assert isinstance(got, PickledArray)
        found_values = np.asarray(got)
        assert found_values.dtype == expected.dtype
        assert found_values.shape == expected.shape
        assert found_values.tobytes() == expected.tobytes()


def test_scalars_and_plain_containers_come_through(tmp_path: Path) -> None:
    value = [{"a": (1, 2.5, "x", b"y", None, True), "b": np.float32(2), "c": np.int64(3), 4: {}}, [[]]]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        assert unpickle(tmp_path / "x.pkl") == value


def test_pickles_of_more_objects_than_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickling, "host_memory", lambda: 10**6)
    (tmp_path / "x.pkl").write_bytes(b"]" * 100_000 + b".")
    with pytest.raises(DataError, match="more objects in it than fit into the memory"):
        load("trajectories", tmp_path / "x.pkl")


@pytest.mark.parametrize("length", [0, 2, 9])
def test_what_follows_has_a_row_for_each_step(length: int, columns: Columns, tmp_path: Path) -> None:
    parts = trajectories(columns)
    parts[1]["next_observations"] = np.zeros((length, 3))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    with pytest.raises(DataError, match=rf"episode 1: {length} next_observations but \d+ rewards"):
        load("trajectories", tmp_path / "x.pkl")


def test_episodes_without_steps_are_told(columns: Columns, tmp_path: Path) -> None:
    parts = trajectories(columns)
    parts[1] = {name: values[:0] for name, values in parts[1].items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    with pytest.raises(DataError, match=r"episode 1 is empty \(no steps\); drop it"):
        load("trajectories", tmp_path / "x.pkl")


def test_terminals_stand_where_dones_are_there_too(columns: Columns, original: Episodes, tmp_path: Path) -> None:
    parts = [
        {**part, "dones": np.arange(len(part["rewards"])) == len(part["rewards"]) - 1} for part in trajectories(columns)
    ]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    assert_same(load("trajectories", tmp_path / "x.pkl"), original)
