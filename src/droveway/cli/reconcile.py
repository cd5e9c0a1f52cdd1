"""This file knows `droveway ledger reconcile`: what a vendor asks beside what our journal knows."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from droveway.cli import options, providers
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import complain
from droveway.cli.reconcile_options import Column, LocalMoment, Tolerance, Zone
from droveway.cli.reconcile_tables import (
    balance_json,
    comparison_json,
    show_comparison,
    tell_balance,
    tell_notes,
)
from droveway.cli.running import run_async
from droveway.cli.stores import open_store
from droveway.engine.engine import Engine
from droveway.engine.provider import Provider
from droveway.engine.reconciling import compare, providers_known
from droveway.engine.vendor_balance import Poll, poll
from droveway.engine.vendor_export import Wishes, read_export
from droveway.errors import (
    BadRequestError,
    SettingsError,
    StoreUnavailableError,
    UpstreamError,
)
from droveway.storage import Store

# DeepSeek tells balances in cents, so that a fall is known to a cent and no better.
TOLERANCE: Final = "0.01"


export_options = options.together(
    click.option("--export", "exports", type=options.FILE, multiple=True, metavar="FILE",
                 help="A CSV file of the vendor's usage export; once for each file."),
    click.option("--from", "start", type=LocalMoment(), metavar="ISO-8601",
                 help="First period; the export's first by default."),
    click.option("--to", "end", type=LocalMoment(), metavar="ISO-8601",
                 help="Where the periods end; after the export's last by default."),
    click.option("--by", type=click.Choice(["hour", "day"]),
                 help="Length of a period; as short as the export has them by default."),
    click.option("--zone", type=Zone(), metavar="ZONE",
                 help="Whose days count: +08:00, Asia/Shanghai; the export's own by default."),
    click.option("--currency", type=options.Currency(), metavar="C",
                 help="Which of its currencies, or its currency where it names none."),
    click.option("--column", "columns", type=Column(), multiple=True, metavar="MEANING=NAME",
                 help="What a column of an unknown export means, such as cost=Amount."),
    click.option("--account", type=click.IntRange(min=1), metavar="N",
                 help="Of several api_keys, whose export it is, from 1 on; all by default."),
)  # fmt: skip
balance_options = options.together(
    click.option("--balance", is_flag=True,
                 help="Ask the vendor what is left, and compare how far that fell."),
    click.option("--every", type=click.IntRange(min=1), metavar="SECONDS",
                 help="With --balance: ask again and again until interrupted."),
)  # fmt: skip


@make_command(
    "reconcile",
    "droveway ledger reconcile deepseek --export cost.csv --export amount.csv",
    "droveway ledger reconcile deepseek --balance --every 3600",
)
@click.argument("provider", metavar="PROVIDER")
@export_options
@balance_options
@click.option(
    "--tolerance",
    type=Tolerance(),
    default=TOLERANCE,
    show_default=True,
    metavar="AMOUNT",
    help="How much may be unexplained in total, either way.",
)
@options.config
@options.as_json
@click.pass_context
def reconcile(
    ctx: click.Context,
    /,
    *,
    provider: str,
    balance: bool,
    every: int | None,
    tolerance: int,
    config: Path | None,
    as_json: bool,
    **wanted: Any,  # noqa: ANN401 - the options above
) -> None:
    """Compare the journal with a vendor's bill; exits 1 where too much money is unexplained."""
    _check(ctx, balance=balance, every=every, wanted=wanted)
    if balance:
        asking = _Asking(provider, config, tolerance=tolerance, as_json=as_json)
        fits = asking.run(every)
    else:
        fits = _compare(provider, config, tolerance=tolerance, as_json=as_json, **wanted)
    if not fits:
        ctx.exit(1)


def _check(ctx: click.Context, *, balance: bool, every: int | None, wanted: dict[str, Any]) -> None:
    if balance == bool(wanted["exports"]):
        raise click.UsageError("give either --export FILE or --balance", ctx)
    if every is not None and not balance:
        raise click.UsageError("--every belongs to --balance", ctx)
    given = sorted(name for name, value in wanted.items() if value)
    if balance and given:
        raise click.UsageError(f"{', '.join(given)}: only an export is read that way", ctx)


def _compare(
    provider: str,
    config: Path | None,
    *,
    exports: Sequence[Path],
    start: datetime | None,
    end: datetime | None,
    account: int | None,
    tolerance: int,
    as_json: bool,
    **wishes: Any,  # noqa: ANN401 - those of how an export is read
) -> bool:
    columns = dict(wishes.pop("columns"))
    try:
        export = read_export(exports, Wishes(columns=columns, **wishes))
    except BadRequestError as error:
        # Exit code 1 says that money is unexplained: a file that cannot be read says nothing.
        raise click.ClickException(str(error)) from error
    with open_store(config) as store:
        found = compare(
            export,
            store,
            provider=provider,
            account=account,
            start=_within(start, export.zone),
            end=_within(end, export.zone),
        )
        known = providers_known(store)
    if as_json:
        _print_json(comparison_json(found, export))
    else:
        show_comparison(found, export)
        tell_notes(found, export, known=known)
    return abs(found.total.unexplained.nano) <= tolerance


def _within(at: datetime | None, zone: tzinfo) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=zone)


class _Asking:
    """Asks one vendor what is left, once or until interrupted."""

    def __init__(
        self, provider: str, config: Path | None, *, tolerance: int, as_json: bool
    ) -> None:
        self._config = config
        self._tolerance = tolerance
        self._as_json = as_json
        self._engine: Engine = providers.choose(None, None, config).engine
        found = self._engine.providers.get(provider)
        if found is None:
            there = ", ".join(self._engine.providers) or "none"
            raise SettingsError(f"no provider {provider!r} has a key or is set; there is {there}")
        self._provider: Provider = found
        self._accounts = len(found.keys) or 1

    def run(self, every_s: int | None) -> bool:
        """Ask; returns whether the fall is explained."""
        with open_store(self._config) as store:
            try:
                return run_async(self._ask(store, every_s))
            except BadRequestError as error:
                raise click.ClickException(str(error)) from error

    async def _ask(self, store: Store, every_s: int | None) -> bool:
        async with self._engine as engine:
            fits = await self._ask_each(store)
            while every_s is not None:
                await engine.clock.sleep(every_s)
                try:
                    await self._ask_each(store)
                except (UpstreamError, BadRequestError, StoreUnavailableError) as error:
                    complain(str(error))
            return fits

    async def _ask_each(self, store: Store) -> bool:
        """Ask for each account; one that cannot be asked keeps the others from nothing."""
        fits, troubles = True, []
        for account in range(1, self._accounts + 1):
            try:
                fits = await self._ask_once(store, account) and fits
            except (UpstreamError, StoreUnavailableError) as error:
                troubles.append(error)
                if self._accounts > 1:
                    complain(f"account {account}: {error}")
        if troubles:
            raise troubles[0]
        return fits

    async def _ask_once(self, store: Store, account: int) -> bool:
        engine = self._engine
        polls = await poll(
            self._provider, store, account=account, pool=engine.pool, clock=engine.clock
        )
        for each in polls:
            if self._as_json:
                click.echo(msgspec.json.encode(balance_json(each)))
            else:
                tell_balance(each, several=self._accounts > 1)
        return all(self._fits(each) for each in polls)

    def _fits(self, told: Poll) -> bool:
        return told.unexplained is None or abs(told.unexplained.nano) <= self._tolerance


def _print_json(told: dict[str, Any]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(told)))
