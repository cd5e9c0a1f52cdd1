"""This file knows how the ledger is checked: everything that must be true of it, asked at once."""

from collections.abc import Mapping
from typing import Final

import msgspec

from droveway.ledger import statements
from droveway.storage import Store


class Fault(msgspec.Struct, frozen=True):
    """Something that must not be.

    Attributes:
        rule: What is not kept.
        what: The transfer, account, hold or request.
        found: What stands there.
    """

    rule: str
    what: str
    found: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the whole ledger came to.

    Attributes:
        accounts: How many there are, our own left out.
        transfers: How many there are.
        holds: How many there are, ended ones among them.
        faults: Everything that is wrong.
    """

    accounts: int
    transfers: int
    holds: int
    faults: tuple[Fault, ...]


RULES: Final[Mapping[str, str]] = {
    "the entries of a transfer sum to zero, and are two at least": statements.UNBALANCED_TRANSFERS,
    "a transfer is of one currency": statements.MIXED_TRANSFERS,
    "a balance is the sum of its entries": statements.WRONG_BALANCES,
    "what is held is the sum of the open holds": statements.WRONG_HELD,
    "a hold was charged what it says, and once": statements.WRONG_CHARGES,
    "only a captured hold is charged, to its account": statements.WRONG_USAGE,
    "a top-up goes from clearing to one customer": statements.WRONG_TOPUPS,
    "a process that has ended holds nothing": statements.STUCK_HOLDS,
    "whatever is named is there": statements.MISSING,
    "a request that has ended is settled": statements.UNSETTLED_REQUESTS,
    "nobody has less than nothing": statements.BELOW_ZERO,
}


def audit(store: Store) -> Audit:
    """Count what is in a ledger, and check it as `faults` does."""
    ((accounts, transfers, holds),) = store.read(statements.SIZES)
    return Audit(accounts=accounts, transfers=transfers, holds=holds, faults=tuple(faults(store)))


def faults(store: Store) -> list[Fault]:
    """Return everything that is wrong with a ledger; nothing, if it is as it must be.

    Each rule is asked in one statement, which sees one moment of the store; requests on their way
    are no faults.
    """
    return [
        Fault(rule, str(what), ", ".join(map(str, found)))
        for rule, sql in RULES.items()
        for what, *found in store.read(sql)
    ]
