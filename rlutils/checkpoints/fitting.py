"""Whether a saved state fits what it is to be loaded into: names, shapes and types, before any of it is used.

Fused kernels trust the shapes of their buffers: moments of another shape would be read and written past their end.
"""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlalgo import BatchRLAlgo

OF_THE_DEVICE = ("fused", "foreach", "capturable")
"""Options of parameter groups that say how to compute: they are the present device's, whatever was saved."""


def misfit(saved: Any, present: Any, where: str) -> str | None:
    """The first difference in names, shapes or types, as `where: got ..., expected ...`; None where it fits."""
    return next(_misfits(saved, present, where), None)


def optimizers_misfit(saved: Mapping[str, Any], algo: BatchRLAlgo) -> str | None:
    """As `misfit`, of the states of all of an algorithm's optimizers; with the optimizer's and the parameter's name."""
    if saved.keys() != algo.optimizers.keys():
        return f"optimizers: got {_listed(saved)}, expected {_listed(algo.optimizers)}"
    names = {id(p): name for name, p in algo.named_parameters()}
    found = (_optimizer_misfits(saved[name], item, names, name) for name, item in algo.optimizers.items())
    return next((message for misfits in found for message in misfits), None)


def _misfits(saved: Any, present: Any, where: str) -> Iterator[str]:
    if isinstance(present, Mapping) and isinstance(saved, Mapping):
        if saved.keys() != present.keys():
            yield f"{where}: got {_listed(saved)}, expected {_listed(present)}"
            return
        for key, value in present.items():
            yield from _misfits(saved[key], value, f"{where}.{key}")
    elif isinstance(present, list | tuple) and isinstance(saved, list | tuple) and len(saved) == len(present):
        for i, (one, two) in enumerate(zip(saved, present, strict=True)):
            yield from _misfits(one, two, f"{where}.{i}")
    elif _shape(saved) != _shape(present) and not _plain(saved, present):
        yield f"{where}: got {_shape(saved)}, expected {_shape(present)}"


def _plain(saved: Any, present: Any) -> bool:
    """Whether one may stand for the other: a whole number for a fraction, and None for what is not there yet."""
    return {type(saved), type(present)} <= {int, float, type(None)}


def _optimizer_misfits(saved: Any, optimizer: Optimizer, names: Mapping[int, str], name: str) -> Iterator[str]:
    where, present = f"optimizer {name}", optimizer.state_dict()
    if not isinstance(saved, Mapping) or saved.keys() != present.keys():
        yield from _misfits(saved, present, where)
        return
    groups, states = saved["param_groups"], saved["state"]
    if not isinstance(groups, list) or len(groups) != len(present["param_groups"]):
        yield f"{where}: got {_shape(groups)} of groups, expected {_shape(present['param_groups'])}"
        return
    for i, (group, own) in enumerate(zip(groups, present["param_groups"], strict=True)):
        yield from _group_misfits(group, own, f"{where}, group {i}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not isinstance(states, Mapping) or not all(type(i) is int and 0 <= i < len(parameters) for i in states):
        yield f"{where}: the state is not by the number of its {len(parameters)} parameters"
        return
    try:
        expected = _states_after_a_step(optimizer, parameters)
    except (AttributeError, TypeError) as error:  # its step wants a closure, or more than an optimizer has
        yield f"{where}: what it keeps cannot be told ({error})"
        return
    for i, state in states.items():
        at = f"{where}, parameter {names.get(id(parameters[i]), i)}"
        yield from _misfits(state, expected[i], at)
        yield from _no_count(state.get("step", 0), at)


def _group_misfits(group: Any, own: Mapping[str, Any], where: str) -> Iterator[str]:
    """Flags are the present ones, and numbers are numbers that an optimizer can compute with."""
    yield from _misfits(
        {k: v for k, v in group.items() if k not in OF_THE_DEVICE} if isinstance(group, Mapping) else group,
        {k: v for k, v in own.items() if k not in OF_THE_DEVICE},
        where,
    )
    for key, value in own.items():
        if key in OF_THE_DEVICE:
            continue
        if isinstance(value, bool | str) or value is None or key == "params":
            if group[key] != value:
                yield f"{where}.{key}: got {group[key]}, expected {value}"
        elif not all(math.isfinite(one) and one * two >= 0 for one, two in _pairs(group[key], value)):
            yield f"{where}.{key}: got {group[key]}, expected finite numbers with the signs of {value}"


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else value.flatten().tolist() if isinstance(value, Tensor) else []


def _pairs(saved: Any, present: Any) -> Iterator[tuple[float, float]]:
    """Numbers side by side; what stands for None has no sign to compare."""
    return zip_longest(_numbers(saved), _numbers(present), fillvalue=0.0)


def _no_count(step: Any, where: str) -> Iterator[str]:
    if not all(math.isfinite(value) and value >= 0 for value in _numbers(step)):
        yield f"{where}.step: got {float(step):g}, expected a number of updates"


def _states_after_a_step(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """What the optimizer keeps for each parameter, found by a step of a twin that has shapes and no memory."""
    try:
        return _step_of_twin(optimizer, parameters, "meta")
    except (RuntimeError, NotImplementedError):  # it looks at numbers, which take memory
        return _step_of_twin(optimizer, parameters, "cpu")


def _step_of_twin(optimizer: Optimizer, parameters: list[nn.Parameter], device: str) -> list[dict[str, Any]]:
    twins: dict[Any, nn.Parameter] = {
        p: nn.Parameter(torch.zeros_like(p, device=device), p.requires_grad) for p in parameters
    }
    for twin in twins.values():
        twin.grad = torch.zeros_like(twin)
    other = object.__new__(type(optimizer))
    other.__dict__ = {key: value for key, value in vars(optimizer).items() if key != "step"}  # which schedulers wrap
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        setattr(other, hooks, OrderedDict())
    plain = dict.fromkeys(OF_THE_DEVICE, False)
    other.param_groups = [
        {**group, **{k: v for k, v in plain.items() if k in group}, "params": [twins[p] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    other.state = defaultdict(dict)
    for p, state in optimizer.state.items():  # of an optimizer that has it from the beginning
        other.state[twins[p]] = {
            key: value.detach().to(device if value.ndim else "cpu", copy=True) if isinstance(value, Tensor) else value
            for key, value in state.items()
        }
    with torch.no_grad():
        other.step()
    return [dict(other.state[twins[p]]) for p in parameters]


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, names)))[:200] or "nothing"
