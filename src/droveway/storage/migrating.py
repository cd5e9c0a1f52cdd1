"""This file knows how a database gets its tables: numbered steps, each whole or not at all.

Theory of operation
-------------------
Each step is a file of SQL that is never changed once it was released. A step and its entry in
the table `migration` are one transaction, so a step that was cut off has left nothing. The entry
keeps a checksum of the file. At start the entries must be the first ones of ours, with the same
checksums (or this database belongs to a newer or another release), and everything that those
steps make must be there as they make it (or somebody took a piece away by hand); what others
have added beside it is theirs. Several processes may start at once: the first takes the write
lock, the others find the work done.
"""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from importlib import resources
from pathlib import Path
from threading import Event
from typing import Any, Final, NamedTuple

import apsw

from droveway.errors import SettingsError
from droveway.storage.opening import connect, refusal

_RECORD: Final = """
CREATE TABLE migration (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied_at TEXT NOT NULL
) STRICT
"""
_ENTRIES: Final = "SELECT number, checksum FROM migration ORDER BY number"
_NOTE: Final = "INSERT INTO migration (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)"
_MADE: Final = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
# Switching a new file to its log is the one step for which SQLite does not wait by itself.
_WAL_TRIES: Final = 500
_WAL_PAUSE_S: Final = 0.01


class Step(NamedTuple):
    """One file of SQL."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Its print, the same on every machine."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def steps() -> list[Step]:
    """Return all steps, first one first."""
    folder = resources.files("droveway.storage") / "migrations"
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")),
                   key=lambda each: each.name)  # fmt: skip
    return [Step(int(each.name[:4]), each.name, each.read_text(encoding="utf-8")) for each in files]


def prepare(path: Path, *, now: datetime) -> None:
    """Bring a database up to date.

    Raises:
        SettingsError: It is newer, half-applied, changed by hand, or not one of ours.
    """
    try:
        with closing(connect(path)) as driver:
            _migrate(driver, path, now=now)
    except apsw.Error as error:
        raise refusal(error, path) from error


def _migrate(driver: apsw.Connection, path: Path, *, now: datetime) -> None:
    known = steps()
    if _applied(driver, known, path) == len(known):
        return
    _keep_a_log(driver)
    driver.execute("BEGIN IMMEDIATE")
    try:
        # Somebody else may have been faster: behind the lock the count is final.
        for step in known[_applied(driver, known, path) :]:
            _apply(driver, step, now=now)
        driver.execute("COMMIT")
    except BaseException:
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise


def _applied(driver: apsw.Connection, known: Sequence[Step], path: Path) -> int:
    """Return how many steps are done, or refuse a database that is not as we leave one."""
    made = set(driver.execute(_MADE).fetchall())
    if not made:
        return 0
    if not any(name == "migration" for _, name, _ in made):
        raise SettingsError(f"{str(path)!r} is a database of something else; name another file")
    entries = driver.execute(_ENTRIES).fetchall()
    if len(entries) > len(known):
        raise SettingsError(
            f"the store {str(path)!r} was made by a newer Droveway (step {entries[-1][0]}, this "
            f"one knows {len(known)}); upgrade, or name another file"
        )
    done = known[: len(entries)]
    if entries != [(step.number, step.checksum) for step in done]:
        raise SettingsError(
            f"the store {str(path)!r} was made by steps other than ours; restore a backup, or "
            "name another file"
        )
    missing = sorted(name for _, name, _ in _makes(done) - made)
    if missing or not done:
        raise SettingsError(
            f"the store {str(path)!r} is half-applied or was changed by hand: "
            f"{', '.join(missing) or 'every step'} is not as it was made; restore a backup, or "
            "name another file"
        )
    return len(done)


def _makes(done: Sequence[Step]) -> set[tuple[Any, ...]]:
    """Return what these steps make, by making it in memory."""
    with closing(apsw.Connection(":memory:")) as scratch:
        for step in done:
            scratch.execute(step.sql)
        return set(scratch.execute(_MADE).fetchall())


def _apply(driver: apsw.Connection, step: Step, *, now: datetime) -> None:
    if step.number == 1:
        driver.execute(_RECORD)
    driver.execute(step.sql)
    driver.execute(_NOTE, (step.number, step.name, step.checksum, now.isoformat()))


def _keep_a_log(driver: apsw.Connection) -> None:
    """Switch to the write-ahead log, so that readers and the writer do not wait for each other."""
    for left in reversed(range(_WAL_TRIES)):
        try:
            driver.execute("PRAGMA journal_mode = WAL")
        except apsw.BusyError:
            if not left:
                raise
            Event().wait(_WAL_PAUSE_S)
        else:
            return
