"""This file knows how a store that is being written to is copied into one file.

Theory of operation
-------------------
SQLite's own backup copies page by page. A read transaction is held open around it, so all pages
are of one moment, whoever writes meanwhile; without it the copy would begin anew with every commit
of another. The pages go into a file with a name that nobody looks for, beside the target; it is
synced, then gets the target's name. A copy that was killed leaves at most that other file.

The copy says of itself that it keeps a write-ahead log, as the store does: put in the place of a
store it is one, with nothing to switch. It has no log beside it; whoever opens it makes one, and
takes it away when they close it.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage.connection import unavailable
from droveway.storage.opening import connect

Progress = Callable[[int, int], None]
# 4 MiB at a time: some milliseconds, after which somebody may be told.
PAGES_PER_STEP: Final = 1_024
_ANYTHING: Final = "SELECT count(*) FROM sqlite_schema"
# Of the two files only the copy is written.
_WRITING: Final = frozenset(
    {
        apsw.SQLITE_IOERR_WRITE,
        apsw.SQLITE_IOERR_FSYNC,
        apsw.SQLITE_IOERR_TRUNCATE,
        apsw.SQLITE_IOERR_FSTAT,
        apsw.SQLITE_IOERR_CLOSE,
    }
)


def back_up(source: Path, target: Path, *, on_progress: Progress | None = None) -> None:
    """Copy a store into a file that does not exist yet.

    Args:
        source: The store; others may write to it.
        target: Its owner's alone, once it is whole.
        on_progress: Told after each step how many pages are copied, and of how many.

    Raises:
        SettingsError: The target exists, or cannot be written; nothing has its name.
        StoreUnavailableError: The store cannot be read.
    """
    if os.path.lexists(target):
        raise _taken(target)
    try:
        with _part_of(target) as part:
            _copy(source, part, on_progress=on_progress or _unheard)
            _sync(part)
            _name(part, target)
        _keep_name(target)
    except OSError as error:
        raise _unwritten(target, error.strerror or str(error)) from error
    except apsw.Error as error:
        raise _blamed(error, source, target) from error


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """Make a file beside the target, with no rights for others; it is gone in the end."""
    file, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(file)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, part: Path, *, on_progress: Progress) -> None:
    with closing(connect(source, read_only=True)) as driver, closing(connect(part)) as copy:
        # A copy that is cut off is thrown away, and one that is whole is synced by us.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        driver.execute("BEGIN")
        driver.execute(_ANYTHING).fetchall()
        with copy.backup("main", driver, "main") as steps:
            while not steps.done:
                steps.step(PAGES_PER_STEP)
                on_progress(steps.page_count - steps.remaining, steps.page_count)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _name(part: Path, target: Path) -> None:
    """Give the copy its name, unless somebody else was given it meanwhile."""
    try:
        # Renaming would overwrite; a second name does not.
        os.link(part, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:
        # A file system without second names.
        if os.path.lexists(target):
            raise _taken(target) from None
        part.rename(target)


def _keep_name(target: Path) -> None:
    """Have the name on the disk too; a copy that a loss of power may take is none."""
    try:
        _sync(target.parent)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _blamed(error: apsw.Error, source: Path, target: Path) -> SettingsError | StoreUnavailableError:
    """Say which of the two files it was."""
    if isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) in _WRITING:
        return _unwritten(target, str(error))
    return unavailable(error, str(source)) or StoreUnavailableError(
        f"the store {str(source)!r} cannot be copied ({error}); look at its disk"
    )


def _taken(target: Path) -> SettingsError:
    return SettingsError(f"{str(target)!r} exists and is not overwritten; name another file")


def _unwritten(target: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the copy {str(target)!r} cannot be written ({why}); make its folder, free space there, "
        "or name another file"
    )


def _unheard(_copied: int, _of: int) -> None:
    pass
