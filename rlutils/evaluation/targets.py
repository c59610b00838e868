"""Which return to ask for: what each of a grid of targets achieves, beside what the data has, and the one to take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from rlalgo.config import Whole
from rlalgo.errors import ConfigError
from rlutils.checkpoints.description import step_of
from rlutils.checkpoints.loading import load_algo, run_config, run_folder, run_settings
from rlutils.checkpoints.store import find
from rlutils.config.catalogue import catalogue
from rlutils.config.files import read_as
from rlutils.config.overrides import texts_of
from rlutils.config.settings import laid_over
from rlutils.evaluation.data_facts import DataFacts, data_facts
from rlutils.evaluation.evaluate import Examiner
from rlutils.evaluation.statistics import Finite, PolicyResult, spearman
from rlutils.machine import Stopwatch, pick_device


@dataclass(frozen=True)
class Point:
    """One target."""

    target: Finite
    share: Annotated[Finite, Field(ge=0, le=1)] | None
    """Of the data's episodes, those with a return of at least the target; None where the data is unknown."""
    played: PolicyResult


@dataclass(frozen=True)
class Targets:
    """What a run achieves, target by target."""

    step: Whole
    checkpoint: str
    points: Annotated[list[Point], Field(min_length=1)]
    """By rising target."""
    data: tuple[Finite, Finite] | None = None
    """The data's lowest return and its best."""
    env_id: str | None = None
    seed: Whole = 0
    seconds: Finite = 0.0
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        targets = [point.target for point in self.points]
        if targets != sorted(set(targets)):
            raise ValueError("points: expected rising targets")

    @property
    def top(self) -> Point:
        """The one with the highest mean."""
        return max(self.points, key=lambda point: point.played.mean)

    @property
    def noise(self) -> float:
        """The standard error of that mean."""
        return self.top.played.sd / len(self.top.played.returns) ** 0.5

    @property
    def recommended(self) -> Point:
        """The lowest target whose mean is at most one standard error below the highest mean.

        The usual rule where a choice is made by noisy numbers (Breiman et al. 1984): of what cannot be told from the
        best, the least extreme; here, what more of the data speaks for.
        """
        return next(point for point in self.points if point.played.mean >= self.top.played.mean - self.noise)

    @property
    def supported(self) -> list[Point]:
        """Those within the data's returns; all where these are unknown."""
        low, high = self.data or (-math.inf, math.inf)
        return [point for point in self.points if low <= point.target <= high]

    @property
    def rho(self) -> float | None:
        """Spearman's, of target and return over all single episodes of supported targets."""
        return spearman(*self._episodes())

    @property
    def spread(self) -> float | None:
        """Mean return at the highest supported target minus that at the lowest; None where there are not two."""
        found = self.supported
        return found[-1].played.mean - found[0].played.mean if len(found) > 1 else None

    @property
    def error(self) -> float | None:
        """Mean absolute difference of target and return over all single episodes of supported targets."""
        targets, returns = self._episodes()
        return float(np.abs(targets - returns).mean()) if len(targets) else None

    def _episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) targets and (n,) returns of single episodes, of supported targets."""
        pairs = [(point.target, value) for point in self.supported for value in point.played.returns]
        targets, returns = np.array(pairs, float).reshape(-1, 2).T
        return targets, returns

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON, with what follows from them."""
        follows = {"recommended": self.recommended.target, "rho": self.rho, "spread": self.spread, "error": self.error}
        return {**TypeAdapter(Targets).dump_python(self), **follows}


def read_targets(path: Path) -> Targets:
    """What `to_mapping` wrote as JSON; what follows is computed again.

    Raises:
        CheckpointError: there is no such file, or another thing in it.
    """
    return read_as(Targets, path)


def grid(data: DataFacts, points: int) -> list[float]:
    """That many targets, evenly from the data's lowest return to the most that may well be asked for: 1.1 x its best.

    Those between are round numbers; there are fewer where all returns are the same.
    """
    low, high = data.range[0], data.asked[1]
    step = (high - low) / (points - 1)
    places = 2 - math.floor(math.log10(step)) if step > 0 else 0
    between = np.linspace(low, high, points)[1:-1].round(min(places, 300)) + 0.0  # no -0.0
    return np.unique([low, *between.clip(low, high), high]).tolist()


def play_targets(
    folder: str | Path,
    checkpoint: str = "last",
    targets: Sequence[float] | None = None,
    points: int = 12,
    episodes: int = 10,
    seed: int | None = None,
    plugins: Sequence[str] = (),
) -> Targets:
    """Plays a grid of targets, all in one rollout, with what the run's policies have in common besides.

    Args:
        folder: the run folder, or one of its checkpoints.
        checkpoint: `last`, `best` or `step_N`.
        targets: what to ask for; None for `points` of them, as `grid` says.
        points: how many, two or more.
        episodes: for each target; all targets meet the same starts.
        seed: of the first episode; None for that of the run's evaluations.
        plugins: modules and files that the run was trained with.

    Raises:
        ConfigError: the policy takes no target, or the data is unknown and no targets are given.
        EnvironmentFault: there is no environment to play in, or it broke.
        CheckpointError: see its text.
    """
    found, run = find(Path(folder), checkpoint), run_folder(Path(folder))
    algo, choice = load_algo(found, catalogue(plugins))
    if "target_return" not in {option.name for option in fields(type(algo).PolicyConfig)}:
        raise ConfigError([f"{run}: the policy of {choice.name} takes no target return; `rlalgo evaluate` plays it"])
    data = data_facts(run)
    if targets is not None:
        chosen = sorted({float(target) for target in targets})
    elif data is not None:
        chosen = grid(data, points)
    else:
        raise ConfigError([f"{run} does not tell its data's returns (data.json); give --targets 0,100,..."])
    policies = laid_over(run_config(run), [{"target_return": target} for target in chosen])
    wish = {"policies": policies, "episodes": episodes, "evaluators": [], **({} if seed is None else {"seed": seed})}
    texts = ["callbacks=[]", *texts_of({"evaluation": wish})]
    settings, known = run_settings(run, plugins, texts)
    examiner, watch = Examiner(settings, algo.spec, known), Stopwatch()
    try:
        played = examiner.play(algo.to(pick_device(settings.device)))
    finally:
        examiner.close()
    shares = [data.share(target) if data else None for target in chosen]
    made = [Point(*point) for point in zip(chosen, shares, played, strict=True)]
    within, first = data.range if data else None, settings.evaluation.seed
    return Targets(step_of(found), found.name, made, within, examiner.env_id, first, watch())
