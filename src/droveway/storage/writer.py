"""This file knows the one thread that writes: it takes what is waiting and commits it together.

Theory of operation
-------------------
Many callers put work into a queue; one thread takes all that waits, runs it in one transaction
and commits once: the busier it is, the larger the group, and one commit costs the same for one
as for hundreds. Each work has a savepoint of its own, so that one that fails takes only its own
changes back. Nobody is told before the commit.

SQLite takes a whole transaction back by itself where the disk is full or failed, and a commit
may fail: then every work of the group is tried once more, alone, so that those that fit get in.
A work may therefore run twice, and touches nothing but its connection. Where the transaction
does not even begin, the file is locked for longer than the patience, or its name is gone: the
whole group is told.

A commit is in the log when it is told, and outlives the process. What outlives a loss of power is
what was synced: a FULL commit waits for the disk, and takes all commits before it along, whoever
made them. A durable work makes the commit of its group FULL; with `sync_every_s` so is any commit
that comes at least that long after the last FULL one. One that has changed nothing syncs nothing,
and does not count. What comes last before a silence is synced by the thread of the checkpoints.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import apsw

from droveway.clock import Clock
from droveway.errors import DrovewayError, StoreUnavailableError
from droveway.storage.connection import Connection, unavailable
from droveway.storage.opening import Original, connect_to_write

LOG: Final = logging.getLogger("droveway")
GROUP_MAX: Final = 512
_FULL: Final = "PRAGMA synchronous = FULL"
_NORMAL: Final = "PRAGMA synchronous = NORMAL"


@dataclass(slots=True, eq=False)
class Job:
    """One work in the queue, and whoever wants to know how it went.

    Attributes:
        work: What is done; it may run twice.
        waiter: Told on its own loop; None where nobody waits.
        on_failure: Told in the writer thread, where nobody waits; without one it is logged.
        durable: Whether its commit must be on the disk before anybody is told.
    """

    work: Callable[[Connection], Any]
    waiter: "asyncio.Future[Any] | None" = None
    on_failure: Callable[[Exception], None] | None = None
    durable: bool = False
    result: Any = None
    error: Exception | None = field(default=None)


class Writer:
    """The thread, its queue and its connection; the thread starts with the first work.

    Args:
        original: The database, all its tables there.
        on_commit: Told in the writer thread after each commit.
        clock: Says how long ago the last FULL commit was.
        sync_every_s: A commit at least so long after the last FULL one is FULL too; None where
            only durable works ask for it.

    Attributes:
        commits: How many transactions were committed.
    """

    def __init__(
        self,
        original: Original,
        *,
        on_commit: Callable[[], None],
        clock: Clock,
        sync_every_s: float | None = None,
    ) -> None:
        self._original = original
        self._on_commit = on_commit
        self._clock = clock
        self._sync_every_s = sync_every_s
        self._synced_at: float | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._full: bool | None = None
        self._logged = False
        self.commits = 0

    def put(self, job: Job) -> None:
        """Put a work into the queue.

        Raises:
            StoreUnavailableError: The store is closed, or has no thread to write with.
        """
        with self._door:
            if self._closed:
                raise StoreUnavailableError(f"the store {self._original.said!r} is closed")
            if self._thread is None:
                self._thread = self._start()
            self._jobs.put(job)

    def close(self) -> None:
        """Do what is waiting, and end the thread."""
        with self._door:
            self._closed = True
            self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="droveway-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StoreUnavailableError(
                f"the store {self._original.said!r} gets no thread ({error}); let the process have "
                "more"
            ) from error
        return thread

    def _run(self) -> None:
        driver: apsw.Connection | None = None
        last = False
        while not last:
            group, last = self._take()
            try:
                driver = driver or self._connect()
                self._do(driver, group)
            except Exception as error:  # noqa: BLE001 - the writer thread is a door: it records
                for job in group:
                    job.error = self._blame(error)
                # Nobody knows what state it is in: the next group gets a new one.
                _discard(driver)
                driver = None
            _tell(group)
        if driver is not None:
            driver.close()

    def _connect(self) -> apsw.Connection:
        self._original.check()
        driver = connect_to_write(self._original.path)
        driver.set_wal_hook(self._note_log)
        self._full = None
        return driver

    def _note_log(self, _driver: apsw.Connection, _name: str, _pages: int) -> int:
        """Be told by SQLite that a commit has put something into the log."""
        self._logged = True
        return apsw.SQLITE_OK

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for work, and take all of it; also say whether it is the last."""
        group: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == GROUP_MAX:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _do(self, driver: apsw.Connection, group: Sequence[Job]) -> None:
        if not group:
            return
        full = any(job.durable for job in group) or self._is_due()
        self._logged = False
        try:
            self._original.check()
            if full is not self._full:
                driver.execute(_FULL if full else _NORMAL)
                self._full = full
            driver.execute("BEGIN IMMEDIATE")
        except (apsw.Error, StoreUnavailableError) as error:
            for job in group:
                job.error = self._blame(error)
            return
        broken = self._together(driver, group)
        if broken is None:
            self.commits += 1
            if full and self._logged and self._sync_every_s is not None:
                self._synced_at = self._clock.monotonic()
            self._on_commit()
        elif len(group) == 1:
            group[0].error = self._blame(broken)
        else:
            for job in group:
                self._do(driver, [job])

    def _is_due(self) -> bool:
        """Whether the last FULL commit is so long ago that this one must be FULL."""
        if self._sync_every_s is None:
            return False
        if self._synced_at is None:
            return True
        return self._clock.monotonic() - self._synced_at >= self._sync_every_s

    def _together(self, driver: apsw.Connection, group: Sequence[Job]) -> Exception | None:
        """Run a group in the open transaction and commit; what broke it, where it was broken."""
        connection = Connection(driver)
        try:
            for job in group:
                job.result = job.error = None
                driver.execute("SAVEPOINT work")
                try:
                    job.result = job.work(connection)
                except Exception as error:  # noqa: BLE001 - the writer thread is a door: it records
                    if not driver.in_transaction:
                        return error
                    job.error = self._blame(error)
                    driver.execute("ROLLBACK TO work")
                driver.execute("RELEASE work")
            driver.execute("COMMIT")
        except apsw.Error as error:
            if driver.in_transaction:
                driver.execute("ROLLBACK")
            return error
        return None

    def _blame(self, error: Exception) -> Exception:
        if isinstance(error, DrovewayError):
            return error
        blamed = unavailable(error, self._original.said)
        if blamed is not None:
            blamed.__cause__ = error
        return blamed or error


def _discard(driver: apsw.Connection | None) -> None:
    if driver is not None:
        try:
            driver.close()
        except apsw.Error:
            LOG.exception("a broken connection to the store could not be closed")


def _tell(group: Sequence[Job]) -> None:
    """Tell everybody who waits, with one call for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in group:
        if job.waiter is not None:
            loops.setdefault(job.waiter.get_loop(), []).append(job)
        elif job.error is None:
            continue
        elif job.on_failure is not None:
            job.on_failure(job.error)
        else:
            LOG.error("a write that nobody waited for failed", exc_info=job.error)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:
            # The loop is closed, and with it everybody who waited there.
            LOG.warning("%d works were done for an event loop that is closed", len(jobs))


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        waiter = job.waiter
        if waiter is None or waiter.done():
            continue
        if job.error is not None:
            waiter.set_exception(job.error)
        else:
            waiter.set_result(job.result)
