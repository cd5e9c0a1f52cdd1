"""This file knows how one byte of a file is locked, and that the kernel frees it on death.

The locks belong to the open file, not to the process as the older POSIX locks do: a process that
has a file open twice shuts itself out like any other, and closing one of the two frees nothing of
the other's. A child that was forked shares its parent's locks, so a file is opened after the fork.
The bytes need not exist: they only stand for something.
"""

import os
import struct
import sys
from typing import Final

HAVE_LOCKS: Final = sys.platform == "linux"
# `struct flock` of Linux: type, whence, start, length, process id (0 for locks of open files).
_FORM: Final = struct.Struct("hhqqi4x")
_WRITE: Final = 1
_FREE: Final = 2

if sys.platform == "linux":
    import fcntl

    WAIT: Final = fcntl.F_OFD_SETLKW
    _TRY: Final = fcntl.F_OFD_SETLK
    _ASK: Final = fcntl.F_OFD_GETLK
    set_lock = fcntl.fcntl
else:
    WAIT = _TRY = _ASK = -1

    def set_lock(file: int, how: int, what: bytes) -> bytes:
        """There is none here: whoever wants one looks at `HAVE_LOCKS` first."""
        raise NotImplementedError


def locking(byte: int) -> bytes:
    """Return what locks a byte, for `set_lock(file, WAIT, …)`; made once, used often."""
    return _FORM.pack(_WRITE, os.SEEK_SET, byte, 1, 0)


def freeing(byte: int) -> bytes:
    """Return what frees a byte again; likewise."""
    return _FORM.pack(_FREE, os.SEEK_SET, byte, 1, 0)


def lock_now(file: int, byte: int) -> bool:
    """Lock a byte unless somebody else has; whether it is ours now."""
    try:
        set_lock(file, _TRY, locking(byte))
    except BlockingIOError:
        return False
    return True


def locked_by_others(file: int, byte: int, *, count: int = 1) -> bool:
    """Whether somebody else has locked any of so many bytes."""
    asked = _FORM.pack(_WRITE, os.SEEK_SET, byte, count, 0)
    kind: int = _FORM.unpack(set_lock(file, _ASK, asked))[0]
    return kind != _FREE
