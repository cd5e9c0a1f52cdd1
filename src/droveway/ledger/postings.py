"""This file knows double entry: money only moves, and every move's entries sum to zero.

Private to this room: whoever wants money moved asks `holds.py` or `book.py`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from droveway.ledger import statements
from droveway.storage import Connection

CLEARING: Final = ":clearing"
REVENUE: Final = ":revenue"
LOSS: Final = ":loss"
_KINDS: Final = {CLEARING: "clearing", REVENUE: "revenue", LOSS: "loss"}


def own_account(name: str, currency: str) -> str:
    """Return the id of one of the operator's own accounts; there is one for each currency."""
    return f"{name}:{currency}"


def post(
    db: Connection,
    transfer_id: str,
    entries: Mapping[str, int],
    *,
    kind: str,
    currency: str,
    at_us: int,
    reference: str,
    told: Mapping[str, Any],
) -> None:
    """Move money.

    Args:
        db: The open transaction.
        transfer_id: Its id; never used twice.
        entries: Nano-units by account; what is zero is left out, and they sum to zero.
        kind: What it is: topup or usage.
        currency: Of all its accounts.
        at_us: When.
        reference: What it is about; no two transfers of a kind share one.
        told: Further words, for people.
    """
    assert sum(entries.values()) == 0, "what one account gives, others get"
    moved = {account: amount for account, amount in entries.items() if amount}
    if not moved:
        return
    text = msgspec.json.encode(told).decode()
    db.run(statements.ADD_TRANSFER, (transfer_id, kind, at_us, reference, text))
    for account, amount in moved.items():
        name = account.rpartition(":")[0]
        if name in _KINDS:
            db.run(statements.OPEN_ACCOUNT, (account, account, _KINDS[name], currency, at_us))
        db.run(statements.ADD_ENTRY, (transfer_id, account, amount))
        changed = db.run(statements.POST, (amount, account, currency))
        assert changed == 1, "an account that is posted to is there, in that currency"
