"""This file knows what an operator is told of money that comes in or goes back, and of vouchers."""

from datetime import datetime
from typing import Any

import msgspec

from droveway.gateway.account_telling import Code, Decimal
from droveway.ledger import Credit, Refund, TopUp, Voucher
from droveway.ledger.postings import Fund


class BookedTopUp(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came in.

    Attributes:
        id: Ours.
        account: The id of the account.
        amount: What was booked.
        currency: That of the account.
        reference: Whose word it is; no two top-ups share one.
        at: When it was booked, UTC.
        paid: What came in, in its own currency.
        paid_currency: Which that is.
        rate: What one unit of it was worth in the account's currency; null where that is its own.
        rate_on: The day on which that was declared, as 2026-11-23.
        source: How it came: manual or voucher.
        refunded: What of it went back, in the account's currency.
        again: Whether it was booked before, and nothing has changed this time.
    """

    id: str
    account: str
    amount: Decimal
    currency: Code
    reference: str
    at: datetime
    paid: Decimal
    paid_currency: Code
    rate: str | None
    rate_on: str | None
    source: str
    refunded: Decimal
    again: bool


class BookedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """Money that went back.

    Attributes:
        id: Ours.
        topup: The id of the top-up.
        account: The id of the account.
        amount: What was taken from the account.
        currency: That of the account.
        paid: What is to be paid out, in the currency in which it came.
        paid_currency: Which that is.
        reference: Why; no two refunds share one.
        again: Whether it was booked before, and nothing has changed this time.
    """

    id: str
    topup: str
    account: str
    amount: Decimal
    currency: Code
    paid: Decimal
    paid_currency: Code
    reference: str
    again: bool


class GivenCredit(msgspec.Struct, frozen=True, kw_only=True):
    """Promotional credit.

    Attributes:
        id: Ours.
        account: The id of the account.
        amount: How much was given.
        left: How much of it is left.
        currency: That of the account.
        expires_at: When what is left goes, UTC.
        reference: Why it was given; no two credits share one.
        again: Whether it was given before, and nothing has changed this time.
    """

    id: str
    account: str
    amount: Decimal
    left: Decimal
    currency: Code
    expires_at: datetime
    reference: str
    again: bool


class VoucherState(msgspec.Struct, frozen=True, kw_only=True):
    """A voucher, without its code.

    Attributes:
        id: Ours.
        shown: The beginning of its code.
        amount: What it is worth.
        currency: In which.
        credit_days: For how many days it is promotional credit; null where it is worth money.
        issued_at: When it was made, UTC.
        expires_at: Until when it can be redeemed; null for ever.
        account: The id of the account that redeemed it; null while none has.
        redeemed_at: When, UTC.
    """

    id: str
    shown: str
    amount: Decimal
    currency: Code
    credit_days: int | None
    issued_at: datetime
    expires_at: datetime | None
    account: str | None
    redeemed_at: datetime | None


class IssuedVoucher(VoucherState, frozen=True, kw_only=True):
    """A voucher with its code, this once.

    Attributes:
        code: What is redeemed; nobody can show it again.
    """

    code: str


class RedeemedVoucher(msgspec.Struct, frozen=True, kw_only=True):
    """What a voucher came to.

    Attributes:
        id: That of the top-up or the credit.
        account: The id of the account.
        fund: money, or promo for promotional credit.
        amount: What was booked.
        currency: That of the account.
        expires_at: When promotional credit goes; null for money.
        again: Whether it was redeemed for this account before, and nothing has changed this time.
    """

    id: str
    account: str
    fund: Fund
    amount: Decimal
    currency: Code
    expires_at: datetime | None
    again: bool


def booked_topup(topup: TopUp) -> BookedTopUp:
    """Tell of money that came in."""
    rate = topup.rate
    return BookedTopUp(
        id=topup.id,
        account=topup.account,
        amount=topup.amount.decimal(),
        currency=topup.amount.currency,
        reference=topup.reference,
        at=topup.at,
        paid=topup.paid.decimal(),
        paid_currency=topup.paid.currency,
        rate=None if rate is None else rate.per_unit,
        rate_on=None if rate is None else rate.on.isoformat(),
        source=topup.source,
        refunded=topup.refunded.decimal(),
        again=topup.again,
    )


def booked_refund(refund: Refund) -> BookedRefund:
    """Tell of money that went back."""
    return BookedRefund(
        id=refund.id,
        topup=refund.topup,
        account=refund.account,
        amount=refund.amount.decimal(),
        currency=refund.amount.currency,
        paid=refund.paid.decimal(),
        paid_currency=refund.paid.currency,
        reference=refund.reference,
        again=refund.again,
    )


def given_credit(credit: Credit) -> GivenCredit:
    """Tell of promotional credit."""
    return GivenCredit(
        id=credit.id,
        account=credit.account,
        amount=credit.amount.decimal(),
        left=credit.left.decimal(),
        currency=credit.amount.currency,
        expires_at=credit.expires_at,
        reference=credit.reference,
        again=credit.again,
    )


def voucher_state(voucher: Voucher) -> VoucherState:
    """Tell of a voucher."""
    return VoucherState(**_worth(voucher))


def issued_voucher(voucher: Voucher, code: str) -> IssuedVoucher:
    """Tell of a voucher that was just made."""
    return IssuedVoucher(**_worth(voucher), code=code)


def redeemed_voucher(booked: TopUp | Credit) -> RedeemedVoucher:
    """Tell what a voucher came to."""
    is_money = isinstance(booked, TopUp)
    return RedeemedVoucher(
        id=booked.id,
        account=booked.account,
        fund="money" if is_money else "promo",
        amount=booked.amount.decimal(),
        currency=booked.amount.currency,
        expires_at=None if isinstance(booked, TopUp) else booked.expires_at,
        again=booked.again,
    )


def _worth(voucher: Voucher) -> dict[str, Any]:
    return {
        "id": voucher.id,
        "shown": voucher.shown,
        "amount": voucher.amount.decimal(),
        "currency": voucher.amount.currency,
        "credit_days": voucher.credit_days,
        "issued_at": voucher.issued_at,
        "expires_at": voucher.expires_at,
        "account": voucher.account,
        "redeemed_at": voucher.redeemed_at,
    }
