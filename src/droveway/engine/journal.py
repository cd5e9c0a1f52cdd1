"""This file knows the journal of a process: the last rows, and what they sum up to."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
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

    def last_arm(self, conversation: bytes, *, since: datetime) -> str | None:
        """Return on which side of its role's move a conversation was last; None for on none.

        Args:
            conversation: By what it is known again.
            since: Older requests do not count; UTC.

        Raises:
            StoreUnavailableError: That cannot be looked up.
        """
        return last_arm(self.rows, conversation, since=since)

    def tell(self, row: Row) -> None:
        """Take note of a row that somebody else has written down."""
        # Without what was said: ten thousand bodies are gigabytes.
        self.rows.append(row if row.bodies is None else msgspec.structs.replace(row, bodies=None))
        for listener in self.listeners:
            try:
                listener(row)
            except Exception:
                LOG.exception("a listener of the journal failed at request %s", row.id)


def last_arm(rows: Sequence[Row], conversation: bytes, *, since: datetime) -> str | None:
    """Return the side of the last of some rows that belongs to a conversation."""
    for row in reversed(rows):
        if row.conversation == conversation and row.at >= since:
            return row.tags.get("arm")
    return None
