"""This file knows double entry: money only moves, and every move's entries sum to zero.

Private to this room: whoever wants money moved asks one of its other files.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.money import NANO_MAX, Money
from droveway.storage import Connection, Value

CLEARING: Final = ":clearing"
REVENUE: Final = ":revenue"
LOSS: Final = ":loss"
PROMOTION: Final = ":promotion"
EXCHANGE: Final = ":exchange"
COST: Final = ":cost"
PAYABLE: Final = ":payable"
_NOTHING_TOLD: Final = "{}"

Kind = Literal["topup", "refund", "grant", "expiry", "usage", "cost"]
Fund = Literal["money", "promo"]


class Leg(NamedTuple):
    """One entry of a transfer.

    Attributes:
        account_id: Whose.
        amount: Positive comes in.
        fund: Of a customer: paid-in money, or promotional credit. Our own accounts have money.
    """

    account_id: str
    amount: Money
    fund: Fund = "money"


class Transfer(NamedTuple):
    """What moves money.

    Attributes:
        id: Its id; never used twice.
        kind: What it is.
        at_us: When.
        reference: What it is about; no two transfers of a kind share one.
        told: Further words, for people.
    """

    id: str
    kind: Kind
    at_us: int
    reference: str
    told: Mapping[str, Any] = {}


def own_account(name: str, currency: str) -> str:
    """Return the id of one of the operator's own accounts; there is one for each currency."""
    return f"{name}:{currency}"


def post(db: Connection, transfer: Transfer, legs: Iterable[Leg]) -> list[Leg]:
    """Write a transfer and its entries down; balances of our own accounts follow.

    The balance of a customer is the caller's to change, in the same transaction: what else
    changes about it (what is held, which credit is spent) is one statement with it.

    Args:
        db: The open transaction.
        transfer: What moves money; nothing is written where all its legs are zero.
        legs: Its entries; what is zero is left out, and each currency's sum to zero.

    Returns:
        The legs that were written.
    """
    moved = [leg for leg in legs if leg.amount.nano]
    sums: defaultdict[str, int] = defaultdict(int)
    for leg in moved:
        sums[leg.amount.currency] += leg.amount.nano
    assert not any(sums.values()), "what one account gives, others get"
    if not moved:
        return moved
    told = msgspec.json.encode(transfer.told).decode() if transfer.told else _NOTHING_TOLD
    db.run(
        statements.ADD_TRANSFER,
        (transfer.id, transfer.kind, transfer.at_us, transfer.reference, told),
    )
    for leg in moved:
        if leg.account_id.startswith(":"):
            _post_own(db, leg, at_us=transfer.at_us)
    values: list[Value] = []
    for leg in moved:
        values += (transfer.id, leg.account_id, leg.fund, leg.amount.nano)
    db.run(_add_entries(len(moved)), values)
    return moved


def refuse_beyond_counting(db: Connection, more: Money) -> None:
    """Refuse money that could not be counted any more with all that ever came in.

    Raises:
        BadRequestError: It could not.
    """
    came_in = 0
    for name in (CLEARING, PROMOTION, EXCHANGE):
        rows = db.rows(statements.BALANCE, (own_account(name, more.currency),))
        # Exchange may have given more than it got, or got more, which came in from clearing.
        came_in += sum(max(0, -nano) for (nano,) in rows)
    # No balance is further from zero than these together: where they can be counted, all can.
    if more.nano > NANO_MAX - came_in:
        raise BadRequestError(
            f"{more} is more than the ledger can count; {Money(NANO_MAX, more.currency)} may "
            f"come in for good and all, and {Money(came_in, more.currency)} did"
        )


def _post_own(db: Connection, leg: Leg, *, at_us: int) -> None:
    posting = (leg.amount.nano, leg.account_id, leg.amount.currency)
    if not db.run(statements.POST, posting):
        kind = leg.account_id.split(":")[1]
        opening = (leg.account_id, leg.account_id, kind, leg.amount.currency, at_us)
        db.run(statements.OPEN_ACCOUNT, opening)
        posted = db.run(statements.POST, posting)
        assert posted == 1, "an account that is posted to is there, in that currency"


@cache
def _add_entries(count: int) -> str:
    places = ", ".join(["(?, ?, ?, ?)"] * count)
    return f"INSERT INTO entry (transfer_id, account_id, fund, amount_nano) VALUES {places}"  # noqa: S608 - constants of this file
