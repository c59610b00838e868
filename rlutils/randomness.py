"""Random states: seeding, forking, saving."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# ruff: noqa: NPY002 (environments and plugins may use numpy's global generator)


def seed_everything(seed: int) -> None:
    """torch, numpy and random; once, before anything is drawn."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def forked_rng(seed: int) -> Iterator[None]:
    """Seeded generators (torch, numpy, random) inside; outside, they are as if nothing had happened."""
    state = rng_state()
    try:
        seed_everything(seed)
        yield
    finally:
        set_rng_state(state)


def rng_state() -> dict[str, Any]:
    """Every random state, as plain values and tensors (nothing that would need unpickling)."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    _, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [list(words), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    words, gauss = state["python"]
    random.setstate((3, tuple(words), gauss))
