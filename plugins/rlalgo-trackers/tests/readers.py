"""What each tracker holds of a project, read back with its own package: run -> (name, configuration, rows).

A row is (step, key, value), in the order in which it was logged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[int, str, float]
Tracked = dict[str, tuple[str, dict[str, Any], list[Row]]]
LEVELDB_BLOCK = 32768


def wandb(folder: Path) -> Tracked:
    """Offline runs below a folder; those of one id are what `wandb sync` puts together, in the order of their start."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Tracked = {}
    for path in sorted(folder.rglob("offline-run-*/run-*.wandb")):
        for data in _leveldb(path.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                _, config, rows = found.get(record.run.run_id, ("", {}, []))
                now = found[record.run.run_id] = (record.run.display_name, config, rows)
                config |= {"_group": record.run.run_group, "_tags": list(record.run.tags)}
            for item in record.config.update:
                now[1]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            now[2].extend((row["_step"], key, value) for key, value in row.items() if key[0] != "_") if row else None
    return found


def _leveldb(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log after wandb's header of 7 bytes; what a kill cut short is left out."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if LEVELDB_BLOCK - at % LEVELDB_BLOCK < 7:
            at += LEVELDB_BLOCK - at % LEVELDB_BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4) and at <= len(data):  # whole, or the last part
            yield parts
            parts = b""


def mlflow(folder: Path) -> Tracked:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"file:{folder}/mlruns")
    experiment = client.get_experiment_by_name("tests")
    found: Tracked = {}
    for run in client.search_runs([experiment.experiment_id]) if experiment else ():
        points = [p for key in run.data.metrics for p in client.get_metric_history(run.info.run_id, key)]
        tags = [key for key in run.data.tags if key in ("red", "blue")]
        config = {**run.data.params, "_group": run.data.tags.get("group"), "_tags": tags}
        found[run.info.run_id] = (run.info.run_name, config, [(p.step, p.key, p.value) for p in points])
    return found


def trackio(folder: Path) -> Tracked:
    from trackio.sqlite_storage import SQLiteStorage

    found: Tracked = {}
    for name in SQLiteStorage.get_runs("tests"):
        logs = SQLiteStorage.get_logs("tests", name)
        rows = [(log["step"], key, value) for log in logs for key, value in log.items() if "/" in key]
        config = SQLiteStorage.get_run_config("tests", name) or {}
        found[name] = (name, {**config, "_group": config.get("_Group")}, rows)
    return found


def swanlab(folder: Path) -> Tracked:
    from rlutils.config.files import read_yaml
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    found: Tracked = {}
    for path in sorted(folder.rglob("run-*/run-*.swanlab")):
        reader = DataStoreReader()
        reader.open(path)
        for data in reader:
            record = Record.FromString(data)
            if record.HasField("start"):
                config = {
                    key: value["value"] for key, value in read_yaml(path.parent / "files" / "config.yaml").items()
                }
                config |= {"_group": record.start.group, "_tags": list(record.start.tags)}
                _, before, rows = found.get(record.start.id, ("", {}, []))
                found[record.start.id] = (record.start.name, before | config, rows)
            if record.HasField("scalar"):
                rows.append((record.scalar.step, record.scalar.key, record.scalar.value.number))
    return found


def aim(folder: Path) -> Tracked:
    from aim import Repo, Run

    found: Tracked = {}
    for id in Repo(str(folder / "aim")).list_all_runs():
        # written to, as Aim 3.29 sees nothing in it otherwise until its server has made an index
        run = Run(id, repo=str(folder / "aim"), system_tracking_interval=None, capture_terminal_logs=False)
        rows = [(step, m.name, point[0]) for m in run.metrics() for step, point in m.data.items()]
        found[id] = (run.name, run["hparams"], [row for row in rows if not row[1].startswith("__")])
        run.close()
    return found


READERS: dict[str, Callable[[Path], Tracked]] = {
    "wandb": wandb, "mlflow": mlflow, "trackio": trackio, "swanlab": swanlab, "aim": aim,
}  # fmt: skip


def offline(to: str, folder: Path) -> dict[str, Any]:
    """Options of the callback that keep everything within a folder."""
    return {
        "wandb": {"mode": "offline", "dir": str(folder)},
        "mlflow": {"tracking_uri": f"file:{folder}/mlruns"},
        "trackio": {"auto_log_cpu": False},
        "swanlab": {"mode": "offline", "log_dir": str(folder)},
        "aim": {"logging_dir": str(folder / "aim")},
    }[to]
