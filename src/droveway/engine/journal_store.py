"""This file knows the journal that lasts: written off the hot path, in batches, into the store."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from droveway.clock import Alarm, Clock, SystemClock
from droveway.engine import statements
from droveway.engine.journal import Journal, last_arm
from droveway.engine.journal_upkeep import maintain
from droveway.engine.records import Bodies, Row
from droveway.engine.written import Written, attempt_values, request_values, written
from droveway.errors import StoreUnavailableError
from droveway.storage import Connection, Store, Value
from droveway.storage.moments import micros

LOG: Final = logging.getLogger("droveway")
FLUSH_AFTER_S: Final = 0.05
RETRY_AFTER_S: Final = 1.0
BATCH_MAX: Final = 256
# Rows that wait for a store that cannot be written: minutes of traffic, some 200 MB.
WAITING_MAX: Final = 100_000
ROWS_PER_STATEMENT: Final = 32
SINCE_EVER: Final = -(2**63)


class StoredJournal(Journal):
    """A journal whose rows outlive the process; it belongs to the event loop that appends.

    A row waits in memory for 50 ms at most, or until 256 of them do. Where the store cannot be
    written, rows wait for it, without their bodies; closing writes them down, or says that it
    could not.

    Args:
        store: Where the rows go; whoever made it closes it, after the journal.
        clock: Where the wait comes from.
        rows_kept: How many of the last rows are kept in memory besides.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None, rows_kept: int = 0) -> None:
        super().__init__(rows_kept=rows_kept)
        self._store = store
        self._clock: Clock = clock or SystemClock()
        self._waiting: deque[Row] = deque()
        self._alarm: Alarm | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._failure: StoreUnavailableError | None = None

    def append(self, row: Row) -> None:
        """Write a row down, soon; it is final."""
        super().append(row)
        self._waiting.append(row)
        if len(self._waiting) >= BATCH_MAX and self._failure is None:
            self._hand_over()
        elif self._alarm is None:
            self._wake_in(FLUSH_AFTER_S)

    def last_arm(self, conversation: bytes, *, since: datetime) -> str | None:
        """Return on which side of its role's move a conversation was last, in any process."""
        waiting = last_arm(self._waiting, conversation, since=since)
        if waiting is not None:
            return waiting
        kept = self._store.read(statements.LAST_ARM, (conversation, micros(since)))
        return None if not kept else kept[0][0]

    async def flush(self) -> None:
        """Wait until every row is written down.

        Raises:
            StoreUnavailableError: The store cannot be written; the rows go on waiting.
        """
        self._hand_over()
        while self._writing:
            await asyncio.wait(self._writing)
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        """Write every row down, and wait for nothing any more; the store stays open.

        Raises:
            StoreUnavailableError: The store cannot be written, and rows are lost.
        """
        try:
            await self.flush()
        except StoreUnavailableError as error:
            LOG.error("%d rows of the journal are lost: %s", len(self._waiting), error)  # noqa: TRY400 - one line says it
            raise
        finally:
            self._rest()

    async def maintain(self, *, keep_days: int) -> None:
        """Make the hourly sums and let old rows go, until cancelled.

        Args:
            keep_days: For how long rows are kept.
        """
        await maintain(self._store, clock=self._clock, keep_days=keep_days)

    def recent(
        self,
        limit: int = 100,
        *,
        since: datetime | None = None,
        model: str | None = None,
        key_id: str | None = None,
    ) -> list[Written]:
        """Return the last requests that were written down, the newest first.

        Args:
            limit: How many at most.
            since: Only those that came in at this moment or later.
            model: Only those that asked for it, were sent for it, or were served by it.
            key_id: Only those that came with this key.
        """
        start = SINCE_EVER if since is None else micros(since)
        rows = self._store.read(statements.RECENT, (start, model, key_id, limit))
        return [written(row) for row in rows]

    def following(self, seq: int, limit: int = 1_000, *, model: str | None = None) -> list[Written]:
        """Return the requests that were written down after one, the oldest first.

        Args:
            seq: The last one that is known; its `seq`, or 0 from the beginning.
            limit: How many at most.
            model: As for `recent`.
        """
        rows = self._store.read(statements.FOLLOWING, (seq, model, limit))
        return [written(row) for row in rows]

    def last_seq(self) -> int:
        """Return the `seq` of what was written down last; 0 where nothing was."""
        ((seq,),) = self._store.read(statements.LAST)
        return int(seq)

    def get(self, request_id: str) -> Written | None:
        """Return one request with its attempts; None where it is not (or no longer) there."""
        rows = self._store.read(statements.BY_ID, (request_id,))
        if not rows:
            return None
        kept = written(rows[0], self._store.read(statements.ATTEMPTS_OF, (request_id,)))
        bodies = self._store.read(statements.BODY_OF, (request_id,))
        return kept if not bodies else msgspec.structs.replace(kept, bodies=Bodies(*bodies[0]))

    def _wake_in(self, seconds: float) -> None:
        self._rest()
        self._alarm = self._clock.call_at(self._clock.monotonic() + seconds, self._hand_over)

    def _rest(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _hand_over(self) -> None:
        """Put what waits into the writer's queue, and go on at once."""
        self._rest()
        self._failure = None
        while self._waiting:
            size = min(BATCH_MAX, len(self._waiting))
            self._start([self._waiting.popleft() for _ in range(size)])

    def _start(self, batch: list[Row]) -> None:
        task = asyncio.get_running_loop().create_task(self._write(batch), name="journal")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, batch: list[Row]) -> None:
        try:
            await self._store.write(lambda db: add_rows(db, batch))
        except StoreUnavailableError as error:
            self._put_back(batch, error)
        except Exception:
            # One row that no table takes (a fault of ours) must not take its batch with it.
            if len(batch) == 1:
                LOG.exception("request %s has no row in the journal", batch[0].id)
                return
            for row in batch:
                self._start([row])

    def _put_back(self, batch: list[Row], error: StoreUnavailableError) -> None:
        if self._failure is None:
            LOG.warning("rows of the journal wait: %s", error)
        self._failure = error
        self._waiting.extendleft(_without_bodies(row) for row in reversed(batch))
        lost = max(0, len(self._waiting) - WAITING_MAX)
        for _ in range(lost):
            self._waiting.popleft()
        if lost:
            LOG.error("%d rows of the journal are lost: too many wait for the store", lost)
        self._wake_in(RETRY_AFTER_S)


def _without_bodies(row: Row) -> Row:
    # For minutes of traffic they would take more memory than there is.
    return row if row.bodies is None else msgspec.structs.replace(row, bodies=None)


def add_rows(db: Connection, batch: Sequence[Row]) -> None:
    """Write rows down in a transaction that somebody else has opened."""
    requests = [request_values(row) for row in batch]
    attempts = [values for row in batch for values in attempt_values(row)]
    _add_all(db, requests, add=statements.add_requests)
    _add_all(db, attempts, add=statements.add_attempts)
    for row in batch:
        if row.bodies is not None:
            db.run(statements.ADD_BODY, (row.id, row.bodies.request, row.bodies.answer))


def _add_all(db: Connection, rows: list[tuple[Value, ...]], *, add: Callable[[int], str]) -> None:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        chunk = rows[start : start + ROWS_PER_STATEMENT]
        values: list[Any] = [value for row in chunk for value in row]
        db.run(add(len(chunk)), values)
