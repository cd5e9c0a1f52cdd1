"""This file knows `droveway accounts voucher`: codes are made here, shown once, and redeemed."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from droveway.cli import options, tables
from droveway.cli.account_money import DAYS
from droveway.cli.account_pages import print_csv, print_json, read_amount, when
from droveway.cli.help_page import Group
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import remark
from droveway.cli.running import run_async
from droveway.cli.stores import open_desk
from droveway.gateway.money_telling import (
    IssuedVoucher,
    issued_voucher,
    redeemed_voucher,
    voucher_state,
)
from droveway.ledger import Voucher
from droveway.ledger.vouchers import COUNT_MAX, Terms

_COLUMNS: Final = ("code", "amount", "currency", "credit_days", "expires_at")
# Any zone's end of that year is still a moment in UTC.
_YEAR_MAX: Final = 9998


@make_command(
    "issue",
    "droveway accounts voucher issue 5.00 --count 100 --expires 2027-01-01 --csv",
    "droveway accounts voucher issue 5.00 --credit-days 30 --currency USD --json",
)
@click.argument("amount", metavar="AMOUNT")
@click.option("--count", type=click.IntRange(1, COUNT_MAX), default=1, show_default=True,
              metavar="N", help="How many.")  # fmt: skip
@click.option("--expires", "expires_at", type=options.Moment(), metavar="ISO-8601",
              help="Until when they can be redeemed; UTC without a zone.")  # fmt: skip
@click.option("--credit-days", type=DAYS, metavar="N",
              help="Make them promotional credit for so many days; money without it.")  # fmt: skip
@click.option("--currency", type=options.Currency(), metavar="C",
              help="In which; billing.currency by default.")  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Print lines for a spreadsheet.")
@options.config
@options.as_json
def issue_vouchers(
    amount: str,
    *,
    count: int,
    expires_at: datetime | None,
    credit_days: int | None,
    currency: str | None,
    as_csv: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Make vouchers and print their codes once; nobody can show them again."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to print it; choose one")
    if expires_at is not None and expires_at.year > _YEAR_MAX:
        raise click.UsageError(f"--expires is after {_YEAR_MAX}; leave it out for ever")
    with open_desk(config, create=True) as opened:
        worth = read_amount(amount, currency or opened.billing.currency, what="a voucher")
        terms = Terms(amount=worth, credit_days=credit_days, expires_at=expires_at)
        made = run_async(opened.desk.issue_vouchers(terms, count=count))
    told = [issued_voucher(*each) for each in made]
    if as_json:
        print_json(told)
        return
    if as_csv:
        print_csv(_COLUMNS, ([getattr(each, name) for name in _COLUMNS] for each in told))
    else:
        _print_codes(told)
    remark("Keep what was printed now; nobody can show a code again.")


@make_command("list", "droveway accounts voucher list", "droveway accounts voucher list --json")
@options.config
@options.as_json
def list_vouchers(*, config: Path | None, as_json: bool) -> None:
    """List every voucher without its code, and who has redeemed it."""
    with open_desk(config) as opened:
        vouchers = opened.desk.vouchers()
        names = {account.id: account.name for account in opened.desk.book.list()}
    if as_json:
        print_json([voucher_state(each) for each in vouchers])
    else:
        _print_vouchers(vouchers, names)


@make_command(
    "redeem",
    "droveway accounts voucher redeem 7KQ2M-XW4PR-9HTBC-3VZJD acme",
    "droveway accounts voucher redeem 7kq2mxw4pr9htbc3vzjd acme --json",
)
@click.argument("code", metavar="CODE")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def redeem_voucher(code: str, name: str, *, config: Path | None, as_json: bool) -> None:
    """Book what a voucher is worth; done again for the same account, nothing changes."""
    with open_desk(config) as opened:
        booked = run_async(opened.desk.redeem(name, code))
        account = opened.desk.book.show(booked.account)
    told = redeemed_voucher(booked)
    if as_json:
        print_json(told)
        return
    if told.again:
        click.echo(f"{account.name!r} has redeemed this voucher already; nothing has changed")
        return
    until = (
        "" if told.expires_at is None else f" of promotional credit, until {when(told.expires_at)},"
    )
    click.echo(
        f"{booked.amount}{until} booked for {account.name!r}, which has {account.available} "
        "available"
    )


def _print_codes(told: Iterable[IssuedVoucher]) -> None:
    for each in told:
        click.echo(each.code)


def _print_vouchers(vouchers: Sequence[Voucher], names: Mapping[str, str]) -> None:
    shown = tables.table("code", "worth", "as", "made", "until", "redeemed by", "on",
                         left=("as", "made", "until", "redeemed by", "on"))  # fmt: skip
    for each in vouchers:
        shown.add_row(
            f"{each.shown}…",
            str(each.amount),
            "money" if each.credit_days is None else f"credit for {each.credit_days} days",
            _day(each.issued_at),
            _day(each.expires_at),
            "-" if each.account is None else names.get(each.account, each.account),
            _day(each.redeemed_at),
        )
    tables.show(shown)


def _day(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d}"


_MEMBERS: Final = (issue_vouchers, list_vouchers, redeem_voucher)
vouchers = Group(
    name="voucher",
    help="Make vouchers, list them, and book what they are worth.",
    examples=(
        "droveway accounts voucher issue 5.00 --count 100 --csv",
        "droveway accounts voucher redeem 7KQ2M-XW4PR-9HTBC-3VZJD acme",
    ),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
