"""A million steps of HalfCheetah's size from every source: less memory at the peak than twice what they take.

`pytest -s -m slow tests/rlutils/data/test_memory.py` prints a row of the table in docs/reliability.md for each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlalgo import DataSpec, Episodes
from rlutils.collecting.convert import convert
from rlutils.data.writers import write_hf
from rlutils.machine import size
from tests.rlutils.data.files import flat, lerobot_features, write, write_lerobot
from tests.rlutils.data.test_tables import rows
from tests.rlutils.data.test_tables import write as write_table

EPISODES, STEPS = 1000, 1000
CHILD = """
import json, sys, time
from pathlib import Path
from rlutils.data.named import find_source, load_source

def memory(what):
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(what))

small, large = map(json.loads, sys.argv[1:])
load_source(find_source(small))  # what has to be imported is
before, start = memory("VmRSS"), time.process_time()
episodes, _ = load_source(find_source(large))
print(json.dumps([episodes.steps, time.process_time() - start, memory("VmHWM") - before]))
"""
WORDS = {
    "robomimic": ["keys=[first,second]"],
    "lerobot": ["terminated=next.done", "truncated=next.truncated"],
    "table": [
        "episode=run", "reward=r", "terminated=end", "truncated=cut", "actions=[a0,a1,a2,a3,a4,a5]", "discrete=false",
        f"observations=[{','.join(f's{i}' for i in range(17))}]",
    ],
}  # fmt: skip
KINDS = ["npz", "d4rl", "trajectories", "robomimic", "csv", "parquet", "hf", "lerobot", "minari"]


def made(episodes: int) -> Episodes:
    n, generator = episodes * STEPS, torch.Generator().manual_seed(0)
    ends = torch.zeros(n, dtype=torch.bool)
    ends[STEPS - 1 :: STEPS] = True
    return Episodes(
        observations=torch.randn(n + episodes, 17, generator=generator),
        actions=torch.rand(n, 6, generator=generator) * 2 - 1,
        rewards=torch.randn(n, generator=generator),
        terminations=torch.zeros(n, dtype=torch.bool),
        truncations=ends,
        starts=torch.arange(episodes + 1) * STEPS,
        has_final=torch.ones(episodes, dtype=torch.bool),
        info={},
        spec=DataSpec(spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1, 1, (6,)), max_steps=STEPS),
    )


def written(kind: str, episodes: Episodes, folder: Path) -> list[str]:
    """The words of a command that mean what was written here."""
    path = folder / ("x.csv" if kind == "csv" else "x.parquet")
    if kind == "minari":
        convert(episodes, "made", "minari", f"made/{folder.name}-v0")
        return [f"made/{folder.name}-v0"]
    if kind == "hf":
        write_hf(episodes, path)
    elif kind in ("csv", "parquet"):
        write_table(path, {key: column for key, column in rows(episodes).items() if key[0] != "n"})
    elif kind == "lerobot":
        write_lerobot(path, lerobot_features(flat(episodes)), episodes.lengths())
    else:
        path = folder / "x.npz"
        write(kind, path, flat(episodes))
    name = "table" if kind in ("csv", "parquet") else kind
    return [name, f"path={path}", *WORDS.get(name, [])]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_loading_takes_less_than_twice_the_data(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    words, data = [], made(2)
    for name, number in (("small", 2), ("large", EPISODES)):
        (tmp_path / name).mkdir()
        data = made(number)
        words.append(json.dumps(written(kind, data, tmp_path / name)))
    columns = (data.observations, data.actions, data.rewards, data.terminations, data.truncations)
    raw = sum(column.nbytes for column in columns)
    file = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(tmp_path)
    print(f"| {kind} | {size(file)} | {seconds:.1f} s | {size(peak)} | {peak / raw:.2f} |")
    assert steps == data.steps
    assert peak < 2 * raw
