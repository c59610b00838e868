"""`rlalgo import-hf`: a run folder of a checkpoint of transformers' DecisionTransformerModel."""

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from rlalgo import BatchRLAlgo, DataSpec, Episodes
from rlalgo.batchrl.dt.decision_transformer import DecisionTransformer
from rlalgo.batchrl.dt.hugging_face import HuggingFaceConfig, our_weights
from rlalgo.config import to_mapping
from rlalgo.core.fingerprint import fingerprint
from rlalgo.errors import CheckpointError, ConfigError, blaming, clipped, first_fault, shown
from rlalgo.nets import Normalizer, warmup_cosine
from rlalgo.plugins import make
from rlalgo_hf.folders import refuse_taken
from rlalgo_hf.reading import OWN, Own, card_statistics, find_folder, read_config, read_own, read_weights
from rlutils.app import hold_out
from rlutils.budget import shadow
from rlutils.checkpoints import store
from rlutils.checkpoints.description import by_version
from rlutils.checkpoints.loading import NO_SOURCE, dataless, typed_modules
from rlutils.config.catalogue import read_settings
from rlutils.config.files import read_json, whole_folder, write_yaml
from rlutils.config.settings import Settings
from rlutils.config.yaml_text import parse_yaml
from rlutils.data.named import find_source, load_source
from rlutils.envs.gym import make_env
from rlutils.machine import versions
from rlutils.randomness import forked_rng
from rlutils.training.folder import write_beginning, write_settings, write_state

LARGEST_NPZ = 10_000_000


def import_hf(
    place: str,
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    dataset: Sequence[str] = (),
    state_mean: str | None = None,
    state_std: str | None = None,
    target_returns: Sequence[float] = (),
    revision: str | None = None,
    replace: bool = False,
    plugins: Sequence[str] = (),
    command: str = "",
) -> dict[str, str]:
    """Makes a run folder that is at step 0 with the checkpoint's weights; training goes on with a fresh optimizer.

    Args:
        place: a folder, or a repository of the hub.
        out: the run folder to write.
        overrides: of the run's configuration, `env.id=Hopper-v5`.
        dataset: what it is to be trained on further, as `rlalgo data inspect` takes it.
        state_mean, state_std: a list of numbers as text, or a .json or .npz file; None takes what `rlalgo.yaml` or the
            model card says, else the data's own.
        target_returns: to play; none asks for the best return in the data.
        revision: of the repository.
        replace: delete a run that is in the way.
        plugins: modules and files to load.
        command: what to record as the way to repeat this.

    Returns:
        What was made and what of, in words.

    Raises:
        CheckpointError: the checkpoint is damaged, dangerous or not supported.
        ConfigError: something has to be given besides; lists all of it.
    """
    out = Path(out)
    refuse_taken(out, replace)
    folder = find_folder(place, revision)
    config, own = read_config(folder), read_own(folder)
    settings = _settings(folder, config, own, dataset, [*overrides, *_policies(target_returns)], plugins)
    episodes, label = load_source(settings.source) if dataset else (None, "")
    spec = _spec(config, own, episodes, settings)
    faults = []
    if spec is None:
        faults.append("env.id: nothing says where it plays: env.id=Hopper-v5, or --dataset with what it learnt from")
    statistics = _statistics(folder, config, own, episodes, state_mean, state_std)
    if statistics is None:
        why = "the checkpoint does not have the mean and std of the states, nor does its model card print them"
        faults.append(f"--state-mean, --state-std: {why}; give them, or --dataset with what it learnt from")
    best = max(target_returns, default=own.best_return if own else None)
    if best is None and episodes is not None:
        best = float(episodes.returns().max())
    if best is None:
        faults.append("--target-return: nothing says which return it can reach; give one, or --dataset")
    if spec is None or statistics is None or best is None:
        raise ConfigError(faults, str(folder))
    state = {"best_return": torch.tensor(best), "normalizer.mean": statistics[0], "normalizer.std": statistics[1]}
    state["scaler.center"] = torch.tensor(own.action_center) if own else torch.zeros(config.act_dim)
    state["scaler.radius"] = torch.tensor(own.action_radius) if own else torch.ones(config.act_dim)
    with forked_rng(settings.seed):
        algo = _algo(folder, settings, spec, state)
        try:
            with whole_folder(out) as new:
                _write(new, settings, algo, episodes, label, command)
        except OSError as error:
            raise CheckpointError(
                f"{out}: cannot be written: {error.strerror or error}; choose another --out"
            ) from error
    given = " 'source={...}'" if dataless(to_mapping(settings)) else ""
    count = sum(parameter.numel() for parameter in algo.parameters())
    return {
        "run folder": str(out),
        "model": f"{count:,} parameters, from {folder}",
        "states": f"mean and std {statistics[2]}",
        "returns": f"scaled by {algo.config.return_scale:g}; asks for {best:g} where no target is given",
        "context": f"{algo.config.context_length} steps",
        "training": f"rlalgo train --resume {out}{given}, with a fresh optimizer",
    }


def _policies(target_returns: Sequence[float]) -> list[str]:
    policies = [{"target_return": target} for target in target_returns]
    return [f"evaluation.policies={json.dumps(policies)}"] if policies else []


def _settings(
    folder: Path,
    config: HuggingFaceConfig,
    own: Own | None,
    dataset: Sequence[str],
    overrides: Sequence[str],
    plugins: Sequence[str],
) -> Settings:
    """What the run is made by: of an exported run its own settings, else the usual ones."""
    if (config.n_inner or 4 * config.hidden_size) != 4 * config.hidden_size or config.layer_norm_epsilon != 1e-5:
        got = f"n_inner={config.n_inner}, layer_norm_epsilon={config.layer_norm_epsilon:g}"
        raise CheckpointError(
            f"{folder}: {got}; rlalgo's dt has 4 hidden_size and 1e-05 there, and cannot be this model"
        )
    values: dict[str, Any] = {"source": NO_SOURCE, **(own.config if own else {}), "plugins": []}
    values.setdefault("algo", {"name": "dt"})
    if isinstance(values["algo"], dict):
        values["algo"] |= {
            "embed_dim": config.hidden_size,
            "n_layers": config.n_layer,
            "n_heads": config.n_head,
            "activation": config.activation_function,
            "dropout": config.resid_pdrop,
            "tanh": config.action_tanh,
            "max_timestep": None if own and own.spec.max_steps == config.max_ep_len else config.max_ep_len,
        }
    if dataset:
        values["source"] = to_mapping(find_source(dataset, plugins))
    plugins = [*plugins, *typed_modules(values, overrides)]
    with by_version(folder / OWN, own.rlalgo if own else ""):
        settings, _ = read_settings(values, overrides, plugins, recorded=True)
    if settings.algo.entry is None or settings.algo.entry.cls is not DecisionTransformer:
        raise ConfigError([f"algo: such a checkpoint is a Decision Transformer (dt), not {settings.algo.name}"])
    return settings


def _spec(config: HuggingFaceConfig, own: Own | None, episodes: Episodes | None, settings: Settings) -> DataSpec | None:
    """What the data is made of: as it says itself, as the exported run said, or as the environment is.

    Raises:
        CheckpointError: the checkpoint was made for other observations or actions.
    """
    ident = getattr(settings.env.config, "id", None)
    known = own if episodes is None else episodes
    if known is not None:
        spec = known.spec
    elif ident is None:
        return None
    else:
        with contextlib.closing(make_env(ident, settings.env.config.kwargs)) as env:
            limit = env.spec.max_episode_steps if env.spec else None
            max_steps = limit or config.max_ep_len
            spec = DataSpec(env.observation_space, env.action_space, max_steps=max_steps, env_id=ident)
    seen, done = spec.encoder_space(), spec.action_space
    if (seen.shape, seen.dtype, done.shape) != ((config.state_dim,), np.float32, (config.act_dim,)):
        raise CheckpointError(
            f"the checkpoint has state_dim={config.state_dim} and act_dim={config.act_dim}, and {spec.env_id} has "
            f"observations {seen} and actions {done}; give the environment or the data that it is for"
        )
    return spec


def _statistics(
    folder: Path,
    config: HuggingFaceConfig,
    own: Own | None,
    episodes: Episodes | None,
    mean: str | None,
    std: str | None,
) -> tuple[Tensor, Tensor, str] | None:
    """Mean and standard deviation of the states, (S,) each, and whose they are; None where nothing says them."""
    if (mean is None) != (std is None):
        raise ConfigError(["--state-mean and --state-std: give both, or neither"])
    if mean is not None and std is not None:
        found, whose = (_numbers(mean, "mean"), _numbers(std, "std")), "as given"
    elif own is not None:
        found, whose = (own.state_mean, own.state_std), "those of the exported run"
    elif (printed := card_statistics(folder, config.state_dim)) is not None:
        found, whose = printed, "as the model card prints them"
    elif episodes is not None:
        normalizer = Normalizer(episodes.spec.encoder_space())
        normalizer.fit(episodes)
        found, whose = (normalizer.mean.tolist(), normalizer.std.tolist()), "those of the dataset"
    else:
        return None
    pair = torch.tensor(found[0], dtype=torch.float32), torch.tensor(found[1], dtype=torch.float32)
    for name, numbers in zip(("mean", "std"), pair, strict=True):
        if len(numbers) != config.state_dim or not numbers.isfinite().all() or (name == "std" and numbers.min() <= 0):
            wanted = f"{config.state_dim} finite numbers{' above 0' if name == 'std' else ''}"
            raise ConfigError([f"--state-{name}: got {shown(numbers.tolist())}; expected {wanted}"])
    return *pair, whose


def _numbers(text: str, name: str) -> list[float]:
    """A list in YAML, or in a .json file; or an array of a .npz file, its only one or that of this name.

    Raises:
        ConfigError: it is none.
    """
    where = f"--state-{name} {clipped(text, 100)}"
    file = Path(text)
    if file.suffix == ".npz":
        with blaming(CheckpointError, where):
            if file.stat().st_size > LARGEST_NPZ:
                raise CheckpointError(f"{where}: has more than {LARGEST_NPZ:,} bytes; give the statistics alone")
            with np.load(file, allow_pickle=False) as arrays:
                ours = {key for key in arrays.files if key.endswith(name)} or set(arrays.files)
                (key,) = ours
                return arrays[key].astype(float).flatten().tolist()
    values = read_json(file) if file.suffix == ".json" else parse_yaml(text, where)
    try:
        return TypeAdapter(list[float]).validate_python(values)
    except ValidationError as error:
        raise ConfigError([f"{where}: {first_fault(error)}; give a list such as '[0.1, 2]'"]) from error


def _algo(folder: Path, settings: Settings, spec: DataSpec, state: dict[str, Tensor]) -> BatchRLAlgo:
    """The algorithm with the checkpoint's weights and this state, and the schedule that it would be trained by.

    Raises:
        CheckpointError: the weights are not to be read, or do not fit.
    """
    weights = read_weights(folder)
    with blaming(CheckpointError, str(folder)):
        twin: Any = shadow(settings.algo, spec) or make("algo", settings.algo, spec)  # before memory is asked for
    try:
        weights = our_weights(twin.model.state_dict(), weights)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    algo: Any = make("algo", settings.algo, spec)
    with blaming(CheckpointError, str(folder)):
        algo.load_state_dict({**{f"model.{name}": weight for name, weight in weights.items()}, **state})
    optimizer, config = algo.optimizers["model"], algo.config
    steps = settings.trainer.config.steps
    algo.schedulers["model"] = warmup_cosine(optimizer, config.warmup, steps, config.final_lr)
    return algo


def _write(
    folder: Path, settings: Settings, algo: BatchRLAlgo, episodes: Episodes | None, label: str, command: str
) -> None:
    """All files of a run that has made no update yet."""
    if episodes is None:
        write_settings(folder, settings)
        write_yaml(folder / "spec.yaml", algo.spec.to_mapping())
        (folder / "evaluations").mkdir()
    else:
        kept, held_out = hold_out(episodes, settings.holdout, settings.seed)
        write_beginning(folder, settings, label, fingerprint(episodes), kept, held_out, command)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    write_state(folder, state="imported", command=command, started=started, versions=versions())
    generator = torch.Generator().manual_seed(settings.seed)
    trainer = {"generator": generator.get_state(), "best": None, "waited": 0}  # of one that has made no step
    store.save(folder / "checkpoints", 0, algo, settings, {"trainer": trainer, "callbacks": {}, "seconds": 0.0})
