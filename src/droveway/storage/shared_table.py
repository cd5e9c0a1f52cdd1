"""This file knows a table of whole numbers, found by name, that all processes of a store share.

Theory of operation
-------------------
The table is a file that is mapped into memory, or memory alone where there is no file. It has a
fixed number of slots. A slot is a mark (a hash of its name), some numbers of its owner's, and a
count of places for each seat; a seat is one process that has the table open.

A slot is changed only by who holds its lock, for a few microseconds. A name has its slot within a
window behind the place its hash points at; slots are given out under the lock of the whole table,
which is taken before a slot's and never after. A slot whose numbers are over and whose places are
all free may be given to another name, but is never unused again: so a search may end at the first
slot that was never used. Whoever held a slot in mind finds another mark in it and searches again.

All of this is for one thread of each process, the event loop's.
"""

import errno
import hashlib
import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage.byte_locks import HAVE_LOCKS, WAIT, freeing, locking, set_lock
from droveway.storage.seats import Numbers, Seats
from droveway.storage.table_file import (
    HEAD,
    SEATS,
    SLOT_LOCKS,
    TABLE_LOCK,
    Measures,
    open_table_file,
)

LOG: Final = logging.getLogger("droveway")
SLOTS: Final = 16_384
WINDOW: Final = 128
_NEVER_USED: Final = (0, 0)
_MARK: Final = struct.Struct("=qq")


class Slot:
    """One name's part of the table.

    Attributes:
        numbers: Its owner's numbers; to be touched by who holds its lock.
    """

    __slots__ = ("index", "mark", "name", "numbers", "places", "seen", "to_free", "to_lock")

    def __init__(self, name: str, index: int, view: Numbers, *, mark: tuple[int, int]) -> None:
        self.name = name
        self.index = index
        self.mark = mark
        self.seen = view[:2]
        self.numbers = view[2:-SEATS]
        self.places = view[-SEATS:]
        self.to_lock = locking(SLOT_LOCKS + index)
        self.to_free = freeing(SLOT_LOCKS + index)

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self.seen, self.numbers, self.places):
            view.release()


def mark_of(name: str) -> tuple[int, int]:
    """Return the two numbers by which a name's slot is known."""
    low, high = _MARK.unpack(hashlib.blake2b(name.encode(), digest_size=16).digest())
    return low, high


class SharedTable:
    """A table that several processes of one machine use at once.

    Args:
        path: Its file; None for a table of this process alone. Where the system has no locks for
            it, a file is left alone, and a line in the log says so.
        numbers: How many numbers a name has.
        is_over: Whether numbers have no meaning any more, so that another name may have the slot.
        slots: How many names there is room for.

    Raises:
        SettingsError: The file cannot be used.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        numbers: int,
        is_over: Callable[[Numbers], bool],
        slots: int = SLOTS,
    ) -> None:
        if path is not None and not HAVE_LOCKS:
            LOG.warning("this system cannot share limits: they hold in each process by itself")
            path = None
        self._path = path
        self._measures = Measures(slots=slots, numbers=numbers)
        self._is_over = is_over
        self._known: dict[str, Slot] = {}
        self._name_at: dict[int, str] = {}
        self._closed = False
        self._file: int | None = None
        if path is None:
            self._map = mmap.mmap(-1, self._measures.size, access=mmap.ACCESS_COPY)
        else:
            self._file = open_table_file(path, self._measures)
            self._map = mmap.mmap(self._file, self._measures.size)
        self._all = memoryview(self._map).cast("q")
        self._seats = Seats(self._all, self._file)
        self._sit_down()

    def lock(self, name: str) -> Slot:
        """Return the slot of a name, locked; it is given one where it has none.

        Raises:
            StoreUnavailableError: There is no room, or the file cannot be locked or written.
        """
        if self._closed:
            raise StoreUnavailableError("the table of limits is closed")
        while True:
            slot = self._known.get(name) or self._find(name)
            if self.lock_again(slot):
                return slot

    def lock_again(self, slot: Slot) -> bool:
        """Lock a slot that was had before; False, and no lock, where it is another name's by now.

        Raises:
            StoreUnavailableError: The file cannot be locked.
        """
        if self._known.get(slot.name) is not slot:
            return False
        self._acquire(slot)
        if (slot.seen[0], slot.seen[1]) == slot.mark:
            return True
        self.unlock(slot)
        self._forget(slot.index)
        return False

    def unlock(self, slot: Slot) -> None:
        """Let others have a slot again."""
        if self._file is not None:
            set_lock(self._file, WAIT, slot.to_free)

    def places_of(self, slot: Slot) -> int:
        """Return how many places of a slot are taken, by all who are not known to be dead."""
        return self._seats.places_of(slot.places)

    def take_place(self, slot: Slot) -> None:
        """Take one place for this process, in a slot that it has locked."""
        self._seats.take_place(slot.places)

    def give_place_back(self, slot: Slot) -> None:
        """Give one of this process's places back; no lock is needed.

        Nobody else writes that number, and as long as it counts the slot is not given away.
        """
        if self._known.get(slot.name) is slot:
            self._seats.give_place_back(slot.places)

    def bury_the_dead(self) -> bool:
        """Free all places of processes that have died; whether there were any such processes.

        This process must have no slot locked.
        """
        with self._whole_table():
            return self._seats.bury_the_dead()

    def close(self) -> None:
        """Leave the table; the places of this process are free."""
        if self._closed:
            return
        self._closed = True
        with self._whole_table():
            self._seats.get_up()
        for index in list(self._name_at):
            self._forget(index)
        self._all.release()
        self._map.close()
        if self._file is not None:
            os.close(self._file)

    def _sit_down(self) -> None:
        """Take a seat and free the lock of the table, which is held since the file was opened."""
        seated = self._seats.sit_down()
        if self._file is not None:
            set_lock(self._file, WAIT, freeing(TABLE_LOCK))
            if not seated:
                os.close(self._file)
        if not seated:
            raise SettingsError(
                f"{SEATS} processes use {str(self._path)!r} already, and there is room for no "
                "more; start fewer workers"
            )

    def _find(self, name: str) -> Slot:
        with self._whole_table():
            slot = self._search(name)
            if slot is None and self._seats.bury_the_dead():
                slot = self._search(name)
        if slot is None:
            raise StoreUnavailableError(
                f"more keys are in use than the {self._measures.slots} slots of the table of "
                "limits have room for; try again in a minute"
            )
        if slot.index in self._name_at:
            self._forget(slot.index)
        self._known[name] = slot
        self._name_at[slot.index] = name
        return slot

    def _search(self, name: str) -> Slot | None:
        """Look for a name's slot, and give it one where it has none; None where all are in use."""
        mark = mark_of(name)
        slots = self._measures.slots
        perhaps = []
        for step in range(min(WINDOW, slots)):
            index = (mark[0] + step) % slots
            begin = HEAD + index * self._measures.slot_numbers
            view = self._all[begin : begin + self._measures.slot_numbers]
            slot = Slot(name, index, view, mark=mark)
            seen = (slot.seen[0], slot.seen[1])
            if seen == mark:
                return slot
            perhaps.append(slot)
            if seen == _NEVER_USED:
                break
        return next((slot for slot in perhaps if self._give(slot)), None)

    def _give(self, slot: Slot) -> bool:
        """Write a name's mark into a slot, unless that is in use."""
        if not self._is_free(slot):
            return False
        self._acquire(slot)
        try:
            # Its owner of before may have come back while the lock was waited for.
            if not self._is_free(slot):
                return False
            self._write_mark(slot)
        finally:
            self.unlock(slot)
        return True

    def _is_free(self, slot: Slot) -> bool:
        if (slot.seen[0], slot.seen[1]) == _NEVER_USED:
            return True
        return self._is_over(slot.numbers) and not self.places_of(slot)

    def _write_mark(self, slot: Slot) -> None:
        fresh = _MARK.pack(*slot.mark).ljust(8 * self._measures.slot_numbers, b"\0")
        begin = 8 * (HEAD + slot.index * self._measures.slot_numbers)
        if self._file is None:
            self._map[begin : begin + len(fresh)] = fresh
            return
        # Written, not mapped: the room on the disk is taken now, where it can still be refused.
        try:
            written = os.pwrite(self._file, fresh, begin)
        except OSError as error:
            raise self._failed(error) from error
        if written < len(fresh):
            raise self._failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _forget(self, index: int) -> None:
        self._known.pop(self._name_at.pop(index)).release()

    def _acquire(self, slot: Slot) -> None:
        if self._file is not None:
            try:
                set_lock(self._file, WAIT, slot.to_lock)
            except OSError as error:
                raise self._failed(error) from error

    @contextmanager
    def _whole_table(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        set_lock(self._file, WAIT, locking(TABLE_LOCK))
        try:
            yield
        finally:
            set_lock(self._file, WAIT, freeing(TABLE_LOCK))

    def _failed(self, error: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the file of limits {str(self._path)!r} cannot be locked or written "
            f"({error.strerror}); look at its disk"
        )
