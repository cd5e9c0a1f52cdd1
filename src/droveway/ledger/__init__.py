"""Whose money: prepaid accounts, what is held for requests on their way, what they came to."""

from droveway.ledger.account import Account
from droveway.ledger.book import Book, Entry, TopUp
from droveway.ledger.epoch import Epoch
from droveway.ledger.verify import Audit, Fault, audit, faults

__all__ = ["Account", "Audit", "Book", "Entry", "Epoch", "Fault", "TopUp", "audit", "faults"]
