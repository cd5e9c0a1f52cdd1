"""This file knows how the ledger is checked: everything that must be true of it, asked at once."""

import msgspec

from droveway.ledger import statements
from droveway.ledger.rules import RULES
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
