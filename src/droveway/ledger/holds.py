"""This file knows what becomes of money that is set aside for a request.

Theory of operation
-------------------
A hold is taken before anything is sent and ends exactly once, by a guarded update: whoever comes
second finds that it is not held any more, and changes nothing.

    state      event                 next        money
    (none)     take, it fits         held        available → held, on the account and its budgets
    (none)     take, it does not     (none)      402; nothing has changed
    held       extend, it fits       held        available → held, by that much more
    held       extend, it does not   held        402; nothing has changed
    held       progress              held        none; what it came to so far is written down
    held       capture               captured    held → available; then the cost → revenue
    held       release               released    held → available
    held       its process died      resolved    held → available; then what was written down as
                                                 progress → revenue, and nothing where there is none
    any other  anything              the same    nothing

Promotional credit is spent before money. What a request cost beyond its hold is taken from what
is available; what is not there is the operator's loss, never the customer's debt. Every function
here is a piece of a transaction that others open and commit: a settlement and its journal row are
one.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

from droveway.errors import BadRequestError, BalanceTooLowError, FrozenAccountError
from droveway.ledger import budgets, statements
from droveway.ledger.account import find_account
from droveway.ledger.budgets import Spell
from droveway.ledger.credits import expire, spend
from droveway.ledger.postings import LOSS, REVENUE, Leg, Transfer, own_account, post
from droveway.money import Money
from droveway.storage import Connection
from droveway.storage.moments import micros

NO_FLOOR: Final = 0
# Takes what was told of a request whose process died, and what it was charged.
Bury = Callable[[Connection, str, Money], None]


class Charged(NamedTuple):
    """What became of a hold that was captured.

    Attributes:
        paid: What the customer paid.
        lost: What the request cost beyond it: the operator's.
        balance: What the customer had in all before, held or not.
        account_id: Who paid.
    """

    paid: Money
    lost: Money
    balance: Money
    account_id: str


def take(
    db: Connection,
    hold_id: str,
    amount: Money,
    *,
    account_id: str,
    epoch_id: str,
    at: datetime,
    spells: Sequence[Spell] = (),
    floor_nano: int = NO_FLOOR,
) -> None:
    """Set money aside.

    Args:
        db: The open transaction; where this raises, it must be taken back.
        hold_id: The request's id.
        amount: The most it can cost.
        account_id: Who pays.
        epoch_id: The process that will end the hold.
        at: When.
        spells: The budgets on which it is held too.
        floor_nano: How far below zero the balance may fall for it; zero or less.

    Raises:
        BalanceTooLowError: It does not fit.
        LimitExceededError: It does not fit in a budget.
        FrozenAccountError: Nothing is served for this account.
        BadRequestError: There is no such account, or it is in another currency.
    """
    _set_aside(db, account_id, amount, floor_nano=floor_nano, at=at)
    row = (hold_id, account_id, epoch_id, amount.nano, len(spells), micros(at))
    db.run(statements.ADD_HOLD, row)
    if spells:
        budgets.reserve(db, hold_id, amount, spells=spells)


def extend(
    db: Connection,
    hold_id: str,
    more: Money,
    *,
    account_id: str,
    at: datetime,
    floor_nano: int = NO_FLOOR,
) -> bool:
    """Set more money aside for a request that is on its way.

    Args:
        db: The open transaction; where this raises, it must be taken back.
        hold_id: The request's id.
        more: By how much.
        account_id: Who pays.
        at: When.
        floor_nano: As for `take`.

    Returns:
        Whether it is still held; otherwise nothing has changed.

    Raises:
        BalanceTooLowError: It does not fit; the hold stays as it was.
        LimitExceededError: It does not fit in a budget; likewise.
        FrozenAccountError: Nothing more is served for this account.
    """
    _set_aside(db, account_id, more, floor_nano=floor_nano, at=at)
    if db.run(statements.EXTEND_HOLD, (more.nano, hold_id, account_id)):
        budgets.reserve_more(db, hold_id, more)
        return True
    db.run(statements.MOVE, (-more.nano, 0, 0, account_id))
    return False


def note_progress(db: Connection, hold_id: str, cost: Money, *, told: str | None = None) -> bool:
    """Write down what a request on its way has come to; only a crash asks for it.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        cost: What it has come to.
        told: JSON, given to whoever buries the request then.

    Returns:
        Whether it is still held; otherwise nothing has changed.
    """
    return bool(db.run(statements.NOTE_PROGRESS, (cost.nano, told, hold_id)))


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
    held = _open(db, hold_id)
    if held is None:
        return None
    assert held.currency == cost.currency, "a hold is in its account's currency, and so is its cost"
    return _charge(db, held, cost=cost, state="captured", at=at)


def release(db: Connection, hold_id: str, *, at: datetime) -> bool:
    """End a hold without a cost.

    Returns:
        Whether it was held until now; otherwise nothing has changed.
    """
    return _give_back(db, hold_id, state="released", at=at)


def resolve(db: Connection, hold_id: str, *, at: datetime, bury: Bury | None = None) -> bool:
    """End a hold whose process died: by what it had written down as progress, within the hold.

    Args:
        db: The open transaction.
        hold_id: The request's id.
        at: When.
        bury: Writes down what is to be told of a request that was charged so.

    Returns:
        Whether it was held until now; otherwise nothing has changed.
    """
    held = _open(db, hold_id)
    if held is None:
        return False
    if not held.progress:
        return _give_back(db, hold_id, state="resolved", at=at)
    ((told,),) = db.rows(statements.PROGRESS_TOLD, (hold_id,))
    cost = Money(min(held.amount, held.progress), held.currency)
    charged = _charge(db, held, cost=cost, state="resolved", at=at)
    if told is not None and bury is not None:
        bury(db, told, charged.paid)
    return True


def note_own_cost(
    db: Connection, reference: str, cost: Money, *, provider: str, at: datetime
) -> None:
    """Write down what a vendor may ask for an attempt that the customer does not pay for.

    Args:
        db: The open transaction.
        reference: The request's id and the attempt's number; once for each.
        cost: What the vendor may ask for.
        provider: Which vendor.
        at: When.
    """
    own, currency = cost.nano, cost.currency
    legs = (
        Leg(own_account(f":cost:{provider}", currency), Money(-own, currency)),
        Leg(own_account(f":payable:{provider}", currency), cost),
    )
    transfer = Transfer(f"cost_{reference}", "cost", micros(at), reference, {"provider": provider})
    post(db, transfer, legs)


class _Held(NamedTuple):
    """A hold that has not ended, and the account it is on; nano-units."""

    id: str
    account_id: str
    amount: int
    spells: int
    progress: int
    posted: int
    promo: int
    held_in_all: int
    floor: int
    currency: str


def _open(db: Connection, hold_id: str) -> _Held | None:
    rows = db.rows(statements.OPEN_HOLD, (hold_id,))
    if not rows:
        return None
    (purse,) = db.rows(statements.PURSE, (rows[0][0],))
    return _Held(hold_id, *rows[0], *purse)


def _charge(
    db: Connection,
    held: _Held,
    *,
    cost: Money,
    state: Literal["captured", "resolved"],
    at: datetime,
) -> Charged:
    if held.promo and expire(db, held.account_id, at=at):
        # Credit that has expired pays for no more than what was held on it.
        (purse,) = db.rows(statements.PURSE, (held.account_id,))
        held = _Held(*held[:5], *purse)
    hold_id, account_id, amount = held.id, held.account_id, held.amount
    posted, promo, currency = held.posted, held.promo, held.currency
    # What others hold is theirs; down to the floor that its hold was good for, the rest may go.
    free = posted + promo - (held.held_in_all - amount) - held.floor
    paid = min(cost.nano, max(0, free))
    of_promo = min(paid, promo)
    ended = db.run(statements.END_HOLD, (hold_id, state, micros(at), paid))
    assert ended, "it was held a moment ago, in this very transaction"
    db.run(statements.MOVE, (-amount, of_promo - paid, -of_promo, account_id))
    post(
        db,
        Transfer(f"use_{hold_id}", "usage", micros(at), hold_id),
        (
            Leg(account_id, Money(-of_promo, currency), "promo"),
            Leg(account_id, Money(of_promo - paid, currency)),
            Leg(own_account(LOSS, currency), Money(paid - cost.nano, currency)),
            Leg(own_account(REVENUE, currency), cost),
        ),
    )
    if of_promo:
        spend(db, account_id, of_promo)
    if held.spells:
        db.run(statements.END_IN_SPELLS, (amount, paid, hold_id))
    return Charged(
        Money(paid, currency),
        Money(cost.nano - paid, currency),
        Money(posted + promo, currency),
        account_id,
    )


def _give_back(
    db: Connection, hold_id: str, *, state: Literal["released", "resolved"], at: datetime
) -> bool:
    ended = db.rows(statements.END_HOLD_FREE, (hold_id, state, micros(at)))
    for account_id, amount, spells in ended:
        db.run(statements.MOVE, (-amount, 0, 0, account_id))
        if spells:
            db.run(statements.END_IN_SPELLS, (amount, 0, hold_id))
    return bool(ended)


def _set_aside(
    db: Connection, account_id: str, amount: Money, *, floor_nano: int, at: datetime
) -> None:
    asked = (amount.nano, account_id, amount.currency, floor_nano)
    if db.run(statements.SET_ASIDE, (*asked, micros(at))):
        return
    # It does not fit, or credit has expired that must go first: then nothing counts it any more.
    account = find_account(db, account_id, at=at)
    if account.posted.currency == amount.currency:
        expire(db, account_id, at=at)
        if db.run(statements.SET_ASIDE, (*asked, None)):
            return
    raise _refusal(db, account_id, amount, at=at)


def _refusal(db: Connection, account_id: str, amount: Money, *, at: datetime) -> Exception:
    account = find_account(db, account_id, at=at)
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
