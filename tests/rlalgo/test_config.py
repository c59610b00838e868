"""Mappings to configs and back: strict types, every fault at once, choices, schema, documentation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from rlalgo import Choice, Kind
from rlalgo.config import (
    Count,
    Fraction,
    HiddenDims,
    NonNegative,
    Positive,
    Probability,
    Whole,
    check_fields,
    parse,
    to_mapping,
    with_defaults,
)
from rlalgo.errors import ConfigError, PluginError
from rlalgo.registry import Catalogue, Entry, Owner
from rlalgo.schema import describe, field_docs, schema
from rlutils.config.yaml_text import dump_yaml, parse_yaml


@dataclass(frozen=True)
class Small:
    x: Whole = 1
    """An integer."""
    y: float | None = None


@dataclass(frozen=True)
class Big:
    need: int
    """The one required field."""
    rate: Positive = 1e-3
    """A rate,
    in two lines."""
    share: Fraction = 1.0
    chance: Probability = 0.0
    weight: NonNegative = 0.0
    count: Count = 1
    flag: bool = False
    text: str = "a"
    mode: Literal["relu", "gelu", "tanh"] = "relu"
    alpha: float | Literal["auto"] = "auto"
    sizes: tuple[Count, ...] = (256,)
    pair: tuple[float, float] = (0.9, 0.999)
    folder: Path | None = None
    free: dict[str, Any] = field(default_factory=dict)
    """Anything."""
    small: Small = Small()
    maybe: Small | None = None
    many: tuple[Small, ...] = ()
    encoder: Annotated[Choice, Kind("encoder", "state")] = Choice("plain")
    """What embeds."""
    spare: Annotated[Choice, Kind("encoder")] | None = None
    loggers: tuple[Annotated[Choice, Kind("logger")], ...] = (Choice("csv"), Choice("csv"))


class Plain:
    """Nothing to choose.

    A longer text.
    """

    ROLES = frozenset({"state", "action"})

    @dataclass(frozen=True)
    class Config:
        """Empty."""


class Deep:
    """Wraps another."""

    ROLES = frozenset({"state"})

    @dataclass(frozen=True)
    class Config:
        width: Count = 4
        """Units."""
        inner: Annotated[Choice, Kind("encoder", "state")] = Choice("plain")
        """Within."""


class Csv:
    @dataclass(frozen=True)
    class Config:
        every: Count = 100


class File:
    @dataclass(frozen=True)
    class Config:
        path: Path
        low: float = 0.0
        high: float = 1.0

        def __post_init__(self) -> None:
            if self.low >= self.high:
                raise ValueError(f"low {self.low} must be below high {self.high}")


@pytest.fixture(scope="module")
def known() -> Catalogue:
    return _known()


def _known() -> Catalogue:
    catalogue = Catalogue()
    owner = Owner("test", "dist", "1")
    for kind, name, cls in (
        ("encoder", "plain", Plain),
        ("encoder", "deep", Deep),
        ("logger", "csv", Csv),
        ("logger", "file", File),
    ):
        catalogue.add(Entry(kind, name, cls, owner))
    return catalogue


def faults(values: Any, known: Catalogue, cls: type = Big, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(cls, values, known, **more)
    return caught.value.faults


# --- values ---


def test_defaults_are_filled_in_and_resolved(known: Catalogue) -> None:
    config = parse(Big, {"need": 3}, known)
    assert (config.need, config.rate, config.sizes, config.small) == (3, 1e-3, (256,), Small())
    assert config.encoder.entry is not None
    assert config.encoder.entry.cls is Plain
    assert isinstance(config.encoder.config, Plain.Config)
    assert [choice.config for choice in config.loggers] == [Csv.Config(100)] * 2


@pytest.mark.parametrize(
    ("key", "given_", "expected"),
    [
        ("rate", 2, 2.0),
        ("rate", 1e-4, 1e-4),
        ("alpha", 0.5, 0.5),
        ("alpha", "auto", "auto"),
        ("sizes", [3, 4], (3, 4)),
        ("sizes", [], ()),
        ("pair", [0.1, 0], (0.1, 0.0)),
        ("folder", "a/b", Path("a/b")),
        ("folder", None, None),
        ("free", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        ("small", {"x": 5}, Small(5)),
        ("maybe", None, None),
        ("maybe", {}, Small()),
        ("many", [{"x": 2}, {}], (Small(2), Small())),
        ("small", Small(7), Small(7)),
    ],
)
def test_what_is_taken(known: Catalogue, key: str, given_: Any, expected: Any) -> None:
    got = getattr(parse(Big, {"need": 1, key: given_}, known), key)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("key", "given_", "fault"),
    [
        ("need", "3", "need: should be a valid integer, got '3'"),
        ("need", True, "need: should be a valid integer, got True"),
        ("need", 3.0, "need: should be a valid integer, got 3.0"),
        ("need", None, "need: should be a valid integer, got None"),
        ("rate", "1e-4", "rate: should be a valid number, got '1e-4'"),
        ("rate", True, "rate: should be a valid number, got True"),
        ("rate", 0, "rate: should be greater than 0, got 0"),
        ("rate", math.nan, "rate: should be a finite number, got nan"),
        ("rate", math.inf, "rate: should be a finite number, got inf"),
        ("share", 1.5, "share: should be less than or equal to 1, got 1.5"),
        ("share", 0.0, "share: should be greater than 0, got 0.0"),
        ("chance", 1, "chance: should be less than 1, got 1"),
        ("weight", -0.1, "weight: should be greater than or equal to 0, got -0.1"),
        ("count", 0, "count: should be greater than or equal to 1, got 0"),
        ("flag", 1, "flag: should be a valid boolean, got 1"),
        ("flag", "true", "flag: should be a valid boolean, got 'true'"),
        ("text", 1, "text: should be a valid string, got 1"),
        ("mode", "geluu", "mode: should be 'relu', 'gelu' or 'tanh', got 'geluu'. Did you mean 'gelu'?"),
        ("mode", 3, "mode: should be 'relu', 'gelu' or 'tanh', got 3"),
        ("alpha", "aut", "alpha: should be a valid number or 'auto', got 'aut'. Did you mean 'auto'?"),
        ("alpha", math.nan, "alpha: should be a finite number or 'auto', got nan"),
        ("sizes", [3, 0], "sizes[1]: should be greater than or equal to 1, got 0"),
        ("sizes", [3.5], "sizes[0]: should be a valid integer, got 3.5"),
        ("sizes", 3, "sizes: should be a list, got 3"),
        ("pair", [0.9], "pair: should be [number, number], got [0.9]"),
        ("pair", [1, 2, 3], "pair: should be [number, number], got [1, 2, 3]"),
        ("pair", [1, "2"], "pair[1]: should be a valid number, got '2'"),
        ("folder", 3, "folder: should be a valid string, got 3"),
        ("free", [1], "free: should be a mapping, got [1]"),
        ("free", {"a": object}, "free.a: was not a valid JSON value, got <class 'object'>"),
        ("small", 3, "small: should be a mapping, got 3"),
        ("small", {"x": -1}, "small.x: should be greater than or equal to 0, got -1"),
        ("small", {"z": 1}, "small.z: unknown key 'z'. Known: x, y"),
        ("maybe", {"x": "1"}, "maybe.x: should be a valid integer, got '1'"),
        ("many", {"x": 1}, "many: should be a list, got {'x': 1}"),
        ("many", [{}, {"x": None}], "many[1].x: should be a valid integer, got None"),
        ("many", [{}, 5], "many[1]: should be a mapping, got 5"),
    ],
)
def test_what_is_refused(known: Catalogue, key: str, given_: Any, fault: str) -> None:
    assert faults({"need": 1, key: given_}, known) == [fault]


def test_all_faults_are_told_at_once(known: Catalogue) -> None:
    values = {
        "rat": 1,
        "share": 2,
        "small": {"x": -1, "qq": 2},
        "many": [{"x": "a"}, {"y": "b"}],
        "encoder": {"name": "deep", "width": 0, "inner": {"name": "deep", "inner": "plan"}},
        "loggers": ["csv", "cvs"],
    }
    assert faults(values, known) == [
        "small.qq: unknown key 'qq'. Known: x, y",
        "rat: unknown key 'rat'. Did you mean 'rate'?",
        "need: missing; integer is needed",
        "share: should be less than or equal to 1, got 2",
        "small.x: should be greater than or equal to 0, got -1",
        "many[0].x: should be a valid integer, got 'a'",
        "many[1].y: should be a valid number, got 'b'",
        "encoder.width: should be greater than or equal to 1, got 0",
        "encoder.inner.inner: no encoder called 'plan'. Did you mean 'plain'? Known: deep, plain (dist 1)",
        "loggers[1]: no logger called 'cvs'. Did you mean 'csv'? Known: csv, file (dist 1)",
    ]


def test_the_message_names_the_file_and_counts(known: Catalogue) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Big, {"need": "x", "count": 0}, known, where="run.yaml")
    first, *rest = str(caught.value).splitlines()
    assert first == "run.yaml: 2 faults in the configuration"
    assert [line.strip() for line in rest] == caught.value.faults


@pytest.mark.parametrize("values", [None, 3, "x", [1]])
def test_the_top_level_must_be_a_mapping(known: Catalogue, values: Any) -> None:
    assert faults(values, known)[0].startswith("top level: should be a mapping, got")


def test_long_values_are_shortened(known: Catalogue) -> None:
    (fault,) = faults({"need": "x" * 500}, known)
    assert len(fault) < 120


def test_a_config_that_compares_fields_is_told_at_its_place(known: Catalogue) -> None:
    logger = {"name": "file", "path": "a", "low": 2}
    assert faults({"need": 1, "loggers": [logger]}, known) == ["loggers[0]: low 2.0 must be below high 1.0"]
    assert faults({"path": "a", "low": 2}, known, File.Config) == ["low 2.0 must be below high 1.0"]


def test_a_config_is_not_mutated_and_may_be_passed_in(known: Catalogue) -> None:
    values = {"need": 1, "free": {"a": [1]}, "encoder": {"name": "deep", "width": 3}}
    config = parse(Big, values, known)
    assert values == {"need": 1, "free": {"a": [1]}, "encoder": {"name": "deep", "width": 3}}
    assert config.free is not values["free"]
    assert to_mapping(parse(Big, config, known)) == to_mapping(config)


# --- choices ---


@pytest.mark.parametrize("given_", ["deep", {"name": "deep"}, Choice("deep"), Choice("deep", {})])
def test_a_choice_by_name_mapping_or_object(known: Catalogue, given_: Any) -> None:
    choice = parse(Big, {"need": 1, "encoder": given_}, known).encoder
    assert choice == Choice("deep")
    assert choice.entry is known.get("encoder", "deep")
    assert choice.config.width == 4
    assert choice.config.inner.entry.cls is Plain


@pytest.mark.parametrize("given_", [{"name": "deep", "width": 9}, Choice("deep", {"width": 9})])
def test_a_choices_options(known: Catalogue, given_: Any) -> None:
    choice = parse(Big, {"need": 1, "spare": given_}, known).spare
    assert choice is not None
    assert choice.config.width == 9


EXPECTED = "encoder: expected the name of an encoder, or {{name: ...}} with options, got {}. Known: deep, plain"


@pytest.mark.parametrize(
    ("given_", "fault"),
    [
        (None, EXPECTED.format("None")),
        ({"width": 3}, EXPECTED.format("{'width': 3}")),
        ({"name": 3}, EXPECTED.format("{'name': 3}")),
        ("dep", "encoder: no encoder called 'dep'. Did you mean 'deep'? Known: deep, plain (dist 1)"),
        ({"name": "deep", "widht": 3}, "encoder.widht: unknown key 'widht'. Did you mean 'width'?"),
        ({"name": "plain", "a": 3}, "encoder.a: unknown key 'a'. Known: none"),
    ],
)
def test_a_choice_that_is_none(known: Catalogue, given_: Any, fault: str) -> None:
    assert faults({"need": 1, "encoder": given_}, known) == [fault]


def test_a_required_option_of_a_choice(known: Catalogue) -> None:
    assert faults({"need": 1, "loggers": ["file"]}, known) == ["loggers[0].path: missing; path is needed"]


def test_a_role_that_does_not_fit() -> None:
    @dataclass(frozen=True)
    class Config:
        action_encoder: Annotated[Choice, Kind("encoder", "action")] = Choice("plain")

    known = _known()
    parse(Config, {}, known)
    assert faults({"action_encoder": "deep"}, known, Config) == [
        "action_encoder: encoder 'deep' cannot be an action encoder; its roles: state. Known: plain (dist 1)"
    ]


def test_a_broken_plugin_is_told_of_where_its_name_is_asked_for() -> None:
    known = _known()
    known.broken["rlalgo-cnn"] = "ImportError: no torchvision"
    (fault,) = faults({"need": 1, "encoder": "cnn"}, known)
    assert fault.startswith("encoder: no encoder called 'cnn'")
    assert "plugin 'rlalgo-cnn' is broken: ImportError: no torchvision" in fault


# --- and back ---

smalls = st.builds(lambda x, y: {"x": x, "y": y}, st.integers(0, 99), st.none() | st.floats(-9, 9))
plain = st.just("plain") | st.just({"name": "plain"})
encoders = st.recursive(
    plain,
    lambda inner: st.builds(lambda w, i: {"name": "deep", "width": w, "inner": i}, st.integers(1, 9), inner),
)
loggers = st.lists(
    st.just("csv")
    | st.builds(lambda e: {"name": "csv", "every": e}, st.integers(1, 9))
    | st.builds(lambda p: {"name": "file", "path": p}, st.text(min_size=1, max_size=5)),
    max_size=3,
)
texts = st.text(max_size=9)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
bigs = st.fixed_dictionaries(
    {"need": st.integers()},
    optional={
        "rate": st.floats(1e-9, 1e9),
        "share": st.floats(0, 1, exclude_min=True),
        "flag": st.booleans(),
        "text": texts,
        "mode": st.sampled_from(["relu", "gelu", "tanh"]),
        "alpha": st.just("auto") | st.floats(allow_nan=False, allow_infinity=False),
        "sizes": st.lists(st.integers(1, 10**12), max_size=3),
        "pair": st.tuples(st.floats(-1, 1), st.integers(-5, 5)).map(list),
        "folder": st.none() | st.sampled_from(["a", "/b/c.d", "../e f"]),
        "free": st.dictionaries(texts, anything, max_size=3),
        "small": smalls,
        "maybe": st.none() | smalls,
        "many": st.lists(smalls, max_size=2),
        "encoder": encoders,
        "spare": st.none() | encoders,
        "loggers": loggers,
    },
)


@given(bigs)
def test_mapping_and_back_gives_the_same_config(values: dict[str, Any]) -> None:
    known = _known()
    config = parse(Big, values, known)
    written = to_mapping(config)
    for again in (parse(Big, written, known), parse(Big, parse_yaml(dump_yaml(written)), known)):
        assert to_mapping(again) == written
        assert asdict_plain(again) == asdict_plain(config)
    assert set(written) == set(Big.__dataclass_fields__)  # every default is written out
    jsonschema.validate(values, SCHEMA)
    jsonschema.validate(written, SCHEMA)


def asdict_plain(config: Any) -> dict[str, Any]:
    """The config by the standard library, with what each choice was checked to be."""
    return asdict(config) | {
        "encoder": (config.encoder.name, to_mapping(config.encoder.config)),
        "spare": config.spare and (config.spare.name, to_mapping(config.spare.config)),
        "loggers": [(choice.name, to_mapping(choice.config)) for choice in config.loggers],
    }


def test_to_mapping_writes_every_default_and_only_plain_values(known: Catalogue) -> None:
    written = to_mapping(parse(Big, {"need": 1, "encoder": "deep", "folder": "a/b"}, known))
    assert written["encoder"] == {"name": "deep", "width": 4, "inner": {"name": "plain"}}
    assert written["folder"] == "a/b"
    assert written["sizes"] == [256]
    assert written["loggers"] == [{"name": "csv", "every": 100}] * 2


def test_to_mapping_of_a_choice_made_by_hand() -> None:
    choice = Choice("deep", {"inner": Choice("plain", {"p": Path("x")})})
    assert to_mapping(choice) == {"name": "deep", "inner": {"name": "plain", "p": "x"}}


# --- schema ---

SCHEMA = schema(Big, _known())


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"encoder": "deep"},
        {"encoder": {"name": "deep", "inner": {"name": "deep", "inner": "plain"}}},
        {"spare": None, "maybe": None, "folder": None},
        {"loggers": ["csv", {"name": "file", "path": "x"}]},
        {"alpha": "auto"},
        {"alpha": 0.1},
        {"rate": 1},
    ],
)
def test_the_schema_takes_what_parse_takes(known: Catalogue, change: dict[str, Any]) -> None:
    parse(Big, {"need": 1, **change}, known)
    jsonschema.validate({"need": 1, **change}, SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"need": "1"},
        {"need": 1, "more": 2},
        {"need": 1, "rate": 0},
        {"need": 1, "mode": "sigmoid"},
        {"need": 1, "sizes": [0]},
        {"need": 1, "pair": [1]},
        {"need": 1, "small": {"z": 1}},
        {"need": 1, "many": [{"x": -1}]},
        {"need": 1, "encoder": None},
        {"need": 1, "encoder": "cnn"},
        {"need": 1, "encoder": {"name": "cnn"}},
        {"need": 1, "encoder": {"width": 3}},
        {"need": 1, "encoder": {"name": "plain", "width": 3}},
        {"need": 1, "encoder": {"name": "deep", "width": 0}},
        {"need": 1, "encoder": {"name": "deep", "inner": {"name": "deep", "inner": "none"}}},
        {"need": 1, "loggers": ["file"]},  # its path is required
        {"need": 1, "loggers": "csv"},
    ],
)
def test_the_schema_refuses_what_parse_refuses(known: Catalogue, values: dict[str, Any]) -> None:
    faults(values, known)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_the_schema_knows_roles() -> None:
    @dataclass(frozen=True)
    class Config:
        action_encoder: Annotated[Choice, Kind("encoder", "action")] = Choice("plain")

    found = schema(Config, _known())
    jsonschema.validate({"action_encoder": "plain"}, found)
    for bad in ("deep", {"name": "deep"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"action_encoder": bad}, found)


def test_the_schema_carries_documentation_and_defaults() -> None:
    fields = SCHEMA["properties"]
    assert fields["need"]["description"] == "The one required field."
    assert fields["rate"]["default"] == 1e-3
    assert fields["loggers"]["default"] == [{"name": "csv"}] * 2
    deep = SCHEMA["definitions"]["encoder.deep"]
    assert deep["description"] == "Wraps another."
    assert deep["properties"]["width"]["description"] == "Units."
    assert SCHEMA["required"] == ["need"]


def test_a_kind_that_nobody_provides_can_be_written_down() -> None:
    """Its schema allows nothing, which is what parse allows."""
    found = schema(Big, Catalogue())
    jsonschema.Draft7Validator.check_schema(found)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"need": 1, "encoder": "plain"}, found)


# --- documentation ---


def test_docs_stand_beneath_the_fields() -> None:
    assert field_docs(Big) == {
        "need": "The one required field.",
        "rate": "A rate,\nin two lines.",
        "free": "Anything.",
        "encoder": "What embeds.",
    }


def test_docs_of_nested_and_inherited_classes() -> None:
    @dataclass(frozen=True)
    class Local(Small):
        x: Whole = 2
        """Overridden."""
        z: int = 3
        """New."""

    assert field_docs(Deep.Config) == {"width": "Units.", "inner": "Within."}
    assert field_docs(Local) == {"x": "Overridden.", "z": "New."}


def test_a_class_without_source_has_no_docs() -> None:
    made = make_dataclass("Made", [("x", int, 1)], frozen=True)
    assert field_docs(made) == {}
    assert parse(made, {}, Catalogue()) == made(1)


def test_describe_says_type_default_and_doc() -> None:
    rows = {name: (kind, default, doc) for name, kind, default, doc in describe(Big)}
    assert list(rows) == list(Big.__dataclass_fields__)
    assert rows["need"] == ("integer", "required", "The one required field.")
    assert rows["rate"][:2] == ("number > 0", "0.001")
    assert rows["share"][:2] == ("number > 0 and <= 1", "1.0")
    assert rows["flag"][:2] == ("boolean", "false")
    assert rows["text"][:2] == ("string", "a")
    assert rows["mode"][:2] == ("relu or gelu or tanh", "relu")
    assert rows["alpha"][:2] == ("number or auto", "auto")
    assert rows["sizes"][:2] == ("list of integer >= 1", "[256]")
    assert rows["pair"][:2] == ("[number, number]", "[0.9, 0.999]")
    assert rows["folder"][:2] == ("path or null", "null")
    assert rows["free"][:2] == ("mapping", "{}")
    assert rows["maybe"][:2] == ("mapping or null", "null")
    assert rows["encoder"][:2] == ("state encoder", "plain")
    assert rows["spare"][:2] == ("encoder or null", "null")
    assert rows["loggers"][0] == "list of logger"


# --- what authors may write ---


def test_fields_that_are_not_arguments_are_none_of_yamls_business(known: Catalogue) -> None:
    @dataclass(frozen=True)
    class Config:
        x: int = 1
        twice: int = field(init=False, default=0)
        KNOWN: ClassVar[int] = 7

    assert parse(Config, {"x": 3}, known).x == 3
    assert faults({"twice": 2, "KNOWN": 3}, known, Config) == [
        "twice: unknown key 'twice'. Known: x",
        "KNOWN: unknown key 'KNOWN'. Known: x",
    ]


def test_a_default_is_checked_too(known: Catalogue) -> None:
    @dataclass(frozen=True)
    class Config:
        x: Count = 0

    assert faults({}, known, Config) == ["x: should be greater than or equal to 1, got 0"]


def test_a_config_in_a_function_may_use_module_names_only(known: Catalogue) -> None:
    Local = Count

    @dataclass(frozen=True)
    class Config:
        x: Local = 1  # type: ignore[valid-type]

    with pytest.raises(PluginError, match=r"Config: name 'Local' is not defined; types of a config must be"):
        parse(Config, {}, known)


@dataclass(frozen=True)
class Holder:
    smalls: list[Small] = field(default_factory=list)
    encoders: dict[str, Annotated[Choice, Kind("encoder")]] = field(default_factory=dict)
    some: Annotated[tuple[Small, ...], Field(min_length=1)] = (Small(),)
    pairs: tuple[tuple[Small, Small], ...] = ()
    nested: Big | None = None


def test_configs_are_found_wherever_they_stand(known: Catalogue) -> None:
    check_fields(Holder, "here")
    values = {
        "smalls": [{"x": 2}],
        "encoders": {"a": "plain", "b": {"name": "deep", "width": 5}},
        "pairs": [[{}, {"x": 3}]],
        "nested": {"need": 1, "encoder": "deep"},
    }
    holder = parse(Holder, values, known)
    assert (holder.smalls, holder.pairs) == ([Small(2)], ((Small(), Small(3)),))
    assert holder.encoders["b"].config == Deep.Config(5)
    assert holder.nested is not None
    assert holder.nested.encoder.config.inner.entry is known.get("encoder", "plain")
    jsonschema.validate(values, schema(Holder, known))
    bad = {
        "smalls": [{}, {"x": -1}],
        "encoders": {"a": {"name": "deep", "wdith": 5}, "b": "dep"},
        "some": [],
        "pairs": [[{}, {"z": 3}]],
        "nested": {"encoder": {"name": "deep", "inner": {"name": "deep", "width": 0}}},
    }
    assert faults(bad, known, Holder) == [
        "encoders.a.wdith: unknown key 'wdith'. Did you mean 'width'?",
        "pairs[0][1].z: unknown key 'z'. Known: x, y",
        "smalls[1].x: should be greater than or equal to 0, got -1",
        "encoders.b: no encoder called 'dep'. Did you mean 'deep'? Known: deep, plain (dist 1)",
        "some: should have at least 1 item, not 0, got []",
        "nested.need: missing; integer is needed",
        "nested.encoder.inner.width: should be greater than or equal to 1, got 0",
    ]


def test_defaults_are_read_as_a_files_values_are(known: Catalogue) -> None:
    @dataclass(frozen=True)
    class Config:
        nested: Big = Big(1, folder=Path("a"))
        other: File.Config = File.Config(Path("b"))
        folder: Path = Path("c")
        wrong: Annotated[Choice, Kind("encoder")] = Choice("deep", {"width": 0})

    with pytest.raises(ConfigError) as caught:
        parse(Config, {}, known)
    assert caught.value.faults == ["wrong.width: should be greater than or equal to 1, got 0"]
    config = parse(Config, {"wrong": "plain"}, known)
    assert config.nested.encoder.entry is known.get("encoder", "plain")
    assert (config.nested.folder, config.other.path, config.folder) == (Path("a"), Path("b"), Path("c"))


def test_a_choice_must_say_of_which_kind() -> None:
    @dataclass(frozen=True)
    class Config:
        x: Choice = Choice("plain")

    with pytest.raises(PluginError, match=r"^here\.x: .*a Choice needs its kind: Annotated\[Choice, Kind"):
        check_fields(Config, "here")


@pytest.mark.parametrize("cls", [Big, Small, Deep.Config, File.Config])
def test_good_configs_pass_the_check(cls: type) -> None:
    check_fields(cls, "here")


# --- other defaults ---


def test_other_defaults_keep_everything_else(known: Catalogue) -> None:
    wide = with_defaults(Deep.Config, {"width": 9, "inner": "deep"}, "here")
    config = parse(wide, {}, known)
    assert (config.width, config.inner.config) == (9, Deep.Config(4, Choice("plain")))
    assert parse(wide, {"width": 2}, known).width == 2
    assert isinstance(config, Deep.Config)
    assert describe(wide) == [
        ("width", "integer >= 1", "9", "Units."),
        ("inner", "state encoder", "deep", "Within."),
    ]
    with pytest.raises(AttributeError, match="width"):  # frozen, as its base is
        config.width = 3
    assert parse(Deep.Config, {}, known).width == 4


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"widht": 3}, "here: Deep.Config has no field 'widht'. Did you mean 'width'?"),
        ({"width": 0}, "here: Deep.Config.width: should be greater than or equal to 1, got 0"),
        ({"width": "3"}, "here: Deep.Config.width: should be a valid integer, got '3'"),
        ({"inner": 3}, "here: Deep.Config.inner: expected the name of an encoder, or {name: ...} with options, got 3."),
    ],
)
def test_other_defaults_that_no_field_takes(defaults: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError) as caught:
        with_defaults(Deep.Config, defaults, "here")
    assert str(caught.value) == words


def test_other_defaults_must_pass_the_comparison_of_fields() -> None:
    with pytest.raises(PluginError, match=r"^here: File\.Config: low 2\.0 must be below high 1\.0$"):
        with_defaults(File.Config, {"path": Path("a"), "low": 2.0}, "here")
    with_defaults(File.Config, {"low": 0.5}, "here")  # the path is still asked of the user


def test_wrong_items_do_not_make_a_list_too_short(known: Catalogue) -> None:
    @dataclass(frozen=True)
    class Config:
        dims: HiddenDims = (1,)

    assert faults({"dims": []}, known, Config) == ["dims: should have at least 1 item, not 0, got []"]
    assert faults({"dims": [0, "a"]}, known, Config) == [
        "dims[0]: should be greater than or equal to 1, got 0",
        "dims[1]: should be a valid integer, got 'a'",
    ]
