"""This file knows where a store lies, and how its file is opened."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import apsw

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage.connection import unavailable

SCHEME: Final = "sqlite:"
BUSY_TIMEOUT_MS: Final = 5_000


def path_of(url_or_path: str | Path) -> Path:
    """Return the file that `storage.url` names; a path is taken as it is.

    Raises:
        SettingsError: It names no file.
    """
    if isinstance(url_or_path, Path):
        return url_or_path
    name = url_or_path.removeprefix(SCHEME)
    if name == url_or_path or not name or name.startswith((":", "//")):
        raise SettingsError(
            f'storage.url = {url_or_path!r} names no file; write "sqlite:droveway.db"'
        )
    return Path(name).expanduser()


def ensure_file(path: Path, *, create: bool) -> None:
    """See that the file is there; a new one is its owner's alone.

    Raises:
        SettingsError: It is not there, or cannot be made.
    """
    if path.is_dir():
        raise SettingsError(f"the store {str(path)!r} is a folder; name a file in it")
    if path.exists():
        return
    if not create:
        raise SettingsError(
            f"there is no store at {str(path.absolute())!r}; `droveway serve` and "
            "`droveway keys add` make one"
        )
    try:
        # SQLite gives the files beside it the same rights.
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise SettingsError(
            f"cannot make the store {str(path)!r}: {error.strerror}; make its folder, or set "
            "storage.url"
        ) from error


@dataclass(frozen=True, slots=True)
class Original:
    """The very file that a store was opened on.

    Who has a file open goes on writing into it when its name is gone; nobody would ever find that.

    Attributes:
        path: Where it lies, whatever becomes of the working directory.
        said: The path as it was given, for people.
        device: Its file system.
        number: Its number there.
    """

    path: Path
    said: str
    device: int
    number: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Take down which file it is.

        Raises:
            SettingsError: It is gone already.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise SettingsError(
                f"the store {str(path)!r} cannot be looked at: {error.strerror}; look at the file, "
                "its folder and their rights"
            ) from error
        return cls(path.absolute(), str(path), found.st_dev, found.st_ino)

    def check(self) -> None:
        """See that it is still there.

        Raises:
            StoreUnavailableError: It is gone, or another file has its name.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"the store {self.said!r} is gone ({error.strerror}); put its file back"
            ) from error
        if (found.st_dev, found.st_ino) != (self.device, self.number):
            raise StoreUnavailableError(
                f"the store {self.said!r} was replaced by another file; start again, or put the "
                "first one back"
            )


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """Open one connection to a file that is there.

    Raises:
        apsw.Error: The file cannot be opened, or is no database.
    """
    # Never made here: an empty file in the place of one that is gone would be taken for the store.
    driver = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        driver.set_busy_timeout(BUSY_TIMEOUT_MS)
        driver.execute("PRAGMA synchronous = NORMAL")
        driver.execute("PRAGMA foreign_keys = ON")
        # What a statement may have to take back is kept in a file otherwise: a third of its time.
        driver.execute("PRAGMA temp_store = MEMORY")
        # The writer does not stop to tidy up: a thread of its own moves the log into the file.
        driver.wal_autocheckpoint(0)
        if read_only:
            driver.execute("PRAGMA query_only = ON")
    except apsw.Error:
        driver.close()
        raise
    return driver


def connect_to_write(path: Path) -> apsw.Connection:
    """Open a connection that can write, or none: SQLite makes do with one that never can.

    Raises:
        apsw.Error: The file cannot be opened or written, or is no database.
    """
    driver = connect(path)
    if driver.readonly("main"):
        driver.close()
        raise apsw.ReadOnlyError("the file was opened for reading only")
    return driver


def refusal(error: apsw.Error, path: Path) -> SettingsError:
    """Turn what happened while opening into a refusal to start."""
    said = unavailable(error, str(path))
    return SettingsError(str(said) if said else f"the store {str(path)!r} cannot be used: {error}")
