"""MinariSource against what Minari wrote, and its answers to every kind of bad data."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.spaces import utils

from rlalgo.config import parse
from rlalgo.core.episodes import Episodes
from rlalgo.core.spec import DataSpec
from rlalgo.errors import ConfigError, DataError
from rlalgo.registry import Catalogue
from rlutils.config.yaml_text import dump_yaml, parse_yaml
from rlutils.data import hub
from rlutils.data.minari_source import MinariSource
from tests.rlutils.minari_data import ID, edit, edit_metadata, replace_column, write_dataset

IMAGE = spaces.Box(0, 255, (36, 32), np.uint8)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of datasets; nothing outside this machine is asked."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def load(ident: str = ID, **options: Any) -> Episodes:
    return MinariSource(MinariSource.Config(id=ident, **options)).load()


def episode(data: Episodes, i: int) -> tuple[np.ndarray, ...]:
    """Observations (T+1, *S), actions, rewards, terminations and truncations (T, ...) of one episode."""
    first, end = int(data.starts[i]), int(data.starts[i + 1])
    columns = data.actions, data.rewards, data.terminations, data.truncations
    return data.observations[first + i : end + i + 1].numpy(), *(column[first:end].numpy() for column in columns)


def test_episodes_are_what_was_written(root: Path) -> None:
    wide = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
    buffers = write_dataset(root, lengths=(4, 1, 6), observation_space=wide)
    data = load()
    assert (len(data), data.steps) == (3, 11)
    assert (data.observations.dtype, data.actions.dtype, data.rewards.dtype) == (torch.float32,) * 3
    assert data.spec.observation_space.dtype == np.float32
    assert data.has_final.all()
    for i, buffer in enumerate(buffers):
        truth = buffer.observations, buffer.actions, buffer.rewards, buffer.terminations, buffer.truncations
        for got, wanted in zip(episode(data, i), truth, strict=True):
            np.testing.assert_array_equal(got, np.asarray(wanted, got.dtype))


def test_episodes_are_what_minari_reads(root: Path) -> None:
    """Jpegs among them, which Minari decodes itself."""
    image = spaces.Box(0, 255, (40, 33, 3), np.uint8)
    write_dataset(root, "toy/photo-v0", observation_space=image, action_space=spaces.Discrete(4), jpeg_encoding=True)
    write_dataset(root, "toy/frame-v0", observation_space=IMAGE, action_space=spaces.Discrete(4))
    for ident in ("toy/photo-v0", "toy/frame-v0"):
        data = load(ident, frame_stack=2)
        assert (data.observations.dtype, data.actions.dtype) == (torch.uint8, torch.int64)
        assert data.spec.frame_stack == 2
        for i, truth in enumerate(minari.load_dataset(ident)):
            frames = np.asarray(truth.observations)  # colors come last in the file, and first to encoders
            frames = frames.transpose(0, 3, 1, 2) if frames.ndim == 4 else frames
            columns = frames, truth.actions, truth.rewards, truth.terminations, truth.truncations
            for got, wanted in zip(episode(data, i), columns, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=1),
        spaces.MultiBinary([2, 2]),
        spaces.Box(0, 1, (), np.float32),
        spaces.Dict([("z", spaces.Discrete(3)), ("a", spaces.Box(-1, 1, (2,), np.float64))]),
        spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Dict(b=spaces.Box(0, 255, (3,), np.uint8))]),
    ],
    ids=str,
)
@pytest.mark.parametrize("jpeg", [False, True])
def test_other_spaces_are_flattened_and_recorded(root: Path, space: Space, jpeg: bool) -> None:
    write_dataset(root, observation_space=space, jpeg_encoding=jpeg)
    data = load()
    assert data.observations.dtype == torch.float32
    for i, truth in enumerate(minari.load_dataset(ID)):
        nested = truth.observations
        for t, row in enumerate(episode(data, i)[0]):
            expected = np.asarray(utils.flatten(space, _at(space, nested, t)), np.float32)
            np.testing.assert_array_equal(row, expected)
    again = DataSpec.from_mapping(parse_yaml(dump_yaml(data.spec.to_mapping())))
    assert again == data.spec
    assert set(again.preprocess) == {"flatten"}


def _at(space: Space, nested: Any, t: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _at(part, nested[key], t) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_at(part, nested[i], t) for i, part in enumerate(space.spaces))
    return nested[t]


def test_large_episodes_are_converted_in_parts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlutils.data.minari_file._BLOCK", 20)  # 3 rows of 6 at a time
    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (3,)))
    buffers = write_dataset(root, lengths=(11, 2), observation_space=space)
    with edit(root) as file:
        file["episode_1/observations/a"][2] = 7
    with pytest.raises(DataError, match=r"episode 1, step 2: observations: .* outside Discrete\(3\)"):
        load()
    with edit(root) as file:
        file["episode_1/observations/a"][2] = 0
    np.testing.assert_array_equal(episode(load(), 0)[0][:, 3:], buffers[0].observations["b"])


def test_integer_vectors_become_float32(root: Path) -> None:
    ram = spaces.Box(0, 255, (6,), np.uint8)
    buffers = write_dataset(root, observation_space=ram)
    data = load()
    assert (data.observations.dtype, data.spec.preprocess) == (torch.float32, {})
    np.testing.assert_array_equal(episode(data, 2)[0], buffers[2].observations)


def test_numbers_of_the_episodes_are_kept(root: Path) -> None:
    facts = {
        "noise": [0, 0.5, 1],
        "target_return": [1.5, 2.5, 3.5],
        "goal": [np.array([1.0, 2.0])] * 3,
        "policy": ["a", "b", "c"],
        "now_and_then": [1, None, 3],
    }
    write_dataset(root, facts=facts)
    info = load().info
    assert set(info) == {"seed", "noise", "target_return", "goal"}
    assert info["seed"].tolist() == [100, 101, 102]
    assert info["noise"].tolist() == [0.0, 0.5, 1.0]
    assert info["target_return"].tolist() == [1.5, 2.5, 3.5]
    assert info["goal"].tolist() == [[1.0, 2.0]] * 3


def test_an_episode_without_its_last_observation(root: Path) -> None:
    buffers = write_dataset(root)
    replace_column(root, "episode_1/observations", buffers[1].observations[:-1])
    data = load()
    assert data.has_final.tolist() == [True, False, True]
    seen = episode(data, 1)[0]
    np.testing.assert_array_equal(seen[:-1], buffers[1].observations[:-1])
    np.testing.assert_array_equal(seen[-1], seen[-2])
    np.testing.assert_array_equal(episode(data, 2)[0], buffers[2].observations)


def test_the_spec_without_an_environment(root: Path) -> None:
    write_dataset(root, lengths=(4, 9), ref_scores=None)
    spec = load().spec
    assert (spec.env_id, spec.max_steps, spec.ref_scores, spec.preprocess) == (None, 9, None, {})


def test_the_spec_with_an_environment(root: Path) -> None:
    box, torque = spaces.Box(-8, 8, (3,)), spaces.Box(-2, 2, (1,))
    both: dict[str, Any] = {"observation_space": box, "action_space": torque}
    write_dataset(root, **both, env="Pendulum-v1", ref_scores=(-1500.0, -150.0))
    spec = load().spec
    assert (spec.env_id, spec.max_steps, spec.ref_scores) == ("Pendulum-v1", 200, (-1500.0, -150.0))
    assert spec.preprocess == {}
    write_dataset(root, "toy/long-v0", lengths=(250,), **both, env="Pendulum-v1")
    assert load("toy/long-v0").spec.max_steps == 250  # the data knows better


def test_one_reference_score_is_none(root: Path) -> None:
    write_dataset(root)
    edit_metadata(root, drop="ref_max_score")
    assert load().spec.ref_scores is None


def test_clipping(root: Path) -> None:
    buffers = write_dataset(root)
    wild = buffers[1].actions * 3
    replace_column(root, "episode_1/actions", wild)
    with pytest.raises(DataError, match=r"minari:toy/line-v0: episode 1, step \d: .*`clip_actions: true`"):
        load()
    np.testing.assert_array_equal(episode(load(clip_actions=True), 1)[1], wild.clip(-1, 1))
    wild[2, 0] = np.nan
    replace_column(root, "episode_1/actions", wild)
    with pytest.raises(DataError, match=r"episode 1, step 2: action .* not finite"):
        load(clip_actions=True)


@pytest.mark.parametrize("mapped", [False, True])
def test_episodes_that_go_on_after_success(root: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool) -> None:
    monkeypatch.setenv("RLALGO_CACHE", str(root / "cache"))
    write_dataset(root)
    with edit(root) as file:
        file["episode_2/terminations"][3] = True
    data = load(continues=True, memory_map=mapped)
    assert (data.continues, data.terminations.nonzero().flatten().tolist()) == (True, [7, 11])
    with pytest.raises(DataError, match=r"episode 2, step 3: termination True is .* or set `continues: true`"):
        load(memory_map=mapped)


def put(path: str, row: int, value: float) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with edit(root) as file:
            file[path][row] = value

    return change


def column(path: str, values: Any) -> Callable[[Path], None]:
    return lambda root: replace_column(root, path, values)


def drop(path: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with edit(root) as file:
            del file[path]

    return change


def cut(share: float) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / ID / "data" / "main_data.hdf5"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return change


def damage(root: Path) -> None:
    """Turns bytes of a compressed array: only reading it tells."""
    with edit(root) as file:
        del file["episode_2/rewards"]
        stored = file.create_dataset("episode_2/rewards", data=np.arange(7.0), compression="gzip", chunks=(7,))
        chunk = stored.id.get_chunk_info(0)
    path = root / ID / "data" / "main_data.hdf5"
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)


def no_steps(root: Path) -> None:
    for name, shape in (("actions", (0, 2)), ("rewards", 0), ("terminations", 0), ("truncations", 0)):
        replace_column(root, f"episode_1/{name}", np.zeros(shape, np.float32))
    replace_column(root, "episode_1/observations", np.zeros((1, 3), np.float32))


def metadata_file(text: str | None) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / ID / "data" / "metadata.json"
        path.unlink() if text is None else path.write_text(text)

    return change


def said(**values: Any) -> Callable[[Path], None]:
    return lambda root: edit_metadata(root, **values)


def unsaid(key: str) -> Callable[[Path], None]:
    return lambda root: edit_metadata(root, drop=key)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nan": (put("episode_1/observations", 2, np.nan), "episode 1, step 2: observation .* not finite"),
    "infinity": (put("episode_2/rewards", 6, np.inf), "episode 2, step 6: reward inf is not finite"),
    "few actions": (column("episode_1/actions", np.zeros((2, 2))), "episode 1: 2 actions but 3 rewards"),
    "few states": (column("episode_1/observations", np.zeros((2, 3))), "episode 1: 3 rewards but 2 obs"),
    "few flags": (column("episode_0/truncations", np.zeros(4, bool)), "episode 0: 4 truncations but 5 rew"),
    "many rewards": (column("episode_0/rewards", np.zeros(6)), "says 15 steps, the file holds 16"),
    "wide actions": (column("episode_2/actions", np.zeros((7, 3))), r"episode 2: actions have shape \(3,\)"),
    "wide states": (column("episode_0/observations", np.zeros((6, 4))), r"episode 0: obs.*shape \(4,\)"),
    "wide rewards": (column("episode_0/rewards", np.zeros((5, 1))), r"episode 0: rewards .*shape \(5, 1\)"),
    "texts": (column("episode_1/observations", np.full((4, 3), b"x")), "episode 1: observations are .S1"),
    "no steps": (no_steps, "episode 1 is empty"),
    "no column": (drop("episode_1/rewards"), "episode 1: .*main_data.hdf5 cannot be read: .*rewards"),
    "no episode": (drop("episode_1"), "says 3 episodes, the file holds 2; .*half-written"),
    "group for array": (lambda root: _group(root), "episode 0: .*cannot be read"),
    "half a file": (cut(0.5), "main_data.hdf5 cannot be read: .*truncated file.*half-written"),
    "empty file": (cut(0.0), "main_data.hdf5 cannot be read: .*half-written"),
    "damaged array": (damage, "episode 2: .*cannot be read.*damaged"),
    "no file": (lambda root: (root / ID / "data" / "main_data.hdf5").unlink(), "main_data.hdf5 is missing"),
    "no metadata": (metadata_file(None), "metadata.json: there is no such file; .*half-written"),
    "half metadata": (metadata_file('{"total_epis'), "metadata.json: is not JSON: Unterminated string"),
    "foreign metadata": (metadata_file("[1]"), "metadata.json: Input should be a dictionary"),
    "no space": (unsaid("action_space"), "metadata.json: action_space: Field required"),
    "broken space": (said(action_space='{"type": "Box"}'), "'action_space' in .*metadata.json: .*KeyError: 'dtype'"),
    "too many episodes": (said(total_episodes=4), "says 4 episodes, the file holds 3"),
    "too many steps": (said(total_steps=10**12), "says 1000000000000 steps, the file holds 15"),
    "wrong length": (lambda root: _total_steps(root), "episode 1: its total_steps is not the 3 steps"),
    "no totals": (unsaid("total_steps"), "metadata.json: total_steps: Field required"),
    "another format": (said(data_format="parquet"), "says 3 episodes, there are 0"),
}


def _group(root: Path) -> None:
    with edit(root) as file:
        del file["episode_0/actions"]
        file.create_group("episode_0/actions")


def _total_steps(root: Path) -> None:
    with edit(root) as file:
        file["episode_1"].attrs["total_steps"] = 4


@pytest.mark.parametrize("name", FAULTS)
def test_bad_data_is_refused_and_placed(root: Path, name: str) -> None:
    change, message = FAULTS[name]
    write_dataset(root)
    load()
    change(root)
    with pytest.raises(DataError, match=f"(?s)^minari:toy/line-v0: .*{message}"):
        load()


@pytest.mark.parametrize("mapped", [False, True])
def test_no_episodes_at_all(root: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLALGO_CACHE", str(root / "cache"))
    write_dataset(root)
    with edit(root) as file:
        file.clear()
    edit_metadata(root, total_episodes=0, total_steps=0)
    with pytest.raises(DataError, match="minari:toy/line-v0: holds no episodes"):
        load(memory_map=mapped)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (None, spaces.Dict(a=spaces.Discrete(2)), "action space Dict"),
        (spaces.Text(4), None, "observation_space' in .*fixed size"),
    ],
)
def test_spaces_that_nothing_can_learn_from(root: Path, observations: Any, actions: Any, message: str) -> None:
    write_dataset(root)
    for name, space in (("observation_space", observations), ("action_space", actions)):
        if space is not None:
            edit_metadata(root, **{name: minari.serialization.serialize_space(space)})
    with pytest.raises(DataError, match=f"(?s)minari:toy/line-v0: .*{message}"):
        load()


def test_discrete_actions_must_be_integers_in_range(root: Path) -> None:
    write_dataset(root, action_space=spaces.Discrete(3))
    with edit(root) as file:
        file["episode_1/actions"][1] = 3
    with pytest.raises(DataError, match=r"episode 1, step 1: action 3 is outside .*Discrete\(3\)"):
        load()
    replace_column(root, "episode_1/actions", np.zeros(3, np.float32))
    with pytest.raises(DataError, match="episode 1: actions are float32, expected integers"):
        load()


def test_images_must_be_bytes(root: Path) -> None:
    write_dataset(root, lengths=(2,), observation_space=IMAGE)
    replace_column(root, "episode_0/observations", np.zeros((3, 36, 32), np.float32))
    with pytest.raises(DataError, match="episode 0: observations are float32, expected uint8"):
        load()


def test_the_file_is_being_written(root: Path) -> None:
    write_dataset(root)
    path = root / ID / "data" / "main_data.hdf5"
    code = f"import h5py, sys; file = h5py.File({str(path)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(DataError, match=r"minari:toy/line-v0: .*is being written"):
            load()
        writer.communicate()
    assert load().steps == 15


def test_absent_without_download(root: Path) -> None:
    write_dataset(root)
    with pytest.raises(DataError) as caught:
        load("toy/lime-v0", download=False)
    text = str(caught.value)
    assert "minari:toy/lime-v0 is not on this machine: downloading is off. Did you mean 'toy/line-v0'?" in text
    assert f"MINARI_DATASETS_PATH={root}" in text
    assert f"minari download toy/lime-v0` where there is a network, then copy its folder to {root}" in text
    assert "rlalgo collect configs/collect/hopper.yaml" in text
    assert "rlalgo data list (1 there)" in text


@pytest.mark.parametrize("ident", ["toy", "toy/line", "line-v0", "", "../datasets/toy/line-v0", "a b-v0"])
def test_what_is_no_id(root: Path, ident: str) -> None:
    """A folder of datasets among them: nobody is told to delete that, nor to download what no server can have."""
    write_dataset(root)
    with pytest.raises(DataError, match=r"is not on this machine: an id looks like namespace/name-v0") as caught:
        load(ident)
    assert "delete" not in str(caught.value)
    assert "minari download" not in str(caught.value)


def test_absent_without_network_is_told_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"http://127.0.0.1:9 cannot be reached \(.*refused\)"):
        load("mujoco/hopper/medium-v0")
    monkeypatch.setattr(hub, "_WAIT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never says a word
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DataError, match="cannot be reached"):
            load("mujoco/hopper/medium-v0")
    assert time.perf_counter() - began < 5
    assert list(root.iterdir()) == []


class Remote:
    """Minari's server: datasets in a folder, copied file by file."""

    def __init__(self, folder: Path, breaks: Exception | None = None) -> None:
        self.folder, self.breaks = folder, breaks

    def download_dataset(self, ident: str, path: Path) -> None:
        for file in sorted((self.folder / ident).rglob("*.*")):
            target = path / file.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            if self.breaks is not None:
                raise self.breaks

    def list_datasets(self, prefix: str) -> list[str]:
        return [path.parents[1].relative_to(self.folder).as_posix() for path in self.folder.rglob("metadata.json")]


@pytest.fixture
def remote(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A server that answers, with one dataset; the hub's client is not asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    write_dataset(tmp_path / "remote")
    storage = Remote(tmp_path / "remote")
    monkeypatch.setattr("minari.storage.remotes.get_cloud_storage", lambda: storage)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield storage
        server.shutdown()


def test_download(root: Path, remote: Remote) -> None:
    assert load().steps == 15
    remote.breaks = OSError("the server is asked again")
    assert load().steps == 15
    assert [path.name for path in root.iterdir()] == ["toy"]


@pytest.mark.parametrize("error", [OSError("lost"), ValueError("lost"), KeyboardInterrupt("lost")])
def test_a_broken_download_leaves_nothing(root: Path, remote: Remote, error: Any) -> None:
    remote.breaks = error
    with pytest.raises((DataError, KeyboardInterrupt), match="lost"):
        load()
    assert list(root.iterdir()) == []


def test_download_of_an_unknown_name(root: Path, remote: Remote) -> None:
    with pytest.raises(DataError, match=r"the server has no such dataset\. Did you mean 'toy/line-v0'\?"):
        load("toy/lines-v0")
    assert list(root.iterdir()) == []


def test_download_without_the_client(root: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(DataError, match=r'pip install "minari\[hf\]"'):
        load()


def test_a_folder_that_cannot_be_made(tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written"):
        load()


def test_config_is_strict() -> None:
    assert MinariSource(MinariSource.Config(id=ID)).label == "minari:toy/line-v0"
    with pytest.raises(ConfigError) as caught:
        parse(MinariSource.Config, {"id": ID, "frame_stack": 0, "downlaod": True}, Catalogue())
    assert "frame_stack" in str(caught.value)
    assert "Did you mean 'download'?" in str(caught.value)


def test_memory(root: Path) -> None:
    """Loading takes less than twice the raw float32 size: the peak of a process's memory, measured."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    hopper: dict[str, Any] = {
        "observation_space": spaces.Box(-np.inf, np.inf, (11,), np.float64),
        "action_space": spaces.Box(-1, 1, (3,)),
    }
    write_dataset(root, **hopper)
    write_dataset(root, "toy/large-v0", lengths=(1,), **hopper)
    episodes, length = 400, 1000
    with h5py.File(root / "toy/large-v0/data/main_data.hdf5", "w") as file:
        for i in range(episodes):
            group = file.create_group(f"episode_{i}")
            group["observations"] = np.full((length + 1, 11), i, np.float64)
            group["actions"] = np.zeros((length, 3), np.float32)
            group["rewards"] = np.ones(length)
            group["terminations"] = group["truncations"] = np.zeros(length, bool)
    edit_metadata(root, "toy/large-v0", total_episodes=episodes, total_steps=episodes * length)
    code = textwrap.dedent(
        f"""
        from rlutils.data.minari_source import MinariSource

        def memory(key):  # in bytes; getrusage would tell the parent's peak if that is higher
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024

        def load(ident):
            return MinariSource(MinariSource.Config(id=ident)).load()

        load("{ID}")  # libraries that are loaded at first use do not count
        before = memory("VmRSS")
        data = load("toy/large-v0")
        assert data.observations[::{length + 1}, 0].tolist() == list(range({episodes}))
        print(memory("VmHWM") - before)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    raw = episodes * length * (11 + 3 + 1) * 4
    assert raw < int(done.stdout) < 2 * raw
