"""import-hf and export-hf: transformers' function and ours are one, there and back, and a run is a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlalgo_hf import commands
from rlalgo_hf.exporting import export_hf
from rlalgo_hf.importing import import_hf
from rlalgo_hf.reading import card_statistics, read_weights
from their_models import (
    MEAN,
    PLAYED,
    STD,
    A,
    K,
    S,
    card,
    checkpoint,
    data,
    history,
    our_actions,
    played_by_card,
    their_actions,
    their_model,
)
from transformers import DecisionTransformerModel
from typer import Typer
from typer.testing import CliRunner

import rlutils
from rlalgo.errors import CheckpointError, ConfigError, RlalgoError
from rlutils.checkpoints.store import find
from rlutils.config.files import read_yaml
from rlutils.evaluation.play import play
from rlutils.outcome import reported
from rlutils.reports.report import report
from rlutils.terminal import Terminal
from tests.rlutils.runs import PLUGIN, equal, toy_config, weights

TRAINED = ["trainer.steps=6", "trainer.batch_size=8", "algo.warmup=2", "evaluation.episodes=2", "callbacks=[csv, best]"]


FEW = {"name": "offline", "steps": 5, "batch_size": 8}


def dt_config(**options: Any) -> dict[str, Any]:
    """Of five updates of a Decision Transformer with these options."""
    config = toy_config(trainer=FEW)
    return {**config, "algo": {**config["algo"], **options}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def theirs(place: Path) -> Path:
    return checkpoint(place / "theirs")


@pytest.fixture(scope="module")
def imported(place: Path, theirs: Path) -> Path:
    """A run with data to go on with."""
    import_hf(str(theirs), place / "imported", [*PLAYED, *TRAINED], dataset=data(place / "toy.npz").split())
    return place / "imported"


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run of ours."""
    rlutils.train(toy_config(), out=place / "trained")
    return place / "trained"


VARIANTS: list[dict[str, Any]] = [
    {},
    {"n_head": 1, "n_layer": 1, "activation_function": "gelu_new", "action_tanh": False},
    {"activation_function": "gelu", "max_ep_len": 5},  # shorter than an episode
]


@pytest.mark.parametrize("config", VARIANTS)
def test_an_imported_run_acts_as_transformers_does_from_the_first_step_on(
    config: dict[str, Any], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "theirs", their_model(**config))
    import_hf(str(folder), tmp_path / "run", PLAYED, target_returns=[8.0])
    model, seen = DecisionTransformerModel.from_pretrained(folder).eval(), history()
    ours, expected = our_actions(rlutils.load(tmp_path / "run"), 8.0, *seen), their_actions(model, 8.0, *seen)
    if not model.config.action_tanh:  # raw actions stay within the game's bounds
        inside = (expected.abs() < 1).all(1).cumprod(0).bool()
        ours, expected = ours[inside], expected[inside]
    assert len(expected) > 2
    assert expected.std(0).min() > 0.01
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["shards", "pickle", "half"])
def test_weights_come_in_every_form_that_transformers_wrote(how: str, theirs: Path, tmp_path: Path) -> None:
    model = DecisionTransformerModel.from_pretrained(theirs).eval()
    folder = checkpoint(tmp_path / "theirs", model.half() if how == "half" else model)
    if how == "shards":
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="10KB")
        assert (folder / "model.safetensors.index.json").is_file()
    if how == "pickle":
        (folder / "model.safetensors").unlink()
        masks = {f"encoder.h.{i}.attn.bias": torch.ones(1, 1, 8, 8).bool() for i in range(2)}  # as old versions kept
        weights = model.state_dict()
        weights.update(masks)
        torch.save(weights, folder / "pytorch_model.bin")
    import_hf(str(folder), tmp_path / "run", PLAYED, target_returns=[8.0])
    seen = history()
    ours = our_actions(rlutils.load(tmp_path / "run"), 8.0, *seen)
    torch.testing.assert_close(ours, their_actions(model.float(), 8.0, *seen), atol=1e-5, rtol=0)


def test_an_imported_run_is_played_evaluated_reported_and_trained_on_as_any(imported: Path, tmp_path: Path) -> None:
    """And then transformers acts as it does by then."""
    before = weights(imported)
    assert play(imported, {"target_return": 8.0}, episodes=2)[1].ret != 0
    assert len(rlutils.evaluate(imported).policies[0].returns) == 2
    report([imported], tmp_path / "page.html", None, Terminal())
    assert "hf/Point-v0" in (tmp_path / "page.html").read_text()
    run = rlutils.resume(imported)
    assert (run.step, read_yaml(imported / "run.yaml")["state"]) == (6, "finished")
    rlutils.resume(imported, ["trainer.steps=9"])
    after = weights(imported)
    assert not torch.equal(before["model.trunk.ln_f.weight"], after["model.trunk.ln_f.weight"])
    assert torch.equal(before["normalizer.mean"], after["normalizer.mean"])
    export_hf(imported, tmp_path / "out")
    seen = history()
    model = DecisionTransformerModel.from_pretrained(tmp_path / "out").eval()
    expected = their_actions(model, 8.0, *seen)
    torch.testing.assert_close(our_actions(rlutils.load(imported), 8.0, *seen), expected, atol=1e-5, rtol=0)


def test_a_run_that_came_without_data_is_given_some(theirs: Path, tmp_path: Path) -> None:
    import_hf(str(theirs), tmp_path / "run", [*PLAYED, *TRAINED], target_returns=[8.0])
    data(tmp_path / "toy.npz")
    given = [f"source={{name: npz, path: {tmp_path / 'toy.npz'}}}"]
    with pytest.raises(
        ConfigError, match=r"source: .* came without its data; give it: 'source={name: minari, id: ...}'"
    ):
        rlutils.resume(tmp_path / "run")
    assert rlutils.resume(tmp_path / "run", given).step == 6
    with pytest.raises(ConfigError, match="source: a resumed run keeps"):
        rlutils.resume(tmp_path / "run", [*given, "source.path=other.npz", "trainer.steps=9"])
    assert rlutils.resume(tmp_path / "run", ["trainer.steps=9"]).step == 9


def test_a_run_of_ours_acts_the_same_in_transformers(trained: Path, tmp_path: Path) -> None:
    folder, seen = export_hf(trained, tmp_path / "out", "best", plugins=[PLUGIN]), history()
    model, info = DecisionTransformerModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    algo = rlutils.load(trained, "best", [PLUGIN])
    normalizer = algo.normalizer
    expected = their_actions(model.eval(), 5.0, *seen, normalizer.mean.tolist(), normalizer.std.tolist())
    torch.testing.assert_close(our_actions(algo, 5.0, *seen), expected, atol=1e-5, rtol=0)
    assert not model.encoder.wpe.weight.any()


@pytest.mark.parametrize(
    "options",
    [
        {"context_length": 1, "n_heads": 4, "activation": "gelu_new", "dropout": 0.0},
        {"context_length": 9, "n_heads": 1, "activation": "gelu", "tanh": False, "max_timestep": 3, "lr": 0.02},
        {"n_layers": 1, "normalize": False, "return_scale": 3.0},
    ],
)
def test_whatever_a_run_is_made_of_goes_along(options: dict[str, Any], tmp_path: Path) -> None:
    config = dt_config(**{"lr": 0.1, **options})
    rlutils.train({**config, "evaluation": {"episodes": 0}}, out=tmp_path / "run")
    algo, seen = rlutils.load(tmp_path / "run", plugins=[PLUGIN]), history()
    model = DecisionTransformerModel.from_pretrained(export_hf(tmp_path / "run", tmp_path / "out", plugins=[PLUGIN]))
    statistics = algo.normalizer.mean.tolist(), algo.normalizer.std.tolist()
    scale, context = algo.config.return_scale, algo.config.context_length
    expected = their_actions(model.eval(), 5.0, *seen, *statistics, scale, context)
    assert expected.std(0).min() > 1e-3
    assert expected.abs().max() < 1  # those beyond the game's bounds are not played
    torch.testing.assert_close(our_actions(algo, 5.0, *seen), expected, atol=1e-5, rtol=0)


def test_an_exported_run_comes_back_as_an_equal_one_without_options(trained: Path, tmp_path: Path) -> None:
    export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    assert read_yaml(tmp_path / "out" / "rlalgo.yaml")["config"]["plugins"] == []  # files of this machine
    import_hf(str(tmp_path / "out"), tmp_path / "back", plugins=[PLUGIN])
    assert equal(weights(tmp_path / "back"), weights(trained))
    for name in ("config.yaml", "spec.yaml", "plugins.yaml"):
        assert read_yaml(tmp_path / "back" / name) == read_yaml(trained / name)
    ours, back = (rlutils.evaluate(folder, plugins=[PLUGIN]) for folder in (trained, tmp_path / "back"))
    assert [policy.returns for policy in back.policies] == [policy.returns for policy in ours.policies]
    rlutils.resume(tmp_path / "back", ["trainer.steps=5"], [PLUGIN])  # its source is known


def test_actions_in_other_units_are_scaled_by_what_the_card_says(tmp_path: Path) -> None:
    """Bounds of [-2, 1] and [-1, 3]: transformers' model gives them in [-1, 1]."""
    config = toy_config(source={"name": "drift"}, env={"name": "gym"}, evaluation={"episodes": 0})
    plugin = tmp_path / "drifting.py"
    plugin.write_text(DRIFT)
    rlutils.train({**config, "plugins": [str(plugin)], "trainer": FEW}, out=tmp_path / "run")
    folder, seen = export_hf(tmp_path / "run", tmp_path / "out", plugins=[str(plugin)]), history(size=3)
    own = read_yaml(folder / "rlalgo.yaml")
    assert (own["action_center"], own["action_radius"]) == ([-0.5, 1.0], [1.5, 2.0])
    model = DecisionTransformerModel.from_pretrained(folder).eval()
    scaled = their_actions(model, 5.0, *seen, own["state_mean"], own["state_std"])
    raw = scaled * torch.tensor(own["action_radius"]) + torch.tensor(own["action_center"])
    ours = our_actions(rlutils.load(tmp_path / "run", plugins=[str(plugin)]), 5.0, *seen)
    torch.testing.assert_close(ours, raw, atol=1e-5, rtol=0)
    [played] = play(tmp_path / "run", {"target_return": own["best_return"]}, plugins=[str(plugin)])
    assert played_by_card(folder) == pytest.approx(played.ret, abs=0.06)
    import_hf(str(folder), tmp_path / "back", plugins=[str(plugin)])
    assert equal(weights(tmp_path / "back"), weights(tmp_path / "run"))


DRIFT = """
from dataclasses import dataclass
import numpy as np
import torch
from rlalgo import DataSpec, Episodes, hookimpl
from tests.rlalgo.toy_envs import Drift

class Source:
    name = "drift"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config):
        pass

    def load(self):
        env, rng = Drift(), np.random.default_rng(0)
        actions = rng.uniform(env.action_space.low, env.action_space.high, (40, 2)).astype(np.float32)
        ends = torch.arange(40) % 10 == 9
        return Episodes(
            observations=torch.from_numpy(rng.normal(size=(44, 3)).astype(np.float32)),
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(rng.normal(size=40).astype(np.float32)),
            terminations=torch.zeros(40, dtype=torch.bool),
            truncations=ends,
            starts=torch.arange(0, 41, 10),
            spec=DataSpec(env.observation_space, env.action_space, max_steps=10, env_id="toy/Drift-v0"),
        )

@hookimpl
def rlalgo_register_sources(register):
    register(Source)
"""


def test_an_exported_folder_is_trained_on_in_transformers_and_comes_back(trained: Path, tmp_path: Path) -> None:
    export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    model = DecisionTransformerModel.from_pretrained(tmp_path / "out").eval()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    torch.manual_seed(0)
    batch = {
        "states": torch.randn(8, K, 2),
        "actions": torch.rand(8, K, A) * 2 - 1,
        "returns_to_go": torch.randn(8, K, 1),
        "timesteps": torch.arange(K).expand(8, K),
    }
    losses = []
    for _ in range(2):
        loss = (model(**batch).action_preds - batch["actions"]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    model.save_pretrained(tmp_path / "out")
    assert model.encoder.wpe.weight[0].any()  # which is folded again
    import_hf(str(tmp_path / "out"), tmp_path / "back", plugins=[PLUGIN])
    algo, seen = rlutils.load(tmp_path / "back", plugins=[PLUGIN]), history()
    statistics = algo.normalizer.mean.tolist(), algo.normalizer.std.tolist()
    expected = their_actions(model, 5.0, *seen, *statistics)
    torch.testing.assert_close(our_actions(algo, 5.0, *seen), expected, atol=1e-5, rtol=0)


def test_heads_for_states_and_returns_go_with_it(tmp_path: Path) -> None:
    rlutils.train(dt_config(state_loss=0.1, return_loss=0.1), out=tmp_path / "run")
    export_hf(tmp_path / "run", tmp_path / "out", plugins=[PLUGIN])
    model, ours = DecisionTransformerModel.from_pretrained(tmp_path / "out"), weights(tmp_path / "run")
    assert torch.equal(model.predict_state.weight, ours["model.predict_state.weight"])
    import_hf(str(tmp_path / "out"), tmp_path / "back", plugins=[PLUGIN])
    assert equal(weights(tmp_path / "back"), ours)


# --- what a checkpoint does not say ---


def test_what_is_lacking_is_asked_for_all_at_once(theirs: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "bare", readme=None)
    with pytest.raises(ConfigError, match="3 faults") as caught:
        import_hf(str(folder), tmp_path / "run")
    for words in ("env.id=Hopper-v5", "--state-mean, --state-std", "--target-return", "--dataset"):
        assert words in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match=r"state_dim=2 and act_dim=2.*Pendulum"):
        import_hf(str(theirs), tmp_path / "run", ["env.id=Pendulum-v1"], target_returns=[0.0])


def test_statistics_come_from_options_the_card_or_the_data(place: Path, theirs: Path, tmp_path: Path) -> None:
    bare = checkpoint(tmp_path / "bare", readme="mean_reward: [1, 2]\n\nmean = [1, 2, 3]\n\nstd = ['a', 'b']\n")
    (tmp_path / "mean.json").write_text(json.dumps(MEAN))
    np.savez(tmp_path / "both.npz", state_mean=np.array(MEAN), state_std=np.array(STD))
    npz, source = str(tmp_path / "both.npz"), data(tmp_path / "toy.npz").split()

    def statistics(number: int, folder: Path, **options: Any) -> tuple[list[float], list[float]]:
        import_hf(str(folder), tmp_path / f"run{number}", PLAYED, target_returns=[1.0], **options)
        found = weights(tmp_path / f"run{number}")
        return found["normalizer.mean"].tolist(), found["normalizer.std"].tolist()

    assert statistics(0, bare, state_mean=str(MEAN), state_std=str(STD)) == (MEAN, STD)
    assert statistics(1, bare, state_mean=str(tmp_path / "mean.json"), state_std=npz) == (MEAN, STD)
    assert statistics(2, bare, state_mean=npz, state_std=npz) == (MEAN, STD)
    assert statistics(3, theirs) == (MEAN, STD)
    assert statistics(4, theirs, dataset=source) == (MEAN, STD)  # what it learnt with comes before the data
    arrays = "state mean:\n```\nnp.array([ 0.125 -0.5\n ])\n```\nState_Std: array([5e-1,  .75])"
    (bare / "README.md").write_text(arrays)
    assert statistics(5, bare) == (MEAN, STD)
    (bare / "README.md").unlink()
    rlutils.train(toy_config(trainer=FEW), out=tmp_path / "run")
    fitted = weights(tmp_path / "run")
    found = statistics(6, bare, dataset=source)
    assert found == (fitted["normalizer.mean"].tolist(), fitted["normalizer.std"].tolist())


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ("[1, 2, 3]", "[1, 2]", "--state-mean: got .*1.0, 2.0, 3.0.*; expected 2 finite numbers"),
        ("[1, 2]", "[1, 0]", "--state-std: .*expected 2 finite numbers above 0"),
        ("[1, .nan]", "[1, 1]", "--state-mean: .*expected 2 finite numbers"),
        ("[1, 2]", "__import__('os').system('touch hacked')", "--state-std .*list"),
        ("nothing.npz", "[1, 2]", "--state-mean nothing.npz"),
        ("[1, 2]", None, "give both"),
    ],
)
def test_statistics_that_are_none_are_refused(
    mean: str, std: str | None, words: str, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RlalgoError, match=words):
        import_hf(str(theirs), "run", PLAYED, target_returns=[1.0], state_mean=mean, state_std=std)
    assert list(tmp_path.iterdir()) == []


# --- what is refused, and what stays as it was ---


@pytest.mark.parametrize(
    ("algo", "words"),
    [
        ({"state_encoder": {"name": "mlp"}}, "state_encoder is.*mlp.*rlalgo push.*rlalgo export"),
        ({"return_encoder": {"name": "linear", "tanh": True}}, "return_encoder"),
        ({"positions": "token"}, "positions"),
    ],
)
def test_what_transformers_cannot_be_is_not_exported(algo: dict[str, Any], words: str, tmp_path: Path) -> None:
    rlutils.train(dt_config(**algo), out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=words):
        export_hf(tmp_path / "run", tmp_path / "out", plugins=[PLUGIN])
    assert not (tmp_path / "out").exists()


def test_other_algorithms_and_discrete_actions_are_not_exported(tmp_path: Path) -> None:
    rlutils.train(toy_config("bc", trainer=FEW), out=tmp_path / "bc")
    with pytest.raises(CheckpointError, match=r"bc is no DecisionTransformerModel.*rlalgo push"):
        export_hf(tmp_path / "bc", tmp_path / "out", plugins=[PLUGIN])
    rlutils.train(toy_config(source={"name": "toy", "discrete": True}, trainer=FEW), out=tmp_path / "dt")
    with pytest.raises(CheckpointError, match=r"actions are Discrete\(5\)"):
        export_hf(tmp_path / "dt", tmp_path / "out", plugins=[PLUGIN])


def test_nothing_that_lies_there_is_lost_unasked(trained: Path, theirs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    for replace in (False, True):
        with pytest.raises(CheckpointError, match=r"exists; choose another"):
            export_hf(trained, other, replace=replace, plugins=[PLUGIN])
        with pytest.raises(ConfigError, match="is not a run"):
            import_hf(str(theirs), other, PLAYED, target_returns=[1.0], replace=replace)
    assert (other / "thesis.tex").read_text() == "years"
    export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    with pytest.raises(CheckpointError, match="--replace"):
        export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    (tmp_path / "out" / "model.safetensors").write_text("damaged")
    (tmp_path / "out" / ".git").mkdir()
    with pytest.raises(CheckpointError, match=r"out holds what no export wrote \(\.git\); choose another"):
        export_hf(trained, tmp_path / "out", replace=True, plugins=[PLUGIN])
    (tmp_path / "out" / ".git").rmdir()
    export_hf(trained, tmp_path / "out", replace=True, plugins=[PLUGIN])
    assert read_weights(tmp_path / "out")
    import_hf(str(theirs), tmp_path / "run", PLAYED, target_returns=[1.0])
    with pytest.raises(ConfigError, match="holds a run already; delete it with --replace, or choose another --out"):
        import_hf(str(theirs), tmp_path / "run", PLAYED, target_returns=[1.0])
    import_hf(str(theirs), tmp_path / "run", PLAYED, target_returns=[2.0], replace=True)
    assert float(weights(tmp_path / "run")["best_return"]) == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "run"]


def test_a_disk_that_refuses_leaves_nothing(
    trained: Path, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlutils.config.files.os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        export_hf(trained, tmp_path / "out", plugins=[PLUGIN])
    with pytest.raises(CheckpointError, match="No space left on device"):
        import_hf(str(theirs), tmp_path / "run", PLAYED, target_returns=[1.0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("printed", ["{} = {}", "| {} | {} |", "**{}**: {}", "state_{} = np.array({})", "{}\n\n {}"])
def test_cards_print_statistics_in_many_ways(printed: str, tmp_path: Path) -> None:
    others = "mean return 5 [4, 6]\naction_mean = [7, 8]\nstd of returns [2, 3]\nmean = [1, 2, 3]\n"
    lines = "\n".join(printed.format(name, numbers) for name, numbers in (("mean", MEAN), ("std", STD)))
    (tmp_path / "README.md").write_text(others + lines)
    assert card_statistics(tmp_path, S) == (MEAN, STD)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"n_inner": 48}, "n_inner=48.*cannot be this"), ({"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon=0.001")],
)
def test_a_model_that_ours_cannot_be_is_refused(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "theirs", their_model(**config))
    with pytest.raises(CheckpointError, match=words):
        import_hf(str(folder), tmp_path / "run", PLAYED, target_returns=[1.0])


# --- the commands ---


def test_the_commands_say_what_they_did(theirs: Path, tmp_path: Path) -> None:
    app = Typer()
    for name, function in (("import-hf", commands.import_hf), ("export-hf", commands.export_hf)):
        app.command(name)(reported(function))

    def run(*words: str) -> str:
        return CliRunner().invoke(app, [*words], env={"COLUMNS": "500"}).output

    run_folder, out = str(tmp_path / "run"), str(tmp_path / "out")
    said = run("import-hf", str(theirs), *PLAYED, "--out", run_folder, "--target-return", "8", "--target-return", "4")
    assert "states: mean and std as the model card prints them" in said
    assert "asks for 8 where no target is given" in said
    assert f"training: rlalgo train --resume {run_folder} 'source={{...}}', with a fresh optimizer" in said
    assert read_yaml(Path(run_folder) / "config.yaml")["evaluation"]["policies"] == [
        {"target_return": 8.0},
        {"target_return": 4.0},
    ]
    assert read_yaml(find(Path(run_folder)) / "algo.yaml")["step"] == 0
    assert run("export-hf", run_folder, out) == f"exported: {out}\n"
    assert re.fullmatch(rf"error: {out} exists; [^\n]*\n", run("export-hf", run_folder, out))
    assert run("import-hf", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")).startswith("error: ")
    source = data(tmp_path / "toy.npz")
    said = run("import-hf", str(theirs), *PLAYED, "--out", run_folder, "--replace", "--dataset", source)
    assert f"training: rlalgo train --resume {run_folder}, with a fresh optimizer" in said


def test_cards_of_others_are_never_run(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "theirs", readme=card()[:-30] + "std = [__import__('os').system('touch hacked'), 1]")
    with pytest.raises(ConfigError, match="--state-std"):
        import_hf(str(folder), tmp_path / "run", PLAYED, target_returns=[1.0])
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
