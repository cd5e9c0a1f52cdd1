"""This file knows the part of the admin API that is about accounts and the money in them."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from droveway.errors import BadRequestError, RouteNotFoundError
from droveway.gateway.account_telling import (
    account_forecast,
    account_state,
    budget_state,
    statement_line,
)
from droveway.gateway.money_telling import (
    booked_refund,
    booked_topup,
    given_credit,
    issued_voucher,
    redeemed_voucher,
    voucher_state,
)
from droveway.gateway.wanted import (
    BudgetNamed,
    NewAccount,
    NewBudget,
    NewCredit,
    NewRefund,
    NewTopUp,
    NewVouchers,
    Redemption,
    StatementWanted,
)
from droveway.ledger import Account
from droveway.ledger.vouchers import Terms

if TYPE_CHECKING:
    from droveway.gateway.admin import Administration, Asked


async def list_accounts(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/accounts`."""
    asked.tell({"data": [account_state(each) for each in administration.desk().book.list()]})


async def open_account(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts`."""
    wanted = asked.body(NewAccount)
    account = await administration.desk().open_account(wanted.name, currency=wanted.currency)
    asked.tell(account_state(account), status=201)


async def show_account(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/accounts/{account}`, with its forecast."""
    account, book = _account(administration, asked), administration.desk().book
    told = account_forecast(
        account, book.forecast(account), promo_expires_at=book.first_expiry(account)
    )
    asked.tell(told)


async def freeze_account(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts/{account}/freeze`; done twice, it is done."""
    account = _account(administration, asked)
    asked.tell(account_state(await administration.desk().book.freeze(account.id)))


async def thaw_account(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts/{account}/thaw`; done twice, it is done."""
    account = _account(administration, asked)
    asked.tell(account_state(await administration.desk().book.thaw(account.id)))


async def list_topups(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/accounts/{account}/topups`."""
    topups = administration.desk().book.topups(_account(administration, asked).id)
    asked.tell({"data": [booked_topup(each) for each in topups]})


async def top_up(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts/{account}/topups`: 201, and 200 where it was booked before."""
    account, wanted = _account(administration, asked), asked.body(NewTopUp)
    topup = await administration.desk().top_up(account.id, wanted.money, reference=wanted.reference)
    asked.tell(booked_topup(topup), status=_status(again=topup.again))


async def give_credit(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts/{account}/credits`: 201, and 200 where it was given before."""
    account, wanted = _account(administration, asked), asked.body(NewCredit)
    credit = await administration.desk().grant(
        account.id,
        wanted.money,
        reference=wanted.reference,
        expires_at=administration.engine().clock.now() + timedelta(days=wanted.days),
    )
    asked.tell(given_credit(credit), status=_status(again=credit.again))


async def show_statement(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/accounts/{account}/statement`."""
    account, wanted = _account(administration, asked), asked.query(StatementWanted)
    book = administration.desk().book

    def read() -> bytes:
        entries = book.entries(account.id, since=wanted.since, until=wanted.until)
        return msgspec.json.encode({"data": [statement_line(each) for each in entries]})

    # Of a busy account it may be long: those who wait for an answer shall not wait for this.
    asked.tell_written(await asyncio.to_thread(read))


async def redeem_voucher(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/accounts/{account}/vouchers`: 201, and 200 where it was done before."""
    account, wanted = _account(administration, asked), asked.body(Redemption)
    booked = await administration.desk().redeem(account.id, wanted.code)
    asked.tell(redeemed_voucher(booked), status=_status(again=booked.again))


async def refund_topup(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/topups/{reference}/refunds`: 201, and 200 where it was done before."""
    reference = asked.named["reference"]
    try:
        topup = administration.desk().book.topup(reference)
    except BadRequestError as error:
        raise RouteNotFoundError(f"there is no top-up {reference!r}") from error
    wanted = asked.body(NewRefund)
    refund = await administration.desk().refund(
        topup.reference, wanted.money, reference=wanted.reference
    )
    asked.tell(booked_refund(refund), status=_status(again=refund.again))


async def list_vouchers(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/vouchers`."""
    asked.tell({"data": [voucher_state(each) for each in administration.desk().vouchers()]})


async def issue_vouchers(administration: "Administration", asked: "Asked") -> None:
    """Serve `POST /admin/v1/vouchers`: the only answer that holds their codes."""
    wanted = asked.body(NewVouchers)
    terms = Terms(amount=wanted.money, credit_days=wanted.credit_days, expires_at=wanted.expires_at)
    made = await administration.desk().issue_vouchers(terms, count=wanted.count)
    asked.tell({"data": [issued_voucher(*each) for each in made]}, status=201)


async def list_budgets(administration: "Administration", asked: "Asked") -> None:
    """Serve `GET /admin/v1/budgets`."""
    asked.tell({"data": [budget_state(each) for each in administration.desk().budgets()]})


async def set_budget(administration: "Administration", asked: "Asked") -> None:
    """Serve `PUT /admin/v1/budgets`; done twice, it is done."""
    wanted = asked.body(NewBudget)
    budget = await administration.desk().set_budget(
        wanted.subject, wanted.money, period=wanted.period
    )
    asked.tell(budget_state(budget))


async def end_budget(administration: "Administration", asked: "Asked") -> None:
    """Serve `DELETE /admin/v1/budgets`."""
    named = asked.query(BudgetNamed)
    try:
        await administration.desk().end_budget(named.subject, period=named.period)
    except BadRequestError as error:
        raise RouteNotFoundError(
            f"{named.subject!r} has no budget for a {named.period}; see /admin/v1/budgets"
        ) from error
    asked.tell(named)


def _account(administration: "Administration", asked: "Asked") -> Account:
    name_or_id = asked.named["account"]
    try:
        return administration.desk().book.show(name_or_id)
    except BadRequestError as error:
        raise RouteNotFoundError(
            f"there is no account {name_or_id!r}; see /admin/v1/accounts"
        ) from error


def _status(*, again: bool) -> int:
    return 200 if again else 201
