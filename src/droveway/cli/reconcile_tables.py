"""This file knows how a vendor's bill beside our journal is shown, to people and to programs."""

from typing import Any

import click
import msgspec
from rich.text import Text

from droveway.cli import tables
from droveway.cli.lines import remark
from droveway.engine.reconciling import Comparison, Figures, Line
from droveway.engine.vendor_balance import Poll
from droveway.engine.vendor_export import Export


def show_comparison(found: Comparison, export: Export) -> None:
    """Print each period and model as both sides tell of them, and the total."""
    currency = export.currency
    shown = tables.table(
        f"{found.by} ({_zone(found)})", "model", "says", "requests", "in", "out",
        f"cost {currency}", "unexplained", left=("model", "says"), tight=True,
    )  # fmt: skip
    for line in (*found.lines, found.total):
        first = Text("total", style="bold") if line.start is None else _period(line, found)
        shown.add_row(first, line.model or "", "journal", *_cells(line.ours), "")
        amiss = Text(line.unexplained.decimal(), style="red" if line.unexplained.nano else "")
        shown.add_row("", "", found.provider, *_cells(line.theirs), amiss)
    tables.show(shown)


def tell_notes(found: Comparison, export: Export, *, known: list[str]) -> None:
    """Say beside the table what the figures do not say themselves.

    Args:
        found: The comparison.
        export: What it was made of.
        known: Providers that the journal has requests to.
    """
    if found.total.ours.requests == 0:
        remark(
            f"the journal has no attempt of {found.provider!r} in this time; it knows "
            f"{', '.join(known) or 'no provider at all'}"
        )
    if found.guessed:
        remark(
            f"of our attempts {found.guessed:,} are estimates, as the vendor never told their "
            f"tokens: {found.guessed_cost}"
        )
    if found.unpriced:
        remark(f"of our attempts {found.unpriced:,} have tokens and no price; they count as 0")
    for money in found.elsewhere:
        remark(
            f"the journal has {money} in this time as well; without a rate it explains nothing in "
            f"{export.currency}"
        )
    if found.oldest is not None and found.lines and found.lines[0].start is not None:
        oldest, first = found.oldest, found.lines[0].start
        if oldest > first and oldest.date() > first.date():
            remark(f"the journal begins at {oldest:%Y-%m-%d %H:%M}; see journal.keep_days")
    if export.left_out:
        remark(f"{export.left_out:,} rows in other currencies than {export.currency} are left out")
    if export.kinds:
        remark(f"rows of these types count as money only: {', '.join(export.kinds)}")


def comparison_json(found: Comparison, export: Export) -> dict[str, Any]:
    """Write a comparison as data: money as decimal strings, moments with their offset."""
    return {
        "provider": found.provider,
        "by": found.by,
        "currency": export.currency,
        "lines": [_line_json(line) for line in found.lines],
        "total": _line_json(found.total),
        "estimated": {"requests": found.guessed, "cost": found.guessed_cost.decimal()},
        "unpriced_requests": found.unpriced,
        "elsewhere": [
            {"cost": money.decimal(), "currency": money.currency} for money in found.elsewhere
        ],
        "journal_since": found.oldest,
        "rows": export.rows,
        "rows_left_out": export.left_out,
        "types_without_tokens": list(export.kinds),
    }


def tell_balance(poll: Poll, *, several: bool) -> None:
    """Say in one line what is left and what is missing; of which of several accounts."""
    account = f", account {poll.account}" if several else ""
    click.echo(f"{poll.provider}{account}: {poll.left} left; {_since(poll)}")
    for money in poll.elsewhere:
        remark(
            f"the journal has {money} in this time as well; without a rate it explains nothing in "
            f"{poll.left.currency}"
        )
    if poll.unpriced:
        remark(f"of our attempts {poll.unpriced:,} have tokens and no price; they count as 0")


def balance_json(poll: Poll) -> dict[str, Any]:
    """Write what a vendor said is left as data; null where there is nothing to compare."""

    def decimal(name: str) -> str | None:
        money = getattr(poll, name)
        return None if money is None else str(money.decimal())

    return {
        "provider": poll.provider,
        "account": poll.account,
        "currency": poll.left.currency,
        "at": poll.at,
        "left": poll.left.decimal(),
        "since": poll.since,
        **{name: decimal(name) for name in ("before", "fell", "ours", "unexplained")},
        "requests": poll.requests,
        "unpriced_requests": poll.unpriced,
        "elsewhere": [
            {"cost": money.decimal(), "currency": money.currency} for money in poll.elsewhere
        ],
    }


def _since(poll: Poll) -> str:
    fell, since = poll.fell, poll.since
    if fell is None or since is None:
        return "nothing to compare with yet"
    begin = f"since {since:%Y-%m-%d %H:%M:%S} UTC it"
    ours = f"the journal has {poll.ours} for {poll.requests:,} requests"
    if poll.unexplained is None:
        rose = poll.before and poll.left - poll.before
        return f"{begin} rose by {rose}: topped up or granted; {ours}, which cannot be checked"
    return f"{begin} fell by {fell}, {ours}: unexplained {poll.unexplained}"


def _zone(found: Comparison) -> str:
    starts = [line.start for line in found.lines if line.start is not None]
    return str(starts[0].tzinfo) if starts else "UTC"


def _period(line: Line, found: Comparison) -> str:
    assert line.start is not None, "only the total has no period"
    return f"{line.start:%Y-%m-%d}" if found.by == "day" else f"{line.start:%Y-%m-%d %H:00}"


def _cells(figures: Figures) -> list[str]:
    counts = (figures.requests, figures.input, figures.output)
    return [*("-" if each is None else f"{each:,}" for each in counts), figures.cost.decimal()]


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "start": line.start,
        "model": line.model,
        "ours": _figures_json(line.ours),
        "theirs": _figures_json(line.theirs),
        "unexplained": line.unexplained.decimal(),
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    return {**msgspec.to_builtins(figures), "cost": figures.cost.decimal()}
