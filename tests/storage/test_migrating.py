"""Migrations: forwards, whole, and never over what somebody else has made."""

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from droveway.clock import StillClock
from droveway.errors import SettingsError
from droveway.storage import Store, migrating
from droveway.storage.migrating import Step, steps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def change(path: Path, sql: str) -> None:
    driver = apsw.Connection(str(path))
    driver.execute(sql)
    driver.close()


def test_the_steps_are_numbered_without_a_gap() -> None:
    assert [step.number for step in steps()] == list(range(1, len(steps()) + 1))
    assert all(step.name.startswith(f"{step.number:04}_") for step in steps())


def test_a_new_file_gets_every_step_and_a_second_start_none(path: Path) -> None:
    clock = StillClock()
    Store(path, clock=clock).close()
    with Store(path, clock=clock) as store:
        kept = store.read("SELECT number, name, checksum, applied_at FROM migration")
        assert kept == [
            (step.number, step.name, step.checksum, clock.now().isoformat()) for step in steps()
        ]
        assert store.read("PRAGMA journal_mode") == [("wal",)]


def test_an_older_store_gets_what_it_lacks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = steps()
    monkeypatch.setattr(migrating, "steps", lambda: known[:1])
    Store(path).close()
    monkeypatch.undo()
    with Store(path) as store:
        assert store.read("SELECT max(number) FROM migration") == [(len(known),)]
        assert store.read("SELECT count(*) FROM request") == [(0,)]


def test_a_step_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Step(3, "0003_broken.sql", "CREATE TABLE early (x) STRICT; CREATE TABLE key (x)")
    known = steps()
    monkeypatch.setattr(migrating, "steps", lambda: [*known, broken])
    with pytest.raises(SettingsError, match="cannot be used"):
        Store(path)
    monkeypatch.undo()
    with Store(path) as store:
        assert store.read("SELECT name FROM sqlite_schema WHERE name = 'early'") == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("INSERT INTO migration VALUES (999, '0999_x.sql', 'x', 'x')", "newer Droveway"),
        ("UPDATE migration SET checksum = 'x' WHERE number = 1", "steps other than ours"),
        ("DELETE FROM migration WHERE number = 1", "steps other than ours"),
        ("DELETE FROM migration", "half-applied .* every step"),
        ("DROP TABLE attempt", "half-applied .* attempt"),
        ("DROP TRIGGER key_changed", "half-applied .* key_changed"),
        ("DROP INDEX key_in_use", "half-applied .* key_in_use"),
        ("ALTER TABLE key ADD COLUMN mood TEXT", "half-applied .* key is not"),
    ],
)
def test_a_store_that_is_not_as_we_leave_one_is_refused(sql: str, said: str, path: Path) -> None:
    Store(path).close()
    change(path, sql)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=said) as refused:
        Store(path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX own ON request (asked)",
        "CREATE VIEW own AS SELECT * FROM hour",
        "CREATE TABLE own (x)",
        "ANALYZE",
    ],
)
def test_what_an_operator_adds_is_theirs(sql: str, path: Path) -> None:
    Store(path).close()
    change(path, sql)
    Store(path).close()


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    change(path, "CREATE TABLE cats (name TEXT)")
    with pytest.raises(SettingsError, match="database of something else"):
        Store(path)


def test_who_comes_second_finds_the_work_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: another process migrates between our look and our lock."""
    keep: Callable[[apsw.Connection], None] = migrating._keep_a_log

    def late(driver: apsw.Connection) -> None:
        monkeypatch.setattr(migrating, "_keep_a_log", keep)
        Store(path).close()
        keep(driver)

    monkeypatch.setattr(migrating, "_keep_a_log", late)
    with Store(path) as store:
        assert store.read("SELECT count(*) FROM migration") == [(len(steps()),)]
