"""This file knows what an account is: what was paid in, what is held, and what is left."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from droveway.errors import BadRequestError
from droveway.money import Money

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NAME_SIGNS_MAX: Final = 100


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A prepaid account.

    Attributes:
        id: Ours, for good.
        name: People's name for it; no two accounts share one.
        posted: What was paid in, less what was used; the sum of its entries.
        held: What is set aside for requests on their way.
        created_at: When it was opened, UTC.
        frozen_at: Since when nothing is served for it; None while it is open.
    """

    id: str
    name: str
    posted: Money
    held: Money
    created_at: datetime
    frozen_at: datetime | None = None

    @property
    def available(self) -> Money:
        """What further requests may cost."""
        return self.posted - self.held


def account_of(row: tuple[Any, ...]) -> Account:
    """Read an account as `statements.ACCOUNT_FIELDS`."""
    id_, name, currency, posted, held, created_at_us, frozen_at_us = row
    return Account(
        id=id_,
        name=name,
        posted=Money(posted, currency),
        held=Money(held, currency),
        created_at=moment(created_at_us),
        frozen_at=None if frozen_at_us is None else moment(frozen_at_us),
    )


def usable_name(name: str) -> str:
    """Return an account's name as it is kept.

    Raises:
        BadRequestError: It is empty, longer than 100 signs, holds control signs, or is ours.
    """
    name = name.strip()
    if not name or len(name) > _NAME_SIGNS_MAX or not name.isprintable() or name[0] == ":":
        raise BadRequestError(
            f"{name!r} is no name for an account; write up to 100 signs on one line, "
            "and no colon in front"
        )
    return name


def usable_reference(reference: str) -> str:
    """Return the reference of a top-up as it is kept.

    Raises:
        BadRequestError: It is empty, longer than 100 signs, or holds control signs.
    """
    reference = reference.strip()
    if not reference or len(reference) > _NAME_SIGNS_MAX or not reference.isprintable():
        raise BadRequestError(
            f"{reference!r} is no reference of a top-up; write up to 100 signs on one line"
        )
    return reference


def micros(at: datetime) -> int:
    """Write a moment as the store keeps it: whole microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment(at_us: int) -> datetime:
    """Read a moment as the store keeps it."""
    return _EPOCH + _MICROSECOND * at_us
