"""This file knows `droveway accounts statement`: what moved an account's money."""

from datetime import datetime
from pathlib import Path
from typing import Final

import click

from droveway.cli import options
from droveway.cli.account_pages import print_csv, print_json, print_statement
from droveway.cli.help_page import command as make_command
from droveway.cli.stores import open_desk
from droveway.gateway.account_telling import StatementLine, statement_line

_COLUMNS: Final = StatementLine.__struct_fields__


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
    with open_desk(config) as opened:
        entries = opened.desk.book.entries(name, since=since, until=until)
    lines = [statement_line(each) for each in entries]
    if as_json:
        print_json(lines)
    elif as_csv:
        print_csv(_COLUMNS, ([getattr(each, name) for name in _COLUMNS] for each in lines))
    else:
        print_statement(entries, lines)
