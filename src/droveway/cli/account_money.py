"""This file knows how money comes in, goes back and is given, on the command line."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from droveway.cli import options
from droveway.cli.account_pages import print_json, read_amount, when
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async
from droveway.cli.stores import open_desk
from droveway.clock import SystemClock
from droveway.gateway.money_telling import booked_refund, booked_topup, given_credit
from droveway.ledger import Account, Refund, TopUp

DAYS: Final = click.IntRange(1, 36_500)
_NOTHING_CHANGED: Final = "already; nothing has changed"


@make_command(
    "topup",
    "droveway accounts topup acme 25.00 --currency USD --reference wire-2026-117",
    "droveway accounts topup acme 100.00 --currency CNY --reference alipay-2026-8 --json",
)
@click.argument("name", metavar="NAME")
@click.argument("amount", metavar="AMOUNT")
@click.option("--currency", type=options.Currency(), required=True, metavar="C",
              help="In which it came; converted by billing.rates.C where the account "
                   "is in another.")  # fmt: skip
@click.option("--reference", required=True, metavar="R",
              help="Whose word it is, such as a bank's; it is booked once.")  # fmt: skip
@options.config
@options.as_json
def top_up_account(
    name: str, amount: str, *, currency: str, reference: str, config: Path | None, as_json: bool
) -> None:
    """Book money that came in; done again with the same reference, nothing changes."""
    money = read_amount(amount, currency, what="a top-up")
    with open_desk(config) as opened:
        topup = run_async(opened.desk.top_up(name, money, reference=reference))
        account = opened.desk.book.show(topup.account)
    if as_json:
        _print_booked(booked_topup(topup), account)
    elif topup.again:
        click.echo(
            f"{topup.reference!r} was booked at {topup.at:%Y-%m-%d %H:%M} UTC "
            f"{_NOTHING_CHANGED}, {account.name!r} has {account.available} available"
        )
    else:
        click.echo(f"{_converted(topup)} booked for {_with_available(account)}")


@make_command(
    "refund",
    "droveway accounts refund wire-2026-117 --reference closed-2026-4",
    "droveway accounts refund wire-2026-117 10.00 --reference mistake-2026-5 --json",
)
@click.argument("topup_reference", metavar="TOPUP_REFERENCE")
@click.argument("amount", metavar="[AMOUNT]", required=False)
@click.option("--reference", required=True, metavar="R",
              help="Why; it is booked once.")  # fmt: skip
@options.config
@options.as_json
def refund_topup(
    topup_reference: str, amount: str | None, *, reference: str, config: Path | None, as_json: bool
) -> None:
    """Give back what is unspent of a top-up, or AMOUNT of it, as it came."""
    with open_desk(config) as opened:
        currency = opened.desk.book.topup(topup_reference).paid.currency
        paid = None if amount is None else read_amount(amount, currency, what="a refund")
        refund = run_async(opened.desk.refund(topup_reference, paid, reference=reference))
        account = opened.desk.book.show(refund.account)
    if as_json:
        _print_booked(booked_refund(refund), account)
    elif refund.again:
        click.echo(f"{refund.reference!r} was booked {_NOTHING_CHANGED}")
    else:
        click.echo(f"{_taken(refund)} from {_with_available(account)}")


@make_command(
    "grant",
    "droveway accounts grant acme 5.00 --reference welcome-acme --days 30",
    "droveway accounts grant acme 0.50 --reference outage-2026-11 --days 90 --json",
)
@click.argument("name", metavar="NAME")
@click.argument("amount", metavar="AMOUNT")
@click.option("--reference", required=True, metavar="R", help="Why; it is given once.")
@click.option("--days", type=DAYS, required=True, metavar="N",
              help="After how many days what is left of it goes.")  # fmt: skip
@options.config
@options.as_json
def grant_credit(
    name: str, amount: str, *, reference: str, days: int, config: Path | None, as_json: bool
) -> None:
    """Give promotional credit, which is spent first and expires."""
    with open_desk(config) as opened:
        currency = opened.desk.book.show(name).posted.currency
        money = read_amount(amount, currency, what="a credit")
        expires_at = SystemClock().now() + timedelta(days=days)
        credit = run_async(
            opened.desk.grant(name, money, reference=reference, expires_at=expires_at)
        )
        account = opened.desk.book.show(credit.account)
    if as_json:
        _print_booked(given_credit(credit), account)
    elif credit.again:
        click.echo(f"{credit.reference!r} was given {_NOTHING_CHANGED}")
    else:
        click.echo(
            f"{credit.amount} of promotional credit, until {when(credit.expires_at)}, given to "
            f"{_with_available(account)}"
        )


MEMBERS: Final = (top_up_account, refund_topup, grant_credit)


def _converted(topup: TopUp) -> str:
    if topup.rate is None:
        return str(topup.amount)
    per_unit, on = topup.rate
    return f"{topup.paid} paid, at {per_unit} of {on.isoformat()} that is {topup.amount},"


def _taken(refund: Refund) -> str:
    if refund.paid.currency == refund.amount.currency:
        return f"pay {refund.paid} back: it was taken"
    return f"pay {refund.paid} back: {refund.amount} was taken"


def _with_available(account: Account) -> str:
    return f"{account.name!r}, which has {account.available} available"


def _print_booked(told: msgspec.Struct, account: Account) -> None:
    document: dict[str, Any] = msgspec.to_builtins(told)
    print_json({**document, "available": account.available.decimal()})
