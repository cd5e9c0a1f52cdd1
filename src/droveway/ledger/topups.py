"""This file knows money that comes in and goes back: booked once, refunded as far as it is unspent.

Money that comes in another currency is converted by a rate that the operator declared and dated.
What was paid, the rate and its date stay with the top-up, and a refund goes back by the same.
The oldest money is spent first: what is left of an account is of its last top-ups.
"""

import secrets
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

import msgspec

from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.ledger.account import Account, find_account, usable_reference
from droveway.ledger.postings import (
    CLEARING,
    EXCHANGE,
    Leg,
    Transfer,
    own_account,
    post,
    refuse_beyond_counting,
)
from droveway.money import NANO_MAX, Money, divide_half_even
from droveway.storage import Connection
from droveway.storage.moments import micros, moment

MANUAL: Final = "manual"
VOUCHER: Final = "voucher"


class Rate(NamedTuple):
    """What one unit of a currency is worth in another, as its operator declared it.

    Attributes:
        per_unit: A decimal string.
        on: The day of the declaration.
    """

    per_unit: str
    on: date

    def convert(self, paid: Money, currency: str) -> Money:
        """Convert an amount exactly, rounded once, half to even, to a nano-unit.

        Raises:
            BadRequestError: It comes to more than can be counted.
        """
        exact = Fraction(Decimal(self.per_unit)) * paid.nano
        nano = divide_half_even(exact.numerator, exact.denominator)
        if nano > NANO_MAX:
            raise BadRequestError(f"{paid} in {currency} is more than the ledger can count")
        return Money(nano, currency)


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came in.

    Attributes:
        id: Ours.
        account: Who has it.
        amount: What was booked, in the account's currency.
        reference: Whose word it is: a bank's, a payment's; no two top-ups share one.
        at: When it was booked, UTC.
        paid: What came in, in its own currency.
        rate: By which it was converted; None where nothing was.
        source: How it came: manual, voucher.
        refunded: What of it went back, in the account's currency.
        refunded_paid: And in the currency in which it was paid.
        again: Whether it was booked before, and nothing has changed this time.
    """

    id: str
    account: str
    amount: Money
    reference: str
    at: datetime
    paid: Money
    rate: Rate | None = None
    source: str = MANUAL
    refunded: Money
    refunded_paid: Money
    again: bool = False


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money that went back.

    Attributes:
        id: Ours.
        topup: The id of the top-up of which it is.
        account: Who had it.
        amount: What was taken from the account.
        paid: What is to be paid out, in the currency in which it came.
        reference: Why; no two refunds share one.
        again: Whether it was booked before, and nothing has changed this time.
    """

    id: str
    topup: str
    account: str
    amount: Money
    paid: Money
    reference: str
    again: bool = False


class Payment(NamedTuple):
    """What somebody says that came in.

    Attributes:
        amount: How much, in its own currency.
        reference: Whose word it is.
        rate: By which it is converted; None where nothing is to be.
        source: How it came.
    """

    amount: Money
    reference: str
    rate: Rate | None = None
    source: str = MANUAL


def top_up(db: Connection, account_name: str, payment: Payment, *, at: datetime) -> TopUp:
    """Book money that came in, once for each reference.

    Raises:
        BadRequestError: There is no such account, the amount is not positive, its currency cannot
            be converted, the reference stands for another top-up, or all that ever came in is
            more than can be counted.
    """
    account = find_account(db, account_name, at=at)
    reference, paid = usable_reference(payment.reference), payment.amount
    known = db.rows(statements.TOPUP_BY_REFERENCE, (reference,))
    if known:
        booked = _topup_of(known[0], again=True)
        if (booked.account, booked.paid) != (account.id, paid):
            raise BadRequestError(
                f"the reference {reference!r} is that of a top-up of {booked.paid} of "
                f"{booked.at:%Y-%m-%d %H:%M} UTC; each top-up has a reference of its own"
            )
        return booked
    if paid.nano <= 0:
        raise BadRequestError(f"a top-up is more than nothing, not {paid}")
    topup = _new(account, payment, reference=reference, at=at)
    refuse_beyond_counting(db, topup.amount)
    if topup.rate is not None:
        refuse_beyond_counting(db, paid)
    post(
        db,
        Transfer(topup.id, "topup", micros(at), reference, _told(topup)),
        _legs(account.id, topup.amount, paid),
    )
    db.run(statements.ADD_TOPUP, _row_of(topup))
    changed = db.run(statements.POST, (topup.amount.nano, account.id, topup.amount.currency))
    assert changed == 1, "the account was looked up in this very transaction"
    return topup


def unspent(db: Connection, topup: TopUp) -> Money:
    """Return what is left of a top-up: the oldest money is spent first, what is held is held."""
    ((posted, promo, held, currency),) = db.rows(statements.FUNDS, (topup.account,))
    others = topups_of(db.rows(statements.TOPUPS_OF, (topup.account,)))
    later = sum(
        other.amount.nano - other.refunded.nano
        for other in others
        if (other.at, other.id) > (topup.at, topup.id)
    )
    free = min(posted, posted + promo - held) - later
    mine = topup.amount.nano - topup.refunded.nano
    return Money(max(0, min(mine, free)), currency)


def refund(
    db: Connection,
    topup_reference: str,
    paid: Money | None,
    *,
    reference: str,
    at: datetime,
) -> Refund:
    """Give back what is unspent of a top-up, or a part of it; once for each reference.

    Args:
        db: The open transaction.
        topup_reference: The reference of the top-up.
        paid: How much, in the currency in which it came; None for all that is unspent.
        reference: Why.
        at: When.

    Raises:
        BadRequestError: There is no such top-up, it came by a voucher, more is asked for than is
            unspent, nothing is, or the reference stands for another refund.
    """
    reference = usable_reference(reference)
    known = db.rows(statements.REFUND_BY_REFERENCE, (reference,))
    rows = db.rows(statements.TOPUP_BY_REFERENCE, (topup_reference.strip(),))
    topup = the_topup(rows, topup_reference)
    if known:
        return _refunded_before(known[0], topup, paid)
    if topup.source == VOUCHER:
        # Whoever bought it has paid somebody else, or nobody: there is nothing to give back to.
        raise BadRequestError("what came by a voucher is used, and not paid out")
    left = unspent(db, topup)
    back, amount = _share(topup, left, paid)
    if amount.nano <= 0 or back.nano <= 0:
        raise BadRequestError(
            f"of the top-up {topup.reference!r} of {topup.paid} nothing can be given back: it is "
            "spent, or held for requests on their way"
        )
    if amount.nano > left.nano or back.nano > topup.paid.nano - topup.refunded_paid.nano:
        most, _ = _share(topup, left, None)
        raise BadRequestError(
            f"of the top-up {topup.reference!r} {most} is unspent, which is less than {back}"
        )
    done = Refund(
        id=f"ref_{secrets.token_hex(8)}",
        topup=topup.id,
        account=topup.account,
        amount=amount,
        paid=back,
        reference=reference,
    )
    told = {"topup": topup.id, "paid": back.decimal(), "paid_currency": back.currency}
    post(
        db,
        Transfer(done.id, "refund", micros(at), reference, told),
        [leg._replace(amount=Money(-leg.amount.nano, leg.amount.currency))
         for leg in _legs(topup.account, amount, back)],
    )  # fmt: skip
    db.run(statements.POST, (-amount.nano, topup.account, amount.currency))
    db.run(statements.NOTE_REFUND, (amount.nano, back.nano, topup.id))
    return done


def _share(topup: TopUp, left: Money, paid: Money | None) -> tuple[Money, Money]:
    """Return what is to be paid out and what that takes from the account.

    All that is left of a top-up goes back to the last unit, whatever was rounded before.
    """
    rest = topup.amount.nano - topup.refunded.nano
    rest_paid = topup.paid.nano - topup.refunded_paid.nano
    if paid is None:
        nano = left.nano
        # Down: what is paid out is never more than what is taken.
        back = (
            rest_paid
            if nano == rest
            else min(rest_paid, nano * topup.paid.nano // topup.amount.nano)
        )
        return Money(back, topup.paid.currency), Money(nano, topup.amount.currency)
    if paid.currency != topup.paid.currency:
        raise BadRequestError(
            f"the top-up {topup.reference!r} came in {topup.paid.currency}, and goes back in it"
        )
    if paid.nano == rest_paid:
        return paid, Money(rest, topup.amount.currency)
    # Up: what is taken is never less than what is paid out.
    taken = -(-paid.nano * topup.amount.nano // topup.paid.nano)
    return paid, Money(taken, topup.amount.currency)


def the_topup(rows: list[tuple[Any, ...]], reference: str) -> TopUp:
    """Read the one top-up that was looked up by its reference.

    Raises:
        BadRequestError: There is none.
    """
    if not rows:
        raise BadRequestError(
            f"there is no top-up with the reference {reference!r}; see droveway accounts statement"
        )
    return _topup_of(rows[0])


def topups_of(rows: list[tuple[Any, ...]]) -> tuple[TopUp, ...]:
    """Read top-ups as `statements.TOPUPS_OF`."""
    return tuple(_topup_of(row) for row in rows)


def _new(account: Account, payment: Payment, *, reference: str, at: datetime) -> TopUp:
    paid, currency = payment.amount, account.posted.currency
    rate = None if paid.currency == currency else payment.rate
    if rate is None and paid.currency != currency:
        raise BadRequestError(
            f"the account {account.name!r} is in {currency}, and no rate for {paid.currency} is "
            f"declared; set [billing.rates.{paid.currency}]"
        )
    amount = paid if rate is None else rate.convert(paid, currency)
    if amount.nano <= 0:
        raise BadRequestError(f"{paid} is less than the smallest amount of {currency}")
    return TopUp(
        id=f"top_{secrets.token_hex(8)}",
        account=account.id,
        amount=amount,
        reference=reference,
        at=at,
        paid=paid,
        rate=rate,
        source=payment.source,
        refunded=Money.zero(currency),
        refunded_paid=Money.zero(paid.currency),
    )


def _legs(account_id: str, amount: Money, paid: Money) -> list[Leg]:
    """Return the legs of money that came in; through exchange where it came in another currency."""
    legs = [
        Leg(account_id, amount),
        Leg(own_account(CLEARING, paid.currency), Money(-paid.nano, paid.currency)),
    ]
    if paid.currency != amount.currency:
        legs += [
            Leg(own_account(EXCHANGE, paid.currency), paid),
            Leg(own_account(EXCHANGE, amount.currency), Money(-amount.nano, amount.currency)),
        ]
    return legs


def _told(topup: TopUp) -> dict[str, str]:
    told = {"source": topup.source}
    if topup.rate is not None:
        told |= {
            "paid": topup.paid.decimal(),
            "paid_currency": topup.paid.currency,
            "rate": topup.rate.per_unit,
            "rate_on": topup.rate.on.isoformat(),
        }
    return told


def _row_of(topup: TopUp) -> tuple[str | int | None, ...]:
    rate = topup.rate
    return (
        topup.id,
        topup.account,
        topup.reference,
        topup.source,
        micros(topup.at),
        topup.amount.nano,
        topup.amount.currency,
        topup.paid.nano,
        topup.paid.currency,
        None if rate is None else rate.per_unit,
        None if rate is None else rate.on.isoformat(),
    )


def _topup_of(row: tuple[Any, ...], *, again: bool = False) -> TopUp:
    id_, account_id, reference, source, at_us, amount, currency, paid, paid_currency, *rest = row
    rate, rate_on, refunded, refunded_paid = rest
    return TopUp(
        id=id_,
        account=account_id,
        amount=Money(amount, currency),
        reference=reference,
        at=moment(at_us),
        paid=Money(paid, paid_currency),
        rate=None if rate is None else Rate(rate, date.fromisoformat(rate_on)),
        source=source,
        refunded=Money(refunded, currency),
        refunded_paid=Money(refunded_paid, paid_currency),
        again=again,
    )


def _refunded_before(row: tuple[Any, ...], topup: TopUp, paid: Money | None) -> Refund:
    id_, reference, told, nano, currency = row
    kept = msgspec.json.decode(told)
    back = Money.parse(kept["paid"], kept["paid_currency"])
    if kept["topup"] != topup.id or paid not in (None, back):
        raise BadRequestError(
            f"the reference {reference!r} is that of a refund of {back} already; each has a "
            "reference of its own"
        )
    return Refund(
        id=id_,
        topup=topup.id,
        account=topup.account,
        amount=Money(-nano, currency),
        paid=back,
        reference=reference,
        again=True,
    )
