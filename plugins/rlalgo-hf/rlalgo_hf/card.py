"""Model cards: what a run is, in the hub's metadata and in words."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from rlalgo.errors import RlalgoError
from rlalgo_hf.reading import Own
from rlutils.checkpoints.index import step_of_name
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue
from rlutils.config.yaml_text import dump_yaml
from rlutils.data.preparation import read_record
from rlutils.machine import clock
from rlutils.reports.experiments import Experiment, target_of
from rlutils.reports.records import RunRecord, load_run_record
from rlutils.reports.writing import number, short


def model_card(run: Path, checkpoint: str = "last", *, repo: str = "REPO", exported: Own | None = None) -> str:
    """README.md of a repository: a whole run of any algorithm, or an exported checkpoint.

    Args:
        run: the run folder.
        checkpoint: `last`, `best` or `step_N`: whose results stand in the metadata.
        repo: how the text calls the repository that it lies in.
        exported: what an exported checkpoint has besides its weights; None for a whole run.

    Raises:
        RlalgoError: it is no run, or has no such checkpoint.
    """
    record = load_run_record(run)
    experiment = Experiment([record])
    step = step_of_name(find(run, checkpoint).name)
    algo = record.config.get("algo")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, short=short, clock=clock, plain=_plain)
    results = _results(record, step)
    film = next(iter(films(run)), None)
    distributions = {row.distribution for row in record.plugins if row.distribution}
    text = environment.get_template("card.md").render(
        record=record,
        step=step,
        about=_about(record.algo),
        options=dump_yaml(algo if isinstance(algo, Mapping) else {"name": algo}),
        sections=experiment.sections,
        places=experiment.places,
        targets=_targets(record),
        film=film and (f"replay{film.suffix}" if exported else film.name),
        repo=repo,
        packages=" ".join(["rlalgo", "rlalgo-hf", *sorted(distributions - {"rlalgo", "rlalgo-hf"})]),
        exported=exported,
        settings=exported and exported.config,
        gym=exported and _plain_env(exported),
        identity=exported and {*exported.action_center, 0.0} == {0.0} and {*exported.action_radius, 1.0} == {1.0},
    )
    return f"---\n{_metadata(record, results, exported).to_yaml()}\n---\n\n{text}"


def films(run: Path) -> list[Path]:
    """What `rlalgo play --video` wrote into the run's folder, the newest first."""
    found = [path for ending in ("mp4", "gif") for path in run.glob(f"*.{ending}") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _results(record: RunRecord, step: int | None) -> list[EvalResult]:
    """What was played of that step, the newest of each policy in each environment."""
    found = {}
    for result in record.measured.values():
        for policy in result.policies if result.step == step else ():
            low, high = policy.interval
            env = result.env_id or record.env_id or "unknown"
            found[env, policy.label] = EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement learning",
                dataset_type=env,
                dataset_name=env,
                metric_type="mean_reward",
                metric_name=f"mean return ({policy.label})",
                metric_value=policy.mean,
                metric_args={
                    "episodes": len(policy.returns),
                    "first_seed": result.seed,
                    "sd": policy.sd,
                    "iqm": policy.iqm,
                    "interval_95": [low, high],
                },
            )
    return list(found.values())


def _targets(record: RunRecord) -> list[float]:
    """The target returns that were played, from the lowest."""
    played = [target_of(policy) for result in record.measured.values() for policy in result.policies]
    return sorted({target for target in played if target is not None})


def _metadata(record: RunRecord, results: list[EvalResult], exported: Own | None) -> ModelCardData:
    dt = ["decision-transformer"] if record.algo == "dt" else []
    tags = ["reinforcement-learning", "offline-reinforcement-learning", "rlalgo", record.algo, *dt]
    return ModelCardData(
        library_name="transformers" if exported else "rlalgo",
        pipeline_tag="reinforcement-learning",
        tags=[*tags, *([record.env_id] if record.env_id else [])],
        model_name=record.name if results else None,
        eval_results=results or None,
    )


def _about(name: str) -> str:
    """The first line that an algorithm says of itself, where it is known here."""
    try:
        cls = catalogue().get("algo", name).cls
    except RlalgoError:
        return ""
    return (cls.__doc__ or sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0]


def _plain_env(own: Own) -> str | None:
    """What `gymnasium.make` is given for the environment, where nothing is done to its observations and actions."""
    record, env = read_record(own.spec.preprocess), own.config.get("env") or {}
    ident = env.get("id") or own.spec.env_id
    prepared = record.flatten or record.images or record.actions or record.env_wrappers or own.spec.frame_stack > 1
    if prepared or ident is None or env.get("name", "gym") != "gym":
        return None
    kwargs = {**(record.env_kwargs if ident == own.spec.env_id else {}), **(env.get("kwargs") or {})}
    return f"{ident!r}, **{kwargs!r}" if kwargs else repr(ident)


def _plain(text: object) -> str:
    """On one line, without meaning to Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
