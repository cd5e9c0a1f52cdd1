"""`faults`: nothing where all is well, and every kind of damage by its rule."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from books import damage, usd
from droveway.ledger import Book, audit, faults
from droveway.ledger.rules import RULES
from droveway.storage import Store
from lab import run
from ledger.damages import BALANCE, DAMAGES, OTHER
from ledger.sound import fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a ledger in which every kind of thing has happened."""
    with Store(tmp_path_factory.mktemp("sound") / "a.db") as store:
        run(fill(store))
        assert faults(store) == []
    return store.path


@pytest.fixture
def sound(filled: Path, tmp_path: Path) -> Iterator[Store]:
    """It, to be damaged."""
    with Store(shutil.copy(filled, tmp_path / "a.db")) as store:
        yield store


def test_a_sound_ledger_is_counted(sound: Store) -> None:
    told = audit(sound)
    assert (told.accounts, told.transfers, told.holds, told.faults) == (7, 24, 16, ())


@pytest.mark.parametrize(("sql", "rules"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_by_its_rule(sql: str, rules: set[str], sound: Store) -> None:
    damage(sound, sql)
    found = faults(sound)
    assert {each.rule for each in found} == rules
    assert all(each.what and each.found for each in found)
    assert audit(sound).faults == tuple(found)


def test_every_rule_finds_some_damage() -> None:
    assert set().union(*(rules for _, rules in DAMAGES.values())) == set(RULES)


def test_a_fault_says_where_it_is_and_what_stands_there(sound: Store) -> None:
    other = Book(sound).show("other").id
    damage(sound, f"UPDATE account SET posted_nano = 7 WHERE id = {OTHER}")
    assert next((each.rule, each.what, each.found) for each in faults(sound)) == (
        BALANCE,
        other,
        "7, 4400000000",
    )


def test_requests_on_their_way_are_no_faults(sound: Store) -> None:
    """Spec: it may be asked beside a running server."""
    assert Book(sound).show("other").held == usd("2.7")
    assert faults(sound) == []
