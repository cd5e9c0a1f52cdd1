"""This file knows how a moment is kept: as whole microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """Write a moment as the store keeps it."""
    return (at - EPOCH) // _MICROSECOND


def moment(at_us: int) -> datetime:
    """Read a moment as the store keeps it."""
    return EPOCH + _MICROSECOND * at_us
