"""Whose money: prepaid accounts, what is held for requests on their way, what they came to."""

from droveway.ledger.account import Account
from droveway.ledger.book import Book, Entry, Forecast
from droveway.ledger.budgets import Budget
from droveway.ledger.credits import Credit
from droveway.ledger.epoch import Epoch
from droveway.ledger.topups import Rate, Refund, TopUp
from droveway.ledger.verify import Audit, Fault, audit, faults
from droveway.ledger.vouchers import Voucher

__all__ = [
    "Account",
    "Audit",
    "Book",
    "Budget",
    "Credit",
    "Entry",
    "Epoch",
    "Fault",
    "Forecast",
    "Rate",
    "Refund",
    "TopUp",
    "Voucher",
    "audit",
    "faults",
]
