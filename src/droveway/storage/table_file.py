"""This file knows the file of a shared table: its head, and when it must be made anew.

The head says what the file is: a magic word, the format, the table's measures and the boot of the
machine in which it was written, for its times mean nothing in another one. A file that says
anything else is made anew, in place, as long as no living process uses it. It holds nothing that is
worth more than a minute.

The locks stand for the table, for each process and for each slot. They lie far behind the end of
the file, at places that no format may ever change: by them an older server is noticed.
"""

import logging
import os
import struct
from pathlib import Path
from typing import Final

import msgspec

from droveway.errors import SettingsError
from droveway.storage.byte_locks import WAIT, locked_by_others, locking, set_lock

LOG: Final = logging.getLogger("droveway")
# Counts up whenever numbers are laid out differently, here or by the one who keeps them.
FORMAT: Final = 1
SEATS: Final = 256
# In numbers of eight bytes: what the file is, how many seats were ever taken, each seat's epoch.
SEATS_USED: Final = 8
EPOCHS: Final = 16
HEAD: Final = EPOCHS + SEATS

TABLE_LOCK: Final = 2**40
SEAT_LOCKS: Final = TABLE_LOCK + 1
SLOT_LOCKS: Final = TABLE_LOCK + 2**20

_MAGIC: Final = b"DROVEWAY"
_FORM: Final = struct.Struct("<8sqqqq16s")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """How large a table is.

    Attributes:
        slots: How many names it can hold.
        numbers: Whole numbers of each name, without those that the table needs itself.
    """

    slots: int
    numbers: int

    @property
    def slot_numbers(self) -> int:
        """All numbers of one slot: its mark, the name's own, and the places of each seat."""
        return 2 + self.numbers + SEATS

    @property
    def size(self) -> int:
        """Bytes of the whole table."""
        return 8 * (HEAD + self.slots * self.slot_numbers)


def beside(store: Path) -> Path:
    """Return where the limits of a store's keys are; the same by whatever name it is called."""
    real = store.resolve()
    return real.with_name(real.name + "-limits")


def open_table_file(path: Path, measures: Measures) -> int:
    """Open the file, make it where there is none, and make it anew where it is of no use.

    Returns:
        The open file; its size and its head are as they should be. The lock of the table is held,
        so that nobody makes it anew before the caller has a seat.

    Raises:
        SettingsError: It cannot be opened, or a running server needs it as it is.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        set_lock(file, WAIT, locking(TABLE_LOCK))
        _make_usable(file, path, measures)
    except OSError as error:
        os.close(file)
        raise _cannot(path, error) from error
    except SettingsError:
        os.close(file)
        raise
    return file


def _make_usable(file: int, path: Path, measures: Measures) -> None:
    wanted = _FORM.pack(_MAGIC, FORMAT, measures.slots, measures.numbers, SEATS, _this_boot())
    found = os.pread(file, _FORM.size, 0)
    size = os.fstat(file).st_size
    if found == wanted and size == measures.size:
        return
    if locked_by_others(file, SEAT_LOCKS, count=SEATS):
        raise SettingsError(
            f"the file {str(path)!r} is in use by a running server of another version; "
            "stop that one first"
        )
    fault = _fault(found, wanted, size=size, wanted_size=measures.size)
    if fault is not None:
        LOG.warning(
            "the file %r %s; it is made anew, and what keys used in the last minute is forgotten",
            str(path),
            fault,
        )
    os.ftruncate(file, 0)
    os.ftruncate(file, measures.size)
    # The head comes last: a file that was not finished has none, and is made anew. It is written
    # whole, so that its room on the disk is taken: what is only mapped has none to fail for.
    os.pwrite(file, wanted.ljust(8 * HEAD, b"\0"), 0)


def _fault(found: bytes, wanted: bytes, *, size: int, wanted_size: int) -> str | None:
    """Say what is wrong with a file; None for a new one, and for one of an earlier boot."""
    if not size:
        return None
    if len(found) < _FORM.size or not found.startswith(_MAGIC):
        return "is no table of limits"
    version = _FORM.unpack(found)[1]
    if version != FORMAT:
        return f"has format {version} where {FORMAT} is used"
    if found[:-16] != wanted[:-16]:
        return "has other measures"
    return "is torn" if size != wanted_size else None


def _this_boot() -> bytes:
    try:
        return bytes.fromhex(_BOOT.read_text(encoding="ascii").strip().replace("-", ""))
    except FileNotFoundError:
        # Then times that are yet to come are all that shows a file of an earlier boot.
        return bytes(16)


def _cannot(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot use the file of limits {str(path)!r}: {error.strerror}; look at its folder, "
        "its rights and its disk"
    )
