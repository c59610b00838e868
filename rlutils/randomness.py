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
    """Every random state, as plain values and tensors."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    _, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [torch.tensor(words), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_numpy(state))
    random.setstate(_python(state))


def refuse_bad_state(state: dict[str, Any]) -> None:
    """ValueError for what `rng_state` cannot have given; generators of no consequence try it."""
    try:
        refuse_bad_generator(state["torch"])
        for cuda in state["cuda"]:
            if cuda.dtype != torch.uint8 or cuda.shape != (16,):
                raise ValueError(f"cuda: {cuda.dtype} {tuple(cuda.shape)}")
        keys, position, has_gauss, cached = state["numpy"]
        if not (_words(keys, 624) and type(position) is int and 0 <= position <= 624 and has_gauss in (0, 1)):
            raise ValueError("numpy")  # numpy itself reads wherever the position says
        np.random.RandomState().set_state((*_numpy(state)[:4], float(cached)))
        words, gauss = state["python"]
        if not _words(words, 625) or not isinstance(gauss, float | None):
            raise ValueError("python")
        random.Random().setstate(_python(state))
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the random states are none of ours ({type(error).__name__}: {error})") from error


def refuse_bad_generator(state: Any) -> None:
    """ValueError unless this is the state of a torch.Generator on the CPU."""
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"not the state of a generator ({str(error).splitlines()[0]})") from error


def _words(value: Any, count: int) -> bool:
    """Whether these are so many numbers of 32 bits."""
    return (value.dtype, tuple(value.shape)) == (torch.int64, (count,)) and bool(((value >= 0) & (value < 2**32)).all())


def _numpy(state: dict[str, Any]) -> tuple[Any, ...]:
    keys, position, has_gauss, cached = state["numpy"]
    return "MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached


def _python(state: dict[str, Any]) -> tuple[Any, ...]:
    words, gauss = state["python"]
    return 3, tuple(words.tolist()), gauss
