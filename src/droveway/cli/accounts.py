"""This file knows `droveway accounts`: who has paid in, how much, and what is left of it."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import click

from droveway.cli import account_money, options
from droveway.cli.account_pages import (
    print_account,
    print_accounts,
    print_forecast,
    print_json,
    when,
)
from droveway.cli.account_statement import statement
from droveway.cli.budgets import budgets
from droveway.cli.help_page import Command, Group
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import remark
from droveway.cli.running import run_async
from droveway.cli.stores import OpenDesk, open_desk
from droveway.cli.vouchers import vouchers
from droveway.gateway.account_telling import account_forecast, account_state
from droveway.ledger import Account


@make_command(
    "add", "droveway accounts add acme", "droveway accounts add acme-cn --currency CNY --json"
)
@click.argument("name", metavar="NAME")
@click.option("--currency", type=options.Currency(), metavar="C",
              help="What it is kept in, for good; billing.currency by default.")  # fmt: skip
@options.config
@options.as_json
def add_account(name: str, *, currency: str | None, config: Path | None, as_json: bool) -> None:
    """Open a prepaid account, with the sign-up credit in it."""
    with open_desk(config, create=True) as opened:
        account = run_async(opened.desk.open_account(name, currency=currency))
        expires_at = opened.desk.book.first_expiry(account)
    print_account(account, as_json=as_json)
    if expires_at is not None:
        remark(f"It has {account.promo} of sign-up credit, until {when(expires_at)}.")


@make_command("list", "droveway accounts list", "droveway accounts list --json")
@options.config
@options.as_json
def list_accounts(*, config: Path | None, as_json: bool) -> None:
    """List every account and what is left in it."""
    with open_desk(config) as opened:
        accounts = opened.desk.book.list()
    if as_json:
        print_json([account_state(each) for each in accounts])
    else:
        print_accounts(accounts)


@make_command("show", "droveway accounts show acme", "droveway accounts show acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def show_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Show one account, and for how long it will do."""
    with open_desk(config) as opened:
        account = opened.desk.book.show(name)
        forecast = opened.desk.book.forecast(account)
        expires_at = opened.desk.book.first_expiry(account)
    told = account_forecast(account, forecast, promo_expires_at=expires_at)
    if as_json:
        print_json(told)
    else:
        print_forecast(account, forecast, told)


@make_command("freeze", "droveway accounts freeze acme", "droveway accounts freeze acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def freeze_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Serve nothing more for an account; what is on its way ends on the money it holds."""
    print_account(_work(config, lambda opened: opened.desk.book.freeze(name)), as_json=as_json)


@make_command("thaw", "droveway accounts thaw acme", "droveway accounts thaw acme --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def thaw_account(name: str, *, config: Path | None, as_json: bool) -> None:
    """Serve for a frozen account again."""
    print_account(_work(config, lambda opened: opened.desk.book.thaw(name)), as_json=as_json)


def _work(config: Path | None, work: Callable[[OpenDesk], Coroutine[Any, Any, Account]]) -> Account:
    with open_desk(config) as opened:
        return run_async(work(opened))


_MEMBERS: Final[tuple[Command | Group | click.Command, ...]] = (
    add_account,
    list_accounts,
    show_account,
    freeze_account,
    thaw_account,
    *account_money.MEMBERS,
    vouchers,
    budgets,
    statement,
)
command = Group(
    name="accounts",
    help="Open prepaid accounts, book money that came in, and see what was used.",
    examples=("droveway accounts add acme", "droveway accounts show acme"),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
