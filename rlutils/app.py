"""The composition root: settings become a run. What the command line and the Python API both call."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo import plugins as core_plugins
from rlalgo.config import to_mapping
from rlalgo.core.algo import misfit, supports
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import CheckpointError, ConfigError
from rlalgo.registry import Catalogue
from rlutils.budget import budget, fitting
from rlutils.checkpoints.description import by_version, read_description, refuse_other_data, step_of, version_of
from rlutils.checkpoints.loading import dataless, load_algo, run_config, run_folder, run_settings, typed_modules
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.claim import ClaimError, refuse_claimed
from rlutils.config.files import read_yaml, write_json
from rlutils.config.overrides import override
from rlutils.config.recorded import changes, in_words
from rlutils.config.settings import DEFAULTS, Settings, laid_over
from rlutils.data.named import load_source
from rlutils.evaluation.statistics import EvalResult
from rlutils.machine import listening, pick_device, threads
from rlutils.randomness import seed_everything
from rlutils.training.facts import refuse_changed_data, run_facts
from rlutils.training.folder import at_work, clear, new_folder, refuse_taken, stage, write_beginning, writing
from rlutils.training.loop import Loop, Trains
from rlutils.training.run import Run

How = Literal["begin", "replace", "continue", "resume"]


def train(
    config: str | Path | Mapping[str, Any] | Settings,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    replace: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    plugins: Sequence[str] = (),
    block: Sequence[str] = (),
    command: str | None = None,
    loop: Trains | None = None,
    **settings: Any,
) -> Run:
    """Trains as the configuration says and returns the finished run.

    Args:
        config: a YAML file, a mapping or Settings.
        out: run folder; None makes one under `runs/` named after the configuration, the seed and the time.
        overrides: `algo.lr=3e-4`, or YAML files to lay over.
        replace: delete a run that is in the way.
        resume: go on with the run in `out`, begin it where there is none yet, and leave it alone where it is finished;
            so the same call may be made again and again. Of its settings only `trainer.steps` may be others than the
            run's.
        dry_run: check everything, and give the run back before it begins; nothing is written.
        plugins: modules or files to load besides those the configuration names.
        block: names of plugins to leave out.
        command: what to record as the way to repeat the run; made up from the rest if None.
        loop: `loop(algo, episodes, run)` trains in place of the trainer's own, by transformers' Trainer say.
        **settings: further overrides: `seed=1`, or dotted paths with two underscores: `algo__lr=3e-4`.

    Raises:
        ConfigError, DataError, PluginError, EnvironmentFault, TrainingError, CheckpointError: see their texts.
    """
    if resume and (out is None or replace):
        raise ConfigError(["--continue goes on with the run in --out RUN, and never together with --replace"])
    texts = [*overrides]
    texts += [f"{key.replace('__', '.')}={json.dumps(to_mapping(value))}" for key, value in settings.items()]
    checked, known = read_settings(config, texts, plugins, block)
    file = Path(config) if isinstance(config, str | Path) else None
    folder = new_folder(file.stem if file else checked.algo.name, checked.seed) if out is None else Path(out)
    if command is None:
        command = " ".join(["rlalgo train", str(file or folder / "config.yaml"), *texts])
        command += f"  # by loop={getattr(loop, '__name__', loop)}, from Python" if loop else ""
    with threads(checked.threads):
        how: How = "continue" if resume else "replace" if replace else "begin"
        return _fit(checked, known, folder, how, command, loop, dry_run=dry_run)


def resume(
    folder: str | Path,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    block: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> Run:
    """Goes on from a run's last checkpoint, exactly as if it had not been stopped (bit-equal on one machine's CPU).

    Args:
        folder: the run folder.
        overrides: `trainer.steps=200000` and the like, which the run's configuration has from then on; what is
            learnt (algo, source, seed) cannot change, but a run that came without its data is given it as `source`.
        plugins: the modules and files that the run was trained with; they are never loaded by themselves.
        block: names of plugins to leave out.
        dry_run: check everything, and give the run back before it goes on; nothing is written.
    """
    folder = Path(folder)
    values = run_config(folder)
    wish = override(values, overrides)
    for key in ("algo", "source", "seed", "holdout", "plugins"):
        if wish.get(key) != values.get(key) and not (key == "source" and dataless(values)):
            raise ConfigError([f"{key}: a resumed run keeps its algo, source, seed, holdout and plugins"])
    if dataless(wish):
        raise ConfigError([f"source: {folder} came without its data; give it: 'source={{name: minari, id: ...}}'"])
    settings, known = run_settings(folder, plugins, overrides, block)
    own = read_yaml(folder / "config.yaml").get("plugins") or ()
    with threads(settings.threads):
        return _fit(changed(settings, plugins=tuple(own)), known, folder, "resume", dry_run=dry_run)


def evaluate(
    folder: str | Path,
    checkpoint: str = "last",
    policies: Sequence[Mapping[str, Any]] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> EvalResult:
    """Plays a trained run again and writes the result beside its evaluations.

    Args:
        folder: the run folder, or one of its checkpoints.
        checkpoint: `last`, `best` or `step_N`.
        policies: options of each policy to play, over what the run's own have in common; None for those themselves.
        overrides: `evaluation.episodes=100`, `env.id=...`; the defaults are the run's own.
        plugins: modules and files to load.
    """
    found = find(Path(folder), checkpoint)
    folder = run_folder(Path(folder))
    values = {**run_config(folder), "callbacks": []}
    values.pop("trainer", None)  # which is not needed here, nor whoever provided it
    plugins = [*plugins, *typed_modules(values, overrides)]
    algo, choice = load_algo(found, catalogue(plugins))
    wish = override(values, overrides, DEFAULTS)
    if policies is not None:
        wish = override(wish, [f"evaluation.policies={json.dumps(to_mapping(laid_over(wish, policies)))}"], DEFAULTS)
    for key in ("algo", "holdout", "seed"):
        if wish.get(key) != values.get(key):
            raise ConfigError(
                [f"{key}: says what was trained and on what, and cannot be overridden; train another run"]
            )
    with by_version(folder / "config.yaml", version_of(folder)):
        settings, known = read_settings({**wish, "algo": choice}, (), plugins, recorded=True)
    episodes, held_out = _no_episodes(algo.spec), None
    if settings.evaluation.evaluators:
        episodes, label = load_source(settings.source)
        refuse_other_data(found, algo.spec, episodes.spec, label)
        episodes, held_out = hold_out(episodes, settings.holdout, settings.seed)
    run = Run(folder, settings, known, episodes, held_out)
    if run.examiner.idle:
        raise ConfigError(["evaluation.episodes: 0 and no evaluators, so there is nothing to evaluate"])
    try:
        result = run.examiner.examine(algo.to(run.device), step_of(found), run)
    finally:
        run.examiner.close()
    more = {"source": "evaluate", "checkpoint": found.name, "which": checkpoint}
    path = folder / "evaluations" / f"evaluate_{datetime.now():%Y%m%d-%H%M%S-%f}.json"
    path.parent.mkdir(exist_ok=True)  # of a checkpoint that was copied out of its run
    write_json(path, {**result.to_mapping(), **more})
    return result


def _fit(
    settings: Settings,
    known: Catalogue,
    folder: Path,
    how: How,
    command: str = "",
    loop: Trains | None = None,
    *,
    dry_run: bool = False,
) -> Run:
    """Trains with checked settings into a folder; `train` and `resume` end here."""
    device = pick_device(settings.device)
    refuse_claimed(folder)  # before anything is loaded
    at = stage(folder)
    if how == "begin":
        refuse_taken(folder)
    if how == "continue" and at != "free":
        found = changes(run_config(folder), settings)
        more = found.pop("trainer.steps", None)
        if found:
            cure = "give those of the run, or choose another --out"
            raise ConfigError([f"{folder} was begun with other settings: {in_words(found)}; {cure}"])
        if at == "finished" and more is None:
            if not dry_run:
                with contextlib.suppress(ClaimError, CheckpointError), at_work(folder):
                    pass  # what a kill in its last moment left there goes
            return _finished(settings, known, folder)
    resuming = how == "resume" or (how == "continue" and at in ("stopped", "finished"))
    if how == "resume" and at == "begun":
        line = f"rlalgo train {folder / 'config.yaml'} --out {folder} --continue"
        raise CheckpointError(f"{folder} has no checkpoint to go on from; begin it again: {line}")
    episodes, label = load_source(settings.source)
    _refuse_misfit(settings, known, episodes.spec, label)
    data_print = fingerprint(episodes)
    if resuming:
        last = find(folder)
        made, steps = read_description(last), settings.trainer.config.steps
        refuse_other_data(last, made.spec, episodes.spec, label)
        refuse_changed_data(folder, data_print, label)
        if steps < made.step:
            raise ConfigError([f"trainer.steps: {steps}, but {folder} has made {made.step} updates already; give more"])
    need = budget(settings.algo, episodes, getattr(settings.trainer.config, "batch_size", 1))
    if need is not None:
        need.refuse_beyond(device)
    episodes, held_out = hold_out(episodes, settings.holdout, settings.seed)
    seed_everything(settings.seed)
    run = Run(folder, settings, known, episodes, held_out, resuming)
    run.label, run.budget = label, need
    algo = _make_algo(settings, episodes.spec, run.device)
    trainer = Loop(loop, settings.trainer.config) if loop else core_plugins.make("trainer", settings.trainer)
    run.examiner.check(algo, run)
    algo.prepare(episodes, trainer.config.steps)
    if not resuming:
        algo.dataset(episodes)  # refuses what it cannot learn from
    if dry_run:
        run.examiner.close()
        return run
    error: BaseException | None = None
    with at_work(folder) as run.claim:  # only now, when nothing is left to refuse
        if stage(folder) != at:
            raise ConfigError([f"{folder}: another process was at work in it until now; look, and ask again"])
        try:
            with listening(run.ask_to_stop), writing(folder):
                if not resuming:
                    if how == "replace":
                        clear(folder)
                    write_beginning(folder, settings, label, data_print, episodes, held_out, command)
                    run.write_state("running")
                with fitting("trainer.batch_size or algo"):
                    trainer.fit(algo, episodes, run)
                run.check_end()
        except BaseException as raised:
            error = raised
            raise
        finally:
            run.end(error)
    return run


def _finished(settings: Settings, known: Catalogue, folder: Path) -> Run:
    """A run that is at its end already, as its folder says."""
    run = Run(folder, settings, known, _no_episodes(read_description(find(folder)).spec), resumed=True)
    facts = run_facts(folder)
    run.step, run.stopped, run.best_step = facts.step, facts.stopped, facts.best_step
    return run


def hold_out(episodes: Episodes, share: float | None, seed: int) -> tuple[Episodes, Episodes | None]:
    """What to train on, and about this share of the episodes to keep from it, at least one each; None keeps none.

    The seed alone decides which; `info["episode"]` says which ones they were.
    """
    if share is None:
        return episodes, None
    if len(episodes) < 2:
        raise ConfigError([f"holdout: the data has {len(episodes)} episode, of which none can be kept; set it to null"])
    numbered = changed(episodes, info={**episodes.info, "episode": torch.arange(len(episodes))})
    held_out, rest = numbered.split(share, torch.Generator().manual_seed(seed))
    return rest, held_out


def _make_algo(settings: Settings, spec: DataSpec, device: torch.device) -> BatchRLAlgo:
    """ConfigError for options that do not fit the data or one another, or an algorithm too big for the memory."""
    try:
        with fitting("algo"):
            return core_plugins.make("algo", settings.algo, spec).to(device)
    except (TypeError, ValueError) as error:
        raise ConfigError([f"algo: {error}"]) from error


def _refuse_misfit(settings: Settings, known: Catalogue, spec: DataSpec, label: str) -> None:
    """An algorithm that cannot act in the data's action space: say which ones can."""
    choice, space = settings.algo, spec.action_space
    assert choice.entry is not None
    if message := misfit(choice.entry.cls, space, choice.name, label):
        able = [name for name in known.names("algo") if supports(known.get("algo", name).cls, space)]
        raise ConfigError([f"algo: {message}. Try: {', '.join(able) or 'no algorithm here can'}."])


def _no_episodes(spec: DataSpec) -> Episodes:
    """An Episodes that only carries the spec, for playing without the data."""
    none, start = torch.zeros(0), torch.zeros(1, dtype=torch.int64)
    observations = torch.zeros(0, *(spec.observation_space.shape or ()))
    return Episodes(observations, none, none, none.bool(), none.bool(), start, spec)
