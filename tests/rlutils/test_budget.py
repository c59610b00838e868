"""Numbers that no machine has room for: refused at once, by the range in the type or by the memory they would take."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from rlalgo import Choice, Episodes
from rlalgo.config import parse
from rlalgo.core.algo import supports
from rlalgo.errors import ConfigError
from rlalgo.hookspecs import CATALOGUE_HOOKS
from rlalgo.plugins import make
from rlalgo.registry import Entry
from rlalgo.schema import ConfigSchema
from rlutils import budget as module
from rlutils import train
from rlutils.budget import Budget, budget
from rlutils.collecting.collect import collect
from rlutils.collecting.settings import CollectSettings
from rlutils.config.catalogue import catalogue, read_settings
from rlutils.config.settings import Checkpoints, Evaluation, Settings
from rlutils.sweeps.suite import Suite, read_suite
from tests.rlalgo.toy_data import make_episodes
from tests.rlutils.runs import OURS, toy_config
from tests.rlutils.sweeps.suites import write_suite

pytestmark = pytest.mark.filterwarnings("ignore::rlalgo.errors.RlalgoWarning")
ABSURD = (10**21, -(10**21), 10**12, 10**9, 2**20, 0)
KNOWN = catalogue(OURS)
ENTRIES = [KNOWN.get(kind, name) for kind in CATALOGUE_HOOKS for name in KNOWN.names(kind)]


def options(cls: type, kinds: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Each field of a config that holds numbers of these JSON types, and the absurd values of its shape."""
    for name, part in TypeAdapter(cls).json_schema(schema_generator=ConfigSchema)["properties"].items():
        yield from ((name, wrap(number)) for wrap in shapes(part, kinds) for number in ABSURD)


def shapes(part: dict[str, Any], kinds: tuple[str, ...]) -> Iterator[Callable[[int], Any]]:
    if part.get("type") in kinds:
        yield lambda number: number
    for inner in part.get("anyOf", ()):
        yield from shapes(inner, kinds)
    if "items" in part:
        yield from (lambda number, wrap=wrap: [wrap(number)] * 3 for wrap in shapes(part["items"], kinds))
    elif inners := part.get("prefixItems"):
        yield from (lambda number, wrap=wrap: [wrap(number)] * len(inners) for wrap in shapes(inners[0], kinds))


def refused(path: str, attempt: Callable[[], Any]) -> bool:
    """Whether it is; then within seconds, by a fault that names the path or a part of it."""
    start = time.perf_counter()
    try:
        attempt()
    except ConfigError as error:
        for fault in error.faults:
            assert path.startswith(tuple(re.split(r" or |\[", fault.partition(":")[0]))), fault
        return True
    finally:
        assert time.perf_counter() - start < 10, path
    return False


CONFIGS = [entry.Config for entry in ENTRIES] + [e.cls.PolicyConfig for e in ENTRIES if e.kind == "algo"]
CONFIGS += [Settings, Evaluation, Checkpoints, CollectSettings, Suite]


@pytest.mark.parametrize("cls", dict.fromkeys(CONFIGS))
def test_whole_numbers_have_a_range(cls: type) -> None:
    for name, value in options(cls, ("integer",)):
        if (value[0] if isinstance(value, list) else value) in (10**21, -(10**21)):
            with pytest.raises(ConfigError, match=rf"\b{name}(\[0\])?: should be .*(less|greater) than"):
                parse(cls, {name: value}, KNOWN)


def within_settings(entry: Entry, option: dict[str, Any]) -> dict[str, Any] | None:
    """Settings that use this entry with this option on toy data that suits it; None for what no training uses."""
    chosen = {"name": entry.name, **option}
    match entry.kind:
        case "algo":
            discrete = not supports(entry.cls, make_episodes("box").spec.action_space)
            return toy_config("bc") | {"algo": chosen, "source": {"name": "toy", "discrete": discrete}}
        case "encoder" if "cnn" not in entry.owner.plugin:
            return toy_config("bc") | {"algo": {"name": "bc", "state_encoder": chosen}}
        case "evaluator":
            algo = "dt" if entry.name == "return_calibration" else "bc"
            return toy_config(algo, holdout=0.2, evaluation={"evaluators": [chosen]})
        case "trainer":
            return toy_config("bc", trainer=chosen)
        case "callback":
            return toy_config("bc", callbacks=[chosen])
    return None


PLACES = {"encoder": "algo.state_encoder.", "evaluator": "evaluation.evaluators", "callback": "callbacks"}


@pytest.mark.parametrize(
    "kinds", [pytest.param(("integer",), id="integers"), pytest.param(("number",), id="floats", marks=pytest.mark.slow)]
)
def test_what_is_not_refused_is_feasible(
    kinds: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of everything that takes part in training: refused, or made within the memory that there is."""
    monkeypatch.setattr(module, "memory", lambda device: 500_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = 0
    for entry in ENTRIES:
        for name, value in options(entry.Config, kinds):
            values = within_settings(entry, {name: value})
            if values is not None:
                place = PLACES.get(entry.kind, f"{entry.kind}.")
                refused(f"{place}{name}", lambda values=values: train(values, tmp_path / "run", dry_run=True))
                tried += 1
    for name, value in options(Evaluation, kinds):
        values = toy_config("bc", evaluation={name: value})
        refused(f"evaluation.{name}", lambda values=values: train(values, tmp_path / "run", dry_run=True))
    assert tried > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000
    assert not (tmp_path / "run").exists()


def said(algo: Any, episodes: Episodes, items: int) -> tuple[Budget, Choice]:
    choice = read_settings({"algo": algo, "source": {"name": "minari", "id": "x-v0"}})[0].algo
    found = budget(choice, episodes, items)
    assert found is not None
    return found, choice


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.kind == "algo"], ids=lambda entry: entry.name)
def test_the_model_takes_what_was_said(entry: Entry) -> None:
    """To the byte, after updates that made every gradient and average."""
    episodes = make_episodes("box")
    if not supports(entry.cls, episodes.spec.action_space):
        episodes = make_episodes("discrete")
    found, choice = said(entry.name, episodes, 64)
    algo = make("algo", choice, episodes.spec)
    algo.prepare(episodes, 10**6)
    data = algo.dataset(episodes)
    for step in (1, 2):
        algo.update(data.gather(torch.zeros(4, dtype=torch.int64)), step)
    kept = [p.grad for p in algo.parameters() if p.grad is not None]
    for optimizer in algo.optimizers.values():
        kept += [value for state in optimizer.state.values() for value in (state["exp_avg"], state["exp_avg_sq"])]
    assert found.model == sum(x.nbytes for x in [*algo.parameters(), *algo.buffers(), *kept])
    assert found.parameters == sum(p.numel() for p in algo.parameters())
    assert found.batch > 64 * sum(column.nbytes for column in data.gather(torch.zeros(1, dtype=torch.int64)))


@pytest.mark.parametrize("algo", ["cql", "dt", "iql"])
def test_what_a_batch_takes_grows_evenly(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, _ = said(algo, make_episodes("box"), 4096)
    monkeypatch.setattr(module, "LARGE", 2048)
    reckoned, _ = said(algo, make_episodes("box"), 4096)
    assert reckoned.batch == pytest.approx(measured.batch, rel=0.01)


def test_attention_takes_no_square_of_its_length() -> None:
    short, long = (said({"name": "dt", "context_length": k}, make_episodes("box"), 64)[0].batch for k in (512, 4096))
    assert long == pytest.approx(8 * short, rel=0.1)


def test_what_researchers_use_is_not_refused() -> None:
    for algo, items in (
        ({"name": "dt", "context_length": 4096, "embed_dim": 768, "n_layers": 12, "n_heads": 12}, 1),
        ({"name": "sac_n", "n_critics": 1000}, 256),
        ({"name": "td3_bc", "hidden_dims": [8192, 8192]}, 256),
        ({"name": "bc"}, 65_536),
    ):
        assert said(algo, make_episodes("box"), items)[0].total < 16e9
    read_settings(toy_config("bc", seed=2**32 - 1, trainer={"name": "offline", "steps": 10**9}))


def test_endless_lists_are_told_in_short() -> None:
    for dims, said in (
        ([1] * 2000, r"dims: should be list of integer >= 1 and <= 1,048,576, 1,000 at most, got \[1, 1"),
        ([10**8] * 900, r"(?s)algo\.hidden_dims\[49\]: should be less.*\n  and 850 more$"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_settings(toy_config("bc") | {"algo": {"name": "bc", "hidden_dims": dims}})


def test_environments_are_counted_over_all_policies() -> None:
    values = toy_config("bc", evaluation={"envs": 1000, "episodes": 1000, "policies": [{}] * 11})
    with pytest.raises(
        ConfigError, match=r"evaluation: envs: 11,000 for all policies together, and 10,000 are the most"
    ):
        read_settings(values)


def test_fqe_is_refused_before_it_is_made() -> None:
    fqe = {"name": "fqe", "n_critics": 2**20, "hidden_dims": [2**20] * 3}
    values = toy_config("bc", evaluation={"episodes": 0, "evaluators": [fqe]})
    assert refused("evaluation.evaluators", lambda: train(values, dry_run=True))


def test_more_steps_than_memory_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    wish = {"id": "toy/b-v0", "env": {"id": "CartPole-v1"}, "behavior": "random", "steps": 10**12}
    with pytest.raises(ConfigError, match=r"steps: 1,000,000,000,000 take 1\d\d TB and there are"):
        collect(parse(CollectSettings, wish, KNOWN))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values", [{"seeds": list(range(20_000))}, {"options": {"*": {f"a.b{i}": [*range(10)] for i in range(30)}}}]
)
def test_a_grid_of_more_runs_than_a_folder_can_hold_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"options: make [\d,]+ runs, and 10,000 are the most"):
        read_suite(write_suite(tmp_path, **values))
