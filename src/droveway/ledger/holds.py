"""This file knows what becomes of money that is set aside for a request.

Theory of operation
-------------------
A hold is taken before anything is sent and ends exactly once, by a guarded update: whoever comes
second finds that it is not held any more, and changes nothing.

    state      event                 next        money
    (none)     take, it fits         held        available → held
    (none)     take, it does not     (none)      402; nothing has changed
    held       extend, it fits       held        available → held, by that much more
    held       extend, it does not   held        402; nothing has changed
    held       capture               captured    held → available; then the cost → revenue
    held       release               released    held → available
    held       its process died      resolved    held → available; the loss is the operator's
    any other  anything              the same    nothing

What a request cost beyond its hold is taken from what is available; what is not there is the
operator's loss, never the customer's debt. Every function here is a piece of a transaction that
others open and commit: a settlement and its journal row are one.
"""

from datetime import datetime
from typing import NamedTuple

from droveway.errors import BadRequestError, BalanceTooLowError, FrozenAccountError
from droveway.ledger import statements
from droveway.ledger.account import Account, account_of, micros
from droveway.ledger.postings import LOSS, REVENUE, own_account, post
from droveway.money import Money
from droveway.storage import Connection


class Charged(NamedTuple):
    """What became of a hold that was captured.

    Attributes:
        paid: What the customer paid.
        lost: What the request cost beyond it: the operator's.
    """

    paid: Money
    lost: Money


def take(
    db: Connection, hold_id: str, amount: Money, *, account_id: str, epoch_id: str, at: datetime
) -> None:
    """Set money aside.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        amount: The most it can cost.
        account_id: Who pays.
        epoch_id: The process that will end the hold.
        at: When.

    Raises:
        BalanceTooLowError: It does not fit; nothing has changed.
        FrozenAccountError: Nothing is served for this account.
        BadRequestError: There is no such account, or it is in another currency.
    """
    if not db.run(statements.SET_ASIDE, (amount.nano, account_id, amount.currency)):
        raise _refusal(db, account_id, amount)
    db.run(statements.ADD_HOLD, (hold_id, account_id, epoch_id, amount.nano, micros(at)))


def extend(db: Connection, hold_id: str, more: Money, *, account_id: str) -> bool:
    """Set more money aside for a request that is on its way.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        more: By how much.
        account_id: Who pays.

    Returns:
        Whether it is still held; otherwise nothing has changed.

    Raises:
        BalanceTooLowError: It does not fit; the hold stays as it was.
        FrozenAccountError: Nothing more is served for this account.
    """
    if not db.run(statements.SET_ASIDE, (more.nano, account_id, more.currency)):
        raise _refusal(db, account_id, more)
    if db.run(statements.EXTEND_HOLD, (more.nano, hold_id, account_id)):
        return True
    db.rows(statements.GIVE_BACK, (more.nano, account_id))
    return False


def capture(db: Connection, hold_id: str, cost: Money, *, at: datetime) -> Charged | None:
    """End a hold by what its request came to.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        cost: What it came to.
        at: When.

    Returns:
        Who paid what; None where the hold had ended before, and nothing has changed.
    """
    assert cost.nano >= 0, "a cost is no payment"
    held = db.rows(statements.HOLD, (hold_id,))
    if not held or held[0][2] != "held":
        return None
    account_id, amount, _ = held[0]
    ((available, currency),) = db.rows(statements.GIVE_BACK, (amount, account_id))
    assert currency == cost.currency, "a hold is in the currency of its account, and so is its cost"
    paid = min(cost.nano, max(0, available))
    lost = cost.nano - paid
    ended = db.rows(statements.END_HOLD, (hold_id, "captured", micros(at), paid))
    assert ended, "it was held a moment ago, in this very transaction"
    post(
        db,
        f"use_{hold_id}",
        {
            account_id: -paid,
            own_account(LOSS, currency): -lost,
            own_account(REVENUE, currency): cost.nano,
        },
        kind="usage",
        currency=currency,
        at_us=micros(at),
        reference=hold_id,
        told={},
    )
    return Charged(Money(paid, currency), Money(lost, currency))


def release(db: Connection, hold_id: str, *, at: datetime, resolved: bool = False) -> bool:
    """End a hold without a cost.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        at: When.
        resolved: Whether its process died, and somebody else ends it.

    Returns:
        Whether it was held until now; otherwise nothing has changed.
    """
    state = "resolved" if resolved else "released"
    ended = db.rows(statements.END_HOLD, (hold_id, state, micros(at), None))
    for account_id, amount in ended:
        db.rows(statements.GIVE_BACK, (amount, account_id))
    return bool(ended)


def find_account(db: Connection, account_id: str) -> Account:
    """Return an account as it is within the transaction.

    Raises:
        BadRequestError: There is no such account.
    """
    rows = db.rows(statements.CUSTOMER, (account_id,))
    if not rows:
        raise BadRequestError(f"there is no account {account_id!r}; see droveway accounts list")
    return account_of(rows[0])


def _refusal(db: Connection, account_id: str, amount: Money) -> Exception:
    account = find_account(db, account_id)
    if account.frozen_at is not None:
        return FrozenAccountError(
            f"the account {account.name!r} is frozen; ask its operator, nothing is served for it"
        )
    if account.posted.currency != amount.currency:
        return BadRequestError(
            f"the account {account.name!r} is in {account.posted.currency}, and this request "
            f"would be billed in {amount.currency}"
        )
    return BalanceTooLowError(
        f"the account {account.name!r} has {account.available} available ({account.held} more is "
        f"held for requests on their way), and this request may cost {amount}; top it up, set a "
        "lower max_tokens, or wait for the others",
        available=account.available,
        needed=amount,
    )
