"""This file knows a process that dies: its connection, its writer, and what it leaves behind.

The writer and the connection are the real ones; only what they are driven by counts statements.
There are no threads here: what is written is written where it is asked for.
"""

import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from unittest.mock import patch

import apsw

from droveway.clock import StillClock
from droveway.ledger import Epoch
from droveway.storage import Connection, Store, Value
from droveway.storage.opening import Original, connect
from droveway.storage.writer import Job, Writer
from ledger.errands import Errand

T = TypeVar("T")
# A process dies after so many statements at the latest, or right after so many commits.
STATEMENTS: Final = (4, 250)
COMMITS: Final = (1, 25)


class DeathError(BaseException):
    """The process is no more: nothing in it catches this."""


class Driver:
    """A connection of a process that dies: after so many statements, or after so many commits."""

    def __init__(self, path: Path, *, statements: int | None, commits: int | None) -> None:
        self._driver = connect(path)
        self._statements_left = statements
        self._last_commit = commits
        self.commits = 0

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> apsw.Cursor:
        if self._statements_left is not None:
            self._statements_left -= 1
            if self._statements_left <= 0:
                raise DeathError
        cursor = self._driver.execute(sql, parameters)
        if sql == "COMMIT":
            self.commits += 1
            if self.commits == self._last_commit:
                raise DeathError  # whoever waits would be told a moment later
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class Process:
    """A process; to the rooms above it, the store.

    Args:
        path: The file that all of them share.
        chance: Says when it dies; without it, it lives.
        on_write: Told after whatever it has written by itself, also where it died of that.
    """

    def __init__(
        self,
        path: Path,
        *,
        chance: random.Random | None = None,
        on_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.driver = Driver(
            path,
            statements=None if chance is None else chance.randint(*STATEMENTS),
            commits=None if chance is None else chance.randint(*COMMITS),
        )
        self.queue: list[Errand] = []
        self.epoch: Epoch | None = None
        self._on_write = on_write
        self._writer = Writer(Original.of(path), on_commit=lambda: None, clock=StillClock())

    async def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """As a store does it; here it is done at once, alone in its group."""
        job = Job(work)
        try:
            self.commit([job])
        finally:
            self._on_write()
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    def commit(self, group: Sequence[Job]) -> None:
        """Do it in one transaction."""
        self._writer._do(cast("apsw.Connection", self.driver), group)

    def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self.driver.execute(sql, parameters).fetchall()

    def as_store(self) -> Store:
        return cast("Store", self)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("there is nothing here to wait for")


@contextmanager
def names(seed: int | str) -> Iterator[None]:
    """Draw the ids from the seed, too: one seed is one world."""
    chance = random.Random(seed)
    with (
        patch("secrets.token_hex", lambda count: chance.randbytes(count).hex()),
        patch("secrets.choice", chance.choice),
    ):
        yield
