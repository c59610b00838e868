"""Catalogue: names, owners, clashes and what is said when a name is not there."""

from __future__ import annotations

import pytest

import rlutils
from rlalgo.errors import PluginClash, PluginError
from rlalgo.registry import SEPARATE, Catalogue, Entry, Owner

MINE = Owner("rlalgo-cnn", "rlalgo-cnn", "0.1")
THEIRS = Owner("base", "rlalgo", "1.0")


class States:
    ROLES = frozenset({"state"})


class Anything:
    ROLES = frozenset({"state", "action", "return", "timestep"})


@pytest.fixture
def known() -> Catalogue:
    catalogue = Catalogue()
    catalogue.add(Entry("encoder", "linear", Anything, THEIRS))
    catalogue.add(Entry("encoder", "mlp", Anything, THEIRS))
    catalogue.add(Entry("encoder", "cnn", States, MINE))
    return catalogue


def test_names_are_sorted_and_fit_the_role(known: Catalogue) -> None:
    assert known.names("encoder") == ["cnn", "linear", "mlp"]
    assert known.names("encoder", "action") == ["linear", "mlp"]
    assert known.names("algo") == []


def test_get(known: Catalogue) -> None:
    assert known.get("encoder", "cnn").cls is States
    assert known.get("encoder", "cnn", "state").owner is MINE


def test_an_unknown_name_is_answered_with_near_names_and_owners(known: Catalogue) -> None:
    with pytest.raises(PluginError) as caught:
        known.get("encoder", "ccn")
    assert str(caught.value) == (
        "no encoder called 'ccn'. Did you mean 'cnn'? Known: cnn (rlalgo-cnn 0.1); linear, mlp (rlalgo 1.0)"
    )


def test_nothing_near_and_nothing_known(known: Catalogue) -> None:
    with pytest.raises(PluginError, match=r"^no encoder called 'zzzz'\. Known: cnn"):
        known.get("encoder", "zzzz")
    with pytest.raises(PluginError, match=r"^no algo called 'dt'\. Known: none$"):
        known.get("algo", "dt")


def test_a_role_that_does_not_fit_names_those_that_do(known: Catalogue) -> None:
    with pytest.raises(PluginError) as caught:
        known.get("encoder", "cnn", "action")
    assert str(caught.value) == (
        "encoder 'cnn' cannot be an action encoder; its roles: state. Known: linear, mlp (rlalgo 1.0)"
    )


def test_a_clash_names_both_owners(known: Catalogue) -> None:
    with pytest.raises(PluginClash) as caught:
        known.add(Entry("encoder", "mlp", States, MINE))
    for part in (
        "encoder 'mlp'",
        "'base' (rlalgo 1.0)",
        "'rlalgo-cnn' (rlalgo-cnn 0.1)",
        "--no-plugin rlalgo-cnn",
    ):
        assert part in str(caught.value)
    assert known.get("encoder", "mlp").cls is Anything
    known.add(Entry("algo", "mlp", States, MINE))  # another kind: no clash


def test_broken_plugins_are_told_of_when_a_name_is_missing(known: Catalogue) -> None:
    known.broken["rlalgo-vit"] = "ImportError: no torchvision"
    with pytest.raises(PluginError, match=r"plugin 'rlalgo-vit' is broken: ImportError: no torchvision"):
        known.get("encoder", "vit")


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        (Owner("p", "dist", "1.2", "m"), "dist 1.2"),
        (Owner("p", None, None, "a/b.py"), "a/b.py"),
        (Owner("p"), "p"),
    ],
)
def test_an_owner_in_words(owner: Owner, text: str) -> None:
    assert str(owner) == text


def test_what_is_not_installed_names_its_distribution() -> None:
    """The repository's own plugins offer just what the table says."""
    with pytest.raises(PluginError, match=r"^no encoder called 'cnn' here; pip install rlalgo-cnn \(.*Known: none"):
        Catalogue().get("encoder", "cnn")
    known = rlutils.catalogue(("rlalgo_cnn", "rlalgo_atari", "rlalgo_trackers", "rlalgo_paper"))
    owners = {(kind, name): known.get(kind, name).owner.plugin for kind in known.entries for name in known.names(kind)}
    ours = {key: owner.replace("_", "-") for key, owner in owners.items() if owner.startswith("rlalgo_")}
    assert ours == SEPARATE
