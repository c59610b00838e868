"""Runs to the hub and back, through the hub's own client and a server that speaks as the hub does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import typer
from hub_server import TOKEN, Fault, Hub
from rlalgo_hf.hub import HubError, snapshot
from rlalgo_hf.hub_commands import pull, push
from rlalgo_hf.importing import import_hf
from rlalgo_hf.runs import pull_run, push_run
from typer.testing import CliRunner

import rlutils
from rlalgo.errors import CheckpointError, ConfigError, RlalgoError, RlalgoWarning
from rlutils.checkpoints.index import read_index
from rlutils.checkpoints.store import find
from rlutils.config.claim import ClaimError, claimed
from rlutils.data import hub as core_hub
from rlutils.evaluation.play import play
from rlutils.outcome import reported
from tests.contract.setups import CASES, algos
from tests.rlutils.runs import PLUGIN, ROOT, equal, state, toy_config, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*names files that others do not have:rlalgo.errors.RlalgoWarning")

SLOW = pytest.mark.slow
REPO = "me/run"
MODEL = f"models/{REPO}"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped run with a last and a best checkpoint: 40 of 60 steps. Not to be written into."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    rlutils.train(toy_config("bc"), out=folder, trainer__steps=40)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    assert TOKEN not in str(error)
    return str(error)


def pushed(served: Hub, files: dict[str, bytes | None], name: str = MODEL) -> None:
    """What is at the hub's main branch, changed by somebody else; None takes a file away."""
    now = {path: file.content for path, file in served.repos[name].at("main").items()} | files
    served.add(name, {path: content for path, content in now.items() if content is not None})


# --- there and back ---


def first_kinds() -> list[tuple[str, str]]:
    return list({name: (name, kind) for name, kind in reversed(algos())}.values())[::-1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*pair, id=pair[0], marks=SLOW if pair[0] != "dt" else ()) for pair in first_kinds()],
)
def test_a_run_of_every_algorithm_comes_back_bit_for_bit_and_goes_on(
    name: str, kind: str, served: Hub, tmp_path: Path
) -> None:
    options = {"name": name, **CASES[name].options}
    source = {"name": "toy", "discrete": kind == "discrete"}
    env = {"name": "toy"}
    policies = [{"target_return": 8}] if name == "dt" else [{}]
    evaluation = {"every": 4, "episodes": 2, "policies": policies}
    config = {**toy_config("bc", source=source, env=env, evaluation=evaluation), "algo": options}
    for folder, stop in (("whole", 0), ("run", 8)):
        callbacks = [*config["callbacks"], {"name": "meddler", "at": stop}]
        with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
            rlutils.train({**config, "callbacks": callbacks}, out=tmp_path / folder, trainer__steps=12)
    push_run(tmp_path / "run", REPO)
    pull_run(REPO, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "run")
    algo, remote = rlutils.load(tmp_path / "run", plugins=[PLUGIN]), rlutils.load(f"hf://{REPO}", plugins=[PLUGIN])
    assert equal(dict(remote.state_dict()), dict(algo.state_dict()))
    (there,), (here,) = (play(at, policies[0], "best", plugins=[PLUGIN]) for at in (f"hf://{REPO}", tmp_path / "run"))
    assert there.ret == here.ret
    result = rlutils.evaluate(tmp_path / "back", plugins=[PLUGIN], overrides=["evaluation.episodes=2"])
    assert result.step == 8
    rlutils.resume(tmp_path / "back", plugins=[PLUGIN])
    assert equal(weights(tmp_path / "back"), weights(tmp_path / "whole"))
    assert equal(state(tmp_path / "back"), state(tmp_path / "whole"))


def test_a_push_is_one_commit_and_says_what_it_leaves_out(run: Path, served: Hub, tmp_path: Path) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "README.md").write_text("mine")
    (run / ".env").write_text("HF_TOKEN=secret")
    (run / "evaluations" / "more").mkdir()
    (run / "evaluations" / "more" / "x.json").write_text("{}")
    (run / "secret").write_text("of somebody else")
    (run / "evaluations" / "x.json").symlink_to(run / "secret")
    os.mkfifo(run / "evaluations" / "y.json")
    (run / "film.mp4").write_bytes(b"a film")
    (run / "targets").mkdir()
    (run / "targets" / "step_000000012.png").write_bytes(b"a figure")
    result = push_run(run, REPO, message="the first")
    assert {"film.mp4", "targets/step_000000012.png"} <= {*result.files}
    assert result.left_out == [
        ".env", "README.md", "evaluations/more", "evaluations/x.json", "evaluations/y.json", "notes.txt", "secret",
    ]  # fmt: skip
    repo = served.repos[MODEL]
    assert repo.messages == ["", "the first"]
    assert result.url.endswith(repo.heads["main"])
    there = repo.at("main")
    assert result.files == sorted({*there} - {".gitattributes"})
    assert there["README.md"].content.startswith(b"---\n")
    assert b"mine" not in there["README.md"].content
    assert there["film.mp4"].content == b"a film"
    pull_run(REPO, tmp_path / "back")
    kept = {path: content for path, content in contents(run).items() if path in result.files and path != "README.md"}
    assert contents(tmp_path / "back") == kept


def test_older_checkpoints_go_along_when_asked_to(served: Hub, tmp_path: Path) -> None:
    run = rlutils.train(toy_config("bc"), out=tmp_path / "run", checkpoints__keep="all").folder
    index = read_index(run / "checkpoints")
    assert index is not None
    assert len(index.complete) > 2
    result = push_run(run, REPO)
    older = sorted({*index.complete} - {index.last, index.best})
    assert result.left_out == [f"checkpoints/{name}" for name in older]
    pull_run(REPO, tmp_path / "back")
    back = read_index(tmp_path / "back" / "checkpoints")
    assert back is not None
    assert (back.last, back.best, {*back.complete}) == (index.last, index.best, {index.last, index.best})
    assert push_run(run, REPO, all_checkpoints=True).left_out == []
    pull_run(REPO, tmp_path / "back", replace=True)
    assert contents(tmp_path / "back") == contents(run)


def test_a_push_takes_away_what_an_older_one_left_and_nothing_else(run: Path, served: Hub, tmp_path: Path) -> None:
    push_run(run, REPO)
    old = served.repos[MODEL].heads["main"]
    pushed(served, {"LICENSE": b"free", "notes/config.yaml": b"mine"})
    rlutils.resume(run, ["trainer.steps=60"], plugins=[PLUGIN])
    result = push_run(run, REPO)
    there = served.repos[MODEL].at("main")
    assert {*there} == {*result.files, ".gitattributes", "LICENSE", "notes/config.yaml"}
    assert not any("step_000000040/" in path for path in there)
    pull_run(REPO, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(run)
    pull_run(REPO, tmp_path / "old", revision=old)
    assert find(tmp_path / "old").name == "step_000000040"
    assert push_run(run, REPO).url == result.url  # nothing has changed


def test_branches(run: Path, served: Hub, tmp_path: Path) -> None:
    push_run(run, REPO, revision="trial")
    assert {*served.repos[MODEL].at("main")} == {".gitattributes"}
    pull_run(REPO, tmp_path / "back", revision="trial")
    assert contents(tmp_path / "back") == contents(run)
    assert rlutils.load(f"hf://{REPO}@trial", plugins=[PLUGIN]).name == "bc"
    with pytest.raises(HubError, match=r"me/run: has no \*\.yaml or .*; it has \.gitattributes"):
        pull_run(REPO, tmp_path / "other")


def test_files_of_this_machine_are_told(run: Path, served: Hub) -> None:
    with pytest.warns(RlalgoWarning, match=rf"names files that others do not have.*config\.yaml: {PLUGIN}"):
        push_run(run, REPO)


def test_the_commands(run: Path, served: Hub, tmp_path: Path) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (push, pull):
        app.command()(reported(command))
    result = CliRunner().invoke(app, ["push", str(run), REPO, "--private", "--branch", "main", "--message", "hello"])
    assert result.exit_code == 0, result.output
    assert f"files at {served.url}/{REPO}/commit/" in result.stdout
    assert served.repos[MODEL].private
    assert served.repos[MODEL].messages[-1] == "hello"
    result = CliRunner().invoke(app, ["pull", REPO, "--out", str(tmp_path / "back")])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "back") == contents(run)
    result = CliRunner().invoke(app, ["pull", REPO, "--out", str(tmp_path / "back")])
    assert result.exit_code == 2
    assert "holds a run already; delete it with --replace" in result.output
    result = CliRunner().invoke(app, ["push", str(run), "me/other", "--no-create"])
    assert result.exit_code == 2
    assert "there is no such repository" in result.output
    assert "models/me/other" not in served.repos


# --- what goes wrong on the way ---

PUSHING = [
    ("POST /api/repos/create", "drop"),
    ("POST /api/repos/create", "junk"),
    ("GET /api/models/me/run/revision", 500),
    ("GET /api/models/me/run/tree", "junk"),
    ("POST .*/preupload", "drop"),
    ("POST .*/preupload", "junk"),
    ("POST .*/objects/batch", 403),
    ("PUT /lfs", "drop"),
    ("PUT /lfs", 507),
    ("POST .*/commit", "drop"),
    ("POST .*/commit", 500),
    ("POST .*/commit", 412),
]


@pytest.mark.parametrize(("match", "how"), PUSHING)
def test_a_push_that_breaks_off_commits_nothing(match: str, how: Any, run: Path, served: Hub, tmp_path: Path) -> None:
    served.faults = [Fault(match, how, 99)]
    before = contents(run)
    with pytest.raises(HubError, match=f"^{REPO}: {served.url}: .*; {run} is as it was: push it again") as caught:
        push_run(run, REPO)
    one_line(caught.value)
    assert contents(run) == before
    assert all({*files} <= {".gitattributes"} for repo in served.repos.values() for files in repo.commits.values())
    served.faults = []
    push_run(run, REPO)
    pull_run(REPO, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(run)


PULLING = [
    ("GET /api/models/me/run", "drop"),
    ("GET /api/models/me/run", "junk"),
    ("GET /api/models/me/run", 500),
    ("GET /api/models/me/run/tree", "junk"),
    ("GET /api/models/me/run/tree", "half"),
    ("HEAD .*resolve", "drop"),
    ("HEAD .*resolve.*metrics", 500),
    ("GET .*resolve.*metrics", "drop"),
    ("GET .*resolve.*index.json", "flip"),
    ("GET /lfs", "drop"),
    ("GET /lfs", "flip"),
    ("GET /lfs", 403),
]


@pytest.mark.parametrize(("match", "how"), PULLING)
def test_a_pull_that_breaks_off_leaves_nothing(
    match: str, how: Any, trained: Path, served: Hub, tmp_path: Path
) -> None:
    push_run(trained, REPO)
    served.faults = [Fault(match, how, 99)]
    with pytest.raises(HubError, match=f"^{REPO}: {served.url}: ") as caught:
        pull_run(REPO, tmp_path / "back")
    assert how == "flip" or "to use a local folder: `hf download me/run --local-dir FOLDER`" in one_line(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    served.faults = []
    pull_run(REPO, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "cache"]


@SLOW
@pytest.mark.parametrize(
    ("verb", "request_"),
    [("push", "PUT /lfs"), ("push", "POST .*/commit"), ("pull", "HEAD .*resolve.*metrics"), ("pull", "GET /lfs")],
)
def test_a_killed_process_leaves_nothing_half_written(
    verb: str, request_: str, run: Path, served: Hub, tmp_path: Path
) -> None:
    push_run(run, REPO)
    pushed(served, {"metrics.csv": b"older"})
    served.large.clear()
    started: list[subprocess.Popen] = []
    served.faults = [Fault(request_, lambda: started[0].kill())]
    words = (str(run), REPO) if verb == "push" else (REPO, str(tmp_path / "back"))
    code = f"from rlalgo_hf.runs import *; {verb}_run{words}"
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins" / "rlalgo-hf")])
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": path}
    started.append(subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL))
    assert started[0].wait(120) == -signal.SIGKILL
    assert not (tmp_path / "back").exists()
    assert served.repos[MODEL].at("main")["metrics.csv"].content in (b"older", (run / "metrics.csv").read_bytes())
    served.faults = []
    push_run(run, REPO)
    pull_run(REPO, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(run)


def test_a_broken_connection_is_taken_up_again(trained: Path, served: Hub, tmp_path: Path) -> None:
    served.faults = [Fault("POST .*/preupload", "drop"), Fault("PUT /lfs", 500)]
    push_run(trained, REPO)
    served.faults = [Fault("GET /lfs", "half", 2), Fault("GET .*resolve", "drop", 2)]
    pull_run(REPO, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(trained)


def test_a_push_while_it_is_pulled(trained: Path, served: Hub, tmp_path: Path) -> None:
    push_run(trained, REPO)
    served.faults = [Fault("GET /api/models/me/run/tree", lambda: pushed(served, {"metrics.csv": b"newer"}))]
    with pytest.raises(HubError, match="somebody has changed it meanwhile; try again"):
        pull_run(REPO, tmp_path / "back")
    pull_run(REPO, tmp_path / "back")
    assert (tmp_path / "back" / "metrics.csv").read_bytes() == b"newer"


def test_wrong_bytes_are_noticed_when_they_are_sent_too(trained: Path, served: Hub) -> None:
    served.faults = [Fault("PUT /lfs", "flip")]
    with pytest.raises(HubError, match=r"does not have what was sent as checkpoints/\w+/\w+\.safetensors") as caught:
        push_run(trained, REPO)
    one_line(caught.value)


def test_a_hub_without_xet(trained: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="it does not speak xet: set HF_HUB_DISABLE_XET=1") as caught:
        push_run(trained, REPO)
    one_line(caught.value)


def test_what_the_repository_ignores_is_noticed(trained: Path, served: Hub) -> None:
    served.add(MODEL, {".gitignore": b"*.csv"})
    with pytest.raises(HubError, match=r"does not have what was sent as metrics\.csv \(has it a \.gitignore\?\)"):
        push_run(trained, REPO)


def test_two_pushes_at_once(trained: Path, served: Hub) -> None:
    """The one that comes second does not undo what it has not seen."""
    push_run(trained, REPO)
    pushed(served, {"metrics.csv": b"older"})
    served.faults = [Fault("POST .*/preupload", lambda: pushed(served, {"LICENSE": b"free"}))]
    with pytest.raises(HubError, match=r"412 Precondition Failed: .*A commit has happened since"):
        push_run(trained, REPO)
    assert served.repos[MODEL].at("main")["metrics.csv"].content == b"older"


# --- who may, and what is there ---


def test_what_the_hub_refuses_is_told_in_one_line(
    trained: Path, served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_run(trained, REPO)
    push_run(trained, "me/hidden", private=True)
    served.add("models/me/gated", {"config.yaml": b""}, gated=True)

    def refused(said: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(HubError, match=said) as caught:
            (pull_run if isinstance(arguments[0], str) else push_run)(*arguments, **options)
        one_line(caught.value)

    out = tmp_path / "back"
    refused(r"^me/none: http.*: there is no such repository, or it is private: log in", "me/none", out)
    refused("me/run@none: http.*: it has no such revision; .* --revision none --local-dir", REPO, out, "none")
    for name in ("run", "a/b/c", "", "me/../run", "me/a--b", "me/ru n", "http://huggingface.co/me/run"):
        refused("its name looks like OWNER/NAME", name, out)
    before = len(served.seen)
    for name in ("run", "a/b/c", "hf://me/run"):  # the hub would make a repository of a name alone
        refused("its name looks like OWNER/NAME", trained, name)
    assert len(served.seen) == before
    refused("is there already, and public", trained, REPO, private=True)
    refused("403 Forbidden: .*You don't have the rights", trained, "somebody-else/run")
    monkeypatch.delenv("HF_TOKEN")
    refused("there is no such repository, or it is private: log in", "me/hidden", out)
    refused("ask for access on its page, then log in with `hf auth login`", "me/gated", out)
    refused("it does not know who asks; log in with `hf auth login`, or set HF_TOKEN", trained, "me/new")
    assert not out.exists()


def test_a_run_that_cannot_be_pushed(run: Path, served: Hub, tmp_path: Path) -> None:
    with pytest.raises(RlalgoError, match="is not a run folder"):
        push_run(tmp_path, REPO)
    with pytest.raises(RlalgoError, match="is not a run folder"):
        push_run(find(run), REPO)
    with claimed(run), pytest.raises(ClaimError):
        push_run(run, REPO)
    checkpoint = find(run)
    checkpoint.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="no checkpoint 'last'"):
        push_run(run, REPO)
    checkpoint.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="a link, which is not followed"):
        push_run(run, REPO)
    assert served.seen == []


def test_what_is_in_the_way_of_a_pull(run: Path, served: Hub, tmp_path: Path) -> None:
    push_run(run, REPO)
    served.seen.clear()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match="is not empty and is not a run"):
        pull_run(REPO, tmp_path / "mine", replace=True)
    with pytest.raises(ConfigError, match="holds a run already; delete it with --replace"):
        pull_run(REPO, run)
    with claimed(run), pytest.raises(ClaimError):
        pull_run(REPO, run, replace=True)
    assert served.seen == []
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="cannot be written"):
        pull_run(REPO, tmp_path / "file" / "back")
    before = contents(run)
    (run / "metrics.csv").write_text("")
    pull_run(REPO, run, replace=True)
    assert contents(run) == before


# --- runs of somebody else ---


def foreign(served: Hub, trained: Path, files: dict[str, bytes | None]) -> None:
    push_run(trained, REPO)
    pushed(served, files)


LAST = "checkpoints/step_000000040"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.yaml": None}, "it is not a run folder"),
        ({"config.yaml": b"!!python/object:os.system {}"}, "config.yaml"),
        ({"checkpoints/index.json": b"{}"}, "checkpoints/index.json: run"),
        ({f"{LAST}/model.safetensors": None}, f"{LAST}: model.safetensors is missing"),
        ({f"{LAST}/algo.yaml": b"step: 40"}, f"{LAST}/algo.yaml"),
        ({"checkpoints/index.json": None}, "is of the run '[0-9a-f]{16}', not ''"),
    ],
)
def test_what_is_no_whole_run_is_refused(files: Any, said: str, trained: Path, served: Hub, tmp_path: Path) -> None:
    foreign(served, trained, files)
    with pytest.raises(HubError, match=f"^{REPO}: is no whole run .*{said}") as caught:
        pull_run(REPO, tmp_path / "back")
    assert str(tmp_path) not in one_line(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("path", ["../outside.yaml", "evaluations/../../outside.json", "/outside/config.yaml"])
def test_paths_out_of_the_folder_are_refused(path: str, trained: Path, served: Hub, tmp_path: Path) -> None:
    foreign(served, trained, {path: b"{}"})
    with pytest.raises(HubError, match=r"[Ii]nvalid filename|has no") as caught:
        pull_run(REPO, tmp_path / "back")
    one_line(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_no_code_is_brought_along_or_loaded(trained: Path, served: Hub, tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'proof')!r}, 'w')".encode()
    config = (trained / "config.yaml").read_bytes().replace(PLUGIN.encode(), b"./evil.py")
    assert b"./evil.py" in config
    code = {"evil.py": evil, "checkpoints/evil.py": evil, "rlalgo_evil/__init__.py": evil, "evaluations/x.py": evil}
    foreign(served, trained, {**code, "config.yaml": config})
    pull_run(REPO, tmp_path / "back")
    assert not [path for path in contents(tmp_path / "back") if path.endswith(".py")]
    for path in (tmp_path / "back", f"hf://{REPO}"):
        with pytest.raises(RlalgoError):
            play(path, {})
        rlutils.load(path)
    with pytest.raises(CheckpointError, match=r"it is never loaded by itself"):
        rlutils.resume(tmp_path / "back")
    assert not (tmp_path / "proof").exists()


def test_a_checkpoint_of_transformers_by_its_name(served: Hub, tmp_path: Path) -> None:
    from their_models import PLAYED, checkpoint  # transformers takes its time

    folder = checkpoint(tmp_path / "theirs")
    served.add("models/me/theirs", {**contents(folder), "modeling.py": b"code of somebody else"})
    for place in (str(folder), "me/theirs"):
        import_hf(place, tmp_path / Path(place).parent.name, PLAYED, target_returns=[5])
    assert equal(weights(tmp_path / "me"), weights(tmp_path / tmp_path.name))
    assert not any("modeling.py" in line for line in served.seen)
    hint = r"^me/theirs: is no run .*`rlalgo import-hf me/theirs --out RUN`"
    for use in (lambda: rlutils.load("hf://me/theirs"), lambda: pull_run("me/theirs", tmp_path / "back")):
        with pytest.raises(CheckpointError, match=hint) as caught:
            use()
        one_line(caught.value)


# --- addresses ---


def test_only_reading_takes_an_address(served: Hub, tmp_path: Path) -> None:
    hint = "bring it here first: `rlalgo pull me/run --out RUN`"
    for use in (rlutils.evaluate, rlutils.resume):
        for address in ("hf://me/run", "hf://me/run@trial", Path("hf://me/run")):
            with pytest.raises(RlalgoError, match=hint) as caught:
                use(address)
            one_line(caught.value)
    assert served.seen == []


def test_without_the_plugin_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rlalgo_hf.hub", None)
    with pytest.raises(RlalgoError, match=r"pip install rlalgo-hf$") as caught:
        rlutils.load("hf://me/run")
    one_line(caught.value)


# --- without the hub ---


def test_without_the_hub_what_was_fetched_is_read(trained: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    push_run(trained, REPO)
    fetched = snapshot(REPO)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.warns(RlalgoWarning, match=r"cannot be reached \(HF_HUB_OFFLINE is set\); the cache is used"):
        assert snapshot(REPO) == fetched
    with pytest.raises(HubError, match="nor was it fetched before"):
        snapshot(REPO, "trial")


@pytest.mark.parametrize("how", ["refuses", "silent"])
def test_without_the_hub_it_is_told_at_once(
    how: str, trained: Path, served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_hub, "_WAIT", 0.3)
    began = time.perf_counter()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never says a word
        port = silent.getsockname()[1] if how == "silent" else 9
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        why = f"http://127.0.0.1:{port} cannot be reached"
        for act, cure in (
            (lambda: push_run(trained, REPO), "push it again, or copy its folder"),
            (lambda: pull_run(REPO, tmp_path / "back"), "hf download me/run --local-dir FOLDER"),
            (lambda: rlutils.load("hf://me/run@v1"), "hf download me/run --revision v1 --local-dir FOLDER"),
            (lambda: play("hf://me/run", {}), "hf download me/run --local-dir FOLDER"),
            (lambda: import_hf("me/run", tmp_path / "back"), "hf download me/run --local-dir FOLDER"),
        ):
            with pytest.raises(HubError, match=f"{why} .*{cure}") as caught:
                act()
            one_line(caught.value)
    assert time.perf_counter() - began < 8
    assert not (tmp_path / "back").exists()


def test_a_hub_that_falls_silent_is_not_waited_for(trained: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlalgo_hf.hub._PATIENCE", 0.1)
    for request in ("POST /api/repos/create", "GET /api/models/me/run/revision", "POST .*/preupload", "POST .*/commit"):
        served.faults = [Fault(request, "hang", 99)]
        with pytest.raises(HubError, match="timed out") as caught:
            push_run(trained, REPO)
        one_line(caught.value)
    served.faults = []
    push_run(trained, REPO)
    for request in ("GET /api/models/me/run/revision", "HEAD .*resolve", "GET /lfs"):
        served.faults = [Fault(request, "hang", 99)]
        with pytest.raises(HubError, match="timed out"):
            snapshot(REPO)
    assert len(huggingface_hub.get_session().event_hooks["request"]) == 1


def test_the_commands_in_a_process_that_is_told_to_stay_offline(trained: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'rlalgo'; from rlutils.cli import main; main()"
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins" / "rlalgo-hf")])
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": path}
    began = time.perf_counter()
    words = ["play", "hf://me/run"]
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "https://huggingface.co cannot be reached (HF_HUB_OFFLINE is set)" in done.stderr
    assert time.perf_counter() - began < 30
