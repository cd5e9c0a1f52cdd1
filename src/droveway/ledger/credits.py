"""This file knows promotional credit: given for nothing, spent first, gone when it expires.

What is left of a credit and not held goes the moment it expires. What a request on its way holds
pays for that request, and goes when the request has ended. It is never paid out.
"""

from datetime import datetime

import msgspec

from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.ledger.postings import (
    PROMOTION,
    Leg,
    Transfer,
    own_account,
    post,
    refuse_beyond_counting,
)
from droveway.money import Money
from droveway.storage import Connection
from droveway.storage.moments import micros, moment


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """Promotional credit that was given.

    Attributes:
        id: Ours.
        account: Who has it.
        amount: How much was given.
        left: How much of it is left.
        expires_at: When what is left goes, UTC.
        reference: Why it was given; no two credits share one.
        again: Whether it was given before, and nothing has changed this time.
    """

    id: str
    account: str
    amount: Money
    left: Money
    expires_at: datetime
    reference: str
    again: bool = False


def grant(db: Connection, credit: Credit, *, at: datetime) -> Credit:
    """Give promotional credit, once for each reference.

    Args:
        db: The open transaction.
        credit: What is given.
        at: When.

    Returns:
        What was given, now or before.

    Raises:
        BadRequestError: It is not positive or expires at once, the reference stands for another
            credit, or all that ever came in is more than can be counted.
    """
    known = db.rows(statements.CREDIT_OF, (credit.reference,))
    if known:
        given = _credit_of(known[0])
        if (given.account, given.amount) != (credit.account, credit.amount):
            raise BadRequestError(
                f"the reference {credit.reference!r} is that of a credit of {given.amount} "
                "already; each has a reference of its own"
            )
        return given
    if credit.amount.nano <= 0:
        raise BadRequestError(f"a credit is more than nothing, not {credit.amount}")
    if credit.expires_at <= at:
        raise BadRequestError(f"a credit that expires at {credit.expires_at} is gone already")
    refuse_beyond_counting(db, credit.amount)
    amount, currency = credit.amount, credit.amount.currency
    post(
        db,
        Transfer(credit.id, "grant", micros(at), credit.reference),
        (
            Leg(credit.account, amount, "promo"),
            Leg(own_account(PROMOTION, currency), Money(-amount.nano, currency)),
        ),
    )
    until = micros(credit.expires_at)
    db.run(statements.ADD_CREDIT, (credit.id, credit.account, amount.nano, until))
    changed = db.run(statements.POST_PROMO, (amount.nano, until, credit.account, currency))
    assert changed == 1, "whoever gives credit has looked the account up"
    return credit


def spend(db: Connection, account_id: str, nano: int) -> None:
    """Take what was paid out of the credits, the one that expires first first."""
    for credit_id, left in db.rows(statements.CREDITS_LEFT, (account_id,)):
        taken = min(left, nano)
        db.run(statements.SPEND_CREDIT, (taken, credit_id))
        nano -= taken
        if not nano:
            break
    assert not nano, "what an account has of credit is what is left of its credits"
    db.run(statements.NEXT_EXPIRY, (account_id,))


def expire(db: Connection, account_id: str, *, at: datetime) -> int:
    """Let go of credit that has expired, as far as no request on its way holds it.

    Args:
        db: The open transaction.
        account_id: Whose.
        at: When.

    Returns:
        Nano-units that went.
    """
    ((posted, promo, held, currency),) = db.rows(statements.FUNDS, (account_id,))
    free = max(0, posted + promo - held)
    gone = 0
    for credit_id, left in db.rows(statements.CREDITS_EXPIRED, (account_id, micros(at))):
        nano = min(left, free - gone)
        if not nano:
            break
        ((times,),) = db.rows(statements.EXPIRIES_OF, (credit_id,))
        post(
            db,
            Transfer(f"exp_{credit_id}_{times}", "expiry", micros(at), f"{credit_id}/{times}"),
            (
                Leg(account_id, Money(-nano, currency), "promo"),
                Leg(own_account(PROMOTION, currency), Money(nano, currency)),
            ),
        )
        db.run(statements.SPEND_CREDIT, (nano, credit_id))
        gone += nano
    if gone:
        db.run(statements.POST_PROMO, (-gone, None, account_id, currency))
        db.run(statements.NEXT_EXPIRY, (account_id,))
    return gone


def sweep(db: Connection, *, at: datetime) -> int:
    """Let go of everybody's credit that has expired; return of how many accounts some went."""
    due = db.rows(statements.WITH_EXPIRED, (micros(at),))
    return sum(bool(expire(db, account_id, at=at)) for (account_id,) in due)


def _credit_of(row: tuple[object, ...]) -> Credit:
    id_, account_id, amount, left, expires_at_us, currency, reference = row
    assert isinstance(amount, int)
    assert isinstance(left, int)
    assert isinstance(expires_at_us, int)
    return Credit(
        id=str(id_),
        account=str(account_id),
        amount=Money(amount, str(currency)),
        left=Money(left, str(currency)),
        expires_at=moment(expires_at_us),
        reference=str(reference),
        again=True,
    )
