"""This file knows a connection to the database, and what to say when the database fails."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from droveway.errors import StoreUnavailableError

Value = str | int | float | bytes | None

# What is wrong with the place or the moment, and what to do; anything else is a fault of ours.
_ADVICE: Final[tuple[tuple[type[apsw.Error], str, str], ...]] = (
    (apsw.FullError, "is full", "free space on its disk"),
    (apsw.BusyError, "is locked by another process", "try again, or find out who holds it"),
    (apsw.LockedError, "is locked by another reader", "try again"),
    (apsw.ReadOnlyError, "cannot be written", "make the file and its folder writable"),
    (apsw.PermissionsError, "cannot be written", "make the file and its folder writable"),
    (apsw.CantOpenError, "cannot be opened", "look at the file, its folder and their rights"),
    (apsw.NotADBError, "is no database", "name another file"),
    (apsw.CorruptError, "is damaged", "restore it from a backup"),
    (apsw.IOError, "cannot be read or written", "look at its disk"),
    (apsw.ConnectionClosedError, "is closed", "open it again"),
    (apsw.NoMemError, "has no memory left", "give the process more"),
)


class Connection:
    """One connection; what a piece of work gets to work with.

    Args:
        driver: The driver's own connection.
    """

    __slots__ = ("_driver",)

    def __init__(self, driver: apsw.Connection) -> None:
        self._driver = driver

    def rows(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        return self._driver.execute(sql, parameters).fetchall()

    def run(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run one statement and return how many rows it changed."""
        self._driver.execute(sql, parameters)
        return self._driver.changes()

    def run_many(self, sql: str, parameters: Iterable[Sequence[Value]]) -> None:
        """Run one statement once for each set of parameters."""
        self._driver.executemany(sql, parameters)


def unavailable(error: BaseException, path: str) -> StoreUnavailableError | None:
    """Say in one line what is wrong with the store; None where it is not the store's fault."""
    for kind, what, advice in _ADVICE:
        if isinstance(error, kind):
            return StoreUnavailableError(f"the store {path!r} {what} ({error}); {advice}")
    return None
