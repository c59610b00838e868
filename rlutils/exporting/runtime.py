"""Runs a policy that `rlalgo export` wrote; needs numpy and onnxruntime, and no rlalgo.

    policy = Policy("folder")                  # Policy("folder", rows=8) for eight environments side by side
    policy.reset(target_return=3600.0)         # before each episode; a return only where the policy asks for one
    action = policy.act(observation)           # as the environment gives it
    action = policy.act(observation, reward)   # afterwards, with the reward that the last action brought

Observations go in and actions come out in the environment's own form. The folder's files are compared with the sizes
and checksums in policy.json; an ONNX graph that names other files, or operators of anybody's own, is refused.
The formats `torchscript` and `torch` need torch, and are programs: open only those that you trust.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"onnx": "policy.onnx", "torchscript": "policy.pt", "torch": "policy.pt2"}
"""Format -> the graph's file."""
LARGEST_JSON = 2**26
LARGEST_ONNX = 2**31
"""Bytes; protobuf has no larger messages, and larger networks keep their weights in a file beside it."""
MOST = 2**25
"""Numbers of an observation or of a row's memory that policy.json may claim."""


class PolicyError(ValueError):
    """What was given is not what the policy takes, or the folder is not what was exported."""


class Policy:
    """A trained policy that plays one environment, or `rows` of them side by side.

    Args:
        folder: that `rlalgo export` wrote.
        rows: how many; observations, rewards and actions then have the rows as first dimension. None: one, without.
        threads: of onnxruntime; one is fastest for small networks.

    Raises:
        PolicyError: the folder is damaged, was changed, or is none.
    """

    def __init__(self, folder: str | os.PathLike, rows: int | None = None, threads: int = 1) -> None:
        folder = Path(folder)
        self.rows, self.n = rows, 1 if rows is None else rows
        self.step = np.zeros(self.n, np.int64)
        """(n,) steps done in the episode."""
        self.left = np.zeros(self.n)
        """(n,) return that is left to reach; float64, so that it falls by exactly the rewards."""
        try:
            _size(folder / "policy.json", LARGEST_JSON)
            self.about: dict[str, Any] = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
            """What policy.json says."""
            if (version := self.about["version"]) != 1:
                raise PolicyError(f"{folder}: is of format version {version!r}, and this file reads version 1")
            self.observations = {part["name"]: part for part in self.about["observations"]}
            self.inputs = self.about["inputs"]
            for part in [*self.observations.values(), *self.about["memory"], self.about["action"]]:
                _refuse_claim(part)
            self.memory = {
                f"memory/{x['name']}": np.zeros((self.n, *x["shape"]), x["dtype"]) for x in self.about["memory"]
            }
            """(n, ...) each: what is given back at the next step."""
            self.default = None if (target := self.about["target_return"]) is None else float(target)
            self.needs_reward = self.default is not None and bool(self.about["sees_rewards"])
            run, name = _RUN[self.about["format"]], NAMES[self.about["format"]]
            files = {key: _check(folder, key, **known) for key, known in self.about["files"].items()}
            path = files.pop(name)
        except PolicyError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise PolicyError(f"{folder}: its policy.json is none that rlalgo export writes: {error!r}") from error
        try:
            self.run = run(path, list(files), self.inputs, threads)
        except PolicyError:
            raise
        except ImportError as error:
            raise ImportError(f"{path}: {error}; pip install {'onnxruntime' if run is _onnx else 'torch'}") from error
        except Exception as error:  # onnxruntime and torch have many
            raise PolicyError(f"{path}: cannot be loaded: {_line(error)}") from error
        self.reset()

    def reset(self, target_return: Any = None, rows: Sequence[int] | None = None) -> None:
        """Call at the start of every episode.

        Args:
            target_return: the return to ask for, in the environment's units, for all or one for each row that starts;
                None: that of the export.
            rows: those that start; None: all.
        """
        if target_return is not None and self.default is None:
            raise PolicyError("this policy asks for no return: leave out target_return")
        try:
            which = np.arange(self.n)[slice(None) if rows is None else [*rows]]
        except (IndexError, TypeError) as error:
            raise PolicyError(f"rows {_line(rows)}: expected a list of numbers from 0 to {self.n - 1}") from error
        target = self.default or 0.0 if target_return is None else target_return
        self.left[which] = _numbers("target_return", target, np.ones(len(which), bool))
        self.step[which] = 0
        for name, values in self.memory.items():
            self.memory[name] = values = values.copy()
            values[which] = 0

    def act(self, observation: Any, reward: Any = None) -> Any:
        """The likeliest action, as the environment takes it: a number where it is Discrete, else an array.

        Args:
            observation: the environment's own: an array, or a dict or tuple of arrays.
            reward: that the last action brought, where the policy asks for a return; none before a row's first step.

        Raises:
            PolicyError: something is of another shape or type, is NaN or infinite; the episode may go on as if
                nothing had been given.
        """
        given = {name: self._read(name, part, observation) for name, part in self.observations.items()}
        left = self.left
        if self.needs_reward and self.step.any():
            if reward is None:
                raise PolicyError("this policy needs the reward of its last action: act(observation, reward)")
            left = left - _numbers("reward", reward, self.step > 0)
        given |= {"step": self.step, "return_to_go": left.astype(np.float32), **self.memory}
        try:
            action, *after = self.run([given[name] for name in self.inputs])
            memory = dict(zip(self.memory, after, strict=True))
        except Exception as error:  # policy.json does not fit the graph, or there is no memory for so many rows
            raise PolicyError(f"the graph cannot be run as policy.json says: {_line(error)}") from error
        self.memory, self.left, self.step = memory, left, self.step + 1
        action = action.astype(self.about["action"]["dtype"])
        return action if self.rows is not None else action[0] if action.ndim > 1 else action[0].item()

    def _read(self, name: str, part: dict[str, Any], observation: Any) -> np.ndarray:
        """A part of the observation as the graph takes it, (n, *shape)."""
        kind = np.dtype(part["dtype"])
        try:
            for key in part["path"]:
                observation = observation[key]
            value = np.asarray(observation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PolicyError(f"{name}: is not in what was given: {error!r}") from error
        expected = [*(() if self.rows is None else (self.n,)), *part["shape"]]
        fits = len(expected) == value.ndim and all(a in (None, b) for a, b in zip(expected, value.shape, strict=True))
        kinds = {"f": "fiub", "i": "iub"}.get(kind.kind, "")
        if not fits or (value.dtype != kind and value.dtype.kind not in kinds):
            wanted = f"{kind} of shape {expected}".replace("None", "any")
            raise PolicyError(f"{name}: got {value.dtype} of shape {[*value.shape]}; expected {wanted}")
        if part["low"] is not None and ((value < part["low"]) | (value > part["high"])).any():
            raise PolicyError(f"{name}: got {_line(value.tolist())}, outside {part['low']} to {part['high']}")
        with np.errstate(over="ignore"):
            value = value.astype(kind)
        if not np.isfinite(value).all():
            raise PolicyError(f"{name}: NaN or infinity in what was given")
        return np.ascontiguousarray(value if self.rows is not None else value[None])


def _refuse_claim(part: dict[str, Any]) -> None:
    shape, kind = part["shape"], part["dtype"]
    if math.prod(1 if size is None else size for size in shape) > MOST or np.dtype(kind).kind not in "fiu":
        raise PolicyError(f"policy.json: claims numbers of type {kind} and shape {shape}")
    for end in () if part.get("low") is None else ("low", "high"):
        np.less(0, np.broadcast_to(part[end], shape))  # raises what is taken for a broken policy.json


def _numbers(what: str, value: Any, wanted: np.ndarray) -> np.ndarray:
    """What was given as float64 (m,): one number for all or one for each, and 0 where `wanted` (m,) is False."""
    with contextlib.suppress(TypeError, ValueError):  # it is no number, or of another shape
        numbers = np.where(wanted, np.asarray(value, np.float64), 0.0)
        if numbers.shape == wanted.shape and (np.abs(numbers) <= np.finfo(np.float32).max).all():
            return numbers
    raise PolicyError(f"{what} {_line(value)}: expected a finite number{' for each row' * (len(wanted) > 1)}")


def _line(value: object) -> str:
    return " ".join(str(value).split())[:300]


def _size(path: Path, most: float = math.inf) -> int:
    """Bytes of a plain file, which has at most that many."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: cannot be read: {_line(error)}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        raise PolicyError(f"{path}: is a link, no plain file, or larger than {most:,} bytes; put the file itself there")
    return found.st_size


def _check(folder: Path, name: str, size: int, sha256: str) -> Path:
    """The path of a file that is the one that was exported, in the folder itself; else PolicyError."""
    if Path(name).name != name or "\\" in name or ":" in name:
        raise PolicyError(f"{folder}: policy.json names '{name}', and all files are in the folder itself")
    path, digest = folder / name, hashlib.sha256()
    if (found := _size(path)) != size:
        raise PolicyError(f"{path}: has {found:,} bytes, and {size:,} were exported; export or copy it again")
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise PolicyError(f"{path}: is not the file that was exported, its checksum differs; export or copy it again")
    return path


Run = Callable[[list[np.ndarray]], list[np.ndarray]]


def _onnx(path: Path, others: Sequence[str], inputs: Sequence[str], threads: int) -> Run:
    _size(path, LARGEST_ONNX)
    refuse_foreign(path.read_bytes(), str(path), others)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    return lambda values: session.run(None, dict(zip(inputs, values, strict=True)))


def _torch(path: Path, others: Sequence[str], inputs: Sequence[str], threads: int) -> Run:
    import torch

    module: Any = torch.jit.load(path) if path.suffix == ".pt" else torch.export.load(path).module()

    def run(values: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [tensor.numpy() for tensor in module(*map(torch.from_numpy, values))]

    return run


_RUN = {"onnx": _onnx, "torchscript": _torch, "torch": _torch}

# What lies within what in an ONNX file (onnx.proto): message -> field number -> message. Other fields are skipped.
_FIELDS = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 10: "domain", 11: "attribute"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
    "opset": {1: "domain"},
}


def refuse_foreign(model: bytes, path: str, known: Sequence[str]) -> None:
    """PolicyError if an ONNX model (its bytes) refers to files besides the `known`, or to operators of anybody's own.

    Nothing is loaded for that: the file is walked through by the lengths that it states.
    """
    waiting = [("model", memoryview(model))]
    while waiting:
        kind, data = waiting.pop()
        if kind == "domain":
            if (name := bytes(data)) not in (b"", b"ai.onnx"):
                raise PolicyError(f"{path}: uses operators of {name[:60]!r}; only those of the ONNX standard are run")
        elif kind == "external":
            pairs = [(number, bytes(value)) for number, value in _fields(data, path)]
            places = [value for number, value in pairs if number == 2]
            if (1, b"location") in pairs and any(place.decode("utf-8", "replace") not in known for place in places):
                raise PolicyError(f"{path}: keeps numbers in {places[0][:100]!r}, which is no file of this export")
        else:
            inside = _FIELDS[kind]
            waiting += [(inside[number], value) for number, value in _fields(data, path) if number in inside]


def _fields(data: memoryview, path: str) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of each field of a protobuf message that has a length; PolicyError if it is none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, path)
        wire = key & 7
        if wire == 0:
            _, at = _varint(data, at, path)
        elif wire == 2:
            size, at = _varint(data, at, path)
            yield key >> 3, data[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}.get(wire, len(data))  # there are no other kinds
        if at > len(data):
            raise PolicyError(f"{path}: is no ONNX file, or a part of one")


def _varint(data: memoryview, at: int, path: str) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), at
    raise PolicyError(f"{path}: is no ONNX file, or a part of one")
