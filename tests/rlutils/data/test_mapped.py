"""Mapped observations: the same episodes, opened without being read, from a copy that is complete or not there."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import rlutils
from rlalgo.batchrl.dt import RtgEpDataset
from rlalgo.core.dataset import Transitions
from rlalgo.core.episodes import Episodes
from rlalgo.core.spec import DataSpec
from rlalgo.errors import DataError
from rlutils import machine
from rlutils.data import mapped
from rlutils.data.minari_source import MinariSource
from tests.rlutils.minari_data import write_dataset

FRAME = spaces.Box(0, 255, (9, 7), np.uint8)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    options: dict[str, Any] = {"observation_space": FRAME, "action_space": spaces.Discrete(4), "jpeg_encoding": False}
    write_dataset(tmp_path, "toy/frame-v0", facts={"noise": [0.1, 0.2, 0.3]}, **options)
    return tmp_path


def load(**options: Any) -> Episodes:
    return MinariSource(MinariSource.Config("toy/frame-v0", **options)).load()


def copies(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "cache").iterdir()) if (root / "cache").exists() else []


def same(a: Episodes, b: Episodes) -> bool:
    names = ("observations", "actions", "rewards", "terminations", "truncations", "starts", "has_final")
    columns = all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)
    return columns and a.spec == b.spec and all(torch.equal(a.info[key], b.info[key]) for key in {*a.info, *b.info})


def test_mapped_episodes_are_those_in_memory(root: Path) -> None:
    plain = load(memory_map=False, frame_stack=3)
    assert copies(root) == []
    first, again = load(memory_map=True, frame_stack=3), load(memory_map=True, frame_stack=3)
    assert len(copies(root)) == 1
    assert (first.mapped, again.mapped, plain.mapped) == (True, True, False)
    assert same(plain, first)
    assert same(plain, again)
    assert set(plain.info) >= {"noise", "seed"}
    for make in (Transitions, lambda data: RtgEpDataset(data, 4)):
        rows = torch.arange(len(make(plain)))
        for a, b in zip(make(plain).gather(rows), make(again).gather(rows), strict=True):
            assert torch.equal(a, b)


def test_the_copy_serves_every_stack_and_reward_but_no_other_images(root: Path) -> None:
    assert load(memory_map=True, frame_stack=2).spec.frame_stack == 2
    signs = load(memory_map=True, clip_rewards=True, download=False).rewards
    assert torch.equal(signs, load(memory_map=True).rewards.sign())
    assert load(memory_map=True, frame_stack=4).spec.frame_stack == 4
    assert len(copies(root)) == 1
    small = load(memory_map=True, resize=(3, 3))
    assert small.spec.observation_space.shape == (3, 3)
    assert len(copies(root)) == 2


def test_a_dataset_recorded_anew_is_converted_anew(root: Path) -> None:
    before = load(memory_map=True)
    file = root / "toy" / "frame-v0" / "data" / "main_data.hdf5"
    import h5py

    with h5py.File(file, "r+") as h5:
        h5["episode_0/observations"][0] = 255 - h5["episode_0/observations"][0]
    os.utime(file, ns=(1, 1))
    after = load(memory_map=True)
    assert torch.equal(after.observations[0], 255 - before.observations[0])
    assert torch.equal(after.observations[1:], before.observations[1:])


def test_writing_into_the_tensor_leaves_the_file_alone(root: Path) -> None:
    one = load(memory_map=True)
    truth = one.observations.clone()
    one.observations.zero_()
    assert torch.equal(load(memory_map=True).observations, truth)


def test_data_at_fault_leaves_no_copy(root: Path) -> None:
    import h5py

    with h5py.File(root / "toy" / "frame-v0" / "data" / "main_data.hdf5", "r+") as h5:
        h5["episode_1/rewards"][1] = np.nan
    with pytest.raises(DataError, match=r"episode 1, step 1: reward nan is not finite"):
        load(memory_map=True)
    assert copies(root) == []


def test_a_full_disk_is_told_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped.os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device.*RLALGO_CACHE"):
        load(memory_map=True)
    assert copies(root) == []


@pytest.mark.parametrize("what", ["observations.bin", "columns.safetensors", "copy.yaml"])
def test_a_damaged_copy_is_told(root: Path, what: str) -> None:
    load(memory_map=True)
    (copy,) = (root / "cache").iterdir()
    if what == "observations.bin":
        (copy / what).chmod(0o600)
        (copy / what).write_bytes(b"short")
    else:
        (copy / what).unlink()
    with pytest.raises(DataError, match=r"delete the folder"):
        load(memory_map=True)


@pytest.mark.parametrize("what", ["observations.bin", "columns.safetensors", "copy.yaml"])
def test_a_changed_copy_is_told(root: Path, what: str) -> None:
    """One byte of another value; of large observations only some rows are looked at."""
    load(memory_map=True)
    path = root / "cache" / copies(root)[0] / what
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^minari:toy/frame-v0: its converted copy .* is not used .*delete the folder"):
        load(memory_map=True)


def test_a_copy_with_a_pipe_or_a_link_is_not_read(root: Path) -> None:
    load(memory_map=True)
    path = root / "cache" / copies(root)[0] / "columns.safetensors"
    path.rename(root / "moved")
    for put in (os.mkfifo, lambda path: path.symlink_to(root / "moved")):
        path.unlink(missing_ok=True)
        put(path)
        with pytest.raises(DataError, match="not all in it are files"):
            load(memory_map=True)


def test_a_copy_under_the_name_of_another_is_told(root: Path) -> None:
    load(memory_map=True)
    (first,) = copies(root)
    load(memory_map=True, resize=(3, 3))
    (second,) = {*copies(root)} - {first}
    shutil.rmtree(root / "cache" / second)
    (root / "cache" / first).rename(root / "cache" / second)
    with pytest.raises(DataError, match="checksum"):
        load(memory_map=True, resize=(3, 3))


@pytest.mark.parametrize("how", ["writable", "link", "owner"])
def test_a_copy_that_others_may_write_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    load(memory_map=True)
    copy = root / "cache" / copies(root)[0]
    assert copy.stat().st_mode & 0o777 == 0o700
    if how == "writable":
        copy.chmod(0o770)
    elif how == "link":
        copy.rename(root / "elsewhere")
        copy.symlink_to(root / "elsewhere")
    else:
        if os.geteuid() == 0:
            os.chown(copy, 12345, -1)
        else:
            monkeypatch.setattr(mapped.os, "geteuid", lambda: 12345)
    with pytest.raises(DataError, match=r"is not used \(it is a link, belongs to another user or .*RLALGO_CACHE"):
        load(memory_map=True)


def test_nobody_cuts_a_file_that_is_mapped() -> None:
    """Its owner included, unless he takes pains: a process that has it mapped would die. Removing it harms nobody."""

    def child() -> int:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(MINARI_DATASETS_PATH=folder, RLALGO_CACHE=f"{folder}/cache")
            write_dataset(Path(folder), "toy/frame-v0", observation_space=FRAME, jpeg_encoding=False)
            data = load(memory_map=True)
            (copy,) = (Path(folder) / "cache").iterdir()
            for cut in (lambda path: os.truncate(path, 0), lambda path: path.open("wb"), lambda path: path.open("r+b")):
                with pytest.raises(PermissionError):
                    cut(copy / "observations.bin")
            shutil.rmtree(copy)
            again = load(memory_map=True)
            return 0 if same(data, again) and int(data.observations.sum()) else 1

    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:  # whom no permission stops
                os.setuid(65534)
            os._exit(child())
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_a_dead_process_left_goes_and_what_a_live_one_writes_stays(root: Path) -> None:
    load(memory_map=True)
    (copy,) = (root / "cache").iterdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, living = (copy.with_name(f".{copy.name}-{platform.node()}-{pid}-x") for pid in (dead.pid, os.getppid()))
    elsewhere = copy.with_name(f".{copy.name}-another-machine-{dead.pid}-x")
    elsewhere.mkdir()
    copy.rename(left)
    living.mkdir()
    load(memory_map=True)
    assert not left.exists()
    assert living.exists()
    assert elsewhere.exists()
    assert copy.exists()


def test_two_that_convert_at_once_agree(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds the first one's copy in place when it wants to rename its own."""
    meeting, rename, found = threading.Barrier(2, timeout=30), os.replace, []

    def together(old: Any, new: Any) -> None:
        if "cache" in str(old) and Path(old).is_dir():
            meeting.wait()
        rename(old, new)

    monkeypatch.setattr(mapped.os, "replace", together)
    threads = [threading.Thread(target=lambda: found.append(load(memory_map=True))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert same(*found)
    assert len(copies(root)) == 1


def test_the_setting_decides_and_else_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(machine.os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(machine, "_CONTAINER", tmp_path / "memory.max")
    half = 4096 * 500
    assert [mapped.worthwhile(None, size) for size in (half, half + 1)] == [False, True]
    assert [mapped.worthwhile(option, 1) for option in (True, False)] == [True, False]
    assert mapped.worthwhile(False, half * 4) is False
    for limit, found in (("max", half), ("4096", 2048)):  # a container's
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert [mapped.worthwhile(None, size) for size in (found, found + 1)] == [False, True]


def test_a_copy_larger_than_the_memory_opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of twice what this machine has: no memory may be set aside for it."""
    rows = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 + 1
    spec = DataSpec(spaces.Box(0, 255, (1024, 1024), np.uint8), spaces.Discrete(2))
    none = torch.zeros(rows - 1)
    small = Episodes(
        torch.zeros(0), none.long(), none, none.bool(), none.bool(), torch.tensor([0, rows - 1]), spec=spec
    )

    def sparse(path: Path, size: int) -> None:
        path.touch()
        os.truncate(path, size)

    monkeypatch.setattr(mapped, "reserve", sparse)
    monkeypatch.setattr(mapped, "_checksum", lambda *_: "of other observations than were built")

    def build(allocate: mapped.Allocate) -> Episodes:
        allocate((rows, 1024, 1024), np.uint8)
        return small

    monkeypatch.setattr(mapped.np, "memmap", lambda *_, **__: type("Flushed", (), {"flush": lambda self: None})())
    episodes = mapped.map_episodes("huge", {}, build)
    assert episodes.observations.shape == (rows, 1024, 1024)
    episodes.observations[-1, 0, 0] = 3
    assert int(episodes.observations[-1].sum()) == 3


def test_the_sources_own_faults_are_not_the_copys(root: Path) -> None:
    def build(allocate: mapped.Allocate) -> Episodes:
        raise FileNotFoundError("the source's own file")

    with pytest.raises(FileNotFoundError, match="the source's own file"):
        mapped.map_episodes("toy", {}, build)
    assert copies(root) == []


def test_only_the_pages_that_are_touched_take_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB are opened for few, eight rows take few more (the kernel maps a megabyte for each), all rows take all."""
    monkeypatch.setenv("RLALGO_CACHE", str(tmp_path / "cache"))
    code = """
import sys, numpy as np, torch
from gymnasium import spaces
from rlalgo.core.spec import DataSpec
from rlalgo.core.episodes import Episodes
from rlutils.data import mapped

N, E, S = 65_000, 500, 64
def build(allocate):
    observations = allocate((N + E, S, S), np.uint8)
    for i in range(0, N + E, 5000):
        observations[i : i + 5000] = i % 251
    done = torch.zeros(N, dtype=torch.bool)
    spec = DataSpec(spaces.Box(0, 255, (S, S), np.uint8), spaces.Discrete(2))
    return Episodes(torch.from_numpy(observations), torch.zeros(N, dtype=torch.int64), torch.zeros(N), done,
                    done.clone(), torch.arange(E + 1) * (N // E), spec)
def resident():
    with open("/proc/self/smaps_rollup") as file:
        return int(next(line for line in file if line.startswith("Rss")).split()[1]) / 1024
if sys.argv[1] == "write":
    mapped.map_episodes("big", {}, build)
else:
    rows = torch.arange(8) * 8000
    torch.zeros(100, 8, 8, dtype=torch.uint8)[rows % 100].flatten(1).float().mean(1)  # loads what computes
    before = resident()
    episodes = mapped.map_episodes("big", {}, build)
    opened = resident() - before
    assert (episodes.observations[rows].flatten(1).float().mean(1) == (rows // 5000 * 5000) % 251).all()
    touched = resident() - before - opened
    episodes.observations.sum()
    print(opened, touched, resident() - before - opened)
"""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux's /proc")
    run = [sys.executable, "-c", code]
    subprocess.run([*run, "write"], check=True, capture_output=True, text=True)
    done = subprocess.run([*run, "read"], check=True, capture_output=True, text=True)
    opened, touched, everything = map(float, done.stdout.split())
    assert opened < 60
    assert touched < 30
    assert everything > 200


def test_trains_from_a_mapped_copy_as_from_memory(root: Path, tmp_path: Path) -> None:
    config = {
        "source": {"name": "minari", "id": "toy/frame-v0", "frame_stack": 2},
        "algo": {"name": "dt", "context_length": 3, "return_scale": 5, "warmup": 0, "embed_dim": 8, "n_layers": 1},
        "trainer": {"name": "offline", "steps": 3, "batch_size": 4},
        "evaluation": {"episodes": 0},
        "callbacks": [],
    }
    weights = []
    for option in (False, True):
        run = rlutils.train(config, out=tmp_path / f"run-{option}", source__memory_map=option)
        assert run.episodes.mapped is option
        weights.append(rlutils.load(run.folder).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
