"""This file knows what the ledger looks like from outside, kept by the model or in a store."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, TypeAlias

from droveway.ledger import Rate, statements
from droveway.ledger.account import account_of
from droveway.ledger.budgets import Period, budgets
from droveway.storage import Store
from droveway.storage.moments import micros

# What a unit of the other currency is worth here; neither divides the other.
RATE: Final = Rate("0.14", date(2026, 11, 1))
Picture: TypeAlias = dict[str, dict[Any, Any]]


@dataclass(slots=True)
class Lot:
    """A credit: what is left of it, and until when."""

    account: str
    given: int
    left: int
    until: datetime
    id: str


@dataclass(slots=True)
class Kept:
    """An account."""

    currency: str
    posted: int = 0
    held: int = 0
    floor: int = 0
    frozen: bool = False
    lots: list[Lot] = field(default_factory=list)

    @property
    def all(self) -> int:
        return self.posted + sum(lot.left for lot in self.lots)

    def lapsed(self, at: datetime) -> int:
        """Credit that has expired, as far as nothing holds it."""
        expired = sum(lot.left for lot in self.lots if lot.until <= at)
        return min(expired, max(0, self.all - self.held))

    def spend_credit(self, nano: int) -> int:
        """Take up to so much of the credits, the first to expire first; return how much."""
        left = nano
        for lot in sorted(self.lots, key=lambda lot: (lot.until, lot.id)):
            taken = min(left, lot.left)
            lot.left, left = lot.left - taken, left - taken
        return nano - left


@dataclass(slots=True)
class Paid:
    """A top-up."""

    account: str
    amount: int
    paid: int
    currency: str
    at: datetime
    by_voucher: bool = False
    refunded: int = 0
    refunded_paid: int = 0


@dataclass(slots=True)
class Slip:
    """A voucher."""

    amount: int
    currency: str
    days: int | None
    expires_at: datetime | None
    id: str
    account: str | None = None


@dataclass(slots=True)
class Bound:
    """A budget, and what was [spent, held] in each of its spells."""

    amount: int
    currency: str
    spells: dict[object, list[int]] = field(default_factory=dict)
    ended: bool = False

    def has_left(self, start: object, nano: int) -> bool:
        return self.ended or self.amount - sum(self.spells.get(start, ())) >= nano


@dataclass(slots=True)
class Held:
    """A hold."""

    account: str
    amount: int
    owner: str
    bounds: list[tuple[Bound, object]]
    state: str = "held"
    progress: int = 0
    charged: int | None = None


@dataclass
class State:
    """Everything that is kept of one ledger."""

    accounts: dict[str, Kept] = field(default_factory=dict)
    topups: dict[str, Paid] = field(default_factory=dict)
    refunds: dict[str, tuple[str, int]] = field(default_factory=dict)
    credits: dict[str, Lot] = field(default_factory=dict)
    vouchers: dict[str, Slip] = field(default_factory=dict)
    budgets: dict[tuple[str, Period], Bound] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)
    claims: dict[str, tuple[bytes, str, datetime]] = field(default_factory=dict)
    answers: dict[str, datetime] = field(default_factory=dict)
    # The operator's own accounts, by kind and currency.
    own: Counter[tuple[str, str]] = field(default_factory=Counter)

    def seen(self, at: datetime) -> Picture:
        return {
            "accounts": {
                each: (kept.posted, kept.all - kept.posted - kept.lapsed(at), kept.held,
                       kept.frozen, kept.floor)
                for each, kept in self.accounts.items()
            },
            "own": {f"{kind} {currency}": nano for (kind, currency), nano in self.own.items() if nano},
            "holds": {
                each: (held.state, held.amount, held.progress, held.charged)
                for each, held in self.holds.items()
            },
            "topups": {
                each: (paid.account, paid.amount, paid.paid, paid.refunded, paid.refunded_paid)
                for each, paid in self.topups.items()
            },
            "refunds": {each: topup for each, (topup, _) in self.refunds.items()},
            "credits": {lot.id: (lot.account, lot.given, lot.left) for lot in self.credits.values()},
            "vouchers": {slip.id: slip.account for slip in self.vouchers.values()},
            "budgets": {
                f"{subject} {period}": (bound.amount, bound.currency,
                                        *bound.spells.get(start_of(period, at), (0, 0)))
                for (subject, period), bound in self.budgets.items()
            },
            "claims": {word: hold_id for word, (_, hold_id, _) in self.claims.items()},
            "answers": dict.fromkeys(self.answers),
        }  # fmt: skip


def start_of(period: str, at: datetime) -> object:
    """What is the same in one spell of a budget, and in no two."""
    return {
        "day": at.date(),
        "week": at.isocalendar()[:2],
        "month": (at.year, at.month),
        "total": None,
    }[period]


def seen(store: Store, at: datetime) -> Picture:
    """The same picture of a store."""

    def table(sql: str) -> dict[Any, Any]:
        return {key: rest[0] if len(rest) == 1 else tuple(rest) for key, *rest in store.read(sql)}

    accounts = map(account_of, store.read(statements.CUSTOMERS, (micros(at),)))
    floors = table("SELECT id, floor_nano FROM account")
    return {
        "accounts": {
            each.id: (each.posted.nano, each.promo.nano, each.held.nano,
                      each.frozen_at is not None, floors[each.id])
            for each in accounts
        },
        "own": table("SELECT kind || ' ' || currency, posted_nano FROM account "
                     "WHERE kind <> 'customer' AND posted_nano <> 0"),
        "holds": table("SELECT id, state, amount_nano, progress_nano, charged_nano FROM hold"),
        "topups": table("SELECT reference, account_id, amount_nano, paid_nano, refunded_nano, "
                        "refunded_paid_nano FROM topup"),
        "refunds": table("SELECT transfer.reference, topup.reference FROM transfer "
                         "JOIN topup ON topup.id = told ->> 'topup' WHERE kind = 'refund'"),
        "credits": table("SELECT id, account_id, amount_nano, left_nano FROM credit"),
        "vouchers": table("SELECT id, account_id FROM voucher"),
        "budgets": {
            f"{each.subject} {each.period}": (each.amount.nano, each.amount.currency,
                                              each.spent.nano, each.held.nano)
            for each in budgets(store, at=at)
        },
        "claims": table("SELECT word, request_id FROM claim"),
        "answers": table("SELECT request_id, NULL FROM answer"),
    }  # fmt: skip
