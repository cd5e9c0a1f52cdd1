"""This file knows `droveway prices`: the price book for people and for programs."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from droveway.catalog.comparison import Comparison, Savings, compare, monthly_savings
from droveway.catalog.listing import as_table_row
from droveway.catalog.pricebook import PriceBook
from droveway.cli import options, price_tables
from droveway.cli.help_page import Command, Group
from droveway.cli.help_page import command as make_command
from droveway.clock import SystemClock
from droveway.engine.assembly import book_with_own_prices
from droveway.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Asked:
    """What every price question has in common."""

    book: PriceBook
    at: datetime
    currency: str


def _question(config: Path | None, at: datetime | None, currency: str) -> Asked:
    settings = Settings() if config is None else load_settings(config)
    return Asked(book_with_own_prices(settings), at or SystemClock().now(), currency)


tokens_option = options.together(
    click.option("--input", "inputs", type=click.IntRange(min=0), metavar="N", default=0,
                 help="Input tokens, the cached ones among them."),
    click.option("--cached", type=click.IntRange(min=0), metavar="N", default=0,
                 help="How many of them are read from a cache."),
    click.option("--output", type=click.IntRange(min=0), metavar="N", default=0,
                 help="Output tokens, reasoning among them."),
)  # fmt: skip
asked_options = options.together(options.at, options.currency, options.config, options.as_json)


@make_command(
    "list",
    "droveway prices list",
    "droveway prices list --currency CNY --at 2026-11-23T10:00+08:00 --json",
)
@asked_options
def list_prices(*, at: datetime | None, currency: str, config: Path | None, as_json: bool) -> None:
    """List every price that holds at a moment."""
    asked = _question(config, at, currency)
    rows = asked.book.rows_in_force(asked.at, currency)
    if as_json:
        _print_json([as_table_row(row, asked.at) for row in rows])
    else:
        price_tables.show_list(rows, asked.at, currency)


@make_command(
    "show",
    "droveway prices show deepseek-flash",
    "droveway prices show deepseek-flash --at 2026-11-23T10:00+08:00 --json",
)
@click.argument("model", metavar="MODEL")
@asked_options
def show_price(
    model: str, *, at: datetime | None, currency: str, config: Path | None, as_json: bool
) -> None:
    """Show the one price of a model that holds at a moment."""
    asked = _question(config, at, currency)
    row = asked.book.find(None, model, at=asked.at, currency=currency)
    if as_json:
        _print_json(as_table_row(row, asked.at))
    else:
        price_tables.show_row(row, asked.at)


@make_command(
    "compare",
    "droveway prices compare --from gpt-4.1 --to deepseek-flash --input 9000000 --output 1000000",
    "droveway prices compare --from claude-sonnet-4.5 --to deepseek-flash --input 9000000 "
    "--cached 6000000 --output 1000000 --json",
)
@click.option("--from", "from_model", required=True, metavar="MODEL", help="The model you leave.")
@click.option("--to", "to_model", required=True, metavar="MODEL", help="The model you move to.")
@tokens_option
@asked_options
def compare_prices(from_model: str, to_model: str, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Price the same tokens at two models."""
    asked = _question(given["config"], given["at"], given["currency"])
    inputs, cached, output = given["inputs"], given["cached"], given["output"]
    if cached > inputs:
        raise click.UsageError(
            f"--cached {cached} is part of --input {inputs} and cannot exceed it"
        )
    if not inputs and not output:
        raise click.UsageError("there is nothing to price; give --input and --output")
    compared = compare(
        asked.book,
        from_model=from_model,
        to_model=to_model,
        input_tokens=inputs,
        cached_tokens=cached,
        output_tokens=output,
        at=asked.at,
        currency=asked.currency,
    )
    if as_json:
        _print_json(_compared_json(compared, asked, given))
    else:
        price_tables.show_comparison(compared)


@make_command(
    "savings",
    "droveway prices savings gpt-4.1 deepseek-flash --tokens 50000000",
    "droveway prices savings gpt-4.1 deepseek-chat --tokens 50000000 --mode flat_output --json",
)
@click.argument("current", metavar="CURRENT")
@click.argument("new", metavar="NEW")
@click.option("--tokens", type=click.IntRange(0, 10**12), metavar="N", required=True,
              help="Tokens of a month, input and output together.")  # fmt: skip
@click.option("--mode", type=click.Choice(["split", "flat_output"]), default="split",
              show_default=True, help="A declared mix, or all as output.")  # fmt: skip
@asked_options
def savings(current: str, new: str, *, tokens: int, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Say what moving a month's tokens to another model saves."""
    asked = _question(given["config"], given["at"], given["currency"])
    mode: Literal["split", "flat_output"] = given["mode"]
    saved = monthly_savings(
        current, tokens, new, at=asked.at, mode=mode, book=asked.book, currency=asked.currency
    )
    if as_json:
        _print_json(_saved_json(saved, asked, tokens))
    else:
        price_tables.show_savings(saved, tokens)


def _compared_json(compared: Comparison, asked: Asked, given: dict[str, Any]) -> dict[str, Any]:
    sides = (
        ("from", compared.from_row, compared.from_cost),
        ("to", compared.to_row, compared.to_cost),
    )
    return {
        **{
            name: {"model": row.model, "cost": cost.decimal(), "row": row.id}
            for name, row, cost in sides
        },
        "difference": compared.difference.decimal(),
        "percent": str(compared.percent),
        "currency": asked.currency,
        "at": asked.at.isoformat(),
        "tokens": {name: given[key] for name, key in _TOKEN_OPTIONS},
        "notes": list(compared.notes),
    }


def _saved_json(saved: Savings, asked: Asked, tokens: int) -> dict[str, Any]:
    return {
        "current_model": saved.current_row.model,
        "new_model": saved.new_row.model,
        "tokens": tokens,
        "mode": saved.mode,
        "current_cost": saved.current_cost.decimal(),
        "new_cost": saved.new_cost.decimal(),
        "savings": saved.savings.decimal(),
        "percent": str(saved.percent),
        "currency": asked.currency,
        "at": asked.at.isoformat(),
        "assumptions": saved.assumptions,
        "notes": list(saved.notes),
        "rows": [saved.current_row.id, saved.new_row.id],
    }


_TOKEN_OPTIONS = (("input", "inputs"), ("cached", "cached"), ("output", "output"))


def _print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document)))


_MEMBERS: tuple[Command | click.Command, ...] = (list_prices, show_price, compare_prices, savings)
command = Group(
    name="prices",
    help="Look prices up, and compare what models cost.",
    examples=("droveway prices list", "droveway prices show deepseek-flash"),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
