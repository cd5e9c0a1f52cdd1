"""This file knows `droveway requests`: what the gateway has served, and is serving now."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from droveway.cli import options, tables
from droveway.cli.arms import show_arms
from droveway.cli.help_page import Group
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async
from droveway.cli.stores import open_store
from droveway.clock import SystemClock
from droveway.engine.journal_store import StoredJournal
from droveway.engine.written import Written
from droveway.engine.written import as_json as as_row
from droveway.errors import BadRequestError

LOOK_EVERY_S: Final = 0.2
_DEFAULT: Final = click.core.ParameterSource.DEFAULT
_AGO: Final = re.compile(r"([0-9]{1,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Since(options.Moment):
    """A moment in ISO 8601, or how long ago it was."""

    name = "since"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Read it."""
        ago = _AGO.fullmatch(value) if isinstance(value, str) else None
        if ago is None:
            return super().convert(value, param, ctx)
        return SystemClock().now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})


def _requests(
    ctx: click.Context,
    /,
    *,
    tail: bool,
    by: str | None,
    as_json: bool,
    config: Path | None,
    **given: Any,  # noqa: ANN401 - the options below
) -> None:
    if ctx.invoked_subcommand is not None:
        return
    if by is not None and (tail or ctx.get_parameter_source("limit") is not _DEFAULT):
        raise click.UsageError("--by sums all requests up; leave --tail and --limit out")
    with open_store(config) as store:
        if by is not None:
            show_arms(store, since=given["since"], model=given["model"], as_json=as_json)
            return
        journal = StoredJournal(store)
        if tail:
            run_async(_follow(journal, as_json=as_json, **given))
        else:
            _list(journal, as_json=as_json, **given)


@make_command(
    "show",
    "droveway requests show req_5c0e6a1f7d2b4c8e9a3f1d20",
    "droveway requests show req_5c0e6a1f7d2b4c8e9a3f1d20 --json",
)
@click.argument("request_id", metavar="ID")
@options.config
@options.as_json
def show_request(request_id: str, *, config: Path | None, as_json: bool) -> None:
    """Show one request with its attempts; its id is in the head of every answer."""
    with open_store(config) as store:
        row = StoredJournal(store).get(request_id)
    if row is None:
        raise BadRequestError(
            f"there is no request {request_id!r}; it was never here, or is older than "
            "journal.keep_days"
        )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_row(row))))
    else:
        _show(row)


def _list(
    journal: StoredJournal, *, as_json: bool, since: datetime | None, model: str | None, limit: int
) -> None:
    rows = journal.recent(limit, since=since, model=model)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([as_row(row) for row in rows])))
        return
    shown = tables.table("when (UTC)", "request", "model", "outcome", "in", "out", "cost", "ms",
                         left=("request", "model", "outcome"), tight=True)  # fmt: skip
    for row in reversed(rows):
        usage = row.usage
        shown.add_row(
            f"{row.at:%m-%d %H:%M:%S}",
            row.id,
            _model(row),
            _outcome(row),
            "-" if usage is None else f"{usage.input_total:,}",
            "-" if usage is None else f"{usage.output:,}",
            _cost(row),
            f"{row.total_ms:,.0f}",
        )
    tables.show(shown)


async def _follow(
    journal: StoredJournal, *, as_json: bool, since: datetime | None, model: str | None, limit: int
) -> None:
    clock = SystemClock()
    last = journal.last_seq()
    rows = journal.recent(limit, since=since, model=model)[::-1]
    while True:
        for row in rows:
            click.echo(msgspec.json.encode(as_row(row)) if as_json else _line(row))
            last = max(last, row.seq)
        if not rows:
            await clock.sleep(LOOK_EVERY_S)
        rows = journal.following(last, model=model)


def _line(row: Written) -> str:
    usage = row.usage
    tokens = "-" if usage is None else f"{usage.input_total}+{usage.output}"
    return (
        f"{row.at:%H:%M:%S} {row.id} {_model(row):24} {_outcome(row).plain:10} "
        f"{tokens:>12} {_cost(row):>12} {row.total_ms:>8.0f} ms"
    )


def _show(row: Written) -> None:
    shown = tables.table("", "", left=("",))
    shown.show_header = False
    for word, value in as_row(row).items():
        if word in ("usage", "each_attempt", "tags", "bodies"):
            continue
        if value is not None:
            shown.add_row(word, str(value))
    for word, value in {**row.tags, **_tokens(row)}.items():
        shown.add_row(word, value)
    if row.bodies is not None:
        shown.add_row("bodies", "kept; --json shows them")
    parts: list[object] = [shown]
    if row.each_attempt:
        each = tables.table("attempt", "provider", "model", "outcome", "status", "ms",
                            left=("provider", "model", "outcome"))  # fmt: skip
        several = any(attempt.account > 1 for attempt in row.each_attempt)
        for number, attempt in enumerate(row.each_attempt, 1):
            each.add_row(
                str(number),
                f"{attempt.provider} ({attempt.account})" if several else attempt.provider,
                attempt.model,
                attempt.code or attempt.outcome,
                "-" if attempt.status is None else str(attempt.status),
                f"{attempt.total_ms:,.0f}",
            )
        parts += ["", each]
    tables.show(*parts)


def _tokens(row: Written) -> dict[str, str]:
    if row.usage is None:
        return {}
    fields: dict[str, Any] = msgspec.to_builtins(row.usage)
    return {f"tokens {name}": str(value) for name, value in fields.items() if name != "source"}


def _model(row: Written) -> str:
    return f"{row.asked} (served: {row.served})" if row.drift else row.asked


def _outcome(row: Written) -> Text:
    if row.outcome == "completed":
        return Text("completed", style="green")
    return Text(row.code or row.outcome, style="red" if row.outcome == "failed" else "yellow")


def _cost(row: Written) -> str:
    return "unpriced" if row.cost is None and row.usage else str(row.cost or "-")


command = Group(
    name="requests",
    help="Look up what the gateway has served; the last ones without a subcommand.",
    examples=("droveway requests --tail", "droveway requests --since 1h --model fast --json"),
    callback=click.pass_context(_requests),
    params=[
        click.Option(["--tail"], is_flag=True, help="Go on with new ones until interrupted."),
        click.Option(
            ["--since"], type=Since(), metavar="WHEN", help="ISO 8601, or 90s, 30m, 1h, 2d ago."
        ),
        click.Option(["--model"], metavar="NAME", help="Asked for, sent for or served by."),
        click.Option(
            ["--by"],
            type=click.Choice(["arm"]),
            help="Compare both sides of each role that moves to another model.",
        ),
        click.Option(
            ["--limit"],
            type=click.IntRange(1, 100_000),
            default=20,
            show_default=True,
            metavar="N",
            help="How many of the last ones.",
        ),
        click.Option(["--config"], type=options.FILE, metavar="FILE", help="Settings to use."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print data instead of text."),
    ],
    commands={show_request.name or "": show_request},
    invoke_without_command=True,
)
