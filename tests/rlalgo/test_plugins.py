"""Discovery: built-ins, real entry points, modules and files; and all the ways a plugin can be at fault."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import pytest

from rlalgo import Choice, Kind, hookspecs, plugins
from rlalgo.config import parse, to_mapping
from rlalgo.errors import ConfigError, PluginClash, PluginError
from rlalgo.plugins import PluginWarning, catalogue, make
from rlalgo.schema import describe, schema
from rlalgo.version import __version__

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from rlalgo import BatchRLAlgo, Trainer, hookimpl
@dataclass(frozen=True)
class Config:
    size: int = 3
    \"\"\"How large.\"\"\"
"""

# What an author writes for each kind: a class `Thing`.
CLASSES = {
    "algo": """
        class Thing(BatchRLAlgo):
            name: ClassVar[str] = "thing"
            Config = Config
            def dataset(self, episodes): ...
            def update(self, batch, step): ...
            def policy(self, options): ...
        """,
    "encoder": """
        class Thing(torch.nn.Module):
            name: ClassVar[str] = "thing"
            Config = Config
            ROLES = frozenset({"state"})
            def __init__(self, space, width, config):
                super().__init__()
                self.given = (space, width, config)
            def forward(self, x): ...
        """,
    "source": """
        class Thing:
            name: ClassVar[str] = "thing"
            Config = Config
            def load(self): ...
        """,
    "env": """
        class Thing:
            name: ClassVar[str] = "thing"
            Config = Config
            def make(self, spec, n, render_mode=None): ...
        """,
    "trainer": """
        class Thing(Trainer):
            name: ClassVar[str] = "thing"
            Config = Config
            def fit(self, algo, episodes, run): ...
        """,
    "callback": """
        class Thing:
            name: ClassVar[str] = "thing"
            Config = Config
            @hookimpl
            def rlalgo_on_step(self, step): ...
        """,
    "behavior": """
        class Thing:
            name: ClassVar[str] = "thing"
            Config = Config
            def policies(self, env, seed, progress): ...
        """,
    "evaluator": """
        class Thing:
            name: ClassVar[str] = "thing"
            Config = Config
            def evaluate(self, algo, episodes, run): ...
        """,
}


def author(kind: str = "source", name: str = "thing", body: str | None = None, hook: str | None = None) -> str:
    """The text of a plugin module with one class and the hook that registers it."""
    code = textwrap.dedent(CLASSES[kind] if body is None else body).replace('"thing"', repr(name))
    register = f"@hookimpl\ndef {hook or hookspecs.CATALOGUE_HOOKS[kind]}(register):\n    register(Thing)\n"
    return HEAD + code + register


@pytest.fixture(autouse=True)
def _one_builtin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Discovery needs one built-in; the algorithms are tested elsewhere. Modules made here are forgotten."""
    monkeypatch.setattr(plugins, "BUILTINS", ("rlalgo.encoders",))
    plugins.default_catalogue.cache_clear()
    before = set(sys.modules)
    yield
    plugins.default_catalogue.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a plugin file and returns its path."""

    def write(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a real distribution: modules, METADATA and entry_points.txt in a folder on sys.path."""

    def install(distribution: str, version: str, modules: dict[str, str], points: dict[str, str]) -> Path:
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[rlalgo]", *lines, ""]))
        (info / "top_level.txt").write_text("\n".join(modules))
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    return install


# --- what is found ---


@pytest.mark.parametrize("kind", sorted(hookspecs.CATALOGUE_HOOKS))
def test_every_kind_is_registered_by_its_hook(kind: str, write: Callable) -> None:
    path = write(author(kind))
    entry = catalogue([path]).get(kind, "thing")
    assert (entry.kind, entry.name, entry.cls.__name__) == (kind, "thing", "Thing")
    assert entry.owner.plugin == path
    assert entry.owner.location == path
    others = set(hookspecs.CATALOGUE_HOOKS) - {kind, "encoder"}
    known = catalogue([path])
    assert all(known.names(other) == [] for other in others)


def test_builtins_come_through_the_same_hooks() -> None:
    known = catalogue()
    assert known.names("encoder") == ["linear", "mlp"]
    owner = known.get("encoder", "mlp").owner
    assert (owner.plugin, owner.distribution, owner.version) == ("encoders", "rlalgo", __version__)


def test_further_builtins_are_named_by_their_package(write: Callable, tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "morepkg"
    package.mkdir()
    write("", "morepkg/__init__.py")
    write(author(), "morepkg/builtin.py")
    monkeypatch.syspath_prepend(tmp_path)
    known = catalogue(builtins=["morepkg.builtin"])
    assert known.get("source", "thing").owner.plugin == "morepkg"
    assert catalogue(builtins=["morepkg.builtin"], block=["morepkg"]).names("source") == []


def test_entry_points_are_found_with_distribution_and_version(install: Callable) -> None:
    install("rlalgo-thing", "1.2.3", {"thing_plugin": author()}, {"thing": "thing_plugin"})
    owner = catalogue().get("source", "thing").owner
    assert (owner.plugin, owner.distribution, owner.version) == ("thing", "rlalgo-thing", "1.2.3")
    assert owner.location == "thing_plugin"


def test_one_distribution_may_hold_several_plugins(install: Callable) -> None:
    modules = {"one_plugin": author(name="one"), "two_plugin": author(name="two")}
    install("rlalgo-many", "1", modules, {"one": "one_plugin", "two": "two_plugin"})
    assert catalogue().names("source") == ["one", "two"]


def test_a_plugin_may_be_an_object(install: Callable) -> None:
    code = (
        author()
        .replace("@hookimpl\ndef", "class Holder:\n  @hookimpl\n  def")
        .replace("(register)", "(self, register)", 1)
    )
    code = code.replace("\n    register(Thing)", "\n    register(Thing)\nholder = Holder()")
    install("rlalgo-thing", "1", {"thing_plugin": code}, {"thing": "thing_plugin:holder"})
    assert catalogue().names("source") == ["thing"]


def test_modules_given_by_name(install: Callable) -> None:
    install("rlalgo-thing", "1.2.3", {"thing_plugin": author()}, {})
    owner = catalogue(["thing_plugin"]).get("source", "thing").owner
    assert (owner.plugin, owner.distribution, owner.version) == ("thing_plugin", "rlalgo-thing", "1.2.3")
    assert owner.location == "thing_plugin"


def test_a_module_installed_and_given_by_name_is_one_plugin(install: Callable) -> None:
    install("rlalgo-thing", "1", {"thing_plugin": author()}, {"thing": "thing_plugin"})
    known = catalogue(["thing_plugin", "thing_plugin"])
    assert [owner.plugin for owner in known.owners] == ["encoders", "thing"]


def test_a_file_is_imported_once_and_again_when_it_has_changed(write: Callable) -> None:
    path = write(author())
    first = catalogue([path]).get("source", "thing").cls
    assert catalogue([path, path]).get("source", "thing").cls is first  # isinstance and pickle go on working
    write(author(name="other"))
    assert catalogue([path]).names("source") == ["other"]


def test_order_and_owners(install: Callable, write: Callable) -> None:
    install("rlalgo-b", "1", {"b_plugin": author(name="b")}, {"b": "b_plugin"})
    install("rlalgo-a", "1", {"a_plugin": author(name="a")}, {"a": "a_plugin"})
    path = write(author(name="c"))
    known = catalogue([path])
    assert [owner.plugin for owner in known.owners] == ["encoders", "a", "b", path]
    assert len(known.modules) == 4


# --- block and limit ---


def test_block_leaves_out(install: Callable, write: Callable) -> None:
    install(
        "rlalgo-thing",
        "1",
        {"thing_plugin": "raise RuntimeError('never imported')"},
        {"thing": "thing_plugin"},
    )
    path = write(author(name="file"))
    known = catalogue([path], block=["thing", "encoders", path])
    assert known.entries == {}
    assert known.broken == {}


def test_blocking_what_is_not_there_is_an_error(install: Callable) -> None:
    install("rlalgo-thing", "1", {"thing_plugin": author()}, {"thing": "thing_plugin"})
    with pytest.raises(PluginError, match=r"no plugin called 'thnig' to block\. Did you mean 'thing'\? Known: enc"):
        catalogue(block=["thnig"])


def test_the_environment_variable_limits_entry_points(install: Callable, monkeypatch: Any) -> None:
    modules = {"one_plugin": author(name="one"), "two_plugin": author(name="two")}
    install("rlalgo-many", "1", modules, {"one": "one_plugin", "two": "two_plugin"})
    for limit, expected in (("two", ["two"]), (" one , two ", ["one", "two"]), ("", [])):
        monkeypatch.setenv("RLALGO_PLUGINS", limit)
        known = catalogue()
        assert known.names("source") == expected
        assert known.names("encoder") == ["linear", "mlp"]  # built-ins are not limited
    monkeypatch.setenv("RLALGO_PLUGINS", "one,tow")
    with pytest.raises(PluginError, match=r"RLALGO_PLUGINS names 'tow'.*Did you mean 'two'\? Installed: one, two"):
        catalogue()


# --- clashes ---


def test_two_owners_of_one_name(install: Callable) -> None:
    install("rlalgo-one", "1.0", {"one_plugin": author()}, {"one": "one_plugin"})
    install("rlalgo-two", "2.0", {"two_plugin": author()}, {"two": "two_plugin"})
    with pytest.raises(PluginClash) as caught:
        catalogue()
    for part in ("source 'thing'", "'one' (rlalgo-one 1.0)", "'two' (rlalgo-two 2.0)", "--no-plugin two"):
        assert part in str(caught.value)
    assert catalogue(block=["two"]).get("source", "thing").owner.plugin == "one"  # the cure that it names


def test_a_plugin_that_takes_a_builtins_name(write: Callable, install: Callable) -> None:
    path = write(author("encoder", "mlp"))
    with pytest.raises(PluginClash) as caught:
        catalogue([path])
    assert f"'encoders' (rlalgo {__version__})" in str(caught.value)
    assert path in str(caught.value)
    install("rlalgo-mlp", "3", {"mlp_plugin": author("encoder", "mlp")}, {"better": "mlp_plugin"})
    with pytest.raises(PluginClash, match="rlalgo-mlp 3"):  # not a mere warning: results would differ silently
        catalogue()


def test_two_plugins_of_one_name(install: Callable) -> None:
    install("rlalgo-one", "1.0", {"one_plugin": author(name="a")}, {"same": "one_plugin"})
    install("rlalgo-two", "2.0", {"two_plugin": author(name="b")}, {"same": "two_plugin"})
    with pytest.raises(PluginClash, match=r"two plugins are called 'same': rlalgo-(one|two) .* and rlalgo-"):
        catalogue()


# --- broken plugins ---

BROKEN = {
    "ImportError": "import a_module_that_is_not_there",
    "SyntaxError": "def",
    "RuntimeError: boom": "raise RuntimeError('boom')",
    "has no hooks": "x = 1",
    "there is no hook 'rlalgo_register_source'. Did you mean 'rlalgo_register_sources'?": author(
        hook="rlalgo_register_source"
    ),
    "'rlalgo_register_sources' is not marked; put @hookimpl": author().replace("@hookimpl\ndef", "def"),
    "rlalgo_register_sources raised ZeroDivisionError": author() + "    1 / 0\n",
    "can not be found in the hookspec": HEAD + "@hookimpl\ndef rlalgo_on_step(run, setp): ...\n",
    "unknown hook 'on_step'": HEAD + "@hookimpl\ndef on_step(run): ...\n",
    "registers the source 'thing' twice": author() + "    register(Thing)\n",
}


@pytest.mark.parametrize("why", sorted(BROKEN))
def test_a_broken_entry_point_warns_and_is_told_again(why: str, install: Callable) -> None:
    why_there = why if why != "ImportError" else "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    install("rlalgo-bad", "0.1", {"bad_plugin": BROKEN[why]}, {"bad": "bad_plugin"})
    install("rlalgo-good", "1", {"good_plugin": author(name="good")}, {"good": "good_plugin"})
    with pytest.warns(PluginWarning) as warned:
        known = catalogue()
    assert len(warned) == 1
    assert "plugin 'bad' (rlalgo-bad 0.1) is left out" in str(warned[0].message)
    assert why_there in str(warned[0].message)
    assert known.names("source") == ["good"]  # it silences nobody, and leaves nothing of its own
    assert [owner.plugin for owner in known.owners] == ["encoders", "good"]
    with pytest.raises(PluginError) as caught:
        known.get("source", "thing")
    assert "plugin 'bad' is broken" in str(caught.value)
    assert why_there in str(caught.value)


@pytest.mark.parametrize("why", sorted(BROKEN))
def test_a_broken_plugin_given_by_name_is_an_error(why: str, write: Callable, install: Callable) -> None:
    for given in (write(BROKEN[why], "bad.py"), "bad_plugin"):
        if given == "bad_plugin":
            install("rlalgo-bad", "0.1", {"bad_plugin": BROKEN[why]}, {})
        with pytest.raises(PluginError) as caught:
            catalogue([given])
        assert f"plugin '{given}'" in str(caught.value)
        assert why.removeprefix("ImportError") in str(caught.value)


def test_a_broken_entry_point_is_still_an_error_when_given_by_name(install: Callable) -> None:
    install("rlalgo-bad", "0.1", {"bad_plugin": author() + "    1 / 0\n"}, {"bad": "bad_plugin"})
    with pytest.warns(PluginWarning), pytest.raises(PluginError, match="raised ZeroDivisionError"):
        catalogue(["bad_plugin"])


def test_a_file_that_only_registers_environments_is_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "only_an_env.py"
    file.write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "class Mine(PendulumEnv): ...\n"
        "gymnasium.register('Only-v0', entry_point='only_an_env:Mine')\n"
    )
    try:
        for _ in range(2):  # imported, and found again
            assert str(file) in [owner.plugin for owner in catalogue([str(file)]).owners]
            assert type(gymnasium.make("Only-v0").unwrapped).__name__ == "Mine"
            assert gymnasium.make("only_an_env:Only-v0").spec.id == "Only-v0"  # type: ignore[union-attr]
    finally:
        gymnasium.registry.pop("Only-v0", None)
        sys.modules.pop("only_an_env", None)


def test_a_broken_builtin_is_an_error(install: Callable) -> None:
    install("rlalgo-bad", "0.1", {"bad_plugin": "x = 1"}, {})
    with pytest.raises(PluginError, match="has no hooks"):
        catalogue(builtins=["bad_plugin"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"gone\.py does not exist"):
        catalogue([str(tmp_path / "gone.py")])
    with pytest.raises(PluginError, match=r"plugin 'no_such_module' cannot be imported: ModuleNotFoundError"):
        catalogue(["no_such_module"])


def test_a_failed_file_can_be_mended(write: Callable) -> None:
    path = write("1 / 0")
    before = set(sys.modules)
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        catalogue([path])
    assert not [name for name in set(sys.modules) - before if name.startswith("_plugin_mine")]
    write(author())
    assert catalogue([path]).names("source") == ["thing"]


def test_partial_registration_leaves_nothing(install: Callable) -> None:
    """The first class is fine, the second is not: neither may be known."""
    code = author() + "    register(int)\n"
    install("rlalgo-half", "1", {"half_plugin": code}, {"half": "half_plugin"})
    with pytest.warns(PluginWarning, match="int"):
        known = catalogue()
    assert known.names("source") == []
    assert "half" in known.broken


# --- the rules for named classes ---

RULES = [
    ("source", "register(Thing)", "register(Thing())", "register a class"),
    ("source", 'name: ClassVar[str] = "thing"', "pass", "needs `name"),
    ("source", '"thing"', "7", "needs `name"),
    ("source", '"thing"', "'two words'", "needs `name"),
    ("source", '"thing"', "''", "needs `name"),
    ("source", "Config = Config", "pass", "needs `Config`, a @dataclass(frozen=True)"),
    ("source", "frozen=True", "frozen=False", "needs `Config`, a @dataclass(frozen=True)"),
    ("source", "Config = Config", "Config = Config()", "needs `Config`"),
    ("source", "size: int = 3", "name: str = 'x'", "cannot be called 'name'"),
    ("source", "size: int = 3", "size: torch.Tensor = None", "Config.size: values of"),
    ("source", "size: int = 3", "size: 'Missing' = None", "types of a config must be defined in the module"),
    ("source", "def load", "def laod", "has no method load"),
    ("env", "def make", "def mkae", "has no method make"),
    ("behavior", "def policies", "def policy", "has no method policies"),
    ("evaluator", "def evaluate", "def eval", "has no method evaluate"),
    ("encoder", "(torch.nn.Module)", "", "must be a subclass of Module"),
    ("encoder", 'frozenset({"state"})', "frozenset()", "ROLES must be some of"),
    ("encoder", 'frozenset({"state"})', 'frozenset({"sate"})', "ROLES must be some of"),
    ("encoder", 'frozenset({"state"})', '"state"', "ROLES must be some of"),
    ("encoder", 'ROLES = frozenset({"state"})', "pass", "ROLES must be some of"),
    ("algo", "(BatchRLAlgo)", "", "must be a subclass of BatchRLAlgo"),
    ("algo", "def update", "def upate", "has no method update"),
    ("algo", "def dataset", "def datset", "has no method dataset"),
    ("algo", "Config = Config", "Config = Config; PolicyConfig = dict", "needs `PolicyConfig`"),
    ("trainer", "(Trainer)", "", "must be a subclass of Trainer"),
    ("trainer", "def fit", "def fti", "has no method fit"),
    (
        "callback",
        "def rlalgo_on_step",
        "def rlalgo_on_setp",
        "no hook 'rlalgo_on_setp'. Did you mean 'rlalgo_on_step'?",
    ),
    ("callback", "@hookimpl\n    def rlalgo_on_step", "def rlalgo_on_step", "is not marked"),
    ("callback", "@hookimpl\n    def rlalgo_on_step", "def close", "has no hooks"),
    ("callback", "(self, step)", "(self, setp)", "can not be found in the hookspec"),
]


@pytest.mark.parametrize(("kind", "old", "new", "words"), RULES, ids=[f"{r[0]}-{r[2][:20]}" for r in RULES])
def test_a_class_that_breaks_a_rule_is_refused(kind: str, old: str, new: str, words: str, write: Callable) -> None:
    code = author(kind).replace("'thing'", '"thing"')
    assert old in code
    with pytest.raises(PluginError) as caught:
        catalogue([write(code.replace(old, new))])
    assert words in str(caught.value)
    assert f"{kind} " in str(caught.value)
    catalogue([write(code)])  # and nothing else is wrong with it


def test_an_unmarked_helper_that_is_no_hook_is_nobodys_business(write: Callable) -> None:
    assert catalogue([write(author() + "\ndef helper(): ...\n")]).names("source") == ["thing"]


# --- one class, several names ---

TWICE = author("source") + "    register(Thing, 'big', size=9)\n"


def test_a_class_may_be_registered_again_with_other_defaults(write: Callable) -> None:
    known = catalogue([write(TWICE)])
    assert known.names("source") == ["big", "thing"]
    small, big = known.get("source", "thing"), known.get("source", "big")
    assert small.cls is big.cls
    assert small.Config is small.cls.Config
    assert (parse(small.Config, {}, known).size, parse(big.Config, {}, known).size) == (3, 9)
    assert parse(big.Config, {"size": 4}, known) == big.Config(4)
    assert describe(big.Config) == [("size", "integer", "9", "How large.")]

    @dataclass(frozen=True)
    class Config:
        source: Annotated[Choice, Kind("source")]

    chosen = parse(Config, {"source": "big"}, known).source
    assert to_mapping(chosen) == {"name": "big", "size": 9}
    found = schema(Config, known)["definitions"]
    sizes = {name: part["properties"]["size"] for name, part in found.items()}
    assert sizes["source.big"] == {"type": "integer", "default": 9, "description": "How large."}
    assert sizes["source.thing"]["default"] == 3


@pytest.mark.parametrize(
    ("register", "words"),
    [
        ("register(Thing, 'big', sise=9)", "source Thing: Config has no field 'sise'. Did you mean 'size'?"),
        ("register(Thing, 'big', size='9')", "source Thing: Config.size: should be a valid integer, got '9'"),
        ("register(Thing, 'two words', size=9)", "source Thing: needs `name"),
        ("register(Thing, size=9)", "registers the source 'thing' twice"),
    ],
)
def test_other_defaults_that_the_class_does_not_take(register: str, words: str, write: Callable) -> None:
    with pytest.raises(PluginError) as caught:
        catalogue([write(TWICE.replace("register(Thing, 'big', size=9)", register))])
    assert "plugin '" in str(caught.value)
    assert words in str(caught.value)


def test_what_is_built_under_another_name_is_called_so(write: Callable) -> None:
    code = author("encoder") + "    register(Thing, 'big', size=9)\n"
    known = catalogue([write(code)])
    for name in ("thing", "big"):
        entry = known.get("encoder", name)
        made = make("encoder", Choice(name, {}, entry, entry.Config()), "space", 7)
        assert made.name == name
        assert made.given[2] == entry.Config()
    assert entry.cls.name == "thing"


# --- make ---


def test_make_builds_with_the_arguments_and_the_config(write: Callable) -> None:
    known = catalogue([write(author("encoder"))])
    entry = known.get("encoder", "thing")
    choice = Choice("thing", {"size": 5}, entry, entry.Config(5))
    made = make("encoder", choice, "space", 7, role="state")
    assert made.given == ("space", 7, entry.Config(5))
    with pytest.raises(PluginError, match="cannot be an action encoder"):
        make("encoder", choice, "space", 7, role="action")


def test_make_resolves_a_choice_made_by_hand(install: Callable) -> None:
    install("rlalgo-thing", "1", {"thing_plugin": author("encoder")}, {"thing": "thing_plugin"})
    made = make("encoder", Choice("thing", {"size": 5}), "space", 7)
    assert made.given[2].size == 5
    with pytest.raises(ConfigError, match=r"encoder 'thing'.*\n.*unknown key 'sise'. Did you mean 'size'"):
        make("encoder", Choice("thing", {"sise": 5}), "space", 7)
    with pytest.raises(PluginError, match="no encoder called 'thin'"):
        make("encoder", Choice("thin"), "space", 7)


def test_no_warning_without_a_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        catalogue()
