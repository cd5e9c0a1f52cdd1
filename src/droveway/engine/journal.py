"""This file knows the journal of a process: the last rows, and what they sum up to."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from droveway.engine.records import Row

LOG: Final = logging.getLogger("droveway")
ROWS_KEPT: Final = 10_000


class Journal:
    """Keeps the last rows in memory and tells every new one to whoever listens.

    Args:
        rows_kept: How many rows are kept; older ones are let go.
    """

    def __init__(self, *, rows_kept: int = ROWS_KEPT) -> None:
        self.rows: deque[Row] = deque(maxlen=rows_kept)
        self.listeners: list[Callable[[Row], None]] = []

    def append(self, row: Row) -> None:
        """Write a row down; it is final."""
        self.tell(row)

    def tell(self, row: Row) -> None:
        """Take note of a row that somebody else has written down."""
        # Without what was said: ten thousand bodies are gigabytes.
        self.rows.append(row if row.bodies is None else msgspec.structs.replace(row, bodies=None))
        for listener in self.listeners:
            try:
                listener(row)
            except Exception:
                LOG.exception("a listener of the journal failed at request %s", row.id)
