"""This file knows how the write-ahead log is moved into the database, off the writer's thread.

A checkpoint in the writer's thread is the slowest thing a commit can wait for: beside it the 99th
percentile of a transaction was measured at 3.4 ms, with checkpoints in another thread at 0.25 ms.

Whatever was committed is on the disk when a round ends: a log that could be moved whole was synced
before, any other is synced by itself. So a loss of power takes what was committed since the last
round began, and nothing once a store has been silent for a round.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Final

import apsw

from droveway.storage.opening import connect_to_write

LOG: Final = logging.getLogger("droveway")
EVERY_S: Final = 0.2
# A log that never rests never starts over by itself: beyond 64 MiB the writers wait for it once.
LOG_PAGES_MAX: Final = 16_384
# A log that starts over holds the writers up until its last reader is done. Who reads for long, as
# a backup does, would hold them up for all that time; such a reader leaves many pages behind.
LAG_PAGES_MAX: Final = 1_024
PATIENCE_MS: Final = 100


class Checkpoints:
    """A thread that sleeps until something was committed, and tidies up a little later.

    Args:
        path: The database.
        every_s: How long after a commit the log is synced and moved, at the latest.
    """

    def __init__(self, path: Path, *, every_s: float | None = None) -> None:
        self._path = path
        self._every_s = EVERY_S if every_s is None else every_s
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._driver: apsw.Connection | None = None
        self._failing = False

    def committed(self) -> None:
        """Be told of a commit."""
        self._dirty.set()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="droveway-checkpoints", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # What was committed is committed; the next commit tries again.
                self._warn(error)
                return
            self._thread = thread

    def close(self) -> None:
        """Do a last round, and end the thread; what stays in the log is safe there."""
        self._stop.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            last = False
            while not last:
                self._dirty.wait()
                self._stop.wait(self._every_s)
                self._dirty.clear()
                # Asked after that: else the mark that was cleared may be the one of `close`.
                last = self._stop.is_set()
                self._tidy()
        finally:
            if self._driver is not None:
                self._driver.close()

    def _tidy(self) -> None:
        """Have everything that is committed by now on the disk, and move what may be moved."""
        try:
            if not self._move():
                self._sync()
        except (apsw.Error, OSError) as error:
            # The place may be gone, full or broken for a while: the next round is soon.
            self._dirty.set()
            self._warn(error)
        else:
            self._failing = False

    def _move(self) -> bool:
        """Move what nobody reads any more; whether that was the whole log, which is synced then."""
        if self._driver is None:
            self._driver = connect_to_write(self._path)
            self._driver.set_busy_timeout(PATIENCE_MS)
        whole = False
        try:
            pages, moved = self._driver.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            whole = moved == pages
            if pages > LOG_PAGES_MAX and pages - moved < LAG_PAGES_MAX:
                self._driver.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.BusyError:
            # Another process is at it, or a long reader needs the log: the next round is soon.
            self._dirty.set()
        return whole

    def _sync(self) -> None:
        """Sync the log as it stands; SQLite does so only where there is something to move."""
        # No lock of SQLite is on this file, so closing it frees none.
        log = os.open(f"{self._path}-wal", os.O_RDWR)
        try:
            os.fsync(log)
        finally:
            os.close(log)

    def _warn(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            LOG.warning("the store's log could not be moved into its file: %s", error)
