"""Every hook of rlalgo, documented once.

A plugin is any module (or object) with functions of these names, marked with `hookimpl`. Catalogue hooks are
called once, when the catalogue is made, each with a `register` function of its own. Run-time hooks are called
while a run is under way, on plugin modules and on the callbacks that the configuration picks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("rlalgo")
hookimpl = pluggy.HookimplMarker("rlalgo")

Register = Callable[..., type]

CATALOGUE_HOOKS = {
    "algo": "rlalgo_register_algos",
    "encoder": "rlalgo_register_encoders",
    "source": "rlalgo_register_sources",
    "env": "rlalgo_register_envs",
    "trainer": "rlalgo_register_trainers",
    "callback": "rlalgo_register_callbacks",
    "behavior": "rlalgo_register_behaviors",
    "evaluator": "rlalgo_register_evaluators",
}
"""Kind of named thing -> the hook that registers it."""


@hookspec
def rlalgo_register_algos(register: Register) -> None:
    """`register(cls)` for each subclass of BatchRLAlgo.

    Here as for every kind, `register(cls, "other", option=value, ...)` offers a class once more under another name,
    with other defaults of its Config's fields.
    """


@hookspec
def rlalgo_register_encoders(register: Register) -> None:
    """`register(cls)` for each encoder: an nn.Module with ROLES and `__init__(self, space, width, config)`,
    mapping (..., *space.shape) to (..., width)."""


@hookspec
def rlalgo_register_sources(register: Register) -> None:
    """`register(cls)` for each data source: `__init__(self, config)` and `load() -> Episodes`."""


@hookspec
def rlalgo_register_envs(register: Register) -> None:
    """`register(cls)` for each environment maker: `__init__(self, config)` and
    `make(spec, n, render_mode=None) -> list[gymnasium.Env]`."""


@hookspec
def rlalgo_register_trainers(register: Register) -> None:
    """`register(cls)` for each subclass of Trainer: `__init__(self, config)`."""


@hookspec
def rlalgo_register_callbacks(register: Register) -> None:
    """`register(cls)` for each callback: `__init__(self, config)`, run-time hookimpls, and optionally
    `state_dict()` with `load_state_dict(state)` for what a resumed run must remember."""


@hookspec
def rlalgo_register_behaviors(register: Register) -> None:
    """`register(cls)` for each behavior: `__init__(self, config)` and `policies(env, seed, progress)`, an iterator of
    (Policy, facts) pairs, one for each episode to record: the policy, of one row, plays it; the facts, a mapping of
    numbers and texts (`policy`, a label; `noise`; ...), are stored with it. It may go on forever: the next pair is
    asked for when an episode is over, until enough is recorded. Episode k is reset with `seed + k`, or with the facts'
    `seed`. `progress(phase, done)` shows what takes long before the first episode; `done` is a share, 0 to 1."""


@hookspec
def rlalgo_register_evaluators(register: Register) -> None:
    """`register(cls)` for each evaluator: `__init__(self, config)` and
    `evaluate(algo, episodes, run) -> dict[str, float]`. `episodes` are those held out, or all where none are
    (`run.held_out` is None). `check(algo, episodes, run)`, if there is one, may refuse before training starts."""


@hookspec
def rlalgo_on_start(run: Any, algo: Any) -> None:
    """Training is about to begin, or to go on from `run.step`."""


@hookspec
def rlalgo_on_step(run: Any, step: int, metrics: dict[str, Any]) -> None:
    """Update number `step` is done. Metrics are still tensors: reading them waits for the device."""


@hookspec
def rlalgo_on_evaluation(run: Any, step: int, result: Any) -> None:
    """An evaluation is done; `result` is an EvalResult."""


@hookspec
def rlalgo_on_checkpoint(run: Any, step: int, path: Path) -> None:
    """A complete checkpoint lies at `path`."""


@hookspec
def rlalgo_on_end(run: Any, error: BaseException | None) -> None:
    """Training is over; `error` says why if it failed or was interrupted. Called for every callback, even if
    an earlier one raises."""
