"""This file knows which process may end a hold: the one that took it, as long as it lives.

A process that serves with money takes a lock on a file of its own beside the store, then writes
its epoch down. The kernel frees the lock when the process is gone, however it went. A server that
starts looks at every epoch that has not ended: where it can take the lock, nobody lives who could
end those holds, and it resolves them. It never does so by age.
"""

import fcntl
import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from droveway.errors import SettingsError
from droveway.ledger import statements
from droveway.ledger.holds import Bury, resolve
from droveway.storage import Connection, Store
from droveway.storage.moments import micros


class Epoch:
    """The time in which this process may hold money.

    Attributes:
        id: Its name in the store and of its file.
    """

    def __init__(self, store: Store, epoch_id: str, *, lock: int, bury: Bury | None = None) -> None:
        self.id = epoch_id
        self._store = store
        self._lock = lock
        self._bury = bury

    @classmethod
    async def begin(cls, store: Store, *, at: datetime, bury: Bury | None = None) -> Self:
        """Begin an epoch, and resolve what processes that died have left held.

        Args:
            store: Where the holds are.
            at: When.
            bury: Writes down what is to be told of a request that died, where it is charged.

        Raises:
            SettingsError: The lock's file cannot be made or locked.
            StoreUnavailableError: The store cannot be written.
        """
        epoch_id = f"epoch-{secrets.token_hex(8)}"
        lock = _locked(_file(store, epoch_id))
        assert lock is not None, "nobody else knows that name"
        epoch = cls(store, epoch_id, lock=lock, bury=bury)
        try:
            await store.write(lambda db: db.run(statements.ADD_EPOCH, (epoch_id, micros(at))))
            await epoch.resolve_the_dead(at=at)
        except BaseException:
            # It never held anything; whether its row was written or not, the next one ends it.
            os.close(lock)
            raise
        return epoch

    async def resolve_the_dead(self, *, at: datetime) -> int:
        """End the holds of processes that are no more.

        Returns:
            How many holds that were.
        """
        resolved = 0
        for (other,) in self._store.read(statements.EPOCHS, (self.id,)):
            file = _file(self._store, other)
            lock = _locked(file)
            if lock is None:
                continue  # it lives
            try:
                resolved += await self._store.write(
                    partial(_end, epoch_id=other, at=at, bury=self._bury)
                )
                file.unlink(missing_ok=True)
            finally:
                os.close(lock)
        return resolved

    async def end(self, *, at: datetime) -> None:
        """End it in order; what is still held is resolved as that of a process that died."""
        try:
            await self._store.write(partial(_end, epoch_id=self.id, at=at, bury=self._bury))
            _file(self._store, self.id).unlink(missing_ok=True)
        finally:
            os.close(self._lock)


def _end(db: Connection, *, epoch_id: str, at: datetime, bury: Bury | None = None) -> int:
    held: Sequence[tuple[str]] = db.rows(statements.HOLDS_OF_EPOCH, (epoch_id,))
    ended = sum(resolve(db, hold_id, at=at, bury=bury) for (hold_id,) in held)
    db.run(statements.END_EPOCH, (micros(at), epoch_id))
    return ended


def _file(store: Store, epoch_id: str) -> Path:
    return store.path.with_name(f"{store.path.name}-{epoch_id}")


def _locked(file: Path) -> int | None:
    """Take the lock of a file; None where another process has it."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"cannot make {str(file)!r} ({error.strerror}); make its folder writable"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise SettingsError(
            f"cannot lock {str(file)!r} ({error.strerror}); keep the store on a local disk"
        ) from error
    return descriptor
