"""This file knows `droveway accounts`: who has paid in, how much, and what became of it."""

import csv
import io
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from droveway.cli import options, tables
from droveway.cli.help_page import Command, Group
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import remark
from droveway.cli.running import run_async
from droveway.cli.stores import open_store
from droveway.ledger import Account, Book, Entry
from droveway.money import Money

_COLUMNS: Final = ("at", "kind", "reference", "amount", "currency")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@make_command(
    "add", "droveway accounts add acme", "droveway accounts add acme-cn --currency CNY --json"
)
@click.argument("name", metavar="NAME")
@click.option("--currency", type=options.Currency(), default="USD", show_default=True,
              help="What it is paid in, for good.")  # fmt: skip
@options.config
@options.as_json
def add_account(name: str, *, currency: str, config: Path | None, as_json: bool) -> None:
    """Open a prepaid account, with nothing in it."""
    with open_store(config, create=True) as store:
        account = run_async(Book(store).open(name, currency=currency))
    _print_account(account, as_json=as_json)


@make_command("list", "droveway accounts list", "droveway accounts list --json")
@options.config
@options.as_json
def list_accounts(*, config: Path | None, as_json: bool) -> None:
    """List every account and what is left in it."""
    with open_store(config) as store:
        accounts = Book(store).list()
    if as_json:
        _print_json([_document(each) for each in accounts])
        return
    shown = tables.table("name", "id", "", "available", "held", "posted", "currency",
                         left=("id", "", "currency"))  # fmt: skip
    for each in accounts:
        amounts = (each.available.decimal(), each.held.decimal(), each.posted.decimal())
        shown.add_row(each.name, each.id, _state(each), *amounts, each.posted.currency)
    tables.show(shown)


@make_command("show", "droveway accounts show acme", "droveway accounts show acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def show_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Show one account by its name or id."""
    with open_store(config) as store:
        account = Book(store).show(name)
    _print_account(account, as_json=as_json)


@make_command("freeze", "droveway accounts freeze acme", "droveway accounts freeze acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def freeze_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Serve nothing more for an account; what is on its way ends on the money it holds."""
    _print_account(_work(config, lambda book: book.freeze(name)), as_json=as_json)


@make_command("thaw", "droveway accounts thaw acme", "droveway accounts thaw acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def thaw_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Serve for a frozen account again."""
    _print_account(_work(config, lambda book: book.thaw(name)), as_json=as_json)


@make_command(
    "topup",
    "droveway accounts topup acme 25.00 --currency USD --reference wire-2026-117",
    "droveway accounts topup acme 0.50 --currency USD --reference gift-1 --json",
)
@click.argument("name", metavar="NAME")
@click.argument("amount", metavar="AMOUNT")
@click.option("--currency", type=options.Currency(), required=True, metavar="C",
              help="That of the account; nothing is converted.")  # fmt: skip
@click.option("--reference", required=True, metavar="R",
              help="Whose word it is, such as a bank's; it is booked once.")  # fmt: skip
@options.config
@options.as_json
def top_up_account(
    name: str, amount: str, *, currency: str, reference: str, config: Path | None, as_json: bool
) -> None:
    """Book money that came in; done again with the same reference, nothing changes."""
    money = _positive(amount, currency)
    with open_store(config) as store:
        book = Book(store)
        topup = run_async(book.top_up(name, money, reference=reference))
        account = book.show(topup.account)
    if as_json:
        _print_json(
            {
                "id": topup.id,
                "account": topup.account,
                "amount": topup.amount.decimal(),
                "currency": topup.amount.currency,
                "reference": topup.reference,
                "at": topup.at,
                "again": topup.again,
                "available": account.available.decimal(),
            }
        )
        return
    if topup.again:
        click.echo(
            f"{topup.reference!r} was booked at {topup.at:%Y-%m-%d %H:%M} UTC already; nothing "
            f"has changed, {account.name!r} has {account.available} available"
        )
        return
    click.echo(
        f"{topup.amount} booked for {account.name!r}, which has {account.available} available"
    )


@make_command(
    "statement",
    "droveway accounts statement acme",
    "droveway accounts statement acme --from 2026-11-01 --to 2026-12-01 --csv",
)
@click.argument("name", metavar="NAME")
@click.option("--from", "since", type=options.Moment(), metavar="ISO-8601",
              help="From this moment on; UTC without a zone.")  # fmt: skip
@click.option("--to", "until", type=options.Moment(), metavar="ISO-8601",
              help="Before this moment.")  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Print lines for a spreadsheet.")
@options.config
@options.as_json
def statement(
    name: str,
    *,
    since: datetime | None,
    until: datetime | None,
    as_csv: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Print what moved an account's money, the oldest first."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to print it; choose one")
    with open_store(config) as store:
        entries = Book(store).entries(name, since=since, until=until)
    if as_json:
        _print_json(
            [dict(zip(_COLUMNS, (each.at, *_words(each)), strict=True)) for each in entries]
        )
    elif as_csv:
        click.echo(_spreadsheet(entries), nl=False)
    else:
        _print_statement(entries)


def _work(config: Path | None, work: Callable[[Book], Coroutine[Any, Any, Account]]) -> Account:
    with open_store(config) as store:
        return run_async(work(Book(store)))


def _positive(amount: str, currency: str) -> Money:
    try:
        money = Money.parse(amount, currency)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if money.nano <= 0:
        raise click.UsageError(f"a top-up is more than nothing, not {amount}")
    return money


def _state(account: Account) -> Text:
    if account.frozen_at is not None:
        return Text("frozen", style="yellow")
    return Text("open", style="green")


def _document(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "currency": account.posted.currency,
        "available": account.available.decimal(),
        "held": account.held.decimal(),
        "posted": account.posted.decimal(),
        "created_at": account.created_at,
        "frozen_at": account.frozen_at,
    }


def _print_account(account: Account, *, as_json: bool) -> None:
    if as_json:
        _print_json(_document(account))
        return
    shown = tables.table("", "", left=("",))
    shown.show_header = False
    shown.add_row("name", account.name)
    shown.add_row("id", account.id)
    shown.add_row("state", _state(account))
    shown.add_row("available", str(account.available))
    shown.add_row("held", str(account.held))
    shown.add_row("posted", str(account.posted))
    shown.add_row("opened", _when(account.created_at))
    if account.frozen_at is not None:
        shown.add_row("frozen", _when(account.frozen_at))
    tables.show(shown)


def _print_statement(entries: Sequence[Entry]) -> None:
    shown = tables.table("when (UTC)", "what", "reference", "amount", "currency",
                         left=("what", "reference", "currency"))  # fmt: skip
    for each in entries:
        shown.add_row(
            f"{each.at:%Y-%m-%d %H:%M:%S}",
            each.kind,
            each.reference,
            each.amount.decimal(),
            each.amount.currency,
        )
    tables.show(shown)
    if entries:
        total = sum((each.amount for each in entries[1:]), start=entries[0].amount)
        remark(f"Together {total}.")


def _spreadsheet(entries: Sequence[Entry]) -> str:
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for each in entries:
        lines.writerow(map(_cell, _COLUMNS, (each.at.isoformat(), *_words(each))))
    return out.getvalue()


def _cell(column: str, text: str) -> str:
    # A spreadsheet takes such a word for a formula; a reference may be a stranger's.
    return f"'{text}" if column == "reference" and text.startswith(_FORMULA) else text


def _words(entry: Entry) -> tuple[str, str, str, str]:
    return entry.kind, entry.reference, entry.amount.decimal(), entry.amount.currency


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document)))


_MEMBERS: tuple[Command | click.Command, ...] = (
    add_account,
    list_accounts,
    show_account,
    freeze_account,
    thaw_account,
    top_up_account,
    statement,
)
command = Group(
    name="accounts",
    help="Open prepaid accounts, book money that came in, and see what was used.",
    examples=("droveway accounts add acme", "droveway accounts show acme"),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
