"""This file knows how a CSV file that somebody has saved is read: as a stream, and with its line.

Byte order marks, UTF-16, semicolons, tabs and empty lines are taken as they come. Whatever cannot
be read becomes one line that names the file and the line.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from droveway.errors import BadRequestError

LINE_CHARS_MAX: Final = 1024 * 1024
DELIMITERS: Final = ",;\t|"
# Whoever saves a spreadsheet as "Unicode text" gets these two bytes, and UTF-16 after them.
UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
ZIP_MARK: Final = b"PK"


class Table:
    """A file of rows under the names of their columns; iterate over it for its rows.

    Args:
        name: How messages call the file.
        file: Its text.

    Attributes:
        header: The names of the columns.
        semicolons: Whether its cells are parted by semicolons.

    Raises:
        ValueError: It is empty.
    """

    def __init__(self, name: str, file: TextIO) -> None:
        self._name = name
        self._file = file
        self._lines_read = 0
        lines = self._lines()
        head = next((line for line in lines if line.strip()), "")
        if not head:
            raise ValueError("it is empty")
        delimiter = max(DELIMITERS, key=head.count)
        self.semicolons = delimiter == ";"
        self.header = next(csv.reader([head], delimiter=delimiter))
        self._rows = csv.reader(lines, delimiter=delimiter)

    @property
    def where(self) -> str:
        """The place that was read last."""
        return f"{self._name}, line {max(self._lines_read, 1)}"

    def __iter__(self) -> Iterator[list[str]]:
        for cells in self._rows:
            if any(map(str.strip, cells)):
                yield cells

    def _lines(self) -> Iterator[str]:
        # No endless line: it would be held as a whole.
        while line := self._file.readline(LINE_CHARS_MAX):
            self._lines_read += 1
            if len(line) >= LINE_CHARS_MAX:
                raise ValueError(f"it is longer than {LINE_CHARS_MAX:,} characters")
            yield line


@contextmanager
def opened_table(path: Path) -> Iterator[Table]:
    """Open a file, and say of every `ValueError` that comes of reading it where it came from.

    Raises:
        BadRequestError: It cannot be read.
    """
    where = path.name
    try:
        with _opened(path) as file:
            table = Table(path.name, file)
            try:
                yield table
            finally:
                where = table.where
    except UnicodeDecodeError:
        raise BadRequestError(
            f"{where} or after it is no UTF-8; save the file as CSV in UTF-8"
        ) from None
    except (ValueError, csv.Error) as error:
        raise BadRequestError(f"{where}: {error}") from None
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as file:
        mark = file.read(2)
    if mark == ZIP_MARK:
        raise BadRequestError(
            f"{path.name} is a ZIP archive; unpack it, and give each of its CSV files with --export"
        )
    encoding = "utf-16" if mark in UTF_16_MARKS else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as text:
        yield text
