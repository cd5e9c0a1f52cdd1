"""This file knows what an account is: what was paid in, what is held, and what is left."""

from datetime import datetime
from typing import Any, Final

import msgspec

from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.money import Money
from droveway.storage import Connection
from droveway.storage.moments import micros, moment

_SIGNS_MAX: Final = 100


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A prepaid account.

    Attributes:
        id: Ours, for good.
        name: People's name for it; no two accounts share one.
        posted: Money that was paid in, less what was used of it; the sum of its entries.
        promo: Promotional credit that is left and has not expired; it is spent first.
        held: What is set aside for requests on their way.
        created_at: When it was opened, UTC.
        frozen_at: Since when nothing is served for it; None while it is open.
    """

    id: str
    name: str
    posted: Money
    promo: Money
    held: Money
    created_at: datetime
    frozen_at: datetime | None = None

    @property
    def available(self) -> Money:
        """What further requests may cost."""
        return self.posted + self.promo - self.held


def account_of(row: tuple[Any, ...]) -> Account:
    """Read an account as `statements.CUSTOMER`: credit that has expired is gone, swept or not."""
    id_, name, currency, posted, promo, held, created_at_us, frozen_at_us, expired = row
    lapsed = min(expired, max(0, posted + promo - held))
    return Account(
        id=id_,
        name=name,
        posted=Money(posted, currency),
        promo=Money(promo - lapsed, currency),
        held=Money(held, currency),
        created_at=moment(created_at_us),
        frozen_at=None if frozen_at_us is None else moment(frozen_at_us),
    )


def find_account(db: Connection, name_or_id: str, *, at: datetime) -> Account:
    """Return an account as it is within the transaction.

    Raises:
        BadRequestError: There is no such account.
    """
    rows = db.rows(statements.CUSTOMER, (micros(at), name_or_id))
    if not rows:
        raise unknown_account(name_or_id)
    return account_of(rows[0])


def available_of(db: Connection, account_id: str, *, at: datetime) -> Money:
    """Return what further requests of an account may cost, within the transaction.

    Raises:
        BadRequestError: There is no such account.
    """
    free = db.rows(statements.FREE, (account_id, micros(at)))
    if free:
        nano, currency = free[0]
        return Money(nano, currency)
    return find_account(db, account_id, at=at).available


def unknown_account(name_or_id: str) -> BadRequestError:
    """Say that there is no such account."""
    return BadRequestError(f"there is no account {name_or_id!r}; see droveway accounts list")


def usable_name(name: str) -> str:
    """Return an account's name as it is kept.

    Raises:
        BadRequestError: It is empty, longer than 100 signs, holds control signs, or is ours.
    """
    name = name.strip()
    if not _is_word(name) or name[0] == ":":
        raise BadRequestError(
            f"{name!r} is no name for an account; write up to 100 signs on one line, "
            "and no colon in front"
        )
    return name


def usable_reference(reference: str) -> str:
    """Return the reference of a top-up, a refund or a grant as it is kept.

    Raises:
        BadRequestError: It is empty, longer than 100 signs, or holds control signs.
    """
    reference = reference.strip()
    if not _is_word(reference):
        raise BadRequestError(f"{reference!r} is no reference; write up to 100 signs on one line")
    return reference


def _is_word(text: str) -> bool:
    return bool(text) and len(text) <= _SIGNS_MAX and text.isprintable()
