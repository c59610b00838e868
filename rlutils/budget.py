"""What training needs of the memory, found without using it: tensors of torch's meta device are shapes alone."""

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rlalgo import BatchRLAlgo, Choice, DataSpec, Episodes
from rlalgo.errors import ConfigError
from rlalgo.plugins import make
from rlutils.machine import memory, size

LARGE = 4096
"""Items of a batch from which on memory is reckoned, not measured."""
NO_VALUES = (RuntimeError, TypeError, ValueError)
"""What torch raises where somebody looks at the values of a tensor that has none."""


@dataclass(frozen=True)
class Budget:
    """Bytes, fewer than there will be rather than more: what an update makes and drops at once is not counted."""

    data: int
    """Columns in memory, not mapped ones."""
    model: int
    """Weights, their gradients and the two averages that Adam keeps of each."""
    batch: int
    """A batch, and what its update keeps for the gradients."""
    parameters: int
    """How many there are, those of targets too."""

    @property
    def total(self) -> int:
        return self.data + self.model + self.batch

    def __str__(self) -> str:
        parts = {"data": self.data, "model and optimizers": self.model, "batch": self.batch}
        return f"{size(self.total)} ({', '.join(f'{name} {size(value)}' for name, value in parts.items())})"

    def refuse_beyond(self, device: torch.device) -> None:
        """ConfigError where this is more than the device has in all, whatever else uses it."""
        if self.total > (there := memory(device)):
            path = "trainer.batch_size or algo" if self.batch > self.model else "algo"
            text = f"{path}: training does not fit into the memory: {self} are needed and {device} has {size(there)}"
            raise ConfigError([f"{text}; make it smaller"])


@contextlib.contextmanager
def fitting(path: str) -> Iterator[None]:
    """What finds no memory within is a ConfigError about this setting."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        first = str(error).partition("\n")[0]
        raise ConfigError([f"{path}: training does not fit into the memory ({first}); make it smaller"]) from error


def budget(choice: Choice, episodes: Episodes, batch_size: int) -> Budget | None:
    """What training the chosen algorithm on the episodes takes; None where it cannot be made without values."""
    if (twin := shadow(choice, episodes.spec)) is None:
        return None
    columns = [value for value in vars(episodes).values() if isinstance(value, Tensor)]
    loaded = sum(column.nbytes for column in columns if not (episodes.mapped and column is episodes.observations))
    trained = {p: p.nbytes for name in twin.optimizers for p in twin.parameters_of(name)}
    model = sum(tensor.nbytes for tensor in [*twin.parameters(), *twin.buffers()]) + 3 * sum(trained.values())
    one = episodes.select(episodes.lengths().argmax(keepdim=True))  # which does for the shapes
    items = min(batch_size, LARGE)
    batch = _batch(twin, one, items)
    if batch_size > items:  # it grows evenly, and an update may go through a large one in a loop
        batch += (batch - _batch(twin, one, items // 2)) * (batch_size - items) // (items // 2)
    return Budget(loaded, model, batch, sum(p.numel() for p in twin.parameters()))


def shadow(choice: Choice, spec: DataSpec) -> BatchRLAlgo | None:
    """The chosen algorithm without memory: its tensors are shapes. None where it cannot be made without values."""
    try:
        with torch.device("meta"):
            return make("algo", choice, spec).to("meta")  # what numpy gave is not yet
    except NO_VALUES:  # its options may be at fault, too: made in earnest, it says so
        return None


def _batch(twin: BatchRLAlgo, episodes: Episodes, items: int) -> int:
    """Bytes of a batch, and of what the twin's update keeps of it for gradients at a time."""
    keeping, held = Keeping(twin), 0
    twin.prepared, twin.step = True, lambda name: None  # type: ignore[method-assign]  # an optimizer would want values
    hooks = torch.autograd.graph.saved_tensors_hooks(keeping.pack, Kept.unpack)
    with contextlib.suppress(*NO_VALUES):  # what it kept until then is counted
        batch = twin.dataset(episodes).to("meta").gather(torch.zeros(items, dtype=torch.int64))
        held = sum(column.nbytes for column in batch)
        with keeping, torch.device("meta"), hooks:
            twin.update(batch, 1)
    return held + keeping.most


class Keeping(TorchFunctionMode):
    """Counts what is saved for gradients. Attention keeps its inputs alone, as the fused kernels of real devices do."""

    def __init__(self, algo: BatchRLAlgo) -> None:
        super().__init__()
        self.users = dict.fromkeys((p.untyped_storage()._cdata for p in algo.parameters()), 1)
        self.now = self.most = 0

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            return q * k * v
        return function(*args, **(kwargs or {}))

    def pack(self, tensor: Tensor) -> "Kept":
        kept = Kept(tensor)
        storage = tensor.untyped_storage()
        key = storage._cdata
        self.users[key] = self.users.get(key, 0) + 1
        if self.users[key] == 1:
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        weakref.finalize(kept, self.drop, key, storage.nbytes())
        return kept

    def drop(self, key: int, nbytes: int) -> None:
        self.users[key] -= 1
        self.now -= 0 if self.users[key] else nbytes


class Kept:
    """A tensor saved for a gradient, for as long as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def unpack(self) -> Tensor:
        return self.tensor
