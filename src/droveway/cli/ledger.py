"""This file knows `droveway ledger`: whether the books are as they must be, and a copy of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.progress import Progress

from droveway.cli import options, tables
from droveway.cli.help_page import Group
from droveway.cli.help_page import command as make_command
from droveway.cli.reconcile import reconcile
from droveway.cli.stores import open_store
from droveway.clock import SystemClock
from droveway.ledger import Audit, audit
from droveway.storage import Store

BAR_AFTER_S: Final = 1.0


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup came to.

    Attributes:
        path: The copy.
        size_bytes: How large it is.
        audit: What a look at the books in it came to.
    """

    path: str
    size_bytes: int
    audit: Audit


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
        _show_faults(found)
    if found.faults:
        ctx.exit(1)


@make_command(
    "backup",
    "droveway ledger backup droveway-2026-11-23.db",
    "droveway ledger backup /mnt/backup/droveway.db --json",
)
@click.argument("target", metavar="FILE", type=options.FILE)
@options.config
@options.as_json
@click.pass_context
def backup(ctx: click.Context, /, target: Path, *, config: Path | None, as_json: bool) -> None:
    """Copy the store into a new file, also beside a running server, and verify the copy."""
    with open_store(config) as store, _bar() as bar:
        store.backup(target, on_progress=bar)
    size_bytes = target.stat().st_size
    with Store(target, create=False) as copy:
        found = audit(copy)
    if as_json:
        copied = Copied(path=str(target), size_bytes=size_bytes, audit=found)
        click.echo(msgspec.json.format(msgspec.json.encode(copied)))
    else:
        verdict = f"{len(found.faults):,} faults" if found.faults else "sound"
        click.echo(
            f"{target}: {size_bytes:,} bytes, {found.accounts:,} accounts, "
            f"{found.transfers:,} transfers, {verdict}"
        )
        if found.faults:
            _show_faults(found)
    if found.faults:
        ctx.exit(1)


class _Bar:
    """A bar on stderr that appears only where the work takes long, and somebody looks."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._clock = SystemClock()
        self._task = bar.add_task("copying")
        self._shown_at = self._clock.monotonic() + BAR_AFTER_S

    def __call__(self, copied: int, of: int) -> None:
        self._bar.update(self._task, completed=copied, total=of)
        if self._clock.monotonic() >= self._shown_at:
            self._bar.start()


@contextmanager
def _bar() -> Iterator[_Bar]:
    console = tables.console(err=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    try:
        yield _Bar(bar)
    finally:
        bar.stop()


def _show_faults(found: Audit) -> None:
    shown = tables.table("what must be", "where", "found", left=("where", "found"))
    for fault in found.faults:
        shown.add_row(fault.rule, fault.what, fault.found)
    tables.show(shown)


command = Group(
    name="ledger",
    help="Check the books of the prepaid accounts, copy them, and compare them with a vendor's.",
    examples=("droveway ledger verify", "droveway ledger backup droveway-2026-11-23.db"),
    commands={each.name or "": each for each in (verify, backup, reconcile)},
    no_args_is_help=True,
)
