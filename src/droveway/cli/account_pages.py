"""This file knows how accounts are printed, for people and for programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import click
import msgspec
from rich.text import Text

from droveway.cli import tables
from droveway.cli.lines import remark
from droveway.gateway.account_telling import AccountForecast, StatementLine, account_state
from droveway.ledger import Account, Entry, Forecast
from droveway.money import Money

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def read_amount(amount: str, currency: str, *, what: str) -> Money:
    """Read an amount as it was typed.

    Args:
        amount: A decimal string.
        currency: In which.
        what: What it is, for the message: "a top-up".

    Raises:
        UsageError: It is none, or not above zero.
    """
    try:
        money = Money.parse(amount, currency)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if money.nano <= 0:
        raise click.UsageError(f"{what} is more than nothing, not {amount}")
    return money


def print_json(document: object) -> None:
    """Print a document for programs."""
    click.echo(msgspec.json.format(msgspec.json.encode(document)))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print lines for a spreadsheet; what is absent is an empty cell.

    Args:
        columns: Their names, which are the first line.
        rows: Cells; only those of columns that hold words may be a stranger's.
    """
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(columns)
    for row in rows:
        lines.writerow(map(_cell, columns, row))
    click.echo(out.getvalue(), nl=False)


def print_accounts(accounts: Iterable[Account]) -> None:
    """Print a table of accounts."""
    shown = tables.table("name", "id", "", "available", "held", "posted", "promo", "currency",
                         left=("id", "", "currency"))  # fmt: skip
    for each in accounts:
        amounts = (each.available, each.held, each.posted, each.promo)
        decimals = [amount.decimal() for amount in amounts]
        shown.add_row(each.name, each.id, _state(each), *decimals, each.posted.currency)
    tables.show(shown)


def print_account(account: Account, *, as_json: bool) -> None:
    """Print an account."""
    if as_json:
        print_json(account_state(account))
    else:
        _print_page(account)


def print_forecast(account: Account, forecast: Forecast, told: AccountForecast) -> None:
    """Print an account, and for how long it will do."""
    until = told.promo_expires_at
    expires = "" if until is None else f", the first of it expires at {when(until)}"
    _print_page(account, promo=f"{account.promo}{expires}")
    if forecast.days_left is None:
        click.echo("nothing was used in the last week")
    else:
        click.echo(f"days left {forecast.days_left:,}, at {forecast.daily} a day in the last week")


def print_statement(entries: Sequence[Entry], lines: Sequence[StatementLine]) -> None:
    """Print a table of what moved an account's money, and the sum of both funds."""
    shown = tables.table("when (UTC)", "what", "reference", "fund", "amount", "currency", "paid",
                         left=("what", "reference", "fund", "currency"))  # fmt: skip
    for each in lines:
        paid = "" if each.paid is None else f"{each.paid} {each.paid_currency}"
        shown.add_row(f"{each.at:%Y-%m-%d %H:%M:%S}", each.kind, each.reference, each.fund,
                      each.amount, each.currency, paid)  # fmt: skip
    tables.show(shown)
    if entries:
        total = sum((each.amount for each in entries[1:]), start=entries[0].amount)
        remark(f"Together {total}, in both funds.")


def when(at: datetime) -> str:
    """Write a moment for people."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _print_page(account: Account, *, promo: str | None = None) -> None:
    shown = tables.table("", "", left=("",))
    shown.show_header = False
    shown.add_row("name", account.name)
    shown.add_row("id", account.id)
    shown.add_row("state", _state(account))
    shown.add_row("available", str(account.available))
    shown.add_row("money", str(account.posted))
    shown.add_row("promotional", promo or str(account.promo))
    shown.add_row("held", str(account.held))
    shown.add_row("opened", when(account.created_at))
    if account.frozen_at is not None:
        shown.add_row("frozen", when(account.frozen_at))
    tables.show(shown)


def _state(account: Account) -> Text:
    if account.frozen_at is not None:
        return Text("frozen", style="yellow")
    return Text("open", style="green")


def _cell(column: str, value: object) -> str:
    text = "" if value is None else value.isoformat() if isinstance(value, datetime) else str(value)
    # A spreadsheet takes such a word for a formula; a reference may be a stranger's.
    return f"'{text}" if column == "reference" and text.startswith(_FORMULA) else text
