"""This file knows `droveway ledger`: whether the books are as they must be."""

from pathlib import Path

import click
import msgspec

from droveway.cli import options, tables
from droveway.cli.help_page import Group
from droveway.cli.help_page import command as make_command
from droveway.cli.stores import open_store
from droveway.ledger import audit


@make_command("verify", "droveway ledger verify", "droveway ledger verify --json")
@options.config
@options.as_json
@click.pass_context
def verify(ctx: click.Context, /, *, config: Path | None, as_json: bool) -> None:
    """Recompute every balance from its entries; exits 1 where something is wrong."""
    with open_store(config) as store:
        found = audit(store)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    elif not found.faults:
        click.echo(
            f"the ledger is as it must be: {found.accounts:,} accounts, {found.transfers:,} "
            f"transfers, {found.holds:,} holds"
        )
    else:
        shown = tables.table("what must be", "where", "found", left=("where", "found"))
        for fault in found.faults:
            shown.add_row(fault.rule, fault.what, fault.found)
        tables.show(shown)
    if found.faults:
        ctx.exit(1)


command = Group(
    name="ledger",
    help="Check the books of the prepaid accounts.",
    examples=("droveway ledger verify", "droveway ledger verify && echo sound"),
    commands={verify.name or "": verify},
    no_args_is_help=True,
)
