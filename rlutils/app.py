"""The composition root: settings become a run. What the command line and the Python API both call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from rlalgo import plugins as core_plugins
from rlalgo.config import to_mapping
from rlalgo.core.algo import BatchRLAlgo, misfit, supports
from rlalgo.core.episodes import Episodes
from rlalgo.errors import ConfigError
from rlalgo.registry import Catalogue
from rlutils.checkpoints import store as checkpoints
from rlutils.checkpoints.loading import _run_config
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.files import read_yaml
from rlutils.config.overrides import override
from rlutils.config.settings import DEFAULTS, Settings
from rlutils.evaluation.evaluate import write_result
from rlutils.evaluation.statistics import EvalResult
from rlutils.machine import pick_device
from rlutils.randomness import forked_rng, seed_everything
from rlutils.training.run import Run


def train(
    config: str | Path | Mapping[str, Any] | Settings,
    out: str | Path | None = None,
    *,
    replace: bool = False,
    plugins: Sequence[str] = (),
    block: Sequence[str] = (),
    command: str | None = None,
    **overrides: Any,
) -> Run:
    """Trains as the configuration says and returns the finished run.

    Args:
        config: a YAML file, a mapping or Settings.
        out: run folder; None makes one under `runs/` named after the configuration, the seed and the time.
        replace: delete a run that is in the way.
        plugins: modules or files to load besides those the configuration names.
        block: names of plugins to leave out.
        command: what to record as the way to repeat the run; made up from the rest if None.
        **overrides: `seed=1`, or dotted paths with two underscores: `algo__lr=3e-4`.

    Raises:
        ConfigError, DataError, PluginError, EnvironmentFault, TrainingError, CheckpointError: see their texts.
    """
    texts = [f"{key.replace('__', '.')}={_yaml_value(value)}" for key, value in overrides.items()]
    settings, known = read_settings(config, texts, plugins, block)
    folder = Path(out) if out is not None else new_folder(config, settings)
    if command is None:
        name = config if isinstance(config, str | Path) else f"{folder}/config.yaml"
        command = " ".join(["rlalgo train", str(name), *texts])
    return fit(settings, known, folder, command, replace=replace)


def resume(
    folder: str | Path, overrides: Sequence[str] = (), plugins: Sequence[str] = (), block: Sequence[str] = ()
) -> Run:
    """Goes on from a run's last checkpoint, exactly as if it had not been stopped (bit-equal on one machine's CPU).

    Args:
        folder: the run folder.
        overrides: `trainer.steps=200000` and the like, which the run's configuration has from then on; what is
            learnt (algo, source, seed) cannot change.
        plugins: the modules and files that the run was trained with; they are never loaded by themselves.
        block: names of plugins to leave out.
    """
    folder = Path(folder)
    values = _run_config(folder)
    changed = override(values, overrides)
    for key in ("algo", "source", "seed", "holdout", "plugins"):
        if changed.get(key) != values.get(key):
            raise ConfigError([f"{key}: a resumed run keeps its algo, source, seed, holdout and plugins"])
    recorded = read_yaml(folder / "plugins.yaml")
    values["plugins"] = []
    known = catalogue(plugins, block)
    checkpoints.refuse_missing(recorded, known, str(folder))
    settings, known = read_settings(values, overrides, plugins, block)
    own = read_yaml(folder / "config.yaml").get("plugins") or ()
    return fit(replace(settings, plugins=tuple(own)), known, folder, resuming=True)


def evaluate(
    folder: str | Path,
    checkpoint: str = "last",
    policies: Sequence[Mapping[str, Any]] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> EvalResult:
    """Plays a trained run again and writes the result beside its evaluations.

    Args:
        folder: the run folder.
        checkpoint: `last`, `best` or `step_N`.
        policies: options of each policy to play; None for those of the run's configuration.
        overrides: `evaluation.episodes=100`, `env.id=...`; the defaults are the run's own.
        plugins: modules and files to load.
    """
    folder = Path(folder)
    values = _run_config(folder)
    values["plugins"] = []
    values["callbacks"] = []
    values.pop("trainer", None)  # which is not needed here, nor whoever provided it
    found = checkpoints.find(folder, checkpoint)
    known = catalogue(plugins)
    algo, choice = checkpoints.load_algo(found, known)
    if policies is not None:
        values["evaluation"] = {**values.get("evaluation", {}), "policies": list(policies)}
    changed = override(values, overrides, DEFAULTS)
    for key in ("algo", "holdout", "seed"):
        if changed.get(key) != values.get(key):
            raise ConfigError(
                [f"{key}: says what was trained and on what, and cannot be overridden; train another run"]
            )
    settings, known = read_settings({**changed, "algo": choice}, (), plugins)
    episodes, held_out = _no_episodes(algo), None
    if settings.evaluation.evaluators:
        episodes, label = _load_episodes(settings)
        checkpoints.refuse_other_data(found, episodes.spec, label)
        episodes, held_out = hold_out(episodes, settings.holdout, settings.seed)
    run = Run(folder, settings, known, episodes, resumed=False, held_out=held_out)
    try:
        step = int(read_yaml(found / "algo.yaml")["step"])
        result = run.measure(algo.to(run.device), step)
    finally:
        run.close()
    if result is None:
        raise ConfigError(["evaluation.episodes: 0 and no evaluators, so there is nothing to evaluate"])
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    more = {"source": "evaluate", "checkpoint": found.resolve().name, "which": checkpoint}
    write_result(folder / "evaluations" / f"evaluate_{stamp}.json", result, **more)
    return result


def fit(
    settings: Settings,
    known: Catalogue,
    folder: Path,
    command: str = "",
    *,
    replace: bool = False,
    resuming: bool = False,
) -> Run:
    """Trains with checked settings into a folder; `train` and `resume` end here."""
    choice = settings.algo
    assert choice.entry is not None
    pick_device(settings.device)
    if not resuming:
        _refuse_taken(folder, replace)
    episodes, label = _load_episodes(settings)
    _refuse_misfit(settings, known, episodes, label)
    if resuming:
        last = checkpoints.find(folder, "last")
        checkpoints.refuse_other_data(last, episodes.spec, label)
        done, steps = int(read_yaml(last / "algo.yaml")["step"]), settings.trainer.config.steps
        if steps < done:
            raise ConfigError([f"trainer.steps: {steps}, but {folder} has made {done} updates already; give more"])
    episodes, held_out = hold_out(episodes, settings.holdout, settings.seed)
    seed_everything(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    run = Run(folder, settings, known, episodes, resuming, held_out)
    try:
        algo = choice.entry.cls(episodes.spec, choice.config).to(run.device)
    except (TypeError, ValueError) as misfit:
        raise ConfigError([f"algo: {misfit}"]) from misfit
    except RuntimeError as full:
        if "allocate" not in str(full):
            raise
        first = str(full).splitlines()[0]
        raise ConfigError([f"algo: {choice.name} does not fit into the memory ({first}); make it smaller"]) from full
    trainer = core_plugins.make("trainer", settings.trainer)
    _try_evaluation(run, algo)
    algo.prepare(episodes, trainer.config.steps)
    if not resuming:
        algo.dataset(episodes)  # refuses what it cannot learn from
        # Only now, when nothing is left to refuse: an old run is deleted here.
        _claim(folder, replace)
        run.write_beginning(command, label)
    error: BaseException | None = None
    try:
        with run.listening():
            trainer.fit(algo, episodes, run)
    except BaseException as raised:
        error = raised
        raise
    finally:
        run.end(error)
    return run


def _load_episodes(settings: Settings) -> tuple[Episodes, str]:
    """All that the source has, checked, and how messages and reports call it: `minari:hopper/medium-v0`."""
    source = core_plugins.make("source", settings.source)
    ident = getattr(settings.source.config, "id", None)
    label = getattr(source, "label", None) or ":".join(filter(None, [settings.source.name, ident]))
    return source.load().check(label), label


def hold_out(episodes: Episodes, share: float | None, seed: int) -> tuple[Episodes, Episodes | None]:
    """What to train on, and about this share of the episodes to keep from it, at least one each; None keeps none.

    The seed alone decides which; `info["episode"]` says which ones they were.
    """
    if share is None:
        return episodes, None
    if len(episodes) < 2:
        raise ConfigError([f"holdout: the data has {len(episodes)} episode, of which none can be kept; set it to null"])
    numbered = replace(episodes, info={**episodes.info, "episode": torch.arange(len(episodes))})
    held_out, rest = numbered.split(share, torch.Generator().manual_seed(seed))
    return rest, held_out


def _try_evaluation(run: Run, algo: BatchRLAlgo) -> None:
    """What cannot be played or measured should fail now, not after hours: environment, policies, evaluators."""
    if run.settings.evaluation.episodes:
        run.envs(1)
        try:
            with forked_rng(run.seed):
                algo.policy(run.options)
        except ValueError as misfit:
            raise ConfigError([f"evaluation.policies: {misfit}"]) from misfit
    for evaluator in run.evaluators:
        if hasattr(evaluator, "check"):
            evaluator.check(algo, run.episodes if run.held_out is None else run.held_out, run)


def _refuse_misfit(settings: Settings, known: Catalogue, episodes: Episodes, label: str) -> None:
    """An algorithm that cannot act in the data's action space: say which ones can."""
    space, choice = episodes.spec.action_space, settings.algo
    assert choice.entry is not None
    if message := misfit(choice.entry.cls, space, choice.name, label):
        able = [name for name in known.names("algo") if supports(known.get("algo", name).cls, space)]
        raise ConfigError([f"algo: {message}. Try: {', '.join(able) or 'no algorithm here can'}."])


def _refuse_taken(folder: Path, replace: bool) -> None:
    """An existing run is only deleted when asked to, and other files and folders never."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError([f"{folder} is a file, and a run needs a folder; choose another --out"])
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "config.yaml").exists():
            raise ConfigError([f"{folder} exists, is not empty and is not a run; choose another --out"])
        if not replace:
            raise ConfigError(
                [f"{folder} holds a run already; go on with --resume {folder}, start it anew with --replace, "
                 "or choose another --out"]
            )  # fmt: skip


def _claim(folder: Path, replace: bool) -> None:
    """Makes the run folder, anew where a run is to be replaced."""
    _refuse_taken(folder, replace)  # once more: another process may have begun a run meanwhile
    try:
        if (folder / "config.yaml").exists():
            shutil.rmtree(folder)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{folder} cannot be written: {error.strerror}; choose another --out"]) from error


def new_folder(config: Any, settings: Settings) -> Path:
    """A free name under `runs/` from the configuration, the seed and the time."""
    stem = Path(config).stem if isinstance(config, str | Path) else settings.algo.name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stem}-s{settings.seed}-{stamp}"
    number = 1
    folder = base
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _no_episodes(algo: BatchRLAlgo) -> Episodes:
    """An Episodes that only carries the spec, for playing without the data."""
    shape = algo.spec.observation_space.shape or ()
    none = torch.zeros(0)
    return Episodes(
        torch.zeros(0, *shape),
        none,
        none,
        none.bool(),
        none.bool(),
        torch.zeros(1, dtype=torch.int64),
        algo.spec,
    )


def _yaml_value(value: Any) -> str:
    return json.dumps(to_mapping(value))
