"""This file knows when an account is low, and writes down that its operator must be told."""

import secrets
from datetime import datetime
from typing import Final

import msgspec

from droveway.ledger import statements
from droveway.ledger.account import find_account
from droveway.ledger.holds import Charged
from droveway.money import Money
from droveway.storage import Connection
from droveway.storage.moments import micros

KIND: Final = "balance.low"


def warn_if_low(db: Connection, charged: Charged, threshold: Money, *, at: datetime) -> bool:
    """Write a notice down when a charge has brought a balance below a threshold.

    Told once: again only after the balance has been above it. In the transaction of the charge, so
    that a balance that fell and a notice of it are one.

    Args:
        db: The open transaction.
        charged: What was charged.
        threshold: From which balance on, in the account's currency.
        at: When.

    Returns:
        Whether a notice was written.
    """
    left = charged.balance.nano - charged.paid.nano
    if charged.balance.currency != threshold.currency or left >= threshold.nano:
        return False
    fell = charged.balance.nano >= threshold.nano
    if not db.run(statements.WARN, (threshold.nano, charged.account_id, fell)):
        return False
    account = find_account(db, charged.account_id, at=at)
    body = {
        "type": KIND,
        "timestamp": at,
        "data": {
            "account": account.id,
            "name": account.name,
            "available": account.available.decimal(),
            "threshold": threshold.decimal(),
            "currency": threshold.currency,
        },
    }
    text = msgspec.json.encode(body).decode()
    now = micros(at)
    notice = (f"ntc_{secrets.token_hex(8)}", KIND, account.id, text, now, now)
    db.run(statements.ADD_NOTICE, notice)
    return True
