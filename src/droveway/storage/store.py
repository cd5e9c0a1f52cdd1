"""This file knows the store: one database file, one writer thread, a reader for each thread."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import apsw

from droveway.clock import Clock, SystemClock
from droveway.errors import StoreUnavailableError
from droveway.storage.backup import Progress, back_up
from droveway.storage.checkpoints import Checkpoints
from droveway.storage.connection import Connection, Value, unavailable
from droveway.storage.migrating import prepare
from droveway.storage.opening import Original, connect, ensure_file, path_of
from droveway.storage.writer import Job, Writer

T = TypeVar("T")
_VERSION: Final = "PRAGMA data_version"


class Store:
    """A database that several processes may have open at once.

    Reading is done where it is asked for: a look-up takes microseconds. Writing is done by one
    thread, in groups. Close it, or use it in a `with`: closing writes down what is waiting.

    What was committed outlives the process, however it ends. A loss of power takes no durable
    write and nothing that was committed before one; of the rest it may take what was committed in
    the last `sync_every_s`, or in some tenths of a second without it, and a little more on a disk
    that takes long to sync. What is taken is the end: never a part of a commit, never an earlier
    one without all later ones.

    Args:
        url_or_path: `sqlite:FILE`, relative to the working directory, or a path.
        clock: Where the moment of a migration comes from, and how long ago the last sync was.
        create: Whether the file is made where there is none.
        sync_every_s: Have one commit in so many seconds wait for the disk, and the last one
            before a silence synced as soon; None where only durable writes wait.

    Raises:
        SettingsError: The database cannot be used; nothing was started.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        *,
        clock: Clock | None = None,
        create: bool = True,
        sync_every_s: float | None = None,
    ) -> None:
        self.path: Final = path_of(url_or_path)
        clock = clock or SystemClock()
        ensure_file(self.path, create=create)
        prepare(self.path, now=clock.now())
        self._original = Original.of(self.path)
        self._checkpoints = Checkpoints(self._original.path, every_s=sync_every_s)
        self._writer = Writer(
            self._original,
            on_commit=self._checkpoints.committed,
            clock=clock,
            sync_every_s=sync_every_s,
        )
        self._of_thread = threading.local()
        self._readers: list[apsw.Connection] = []
        self._door = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Run a work in the writer thread and wait until it is committed.

        A cancelled caller stops waiting; the work is done all the same.

        Args:
            work: Reads and writes; it may run twice, so it touches nothing but its connection.
            durable: Whether it outlives a loss of power from then on, and all that was committed
                before it; it takes some milliseconds then.

        Returns:
            What the work returned.

        Raises:
            StoreUnavailableError: Nothing of it was written; later it may succeed.
        """
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.put(Job(work, waiter=waiter, durable=durable))
        return await waiter

    def write_soon(
        self,
        work: Callable[[Connection], object],
        *,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run a work in the writer thread, and wait for nothing.

        Args:
            work: As for `write`.
            on_failure: Told in the writer thread when it failed; without one it is logged.

        Raises:
            StoreUnavailableError: The store is closed.
        """
        self._writer.put(Job(work, on_failure=on_failure))

    async def flush(self) -> None:
        """Wait until everything that was put before is written down, or was told to have failed."""
        await self.write(lambda _: None)

    def read(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one statement that only reads, here and now, and return all its rows.

        Raises:
            StoreUnavailableError: The database cannot be read.
        """
        try:
            return self._reader().execute(sql, parameters).fetchall()
        except apsw.Error as error:
            self._blame(error)
            raise

    def data_version(self) -> tuple[int, int]:
        """Return a mark that changes with every commit of anybody, in whatever process.

        Two marks of different threads are never equal.
        """
        try:
            reader = self._reader()
            version: int = reader.execute(_VERSION).get
        except apsw.Error as error:
            self._blame(error)
            raise
        return id(reader), version

    def backup(self, target: Path, *, on_progress: Progress | None = None) -> None:
        """Copy the store as it is at this moment, also while others write; not on an event loop.

        The copy holds every commit that was told before the call. It is one file, its owner's
        alone, has a name only when it is whole and on the disk, and is a store like this one.
        Writers are not held up, but the log of this store grows until the copy is done.

        Args:
            target: A file that does not exist, in a folder that does.
            on_progress: Told now and then how many pages are copied, and of how many.

        Raises:
            SettingsError: The target exists, or cannot be written; nothing has its name.
            StoreUnavailableError: The store is closed or gone, or cannot be read.
        """
        if self._closed:
            raise StoreUnavailableError(f"the store {str(self.path)!r} is closed")
        self._original.check()
        back_up(self.path, target, on_progress=on_progress)

    @property
    def commits(self) -> int:
        """How many transactions this process has committed."""
        return self._writer.commits

    def close(self) -> None:
        """Write down what is waiting, end the threads and close every connection."""
        with self._door:
            if self._closed:
                return
            self._closed = True
        self._writer.close()
        self._checkpoints.close()
        with self._door:
            for reader in self._readers:
                reader.close()
            self._readers.clear()

    async def aclose(self) -> None:
        """Close without holding the event loop up."""
        await asyncio.to_thread(self.close)

    def _blame(self, error: apsw.Error) -> None:
        blamed = unavailable(error, str(self.path))
        if blamed is not None:
            raise blamed from error

    def _reader(self) -> apsw.Connection:
        try:
            reader: apsw.Connection = self._of_thread.reader
        except AttributeError:
            reader = self._open_reader()
        return reader

    def _open_reader(self) -> apsw.Connection:
        with self._door:
            if self._closed:
                raise StoreUnavailableError(f"the store {str(self.path)!r} is closed")
            reader = connect(self.path, read_only=True)
            self._readers.append(reader)
        self._of_thread.reader = reader
        return reader
