"""This file knows vouchers: codes that are worth money, or promotional credit, once."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from droveway.errors import BadRequestError
from droveway.ledger import credits as promotional
from droveway.ledger import statements, topups
from droveway.ledger.account import find_account
from droveway.ledger.credits import Credit
from droveway.ledger.topups import VOUCHER, Payment, TopUp
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros, moment

# Without the signs that people take for each other. 20 of them are 99 bits.
_SIGNS: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_GROUPS: Final = 4
_GROUP_SIGNS: Final = 5
_CODE_SIGNS_MAX: Final = 64
COUNT_MAX: Final = 1_000
# Any zone's end of that year is still a moment in UTC.
YEAR_MAX: Final = 9998


class Voucher(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher, without its code.

    Attributes:
        id: Ours.
        shown: The beginning of its code, by which people know it again.
        amount: What it is worth.
        credit_days: After how many days its worth expires as promotional credit; None where it
            is worth money.
        issued_at: When it was made, UTC.
        expires_at: Until when it can be redeemed, UTC; None for ever.
        account: Who has redeemed it; None while nobody has.
        redeemed_at: When, UTC.
    """

    id: str
    shown: str
    amount: Money
    credit_days: int | None = None
    issued_at: datetime
    expires_at: datetime | None = None
    account: str | None = None
    redeemed_at: datetime | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What vouchers are made with; as for `Voucher`."""

    amount: Money
    credit_days: int | None = None
    expires_at: datetime | None = None


def issue(db: Connection, terms: Terms, *, count: int, at: datetime) -> list[tuple[Voucher, str]]:
    """Make vouchers; returns each with its code, which nobody can show again.

    Raises:
        BadRequestError: They are worth nothing, too many, or expired already.
    """
    if terms.amount.nano <= 0:
        raise BadRequestError(f"a voucher is worth more than nothing, not {terms.amount}")
    if not 1 <= count <= COUNT_MAX:
        raise BadRequestError(f"make 1 to {COUNT_MAX} vouchers at once, not {count}")
    if terms.credit_days is not None and not 1 <= terms.credit_days <= 36_500:
        raise BadRequestError("credit_days is between 1 and 36500; leave it out for money")
    if terms.expires_at is not None and terms.expires_at.year > YEAR_MAX:
        raise BadRequestError(f"expires_at is after {YEAR_MAX}; leave it out for ever")
    if terms.expires_at is not None and terms.expires_at <= at:
        raise BadRequestError(f"a voucher that expires at {terms.expires_at} is gone already")
    made: list[tuple[Voucher, str]] = []
    for _ in range(count):
        code = "-".join(
            "".join(secrets.choice(_SIGNS) for _ in range(_GROUP_SIGNS)) for _ in range(_GROUPS)
        )
        voucher = Voucher(
            id=f"vch_{secrets.token_hex(8)}",
            shown=code[:_GROUP_SIGNS],
            amount=terms.amount,
            credit_days=terms.credit_days,
            issued_at=at,
            expires_at=terms.expires_at and terms.expires_at.astimezone(UTC),
        )
        db.run(statements.ADD_VOUCHER, (*_row_of(voucher), _digest(code)))
        made.append((voucher, code))
    return made


def redeem(db: Connection, account_name: str, code: str, *, at: datetime) -> TopUp | Credit:
    """Book what a voucher is worth, once.

    Returns:
        What was booked; done again for the same account, the same, and nothing has changed.

    Raises:
        BadRequestError: There is no such voucher or account, it has expired, somebody else has
            redeemed it, or it is in another currency.
    """
    account = find_account(db, account_name, at=at)
    rows = db.rows(statements.VOUCHER_BY_DIGEST, (_digest(code),))
    if not rows:
        raise BadRequestError("there is no voucher with this code; look at every sign of it")
    voucher = _voucher_of(rows[0])
    if voucher.account not in (None, account.id):
        raise BadRequestError(f"the voucher {voucher.shown}… was redeemed already")
    if voucher.account is None and voucher.expires_at is not None and voucher.expires_at <= at:
        raise BadRequestError(f"the voucher {voucher.shown}… has expired; ask for a new one")
    if voucher.amount.currency != account.posted.currency:
        raise BadRequestError(
            f"the voucher is in {voucher.amount.currency}, and the account {account.name!r} is in "
            f"{account.posted.currency}"
        )
    if voucher.account is None:
        db.run(statements.REDEEM, (account.id, micros(at), voucher.id))
    if voucher.credit_days is None:
        payment = Payment(voucher.amount, voucher.id, source=VOUCHER)
        return topups.top_up(db, account.id, payment, at=at)
    credit = Credit(
        id=f"crd_{voucher.id}",
        account=account.id,
        amount=voucher.amount,
        left=voucher.amount,
        expires_at=(voucher.redeemed_at or at) + timedelta(days=voucher.credit_days),
        reference=voucher.id,
    )
    return promotional.grant(db, credit, at=at)


def vouchers(store: Store) -> tuple[Voucher, ...]:
    """Return all vouchers, the oldest first."""
    return tuple(_voucher_of(row) for row in store.read(statements.VOUCHERS))


def _digest(code: str) -> bytes:
    # As people type it: any case, with or without dashes and spaces.
    plain = "".join(sign for sign in code.upper()[: 2 * _CODE_SIGNS_MAX] if sign.isalnum())
    return hashlib.sha256(plain.encode()).digest()


def _row_of(voucher: Voucher) -> tuple[str | int | None, ...]:
    return (
        voucher.id,
        voucher.shown,
        voucher.amount.nano,
        voucher.amount.currency,
        voucher.credit_days,
        micros(voucher.issued_at),
        None if voucher.expires_at is None else micros(voucher.expires_at),
    )


def _voucher_of(row: tuple[Any, ...]) -> Voucher:
    id_, shown, nano, currency, credit_days, issued, expires, account_id, redeemed = row
    return Voucher(
        id=id_,
        shown=shown,
        amount=Money(nano, currency),
        credit_days=credit_days,
        issued_at=moment(issued),
        expires_at=None if expires is None else moment(expires),
        account=account_id,
        redeemed_at=None if redeemed is None else moment(redeemed),
    )
