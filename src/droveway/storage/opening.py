"""This file knows where a store lies, and how its file is opened."""

import os
from pathlib import Path
from typing import Final

import apsw

from droveway.errors import SettingsError
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


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """Open one connection.

    Raises:
        apsw.Error: The file cannot be opened, or is no database.
    """
    driver = apsw.Connection(str(path))
    try:
        driver.set_busy_timeout(BUSY_TIMEOUT_MS)
        driver.execute("PRAGMA synchronous = NORMAL")
        driver.execute("PRAGMA foreign_keys = ON")
        # The writer does not stop to tidy up: a thread of its own moves the log into the file.
        driver.wal_autocheckpoint(0)
        if read_only:
            driver.execute("PRAGMA query_only = ON")
    except apsw.Error:
        driver.close()
        raise
    return driver


def refusal(error: apsw.Error, path: Path) -> SettingsError:
    """Turn what happened while opening into a refusal to start."""
    said = unavailable(error, str(path))
    return SettingsError(str(said) if said else f"the store {str(path)!r} cannot be used: {error}")
