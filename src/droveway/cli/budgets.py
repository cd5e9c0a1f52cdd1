"""This file knows `droveway accounts budget`: what a key, an account or a tag may spend."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from droveway.cli import options, tables
from droveway.cli.account_pages import print_json
from droveway.cli.help_page import Group
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async
from droveway.cli.stores import OpenDesk, open_desk
from droveway.gateway.account_telling import budget_state
from droveway.ledger import Budget
from droveway.ledger.budgets import PERIODS, Period
from droveway.money import Money

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_per: _Decorator = click.option(
    "--per", "period", type=click.Choice(PERIODS), required=True,
    help="In each day, week from Monday, or month of UTC, or in total.",
)  # fmt: skip


@make_command(
    "set",
    "droveway accounts budget set key:search 5.00 --per day",
    "droveway accounts budget set tag:team=blue 200.00 --per month --currency USD --json",
)
@click.argument("subject", metavar="SUBJECT")
@click.argument("amount", metavar="AMOUNT")
@_per
@click.option("--currency", type=options.Currency(), metavar="C",
              help="In which; by default that of the payer, or billing.currency.")  # fmt: skip
@options.config
@options.as_json
def set_budget(
    subject: str,
    amount: str,
    *,
    period: Period,
    currency: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Set what key:NAME, account:NAME or tag:NAME=VALUE may spend; what it spent stays counted."""
    with open_desk(config) as opened:
        try:
            money = Money.parse(amount, currency or _currency(opened, subject))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        budget = run_async(opened.desk.set_budget(subject, money, period=period))
        names = _names(opened)
    if as_json:
        print_json(budget_state(budget))
    else:
        _print_budgets([budget], names)


@make_command("list", "droveway accounts budget list", "droveway accounts budget list --json")
@options.config
@options.as_json
def list_budgets(*, config: Path | None, as_json: bool) -> None:
    """List every budget in force, and what is left of it."""
    with open_desk(config) as opened:
        found, names = opened.desk.budgets(), _names(opened)
    if as_json:
        print_json([budget_state(each) for each in found])
    else:
        _print_budgets(found, names)


@make_command(
    "end",
    "droveway accounts budget end key:search --per day",
    "droveway accounts budget end tag:team=blue --per month --json",
)
@click.argument("subject", metavar="SUBJECT")
@_per
@options.config
@options.as_json
def end_budget(subject: str, *, period: Period, config: Path | None, as_json: bool) -> None:
    """Let a subject spend without this bound again."""
    with open_desk(config) as opened:
        run_async(opened.desk.end_budget(subject, period=period))
    if as_json:
        print_json({"subject": subject, "period": period})
    else:
        click.echo(f"{subject} has no budget {_span(period)} any more")


def _currency(opened: OpenDesk, subject: str) -> str:
    """Return the currency in which requests of a subject are paid: no other one counts."""
    kind, _, name = subject.partition(":")
    payer = name if kind == "account" else None
    if kind == "key":
        payer = opened.desk.keys.show(name).account
    return opened.billing.currency if not payer else opened.desk.book.show(payer).posted.currency


def _names(opened: OpenDesk) -> dict[str, str]:
    """Return people's names of what may have a budget, by how it is kept."""
    keys = {f"key:{each.id}": f"key:{each.name}" for each in opened.desk.keys.list()}
    return keys | {f"account:{each.id}": f"account:{each.name}" for each in opened.desk.book.list()}


def _span(period: Period) -> str:
    return "in total" if period == "total" else f"for a {period}"


def _print_budgets(budgets: Sequence[Budget], names: Mapping[str, str]) -> None:
    shown = tables.table("subject", "may spend", "", "spent", "held", "left", "currency",
                         left=("", "currency"))  # fmt: skip
    for each in budgets:
        amounts = (each.spent, each.held, each.left)
        decimals = [amount.decimal() for amount in amounts]
        shown.add_row(
            names.get(each.subject, each.subject),
            each.amount.decimal(),
            _span(each.period),
            *decimals,
            each.amount.currency,
        )
    tables.show(shown)


_MEMBERS: Final = (set_budget, list_budgets, end_budget)
budgets = Group(
    name="budget",
    help="Bound what a key, an account or a tag may spend.",
    examples=(
        "droveway accounts budget set key:search 5.00 --per day",
        "droveway accounts budget list",
    ),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
