"""This file knows what an operator is told of accounts, over HTTP and on the command line alike."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from droveway.ledger import Account, Budget, Entry, Forecast
from droveway.ledger.budgets import Period
from droveway.ledger.postings import Fund

Decimal = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
Code = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """An account; amounts are decimal strings in its currency.

    Attributes:
        id: Ours, for good.
        name: People's name for it.
        currency: What it is kept in.
        available: What further requests may cost: posted and promo without what is held.
        held: What is set aside for requests on their way.
        posted: Money that was paid in, less what was used of it.
        promo: Promotional credit that is left; it is spent first.
        created_at: When it was opened, UTC.
        frozen_at: Since when nothing is served for it; null while it is open.
    """

    id: str
    name: str
    currency: Code
    available: Decimal
    held: Decimal
    posted: Decimal
    promo: Decimal
    created_at: datetime
    frozen_at: datetime | None


class AccountForecast(AccountState, frozen=True, kw_only=True):
    """An account, and for how long what is available will do.

    Attributes:
        promo_expires_at: When the first of the promotional credit expires; null without any.
        daily: What was used a day, in the last week or since it was opened.
        days_left: Whole days that what is available covers at that; null where nothing was used.
    """

    promo_expires_at: datetime | None
    daily: Decimal
    days_left: int | None


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """What moved an account's money.

    Attributes:
        at: When, UTC.
        kind: topup, refund, grant, expiry or usage.
        reference: That of the top-up, refund or credit, or the request's id.
        amount: Positive came in, negative was used or went back.
        currency: That of the account.
        fund: money was paid in, promo is promotional credit.
        paid: The same in the currency in which it came or went; null where that is the account's.
        paid_currency: Which that is.
    """

    at: datetime
    kind: str
    reference: str
    amount: Decimal
    currency: Code
    fund: Fund
    paid: Decimal | None
    paid_currency: Code | None


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent in each spell, and what is left of the present one.

    Attributes:
        id: Ours.
        subject: key:ID, account:ID or tag:NAME=VALUE.
        period: day, week, month or total: how long a spell is.
        amount: What may be spent in one.
        spent: What was spent in the present one.
        held: What is held in it for requests on their way.
        left: What further requests may cost in it.
        currency: Of all four; requests paid in another one do not count.
        since: When the present spell began, UTC.
    """

    id: str
    subject: str
    period: Period
    amount: Decimal
    spent: Decimal
    held: Decimal
    left: Decimal
    currency: Code
    since: datetime


def account_state(account: Account) -> AccountState:
    """Tell of an account."""
    return AccountState(**_state(account))


def account_forecast(
    account: Account, forecast: Forecast, *, promo_expires_at: datetime | None
) -> AccountForecast:
    """Tell of an account, and for how long it will do."""
    return AccountForecast(
        **_state(account),
        promo_expires_at=promo_expires_at,
        daily=forecast.daily.decimal(),
        days_left=forecast.days_left,
    )


def statement_line(entry: Entry) -> StatementLine:
    """Tell of an entry, and of what was paid where that was in another currency."""
    currency = entry.told.get("paid_currency")
    paid = None
    if currency not in {None, entry.amount.currency}:
        paid = f"{'-' if entry.amount.nano < 0 else ''}{entry.told['paid']}"
    return StatementLine(
        at=entry.at,
        kind=entry.kind,
        reference=entry.reference,
        amount=entry.amount.decimal(),
        currency=entry.amount.currency,
        fund=entry.fund,
        paid=paid,
        paid_currency=None if paid is None else currency,
    )


def budget_state(budget: Budget) -> BudgetState:
    """Tell of a budget."""
    return BudgetState(
        id=budget.id,
        subject=budget.subject,
        period=budget.period,
        amount=budget.amount.decimal(),
        spent=budget.spent.decimal(),
        held=budget.held.decimal(),
        left=budget.left.decimal(),
        currency=budget.amount.currency,
        since=budget.since,
    )


def _state(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "currency": account.posted.currency,
        "available": account.available.decimal(),
        "held": account.held.decimal(),
        "posted": account.posted.decimal(),
        "promo": account.promo.decimal(),
        "created_at": account.created_at,
        "frozen_at": account.frozen_at,
    }
